"""What the files of a run folder hold."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from strategies import Metric

#: What every run is evaluated by; also what a folder without declarations of its own holds.
STANDARD_METRICS = (
    Metric(
        "accuracy",
        "all modalities",
        "%",
        figure="accuracy",
        column="all",
        about="Accuracy: top-1 on the test split, in percent.",
    ),
    Metric(
        "accuracy_by_modality",
        "{modality} alone",
        "%",
        figure="accuracy",
        column="{modality}",
        about="Each modality alone is classified by its nearest class prototype, made from the "
        "clients' training data (“train”) or from the test data with its labels (“test”).",
    ),
    Metric(
        "head_accuracy_by_modality",
        "{modality} through the head",
        "%",
        figure="accuracy through the head",
        about="Through the head: a modality is classified by its own part of the fusion head.",
    ),
    Metric(
        "loss",
        "loss",
        about="Loss: mean cross-entropy of all modalities together on the test split, in nats.",
        lower_is_better=True,
    ),
)

#: What is counted besides at every evaluation; see :mod:`server_app.metrics`.
COUNTED_METRICS = (
    Metric("macro-f1", "macro-f1", "%"),
    Metric("uar", "uar", "%"),
    Metric("ece", "ece", "%", lower_is_better=True),
)


class Row(BaseModel):
    """What is written as a JSON object; keys of later versions are kept."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")


class RoundRow(Row):
    """One round in ``history.jsonl``; round 0 is the untrained model.

    Attributes
    ----------
    assignments : dict
        The modalities that each selected client was to train, by client id.
    failures : dict
        Why answers were left out or nodes refused, by client id or node.
    joined : list of str
        Clients that are new in this round.
    ratio : dict
        Global imbalance ratios (Eq. 18) by modality.
    weak : str or None
        The globally weak modality.
    bytes_down, bytes_up : int
        Messages of measuring and training, in bytes; enrolment is not counted.
    seconds : float
        Duration, without the evaluation.
    notes : list of str
        What readers of the run should know, said in the round in which it showed.
    ended : str
        Why the run ended with this round, before its last; empty where it did not.
    """

    kind: Literal["round"]
    round: int
    assignments: dict[str, list[str]] = Field(default_factory=dict)
    failures: dict[str, str] = Field(default_factory=dict)
    joined: list[str] = Field(default_factory=list)
    ratio: dict[str, float] = Field(default_factory=dict)
    weak: str | None = None
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0
    notes: list[str] = Field(default_factory=list)
    ended: str = ""

    @property
    def metrics(self) -> dict[str, Any]:
        """What callbacks added to the round's report, by name."""
        return self.model_extra or {}


class FailedRow(Row):
    """A try of a round that came to nothing, in ``history.jsonl``; another followed, or a pause.

    Attributes
    ----------
    attempt : int
        From 0.
    reason : str
        What went wrong.
    assignments, failures, bytes_down, bytes_up, seconds
        As in :class:`RoundRow`; there are no rows of its clients.
    """

    kind: Literal["failed"]
    round: int
    attempt: int = 0
    reason: str = ""
    assignments: dict[str, list[str]] = Field(default_factory=dict)
    failures: dict[str, str] = Field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0


class ClientRow(Row):
    """What one client did in one round, in ``history.jsonl``.

    Attributes
    ----------
    phase : str
        "probe" or "train"; "test" on its own samples held out, and "test-global" where it has a
        model of its own, of the global one.
    assigned : list of str
        Modalities that it was to train.
    losses, metrics : dict
        What it measured, by name.
    ratio : dict
        Its own imbalance ratios (Eq. 17) by modality.
    bytes_down, bytes_up : int
        Its messages, in bytes.
    seconds : float
        From sending the task to receiving the answer.
    status : str
        "ok", or why the answer was left out.
    weight : float or None
        Share of its samples among those whose training was merged; None where it was not.
    update_norm : float or None
        Norm of its change to the model that it was sent, as it came, without the running
        statistics of batch norms.
    update_cosine : float or None
        Cosine between that change and the global model's, over the parts that it trained.
    note : str
        What of its update stood out and was scaled down; empty where nothing did.
    """

    kind: Literal["client"]
    round: int
    phase: str = "train"
    client: str
    assigned: list[str] = Field(default_factory=list)
    num_samples: int = 0
    losses: dict[str, float] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    ratio: dict[str, float] = Field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0
    status: str = "ok"
    weight: float | None = None
    update_norm: float | None = None
    update_cosine: float | None = None
    note: str = ""


class PickRow(Row):
    """One pick in ``selection.jsonl``, with what its method says of it (costs, ratio, role)."""

    round: int
    client: str


class Member(Row):
    """One client in ``clients.json``: modalities held, samples, and samples of each class."""

    modalities: list[str] = Field(default_factory=list)
    num_samples: int = 0
    class_counts: list[int] = Field(default_factory=list)
    enrolled_round: int = 1


class SampleCount(Row):
    """A split's samples: how many are listed, how many are used, and how many are not, by cause."""

    listed: int
    used: int
    left_out: dict[str, int] = Field(default_factory=dict)


class RunInfo(Row):
    """``run.json``: what ran, by which code, where.

    Attributes
    ----------
    dataset : str
        Its name for readers.
    commit : str or None
        Git's commit, with "+" where files differ from it; None outside a checkout.
    source : str
        Hash of the app's own code, wherever it ran from.
    bundle : str or None
        Name under which Flower unpacked the app, which ends in the hash of its bundle.
    data : str
        Fingerprint of the data that the run saw: 16 hexadecimal digits, the same wherever the data
        lies; empty if it is not known.
    partition_file : str
        Digest of the partition's file; empty if there is none.
    samples : dict
        By split; under "none", what is listed for neither.
    metrics : list of Metric
        What the rounds' metrics are, declared by the run's callbacks.
    precision : str
        How exactly the server computed, as clients do on machines of its kind: "float32", "tf32" or
        "bf16", one of them where the configuration says "auto"; empty if it is not known.
    frozen : list of str
        Arrays of the model that nobody trains.
    plugins : list of dict
        What of the experiment is another package's or module's: kind, name, package, version.
    """

    method: str
    dataset: str
    seed: int
    modalities: list[str] = Field(min_length=1)
    class_names: list[str] = Field(default_factory=list)
    versions: dict[str, str] = Field(default_factory=dict)
    commit: str | None = None
    source: str = ""
    bundle: str | None = None
    command: str = "unknown"
    started: str = "unknown"
    hardware: str = "unknown"
    precision: str = ""
    data: str = ""
    partition_file: str = ""
    samples: dict[str, SampleCount] = Field(default_factory=dict)
    metrics: list[Metric] = list(STANDARD_METRICS)
    frozen: list[str] = Field(default_factory=list)
    plugins: list[dict[str, str]] = Field(default_factory=list)


class RunSummary(Row):
    """``summary.json``: how far the run came; besides, a summary of every metric by name.

    Attributes
    ----------
    complete : bool
        Whether it ended by itself, neither stopped nor failed.
    failed : str
        Why it ended as failed; empty where it did not.
    paused : str
        Why it waited for its clients no longer, and may be resumed; empty where it did not.
    rounds : int
        Its last complete round.
    ended : str
        Why it was complete with it, before its last round (``stop_after``); empty otherwise.
    """

    complete: bool
    failed: str = ""
    paused: str = ""
    rounds: int
    ended: str = ""

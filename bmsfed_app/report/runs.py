"""Reading run folders: what was run, what each round brought, which runs belong together."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.special import stdtrit

#: Rounds with an evaluation behind the closing mean.
LAST_ROUNDS = 10

#: Keys that say where and how fast, not what is computed: runs that differ in them are alike.
_MACHINE_KEYS = {
    *("seed", "method", "methods", "data_dir", "device", "cpus_per_client", "gpus_per_client"),
    *("eval_batch_size", "timeout", "connect_timeout", "min_clients"),
}


class ReportError(ValueError):
    """A report cannot be made; the message names the culprit and the remedy."""


@dataclass(frozen=True)
class Client:
    """What a client holds."""

    modalities: tuple[str, ...]
    num_samples: int
    class_counts: tuple[int, ...]


@dataclass(frozen=True)
class Round:
    """One round of a run; accuracies in [0, 1], None or missing where it was not evaluated."""

    number: int
    accuracy: float | None = None
    by_modality: dict[str, float] = field(default_factory=dict)
    prototypes: str = ""
    ratio: dict[str, float] = field(default_factory=dict)
    assignments: dict[str, tuple[str, ...]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    bytes_down: float = 0.0
    bytes_up: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes
    ----------
    path : Path
        The folder, as given.
    config, info : dict
        Contents of ``config.yaml`` and ``run.json``.
    modalities, class_names : tuple of str
        Names from the data set.
    clients : dict
        By client id; empty for a run that ended before its first round.
    rounds : list of Round
        By number; round 0 is the untrained model.
    failures : list
        (round, client, reason) of every answer that was left out.
    notes : list of str
        What a reader of the report must know about this run.
    """

    path: Path
    config: dict[str, Any]
    info: dict[str, Any]
    modalities: tuple[str, ...]
    class_names: tuple[str, ...]
    clients: dict[str, Client]
    rounds: list[Round]
    failures: list[tuple[int, str, str]]
    notes: list[str]

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.info["method"])

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return str(self.info["dataset"])

    @property
    def seed(self) -> int:
        """Seed that every draw of the run followed from."""
        return int(self.info["seed"])

    @property
    def planned(self) -> int:
        """Rounds that the configuration asks for."""
        return int(self.config["rounds"])

    @property
    def complete(self) -> bool:
        """Whether the run reached its last round."""
        return self.rounds[-1].number >= self.planned

    @property
    def trained(self) -> list[Round]:
        """The rounds without round 0."""
        return [r for r in self.rounds if r.number > 0]

    @property
    def prototypes(self) -> str:
        """Whose class means the uni-modal numbers used: "train", "test" or "" where unknown."""
        used = {r.prototypes for r in self.trained if r.by_modality and r.prototypes}
        return ", ".join(sorted(used))

    def accuracies(self, modality: str | None = None) -> list[tuple[int, float]]:
        """Return (round, accuracy) of one modality alone, or of all together, round 0 included."""
        pairs = [
            (r.number, r.accuracy if modality is None else r.by_modality.get(modality))
            for r in self.rounds
        ]
        return [(n, v) for n, v in pairs if v is not None]

    def megabytes_per_client(self) -> tuple[float, float] | None:
        """Return mean MiB (down, up) per client and round, over the clients that trained."""
        count = sum(len(r.assignments) for r in self.rounds)
        if not count:
            return None
        down = sum(r.bytes_down for r in self.rounds)
        up = sum(r.bytes_up for r in self.rounds)
        return down / count / 2**20, up / count / 2**20


@dataclass(frozen=True)
class Series:
    """Runs that differ in nothing but the seed (and in where they ran)."""

    label: str
    runs: list[Run]

    def comparable(self) -> list[Run]:
        """Return the complete runs, one per seed: what a mean over seeds may be taken of."""
        found: dict[int, Run] = {}
        for run in self.runs:
            if run.complete:
                found.setdefault(run.seed, run)
        return list(found.values())

    def run_label(self, run: Run) -> str:
        """Return a name that is unique among the runs of a report."""
        same = [r for r in self.runs if r.seed == run.seed]
        label = f"{self.label}, seed {run.seed}"
        if len(same) == 1:
            return label
        names = [r.path.name for r in same]
        folder = run.path.name if names.count(run.path.name) == 1 else str(run.path)
        return f"{label} ({folder})"


@dataclass(frozen=True)
class Study:
    """Runs on one data set, to be laid over each other."""

    dataset: str
    modalities: tuple[str, ...]
    series: list[Series]

    def runs(self) -> Iterator[tuple[Series, Run]]:
        """Yield every run with its series."""
        for series in self.series:
            for run in series.runs:
                yield series, run


# --- statistics ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """Last, best and mean of the last ten evaluated rounds; each value in [0, 1]."""

    last: float
    best: float
    mean: float


def summarise(run: Run, modality: str | None = None) -> Summary | None:
    """Summarise one modality's accuracy, or that of all together; None if never evaluated."""
    values = [value for number, value in run.accuracies(modality) if number > 0]
    if not values:
        return None
    closing = values[-LAST_ROUNDS:]
    return Summary(values[-1], max(values), sum(closing) / len(closing))


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the half width of its 95 % interval (Student t; needs two values)."""
    n = len(values)
    half = float(stdtrit(n - 1, 0.975)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return float(np.mean(values)), half


# --- grouping -----------------------------------------------------------------------------------


def group(runs: Sequence[Run]) -> list[Study]:
    """Group runs by data set, and within one by everything but the seed.

    Parameters
    ----------
    runs : sequence of Run
        In the order that the report keeps.

    Returns
    -------
    list of Study
        One per data set. Series of one method carry the settings in their label that tell them
        apart.
    """
    studies = []
    for dataset in dict.fromkeys(run.dataset for run in runs):
        own = [run for run in runs if run.dataset == dataset]
        modalities = tuple(dict.fromkeys(m for run in own for m in run.modalities))
        studies.append(Study(dataset, modalities, _series(own)))
    return studies


def _series(runs: Sequence[Run]) -> list[Series]:
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        key = (run.method, json.dumps(_settings(run), sort_keys=True, default=str))
        groups.setdefault(key, []).append(run)
    members = [sorted(group, key=lambda r: r.seed) for group in groups.values()]
    return [Series(_label(own[0], [m[0] for m in members]), own) for own in members]


def _settings(run: Run) -> dict[str, Any]:
    """Every setting that tells runs of one method apart, by dotted name."""
    config = {k: v for k, v in run.config.items() if k not in _MACHINE_KEYS}
    methods = run.config.get("methods")
    own = methods.get(run.method) if isinstance(methods, Mapping) else None
    return dict(_flat({**config, **(own if isinstance(own, Mapping) else {})}))


def _flat(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _label(run: Run, others: Sequence[Run]) -> str:
    """Name a series: its method, and what differs from other series of that method."""
    rivals = [_settings(o) for o in others if o.method == run.method]
    mine = _settings(run)
    keys = [k for k in sorted({k for r in rivals for k in r}) if len(_values(rivals, k)) > 1]
    parts = [f"{k} {mine.get(k, 'default')}" for k in keys]
    return ", ".join([run.method, *parts])


def _values(settings: Sequence[Mapping[str, Any]], key: str) -> set[str]:
    return {str(s.get(key, "default")) for s in settings}


# --- reading ------------------------------------------------------------------------------------


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read run folders; one that is given twice is read once.

    Raises
    ------
    ReportError
        If there is none, or one of them is missing, is no run folder, is empty or is damaged.
    """
    unique = {Path(f).resolve(): Path(f) for f in reversed(folders)}
    if not unique:
        raise ReportError("no run folder was given: name at least one")
    return [read_run(folder) for folder in reversed(unique.values())]


def read_run(folder: Path) -> Run:
    """Read one run folder.

    Parameters
    ----------
    folder : Path
        Holds ``config.yaml``, ``run.json``, ``history.jsonl`` and, from the first round on,
        ``clients.json``.

    Raises
    ------
    ReportError
        One sentence that names the file, and the line where there is one.
    """
    if not folder.is_dir():
        raise ReportError(f"no run folder '{folder}': give the folder that a run wrote to (--out)")
    config, info = _config(folder), _info(folder)
    rows, notes = _history(folder / "history.jsonl")
    rounds = {r.number: r for r in (_round(row) for row in rows if row.kind == "round")}
    if not rounds:
        raise ReportError(
            f"'{folder / 'history.jsonl'}' holds no round: report on the run once it has "
            "evaluated its first model, or start it again"
        )
    ordered = [rounds[n] for n in sorted(rounds)]
    clients = _clients(folder) if ordered[-1].number or _has(folder, "clients.json") else {}
    if (last := ordered[-1].number) < int(config["rounds"]):
        notes.append(f"Round {last} of {config['rounds']}: still going, or interrupted.")
    return Run(
        path=folder,
        config=config,
        info=info,
        modalities=tuple(str(m) for m in info["modalities"]),
        class_names=tuple(str(c) for c in info.get("class_names") or ()),
        clients=clients,
        rounds=ordered,
        failures=_failures(rows, ordered),
        notes=notes,
    )


class _Row:
    """One JSON object of a file, with checked access to its values."""

    def __init__(self, values: Any, where: str) -> None:
        self.where = where
        if not isinstance(values, dict):
            raise ReportError(f"{where} is not a JSON object: restore the file from its run")
        self.values: dict[str, Any] = values

    @property
    def kind(self) -> str:
        """What the row is of: "round" or "client"."""
        return str(self.values.get("kind"))

    def number(self, key: str, default: float | None = None) -> float:
        """Return a finite number; null and NaN count as missing."""
        value = self.optional(key, self.values.get(key))
        if value is None and default is None:
            raise self.wrong(key, "missing")
        return float(default or 0.0) if value is None else value

    def optional(self, key: str, value: Any) -> float | None:
        """Return a finite number, or None for null and NaN."""
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, f"{value!r}, not a number")
        return float(value) if math.isfinite(value) else None

    def share(self, key: str, value: Any) -> float | None:
        """Return a number from 0 to 1, or None."""
        number = self.optional(key, value)
        if number is not None and not 0 <= number <= 1:
            raise self.wrong(key, f"{number}, not an accuracy from 0 to 1")
        return number

    def mapping(self, key: str) -> dict[str, Any]:
        """Return an object, empty where the key is missing."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(key, f"{value!r}, not an object")
        return value or {}

    def sequence(self, key: str, value: Any) -> list[Any]:
        """Return a list, empty where the key is missing."""
        if value is not None and not isinstance(value, list):
            raise self.wrong(key, f"{value!r}, not a list")
        return value or []

    def wrong(self, key: str, what: str) -> ReportError:
        """Return the error that names the row, the key and the fault."""
        return ReportError(f"{self.where}: '{key}' is {what}; restore the file from its run")


def _round(row: _Row) -> Round:
    by_modality = {m: row.share(m, v) for m, v in row.mapping("accuracy_by_modality").items()}
    ratio = {m: row.optional(m, v) for m, v in row.mapping("ratio").items()}
    return Round(
        number=int(row.number("round")),
        accuracy=row.share("accuracy", row.values.get("accuracy")),
        by_modality={m: v for m, v in by_modality.items() if v is not None},
        prototypes=str(row.values.get("prototypes") or ""),
        ratio={m: v for m, v in ratio.items() if v is not None},
        assignments={
            client: tuple(str(m) for m in row.sequence(client, held))
            for client, held in row.mapping("assignments").items()
        },
        failures={c: str(reason) for c, reason in row.mapping("failures").items()},
        bytes_down=row.number("bytes_down", 0.0),
        bytes_up=row.number("bytes_up", 0.0),
        seconds=row.number("seconds", 0.0),
    )


def _failures(rows: Sequence[_Row], rounds: Sequence[Round]) -> list[tuple[int, str, str]]:
    found = {(r.number, c): reason for r in rounds for c, reason in r.failures.items()}
    for row in rows:
        status = str(row.values.get("status") or "ok")
        if row.kind == "client" and status != "ok":
            key = (int(row.number("round")), str(row.values.get("client")))
            found.setdefault(key, status)
    return [(number, client, reason) for (number, client), reason in sorted(found.items())]


def _history(file: Path) -> tuple[list[_Row], list[str]]:
    """Read JSON lines; a last line that was cut off is left out, with a note."""
    lines = _read(file).split(b"\n")
    filled = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    rows: list[_Row] = []
    for number, line in filled:
        where = f"'{file}', line {number}"
        try:
            rows.append(_Row(json.loads(line), where))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            if number == filled[-1][0]:
                return rows, [f"The last line of {file.name} was cut off and is left out."]
            raise ReportError(
                f"{where} is not valid JSON ({error}): repair or delete the line"
            ) from None
    return rows, []


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.yaml"
    try:
        values = yaml.safe_load(_read(file))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise ReportError(f"'{file}' is not valid YAML ({text}): restore it from its run") from None
    rounds = values.get("rounds") if isinstance(values, dict) else None
    if isinstance(rounds, bool) or not isinstance(rounds, int):
        raise ReportError(f"'{file}' has no whole number of 'rounds': restore it from its run")
    return dict(values)


def _info(folder: Path) -> dict[str, Any]:
    file = folder / "run.json"
    row = _json(file)
    for key in ("method", "dataset"):
        if not isinstance(row.values.get(key), str):
            raise row.wrong(key, "missing or not a text")
    row.number("seed")
    if not row.sequence("modalities", row.values.get("modalities")):
        raise row.wrong("modalities", "missing")
    row.sequence("class_names", row.values.get("class_names"))
    row.mapping("versions")
    return row.values


def _clients(folder: Path) -> dict[str, Client]:
    clients = {}
    file = folder / "clients.json"
    for client_id, values in _json(file).values.items():
        row = _Row(values, f"'{file}', client '{client_id}'")
        counts = row.sequence("class_counts", row.values.get("class_counts"))
        clients[client_id] = Client(
            modalities=tuple(
                str(m) for m in row.sequence("modalities", row.values.get("modalities"))
            ),
            num_samples=int(row.number("num_samples", 0.0)),
            class_counts=tuple(int(row.optional("class_counts", c) or 0) for c in counts),
        )
    return clients


def _json(file: Path) -> _Row:
    try:
        return _Row(json.loads(_read(file)), f"'{file}'")
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ReportError(
            f"'{file}' is not valid JSON ({error}): restore it from its run"
        ) from None


def _read(file: Path) -> bytes:
    if not _has(file.parent, file.name):
        raise ReportError(
            f"'{file.parent}' is not a run folder: it has no {file.name}; give the folder that a "
            "run wrote to"
        )
    try:
        return file.read_bytes()
    except OSError as error:
        raise ReportError(f"cannot read '{file}' ({error.strerror}): check its rights") from None


def _has(folder: Path, name: str) -> bool:
    return (folder / name).is_file()

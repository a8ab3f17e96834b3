"""One experiment: its keys, with ranges and defaults, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from bmsfed_app.choice import Choice, settings_of
from bmsfed_app.config.privacy import DpSettings
from bmsfed_app.config.values import (
    AbsolutePath,
    DeadlineText,
    Encoders,
    Patterns,
    ScheduleName,
    Weights,
)
from bmsfed_app.datasets import (
    MAX_BAD,
    Account,
    DataError,
    Dataset,
    DatasetInfo,
    Split,
    dataset_info,
    ensure_prepared,
    find_source,
    load_dataset,
)
from bmsfed_app.devices import Precision
from bmsfed_app.methods import MethodSettings, Named, find_method
from bmsfed_app.models import NetworkSpec
from bmsfed_app.partitions import Missing, Partition, read_partition, validation_rows
from bmsfed_app.paths import default_data_dir
from bmsfed_app.plugins import AT_CLIENTS, PlugIn, plug_ins
from bmsfed_app.schedules import SCHEDULES
from bmsfed_app.settings import ClientSettings
from strategies import Deadline, Waiting

#: Keys that say where and how fast, not what is computed: runs that differ in them are alike.
MACHINE_KEYS = {
    *("data_dir", "device", "compile", "cpus_per_client", "gpus_per_client", "eval_batch_size"),
    *("engine", "ray_address", "min_clients", "connect_timeout", "timeout"),
    *("patience", "deadline", "enough", "max_failures", "callbacks", "keep_checkpoints"),
    "authenticated",
}


class ExperimentConfig(BaseModel):
    """One experiment; ``conf/reference.yaml`` explains every key.

    A new key has as its default what was done before there was the key: run folders that lack it
    are resumed, and taken together with others in reports, so. (``min_class_count`` alone has not:
    it withholds what older versions sent.)
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    dataset: str
    dataset_settings: dict[str, Any] = Field(default_factory=dict)
    data_dir: AbsolutePath = ""
    max_bad: float = Field(MAX_BAD, ge=0, le=1)
    data_fraction: float = Field(1.0, gt=0, le=1)
    validation: float = Field(0.0, ge=0, lt=1)
    keep: Literal["last", "best"] = "last"
    stop_after: int = Field(0, ge=0)
    holdout: float = Field(0.0, ge=0, lt=1)

    plugins: list[str] = Field(default_factory=list)

    method: str = "bmsfed"
    methods: dict[str, dict[str, Any]] = Field(default_factory=dict)
    seed: int = Field(0, ge=0, lt=2**32)
    rounds: int = Field(20, ge=1)

    clients: int = Field(0, ge=0)
    per_round: int | float = Field(0.5, gt=0)
    partition: str = "iid"
    partition_settings: dict[str, Any] = Field(default_factory=dict)
    alpha: float = Field(1.0, gt=0)
    sigma: float = Field(1.0, ge=0)
    classes_per_client: int = Field(2, ge=1)
    partition_file: AbsolutePath = ""
    min_samples: int = Field(1, ge=1)
    samples_per_client: int = Field(0, ge=0)
    whole_share: float = Field(1.0, ge=0, le=1)
    subsets: list[list[str]] = Field(default_factory=list)
    missing: Missing | None = None

    encoders: Encoders = Field(default_factory=dict)
    widths: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    initial_weights: Weights = Field(default_factory=dict)
    freeze: Patterns = Field(default_factory=dict)
    feature_norm: float = Field(0.0, ge=0)
    sample_dropout: float = Field(0.0, ge=0, le=1)
    local_epochs: int = Field(1, ge=1)
    batch_size: int = Field(64, ge=1)
    lr: float = Field(0.01, gt=0)
    schedule: ScheduleName = "linear"
    lr_min: float = Field(0.001, ge=0)
    decay_from: float = Field(1.0, ge=0, le=1)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    clip_norm: float = Field(0.0, ge=0)
    optimizer: Choice = Field(default_factory=lambda: {"name": "sgd"})
    head: Choice = Field(default_factory=dict)
    objective: Choice = Field(default_factory=dict)
    packed_clients: int = Field(1, ge=1)
    aggregation: Choice = Field(default_factory=lambda: {"name": "mean"})
    outlier_factor: float = Field(10.0, ge=0)

    min_class_count: int = Field(2, ge=1)
    dp: DpSettings | None = None
    secure_aggregation: bool = False

    prototypes: Literal["train", "test"] = "train"
    eval_every: int = Field(1, ge=1)
    eval_batch_size: int = Field(500, ge=1)
    metrics: list[str] = Field(default_factory=list)
    callbacks: dict[str, dict[str, Any]] = Field(default_factory=dict)

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "float32"
    compile: bool = False
    engine: Literal["auto", "inline", "ray"] = "auto"
    ray_address: str = ""
    cpus_per_client: float = Field(1.0, gt=0)
    gpus_per_client: float = Field(0.0, ge=0)
    min_clients: int = Field(2, ge=1)
    authenticated: bool | Literal["auto"] = "auto"
    connect_timeout: float = Field(120.0, gt=0)
    timeout: float = Field(3600.0, gt=0)
    patience: float = Field(300.0, ge=0, allow_inf_nan=False)
    deadline: DeadlineText = "3x"
    enough: float = Field(1.0, gt=0, le=1)
    max_failures: float = Field(0.5, ge=0, le=1)
    keep_checkpoints: int = Field(3, ge=1)

    @field_validator("secure_aggregation")
    @classmethod
    def _not_in_this_loop(cls, wanted: bool) -> bool:
        if wanted:
            raise ValueError(
                "the server checks every answer by itself and selects by some, which masks would "
                "hide; Flower's SecAgg+ goes around strategies.classic.FedAvg, see docs/privacy.md"
            )
        return wanted

    @model_validator(mode="after")
    def _consistent(self) -> ExperimentConfig:
        if self.per_round >= 1:
            if self.per_round != int(self.per_round):
                raise ValueError(
                    f"per_round: {self.per_round} is neither a whole number of clients nor a "
                    "share below 1"
                )
            self.per_round = int(self.per_round)
        if self.lr_min > self.lr and self.decay_from < 1 and self.schedule in ("linear", "cosine"):
            raise ValueError(
                f"lr_min: {self.lr_min:g} is above lr ({self.lr:g}), so the rate would rise: lower "
                "lr_min as well"
            )
        if 0 < self.outlier_factor < 1:
            raise ValueError(
                f"outlier_factor: {self.outlier_factor:g} would scale down usual updates: set it "
                "to 1 or more, or to 0 to look at none"
            )
        chosen_by = "keep: best" if self.keep == "best" else "stop_after"
        if (self.keep == "best" or self.stop_after) and not self.validation:
            raise ValueError(
                f"{chosen_by} goes by validation, and the test split may choose nothing: set "
                f"validation (0.1), or leave {chosen_by.split(':')[0]} out"
            )
        if self.clients and self.per_round > self.clients:
            raise ValueError(
                f"per_round: {self.per_round} clients a round of {self.clients} in all; lower "
                "per_round or raise clients"
            )
        return self

    # --- what follows from the keys ---------------------------------------------------------

    def method_settings(self, name: str = "") -> MethodSettings:
        """Settings of the method (or another): its defaults, then what ``methods`` says of it."""
        name = name or self.method
        own = {k: v for k, v in self.methods.get(name, {}).items() if k != "base"}
        return method_of(name, self.methods)(**own)

    def dataset_info(self) -> DatasetInfo:
        """What is known of the data set without loading it."""
        return dataset_info(self.dataset, self.dataset_settings)

    @property
    def dataset_name(self) -> str:
        """What the data set is called: a table by its user, others as registered."""
        return self.dataset_info().name

    def data_folder(self) -> Path:
        """The data set's folder: the one given, or the user's default one."""
        return Path(self.data_dir) if self.data_dir else default_data_dir(self.dataset)

    def check_data(
        self, progress: Callable[[int, int], None] = lambda done, total: None, workers: int = 0
    ) -> Account:
        """Look at the data, and prepare it if it changed; see
        :func:`bmsfed_app.datasets.ensure_prepared`."""
        return ensure_prepared(
            self.dataset,
            self.data_folder(),
            self.dataset_settings,
            progress,
            workers=workers,
            max_bad=self.max_bad,
        )

    def load_data(self, *splits: str) -> Dataset:
        """Load splits of the data set; see :func:`bmsfed_app.datasets.load_dataset`."""
        return load_dataset(
            self.dataset,
            self.data_folder(),
            seed=self.seed,
            settings=self.dataset_settings,
            splits=splits,
        )

    def load_validation(self) -> Split:
        """Load what ``validation`` keeps of the training split, seen as the test split is.

        Raises
        ------
        DataError
            If the data cannot be read, or the share is less than a sample of any class.
        """
        train = self.load_data("train").train
        assert train is not None
        rows = validation_rows(train.labels.numpy(), self.division(), self.seed)
        if not len(rows):
            raise DataError(
                f"validation: {self.validation:g} of {len(train)} samples is less than one of any "
                "class: raise it"
            )
        source = find_source(self.dataset)
        kept = train.subset(torch.from_numpy(rows))
        return source.unseen(kept, self.seed, source.parse(self.dataset_settings))

    def network_spec(self) -> NetworkSpec:
        """What the network is made of."""
        info = self.dataset_info()
        head, head_settings = self.chosen("head")
        return NetworkSpec(
            encoders={m: self.encoders.get(m) or info.encoders[m] for m in info.modalities},
            shapes=dict(info.shapes),
            num_classes=info.num_classes,
            feature_norm=self.feature_norm,
            head=head,
            head_settings=head_settings,
            vocabularies=dict(info.vocabularies),
            widths=dict(self.widths),
            freeze={m: patterns for m, patterns in self.freeze.items() if patterns},
        )

    def chosen(self, part: Literal["head", "objective"]) -> Named:
        """Name and settings of the head or the objective: the method's, or those chosen here."""
        choice, settings = getattr(self, part), self.method_settings()
        if not choice:
            return settings.head() if part == "head" else settings.objective()
        return str(choice["name"]), settings_of(choice)

    def division(self) -> Partition:
        """How the training data is divided among simulated clients."""
        return read_partition(dict(self))

    def learning_rate(self, server_round: int) -> float:
        """Learning rate of a round, by the schedule."""
        progress = (server_round - 1) / max(self.rounds - 1, 1)
        return SCHEDULES.find(self.schedule)(progress, self.lr, self.lr_min, self.decay_from)

    def waiting(self, *, simulated: bool = False) -> Waiting:
        """What is done about clients that are slow or gone.

        Clients simulated by ``bmsfed run`` share this machine: how long one takes says nothing of
        whether it hangs, and for them no deadline follows from it.
        """
        deadline = Deadline.read(self.deadline)
        if simulated and deadline.factor:
            deadline = Deadline()
        return Waiting(self.patience, deadline, self.enough)

    def client_settings(self) -> ClientSettings:
        """What every client must know."""
        objective, objective_settings = self.chosen("objective")
        return ClientSettings(
            dataset=self.dataset,
            network=self.network_spec(),
            dataset_settings=self.dataset_settings,
            data_dir=self.data_dir,
            partition=self.division().model_dump(mode="json"),
            seed=self.seed,
            batch_size=self.batch_size,
            local_epochs=self.local_epochs,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            optimizer=self.optimizer,
            objective=objective,
            objective_settings=objective_settings,
            uni_weight=self.method_settings().uni_weight,
            sample_dropout=self.sample_dropout,
            device=self.device,
            packed_clients=self.packed_clients,
            precision=self.precision,
            compile=self.compile,
            threads=max(int(self.cpus_per_client), 1),
            prototypes=self.prototypes == "train",
            ratio_kind=self.method_settings().ratio_kind(),
            min_class_count=self.min_class_count,
            holdout=self.holdout,
            plugins=[p.to_json() for p in self.plug_ins() if p.kind in AT_CLIENTS],
        )

    def plug_ins(self) -> list[PlugIn]:
        """Return what of the experiment is another package's or module's."""
        base = str(self.methods.get(self.method, {}).get("base", self.method))
        spec = self.network_spec()
        used = [
            *(("method", base), ("data set", self.dataset), ("head", spec.head)),
            *(("encoder", name) for name in spec.encoders.values()),
            *(("objective", self.chosen("objective")[0]), ("optimizer", self.optimizer["name"])),
            *(("schedule", self.schedule), ("partition", self.partition)),
            ("aggregation", str(self.aggregation["name"])),
            *(("metric", name) for name in self.metrics),
            *(("callback", name) for name in self.callbacks),
        ]
        return plug_ins(used, self.plugins)


def method_of(name: str, methods: Mapping[str, Mapping[str, Any]]) -> type[MethodSettings]:
    """Return the method of a name, through its ``base`` where ``methods`` has it as a variant.

    Raises
    ------
    ValueError
        If there is none.
    """
    base = str(methods.get(name, {}).get("base", name))
    return find_method(base, besides=[variant for variant in methods if variant != base])

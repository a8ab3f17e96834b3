"""The experiment's configuration: one YAML file, a few overrides, everything checked.

A file in ``conf/`` is the whole truth of an experiment. Options of ``bmsfed run`` and run-config
keys of ``flwr run`` override what people vary. Unknown keys and impossible values are refused
before anything starts, with the nearest right name and the allowed range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bmsfed_app.config_files import ConfigError, config_names, read_values
from bmsfed_app.datasets import (
    DataError,
    Dataset,
    DatasetInfo,
    dataset_info,
    find_source,
    load_dataset,
)
from bmsfed_app.methods import METHODS, Method, MethodSettings, added_methods, find_method, nearest
from bmsfed_app.models import NetworkSpec
from bmsfed_app.models.encoders import HUGGING_FACE
from bmsfed_app.models.weights import ENDINGS, PUBLISHED
from bmsfed_app.partitions import Partition, PartitionError, read_partition, subsets_fault
from bmsfed_app.paths import default_data_dir
from bmsfed_app.settings import ClientSettings

__all__ = [
    "ConfigError",
    "ExperimentConfig",
    "check_config",
    "config_names",
    "load_config",
    "parse_pairs",
]


class ExperimentConfig(BaseModel):
    """One experiment; the files in ``conf/`` explain every key."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    dataset: str
    dataset_settings: dict[str, Any] = Field(default_factory=dict)
    data_dir: str = ""
    data_fraction: float = Field(1.0, gt=0, le=1)

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
    partition_file: str = ""
    min_samples: int = Field(1, ge=1)
    samples_per_client: int = Field(0, ge=0)
    whole_share: float = Field(1.0, ge=0, le=1)
    subsets: list[list[str]] = Field(default_factory=list)

    encoders: dict[str, str] = Field(default_factory=dict)
    widths: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    initial_weights: dict[str, str] = Field(default_factory=dict)
    feature_norm: float = Field(0.0, ge=0)
    local_epochs: int = Field(1, ge=1)
    batch_size: int = Field(64, ge=1)
    lr: float = Field(0.01, gt=0)
    lr_min: float = Field(0.001, ge=0)
    decay_from: float = Field(1.0, ge=0, le=1)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    clip_norm: float = Field(0.0, ge=0)

    prototypes: Literal["train", "test"] = "train"
    eval_every: int = Field(1, ge=1)
    eval_batch_size: int = Field(500, ge=1)

    device: Literal["auto", "cpu", "cuda"] = "auto"
    cpus_per_client: float = Field(1.0, gt=0)
    gpus_per_client: float = Field(0.0, ge=0)
    min_clients: int = Field(2, ge=1)
    connect_timeout: float = Field(120.0, gt=0)
    timeout: float = Field(3600.0, gt=0)

    @field_validator("data_dir", "partition_file")
    @classmethod
    def _absolute_path(cls, path: str) -> str:
        """Workers need not share this process's directory."""
        return _absolute(path) if path else ""

    @field_validator("encoders")
    @classmethod
    def _absolute_models(cls, encoders: dict[str, str]) -> dict[str, str]:
        names = {m: n.removeprefix(HUGGING_FACE) for m, n in encoders.items()}
        local = {m for m, n in names.items() if n != encoders[m] and Path(n).expanduser().is_dir()}
        return {m: HUGGING_FACE + _absolute(names[m]) if m in local else encoders[m] for m in names}

    @field_validator("initial_weights")
    @classmethod
    def _absolute_weights(cls, files: dict[str, str]) -> dict[str, str]:
        return {m: f if f == PUBLISHED else _absolute(f) for m, f in files.items()}

    @model_validator(mode="after")
    def _consistent(self) -> ExperimentConfig:
        if self.per_round >= 1:
            if self.per_round != int(self.per_round):
                raise ValueError(
                    f"per_round: {self.per_round} is neither a whole number of clients nor a "
                    "share below 1"
                )
            self.per_round = int(self.per_round)
        if self.clients and self.per_round > self.clients:
            raise ValueError(
                f"per_round: {self.per_round} clients a round of {self.clients} in all; lower "
                "per_round or raise clients"
            )
        return self

    # --- what follows from the keys ---------------------------------------------------------

    def method_entry(self) -> Method:
        """The registry entry of the method, through its ``base`` where it is a named variant."""
        name = str(self.methods.get(self.method, {}).get("base", self.method))
        entry = find_method(name)
        assert entry is not None, name
        return entry

    def method_settings(self) -> MethodSettings:
        """The method's settings: its defaults, its presets, then this file's ``methods``."""
        entry = self.method_entry()
        own = {k: v for k, v in self.methods.get(self.method, {}).items() if k != "base"}
        return entry.settings(**{**entry.presets, **own})

    def dataset_info(self) -> DatasetInfo:
        """What is known of the data set without loading it."""
        return dataset_info(self.dataset, self.dataset_settings)

    def data_folder(self) -> Path:
        """The data set's folder: the one given, or the user's default one."""
        return Path(self.data_dir) if self.data_dir else default_data_dir(self.dataset)

    def load_data(self, *splits: str) -> Dataset:
        """Load splits of the data set; see :func:`bmsfed_app.datasets.load_dataset`."""
        return load_dataset(
            self.dataset,
            self.data_folder(),
            seed=self.seed,
            settings=self.dataset_settings,
            splits=splits,
        )

    def network_spec(self) -> NetworkSpec:
        """What the network is made of."""
        info = self.dataset_info()
        head, head_settings = self.method_entry().head(self.method_settings())
        return NetworkSpec(
            encoders={m: self.encoders.get(m) or info.encoders[m] for m in info.modalities},
            shapes=dict(info.shapes),
            num_classes=info.num_classes,
            feature_norm=self.feature_norm,
            head=head,
            head_settings=head_settings,
            vocabularies=dict(info.vocabularies),
            widths=dict(self.widths),
        )

    def division(self) -> Partition:
        """How the training data is divided among simulated clients."""
        return read_partition(dict(self))

    def learning_rate(self, server_round: int) -> float:
        """Learning rate of a round: constant, then falling linearly to ``lr_min`` at the last."""
        progress = (server_round - 1) / max(self.rounds - 1, 1)
        if progress <= self.decay_from:
            return self.lr
        return self.lr + (self.lr_min - self.lr) * (progress - self.decay_from) / (
            1 - self.decay_from
        )

    def client_settings(self) -> ClientSettings:
        """What every client must know."""
        settings = self.method_settings()
        objective, objective_settings = self.method_entry().objective(settings)
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
            objective=objective,
            objective_settings=objective_settings,
            device=self.device,
            threads=max(int(self.cpus_per_client), 1),
            prototypes=self.prototypes == "train",
            ratio_kind=getattr(settings, "ratio", "score"),
        )


# --- loading ------------------------------------------------------------------------------------


def load_config(source: str, overrides: Mapping[str, Any] | None = None) -> ExperimentConfig:
    """Read a configuration and check it.

    Parameters
    ----------
    source : str
        Path of a YAML file, or the name of one that ships with the app (``cg-mnist``).
    overrides : mapping, optional
        Values that win over the file's: keys of the experiment, of its method or of its data
        set. Strings are read as YAML scalars.

    Raises
    ------
    ConfigError
        One message that names the culprit and the remedy.
    """
    values = read_values(source)
    given = dict(overrides or {})
    # These two decide what the other keys may be.
    values |= {key: given.pop(key) for key in ("dataset", "method") if key in given}
    _check_names(values)
    values |= _method_of(values)[1].config
    _route(values, given)
    config = check_config(values)
    _check_weights(config)
    return config


def parse_pairs(pairs: Sequence[str]) -> dict[str, str]:
    """Turn ``key=value`` texts into overrides for :func:`load_config`.

    Raises
    ------
    ConfigError
        If one has no equals sign.
    """
    split = [pair.partition("=") for pair in pairs]
    if bad := [key for key, equals, _ in split if not equals]:
        raise ConfigError(f"set: expected key=value, not '{bad[0]}'")
    return {key: value for key, _, value in split}


def check_config(values: Mapping[str, Any]) -> ExperimentConfig:
    """Check plain values; see :func:`load_config`."""
    if unknown := [k for k in values if k not in ExperimentConfig.model_fields]:
        hint = nearest(unknown[0], list(ExperimentConfig.model_fields))
        raise ConfigError(f"unknown key '{unknown[0]}'{hint}")
    values = dict(values)
    _check_names(values)
    try:
        config = ExperimentConfig(**values)
        for name in config.methods:
            if name != config.method:
                config.model_copy(update={"method": name}).method_settings()
        config.method_settings()
        config.division()
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None
    except PartitionError as error:
        raise ConfigError(str(error)) from None
    _check_encoders(config)
    if wrong := subsets_fault(config.subsets, config.dataset_info().modalities):
        raise ConfigError(f"subsets: {wrong}")
    if fault := config.method_entry().check(config.method_settings(), config):
        raise ConfigError(f"method '{config.method}': {fault}")
    return config


def _check_encoders(config: ExperimentConfig) -> None:
    """Check that every encoder exists, for a modality of the data set, and takes its inputs."""
    known = list(config.dataset_info().modalities)
    for key in ("encoders", "widths", "initial_weights"):
        for modality in getattr(config, key):
            if modality not in known:
                raise ConfigError(
                    f"{key}: '{config.dataset}' has no modality '{modality}'"
                    f"{nearest(modality, known)} (it has {', '.join(known)})"
                )
    spec = config.network_spec()
    for modality in known:
        try:
            spec.check(modality)
        except ValueError as error:
            raise ConfigError(f"encoders.{modality}: {error}") from None


def _check_weights(config: ExperimentConfig) -> None:
    """Check that files of weights are there; a run that goes on needs them no more."""
    for modality, file in config.initial_weights.items():
        if file == PUBLISHED:
            continue
        if not file.endswith(ENDINGS):
            raise ConfigError(
                f"initial_weights.{modality}: '{file}' is neither a {' nor a '.join(ENDINGS)} "
                f"file nor '{PUBLISHED}'"
            )
        if not Path(file).is_file():
            raise ConfigError(f"initial_weights.{modality}: there is no file '{file}'")


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _route(values: dict[str, Any], overrides: dict[str, Any]) -> None:
    """Put each override where it belongs: the experiment, its method or its data set."""
    name, entry = _method_of(values)
    dataset_keys = find_source(str(values["dataset"])).setting_names
    for key, raw in overrides.items():
        value = yaml.safe_load(raw) if isinstance(raw, str) and raw else raw
        if key in ExperimentConfig.model_fields:
            values[key] = value
        elif key in entry.settings.model_fields:
            values.setdefault("methods", {}).setdefault(name, {})[key] = value
        elif key in dataset_keys:
            values.setdefault("dataset_settings", {})[key] = value
        else:
            known = [*ExperimentConfig.model_fields, *entry.settings.model_fields, *dataset_keys]
            raise ConfigError(
                f"unknown key '{key}' for method '{name}' on '{values['dataset']}'"
                f"{nearest(key, known)}"
            )


def _check_names(values: dict[str, Any]) -> None:
    """Check what names other things: the data set, its settings, methods and their bases."""
    name = str(values.get("dataset", ""))
    try:
        source = find_source(name)
    except DataError as error:
        raise ConfigError(f"dataset: {error}") from None
    for key in values.get("dataset_settings") or {}:
        if key not in source.setting_names:
            known = list(source.setting_names)
            raise ConfigError(
                f"unknown key 'dataset_settings.{key}' of '{name}'{nearest(key, known)}"
            )
    source.parse(values.get("dataset_settings") or {})
    values["methods"] = dict(values.get("methods") or {})
    for method, own in values["methods"].items():
        values["methods"][method] = dict(own or {})
        base = str(values["methods"][method].get("base", method))
        if find_method(base) is None:
            raise ConfigError(
                f"unknown method '{base}' under 'methods'{nearest(base, METHODS)}: a variant of "
                "one's own needs 'base: <method>'"
            )
    _method_of(values)


def _method_of(values: Mapping[str, Any]) -> tuple[str, Method]:
    name = str(values.get("method", "bmsfed"))
    base = str(values.get("methods", {}).get(name, {}).get("base", name))
    entry = find_method(base)
    if entry is None:
        known = list(dict.fromkeys([*METHODS, *added_methods(), *values.get("methods", {})]))
        raise ConfigError(
            f"unknown method '{name}'{nearest(name, known)} (known: {', '.join(known)})"
        )
    return name, entry


def _explain(error: ValidationError) -> str:
    """One line for the first fault that pydantic found."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}' of a method{_near_method_key(key)}"
    return f"{key}: {message}, not {first['input']!r}" if key else message


def _near_method_key(key: str) -> str:
    fields = [f for method in METHODS.values() for f in method.settings.model_fields]
    return nearest(key, fields)

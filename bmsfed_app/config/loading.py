"""From a file and overrides to a configuration that is known to be right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bmsfed_app.checked import explain
from bmsfed_app.config.choices import check_choices
from bmsfed_app.config.experiment import ExperimentConfig, method_of
from bmsfed_app.config.files import ConfigError, read_values
from bmsfed_app.datasets import DataError, find_source
from bmsfed_app.methods import MethodSettings
from bmsfed_app.models.weights import ENDINGS, PUBLISHED
from bmsfed_app.partitions import PartitionError, subsets_fault
from bmsfed_app.plugins import import_plugins
from bmsfed_app.registry import nearest


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
    # These decide what the other keys may be.
    values |= {key: given.pop(key) for key in ("dataset", "method") if key in given}
    if "plugins" in given:
        values["plugins"] = _scalar(given.pop("plugins"))
    _check_names(values)
    _route(values, given)
    config = check_config({**_method(values).overrides, **values})
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
        config.division()
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
    except PartitionError as error:
        raise ConfigError(str(error)) from None
    for name in (*config.methods, config.method):
        _check_settings(config, name)
    _check_encoders(config)
    check_choices(config)
    if wrong := subsets_fault(config.subsets, config.dataset_info().modalities):
        raise ConfigError(f"subsets: {wrong}")
    if fault := config.method_settings().check(config):
        raise ConfigError(f"method '{config.method}': {fault}")
    return config


def _check_settings(config: ExperimentConfig, name: str) -> None:
    """Check a method's settings."""
    try:
        config.method_settings(name)
    except ValidationError as error:
        known = method_of(name, config.methods).model_fields
        raise ConfigError(f"method '{name}': {explain(error, known)}") from None


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


def _route(values: dict[str, Any], overrides: dict[str, Any]) -> None:
    """Put each override where it belongs: the experiment, its method or its data set."""
    name, method_keys = values["method"], _method(values).model_fields
    dataset_keys = find_source(str(values["dataset"])).setting_names
    for key, raw in overrides.items():
        value = _scalar(raw)
        if key in ExperimentConfig.model_fields:
            values[key] = value
        elif key in method_keys:
            values.setdefault("methods", {}).setdefault(name, {})[key] = value
        elif key in dataset_keys:
            values.setdefault("dataset_settings", {})[key] = value
        else:
            known = [*ExperimentConfig.model_fields, *method_keys, *dataset_keys]
            raise ConfigError(
                f"unknown key '{key}' for method '{name}' on '{values['dataset']}'"
                f"{nearest(key, known)}"
            )


def _scalar(raw: Any) -> Any:
    return yaml.safe_load(raw) if isinstance(raw, str) and raw else raw


def _check_names(values: dict[str, Any]) -> None:
    """Check what names other things: the data set, its settings, methods and their bases.

    Imports the experiment's plug-ins first, and fills in ``method`` and ``methods``.
    """
    modules = values.get("plugins") or []
    if not isinstance(modules, list) or not all(isinstance(m, str) for m in modules):
        raise ConfigError(f"plugins: a list of modules' names, not {modules!r}")
    try:
        import_plugins(modules)
    except ValueError as error:
        raise ConfigError(str(error)) from None
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
        try:
            method_of(method, values["methods"])
        except ValueError as error:
            raise ConfigError(
                f"methods.{method}: {error}; a variant of one's own needs 'base: <method>'"
            ) from None
    values["method"] = str(values.get("method", ExperimentConfig.model_fields["method"].default))
    _method(values)


def _method(values: Mapping[str, Any]) -> type[MethodSettings]:
    """Return the method of plain values."""
    try:
        return method_of(values["method"], values["methods"])
    except ValueError as error:
        raise ConfigError(str(error)) from None

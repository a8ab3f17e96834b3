"""From a file and overrides to a configuration that is known to be right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bmsfed_app.checked import explain
from bmsfed_app.config.choices import check_choices, check_packages
from bmsfed_app.config.experiment import ExperimentConfig, method_of
from bmsfed_app.config.files import ConfigError, read_values
from bmsfed_app.config.overrides import is_own, put
from bmsfed_app.config.privacy import dp_fault
from bmsfed_app.datasets import DataError, find_source
from bmsfed_app.methods import MethodSettings
from bmsfed_app.models.weights import ENDINGS, PUBLISHED
from bmsfed_app.partitions import PartitionError, subsets_fault
from bmsfed_app.paths import default_data_dir
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
        set. A dotted key (``encoders.gray``, ``methods.bmsfed.chi``) is one entry of a mapping,
        whose others stay. Texts are read as YAML.

    Raises
    ------
    ConfigError
        One message that names the culprit and the remedy.
    """
    return config_of(read_values(source), overrides)


def config_of(
    values: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    over: Mapping[str, Any] | None = None,
) -> ExperimentConfig:
    """Check a file's values, as :func:`read_values` returns them; see :func:`load_config`.

    Values of ``over`` win over those of ``overrides``, under whichever name either has a key:
    ``chi`` or ``methods.bmsfed.chi``.
    """
    config = _overridden(dict(values), {**(overrides or {}), **(over or {})}, over or {})
    _check_weights(config)
    return config


def change_config(config: ExperimentConfig, overrides: Mapping[str, Any]) -> ExperimentConfig:
    """Return a configuration with values changed as :func:`load_config` changes a file's."""
    return _overridden(config.model_dump(), overrides)


def _overridden(values: dict[str, Any], *layers: Mapping[str, Any]) -> ExperimentConfig:
    for given in layers:
        # First the experiment's own: they decide which method's and data set's keys there are.
        for key in filter(is_own, given):
            values = put(values, key, given[key])
        _check_names(values)
        for key in [key for key in given if not is_own(key)]:
            values = put(values, key, given[key], below=_home(values, key))
    _check_dataset_settings(values)  # before files are looked at for them
    _resolve(values)
    config = check_config(_below(values, _method(values).overrides))
    check_packages(config)
    return config


def _below(values: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with a method's own defaults below them; of mappings, name by name."""
    merged = {**defaults, **values}
    for key, default in defaults.items():
        if isinstance(default, Mapping) and isinstance(merged[key], Mapping):
            merged[key] = {**default, **merged[key]}
    return merged


def check_config(values: Mapping[str, Any]) -> ExperimentConfig:
    """Check plain values; see :func:`load_config`."""
    if unknown := [k for k in values if k not in ExperimentConfig.model_fields]:
        hint = nearest(unknown[0], list(ExperimentConfig.model_fields))
        raise ConfigError(f"unknown key '{unknown[0]}'{hint}")
    values = dict(values)
    _check_names(values)
    _check_dataset_settings(values)
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
    method = config.method_settings()
    if config.dp and config.aggregation["name"] != "mean":
        raise ConfigError("aggregation: with dp it is mean, whose noise is accounted for")
    if config.dp and config.holdout:
        raise ConfigError(
            "holdout: what clients count of their tests is not accounted for by dp: set it to 0"
        )
    if config.dp and (fault := dp_fault(config.dp, method, config.prototypes)):
        raise ConfigError(f"dp: {fault}")
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
    for key in ("encoders", "widths", "initial_weights", "freeze"):
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
    if spec.freeze:
        try:
            spec.frozen()
        except ValueError as error:
            raise ConfigError(str(error)) from None


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


def _home(values: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Where a key stands that is not the experiment's own: with its method or its data set."""
    first = key.split(".")[0]
    method_keys = _method(values).model_fields
    dataset_keys = find_source(str(values["dataset"])).setting_names
    if first in method_keys:
        return "methods", values["method"]
    if first in dataset_keys:
        return ("dataset_settings",)
    known = [*ExperimentConfig.model_fields, *method_keys, *dataset_keys]
    raise ConfigError(
        f"unknown key '{first}' for method '{values['method']}' on '{values['dataset']}'"
        f"{nearest(first, known)}"
    )


def _resolve(values: dict[str, Any]) -> None:
    """Fill in what the data set's settings leave to its files."""
    name, settings = str(values["dataset"]), _check_dataset_settings(values)
    folder = Path(str(values["data_dir"])) if values.get("data_dir") else default_data_dir(name)
    resolved = find_source(name).resolve(settings, folder.expanduser())
    if resolved is not settings:
        values["dataset_settings"] = resolved.model_dump(mode="json", exclude_unset=True)


def _check_names(values: dict[str, Any]) -> None:
    """Check what names other things: the data set, methods and their bases.

    Imports the experiment's plug-ins first, and fills in ``method`` and ``methods``.
    """
    modules = values.get("plugins") or []
    if not isinstance(modules, list) or not all(isinstance(m, str) for m in modules):
        raise ConfigError(f"plugins: a list of modules' names, not {modules!r}")
    try:
        import_plugins(modules)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    try:
        find_source(str(values.get("dataset", "")))
    except DataError as error:
        raise ConfigError(f"dataset: {error}") from None
    values["methods"] = _mapping("methods", values.get("methods"))
    for method, own in values["methods"].items():
        values["methods"][method] = _mapping(f"methods.{method}", own)
        try:
            method_of(method, values["methods"])
        except ValueError as error:
            raise ConfigError(
                f"methods.{method}: {error}; a variant of one's own needs 'base: <method>'"
            ) from None
    values["method"] = str(values.get("method", ExperimentConfig.model_fields["method"].default))
    _method(values)


def _check_dataset_settings(values: Mapping[str, Any]) -> Any:
    """Return the data set's settings, parsed."""
    name = str(values["dataset"])
    source, own = find_source(name), _mapping("dataset_settings", values.get("dataset_settings"))
    for key in own:
        if key not in source.setting_names:
            raise ConfigError(
                f"unknown key 'dataset_settings.{key}' of '{name}'"
                f"{nearest(key, source.setting_names)}"
            )
    return source.parse(own)


def _mapping(key: str, value: Any) -> dict[str, Any]:
    """Return a copy of what must be a mapping, or be left out."""
    if not isinstance(value, Mapping | None):
        raise ConfigError(
            f"{key}: expected keys with values, such as {{name: value}}, not {value!r}"
        )
    return dict(value or {})


def _method(values: Mapping[str, Any]) -> type[MethodSettings]:
    """Return the method of plain values."""
    try:
        return method_of(values["method"], values["methods"])
    except ValueError as error:
        raise ConfigError(str(error)) from None

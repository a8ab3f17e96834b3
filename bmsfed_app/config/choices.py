"""Checks of what an experiment chooses by name besides data, method and encoders."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from bmsfed_app.aggregations import aggregation_fault
from bmsfed_app.choice import package_fault, settings_fault, settings_of
from bmsfed_app.config.experiment import ExperimentConfig
from bmsfed_app.config.files import ConfigError
from bmsfed_app.datasets import find_source
from bmsfed_app.models.head_checks import head_fault
from bmsfed_app.optimizers import optimizer_fault
from bmsfed_app.partitions import Missing
from bmsfed_app.plugins import registry

_PARTS: tuple[Literal["head"], Literal["objective"]] = ("head", "objective")


def check_choices(config: ExperimentConfig) -> None:
    """Check that what is named exists and takes its settings.

    Raises
    ------
    ConfigError
        One message that names the key and the remedy.
    """
    for part in _PARTS:
        reason = config.method_settings().bound(part) if getattr(config, part) else None
        if reason:
            raise ConfigError(
                f"{part}: method '{config.method}' takes no other {part} ({reason}); leave the key "
                "out, take another method, or join both in a method of your own"
            )
    if config.head:
        spec = config.network_spec()
        widths = {m: spec.width(m) for m in spec.encoders}
        _refuse("head", head_fault(spec.head, widths, spec.num_classes, spec.head_settings))
    head, _ = config.chosen("head")
    if config.method_settings().uni_weight > 0 and not _find("head", "head", head).additive:
        raise ConfigError(
            f"uni_weight: the head '{head}' of method '{config.method}' has no columns by modality "
            "that a loss of its own could go through; set it to 0, or take the head 'linear'"
        )
    if config.objective:
        _refuse("objective", _objective_fault(config.objective))
    _refuse_gaps(config)
    _refuse("optimizer", optimizer_fault(config.optimizer))
    _refuse("aggregation", aggregation_fault(config.aggregation))
    reason = config.method_settings().merges_by
    if reason and config.aggregation["name"] != "mean":
        raise ConfigError(
            f"aggregation: method '{config.method}' takes no other than mean ({reason}); leave the "
            "key out, or take another method"
        )
    _refuse("schedule", _schedule_fault(config))
    for name in config.metrics:
        _find("metrics", "metric", name)
    for name, settings in config.callbacks.items():
        builder = _find("callbacks", "callback", name)
        _refuse(f"callbacks.{name}", settings_fault(builder, settings, leading=1))


def check_packages(config: ExperimentConfig) -> None:
    """Check that what the callbacks need is installed; not where a run is only read.

    Raises
    ------
    ConfigError
        One message that names the key and the remedy.
    """
    for name in config.callbacks:
        _refuse(f"callbacks.{name}", package_fault(_find("callbacks", "callback", name)))


def _refuse_gaps(config: ExperimentConfig) -> None:
    """Refuse samples that lack modalities where the objective or the head allows none."""
    if not (source := _source_of_gaps(config)):
        return
    key, remedy = source
    objective, _ = config.chosen("objective")
    who, other = f"method '{config.method}'", "method"
    reason = _find("objective", "objective", objective).no_gaps
    if not reason and "head" in (spec := config.network_spec()).normalising():
        who, other, reason = f"the head '{spec.head}'", "head", "it normalises over batches"
    if reason:
        raise ConfigError(
            f"{key}: {who} allows no samples that lack modalities ({reason}); {remedy}, or choose "
            f"another {other}"
        )


def _source_of_gaps(config: ExperimentConfig) -> tuple[str, str] | None:
    """Return the key by which clients train on samples that lack modalities, and how not to."""
    missing = config.missing or Missing()
    if missing.leaves_gaps:
        return "missing", "set missing.complete_only=true, take the scheme 'client'"
    settings = find_source(config.dataset).parse(config.dataset_settings)
    if getattr(settings, "gaps", "refuse") == "keep" and not missing.complete_only:
        return "gaps", "set missing.complete_only=true, leave them out (gaps: refuse)"
    return ("sample_dropout", "set it to 0") if config.sample_dropout > 0 else None


def _objective_fault(choice: Mapping[str, Any]) -> str | None:
    objective = _find("objective", "objective", str(choice["name"]))
    if fault := settings_fault(objective, settings_of(choice)):
        return f"{choice['name']}: {fault}"
    try:
        objective(**settings_of(choice))
    except Exception as error:  # whatever somebody's class raises
        return f"{choice['name']}: {error}"
    return None


def _schedule_fault(config: ExperimentConfig) -> str | None:
    """Ask for the rates of all rounds."""
    for server_round in range(1, config.rounds + 1):
        try:
            rate = float(config.learning_rate(server_round))
        except Exception as error:  # whatever somebody's function raises
            return f"{config.schedule}: {error}"
        if not 0 <= rate < math.inf:
            return f"{config.schedule}: the rate of round {server_round} is {rate}, no number >= 0"
    return None


def _find(key: str, kind: str, name: str) -> Any:
    try:
        return registry(kind).find(name)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None


def _refuse(key: str, fault: str | None) -> None:
    if fault:
        raise ConfigError(f"{key}: {fault}")

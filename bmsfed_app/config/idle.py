"""Keys that do nothing, or not what somebody meant: what is said of them at the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from bmsfed_app.config.experiment import ExperimentConfig
from bmsfed_app.config.files import own_keys
from bmsfed_app.devices import find_device, has_bf16

#: The partition that reads a key.
_READ_BY = {
    "alpha": "dirichlet",
    "sigma": "quantity",
    "classes_per_client": "pathological",
    "partition_file": "file",
}


def idle_notes(config: ExperimentConfig, source: str, overrides: Mapping[str, Any]) -> list[str]:
    """Say which of the user's own keys do nothing, or are not the method's, a line each.

    Parameters
    ----------
    config : ExperimentConfig
    source : str
        What it was loaded from. A shipped file's keys are there to be used by overrides.
    overrides : mapping
        What was given besides.
    """
    given = own_keys(source) | set(overrides)
    read = type(config.division()).model_fields
    notes = [
        f"note: {key} does nothing with partition: {config.partition} ({scheme} reads it)"
        for key, scheme in _READ_BY.items()
        if key in given and key not in read
    ]
    notes += [
        f"note: {key} is the experiment's, {config.method}'s own is methods.{config.method}.{key}"
        for key in sorted(set(overrides) & set(type(config.method_settings()).model_fields))
        if key in ExperimentConfig.model_fields
    ]
    if said := precision_note(config, find_device(config.device)):
        notes.append(said)
    if config.subsets and config.whole_share == 1:
        notes.append("note: subsets does nothing with whole_share: 1; lower whole_share")
    return notes


def precision_note(config: ExperimentConfig, device: torch.device) -> str:
    """Say that a precision does nothing for the speed of a device; empty where it may."""
    if config.precision == "tf32" and device.type == "cpu":
        return "note: precision: tf32 does nothing on a CPU; it is of GPUs from Ampere on"
    if config.precision == "bf16" and not has_bf16(device):
        return (
            "note: precision: bf16 is slower than float32 on this machine, which has no "
            "instructions for it; give auto, which takes float32 here"
        )
    return ""

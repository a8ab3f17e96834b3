"""What ``run.json`` says of the data that a run saw, and how other data differs from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bmsfed_app.config import ExperimentConfig
from bmsfed_app.datasets import Account, data_changes
from bmsfed_app.record.origin import file_hash
from bmsfed_app.record.rows import RunInfo, SampleCount


def seen(account: Account, config: ExperimentConfig) -> dict[str, Any]:
    """Return what ``run.json`` says of the data that a run sees: keys of :class:`RunInfo`."""
    named = str(getattr(config.division(), "partition_file", ""))
    splits = {split: split for split in account.counts} | (
        {"none": ""} if account.causes("") else {}
    )
    samples = {
        name: SampleCount(
            listed=account.listed(split),
            used=account.counts.get(split, 0),
            left_out={cause: len(of) for cause, of in account.causes(split).items()},
        )
        for name, split in splits.items()
    }
    return {
        "data": account.fingerprint,
        "partition_file": file_hash(Path(named)) if named else "",
        "samples": samples,
    }


def folder_change(then: RunInfo, config: ExperimentConfig) -> str:
    """Say how the data folder differs from what a run began on, before it is prepared anew.

    Empty if it does not, if something else is prepared, or where nobody knows what it began on.
    """
    if not then.data:
        return ""
    prepared, why = data_changes(config.dataset, config.data_folder(), config.dataset_settings)
    return why if prepared == then.data else ""


def difference(then: RunInfo, account: Account) -> str:
    """Say how the data that a run began on differs from what is there; empty if it does not.

    Where nobody knows what the run began on, nothing differs.
    """
    if not (then.data and account.fingerprint) or then.data == account.fingerprint:
        return ""
    numbers = [
        f"{then.samples[split].used} {split} samples were used, {count} are now"
        for split, count in account.counts.items()
        if split in then.samples and then.samples[split].used != count
    ]
    return "; ".join(numbers) or "as many samples as now, but not the same"

"""What ``run.json`` says of the data that a run saw, and how other data differs from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bmsfed_app.config import ExperimentConfig
from bmsfed_app.datasets import Account
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


def difference(then: RunInfo, now: RunInfo) -> str:
    """Say how the data that a run began on differs from what is there; empty if it does not.

    Where nobody knows what the run began on, nothing differs.
    """
    if then.partition_file and then.partition_file != now.partition_file:
        return "its partition file has changed"
    if not (then.data and now.data) or then.data == now.data:
        return ""
    numbers = [
        f"{then.samples[split].used} {split} samples were used, {count.used} are now"
        for split, count in now.samples.items()
        if split in then.samples and then.samples[split].used != count.used
    ]
    return "; ".join(numbers) or "as many samples as now, but not the same"

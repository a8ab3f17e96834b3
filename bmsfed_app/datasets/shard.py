"""A client's own data folder, for real devices: one ``train.safetensors``.

It holds the labels, the raw stores that the client's modalities need, and masks of what samples
lack, where they lack any; its header says, as JSON, what they are: the classes in the order of
their numbers, how each modality is kept, and what part of the data no client has (``validation``,
drawn by ``seed``). It renders exactly what the full split does. What the data set's settings
determine (the colours of digits) is in the stores already, so later changes do not reach a shard.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bmsfed_app.datasets.base import DataError, DatasetInfo, Split

FILE_NAME = "train.safetensors"
FORMAT_VERSION = 2
#: With masks, which older versions of the app would not see.
MASKED_VERSION = 3
_HEADER_KEY = "bmsfed_shard"
_LABELS = "labels"
_MASK = ".present"  # after the modality


def save_shard(
    split: Split,
    index: Tensor | NDArray[np.int64],
    info: DatasetInfo,
    path: Path,
    modalities: Sequence[str] | None = None,
    *,
    seed: int | None = None,
    validation: float = 0.0,
) -> None:
    """Write some rows of a split into a folder, made if it is not there.

    Parameters
    ----------
    split : Split
        The full training split.
    index : Tensor or array (b,), int64
        The client's rows.
    info : DatasetInfo
    path : Path
        The client's folder; a shard in it is replaced.
    modalities : sequence of str, optional
        What the client holds; all that the split holds if left out.
    seed : int, optional
        By which the data was divided. A shard that does not say is of no use to runs that validate.
    validation : float
        Share of the split that no client has, drawn by ``seed``.

    Raises
    ------
    DataError
        If the split does not hold a modality, or the folder cannot be written.
    """
    wanted = split.modalities if modalities is None else modalities
    rows = torch.as_tensor(index, device=split.labels.device)
    part = split.only(wanted).subset(rows).to("cpu")
    header = {
        "version": MASKED_VERSION if part.present else FORMAT_VERSION,
        "dataset": info.name,
        "classes": list(info.class_names),
        "held_modalities": [m for m in info.modalities if m in wanted],
        "kept": {m: info.kept[m] for m in wanted if m in info.kept},
        "num_samples": len(part),
    }
    if seed is not None:
        header |= {"seed": seed, "validation": validation}
    target = path / FILE_NAME
    partial = target.with_suffix(".partial")
    try:
        path.mkdir(parents=True, exist_ok=True)
        masks = {m + _MASK: mask for m, mask in part.present.items()}
        tensors = {_LABELS: part.labels, **_without_absent(part), **masks}
        save_file(tensors, partial, metadata={_HEADER_KEY: json.dumps(header)})
        os.replace(partial, target)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"cannot write {target} ({error}): name a folder that can be written"
        ) from None


def _without_absent(part: Split) -> dict[str, Tensor]:
    """Return a split's stores with zeros in the rows of samples that have nothing to read there."""
    stores = dict(part.stores)
    for name, store in part.stores.items():
        readers = [m for m, renderer in part.renderers.items() if name in renderer.stores]
        if all(m in part.present for m in readers):
            there = torch.stack([part.present[m] for m in readers]).any(dim=0)
            stores[name] = store.clone()
            stores[name][~there] = 0
    return stores


def load_shard(
    data_dir: Path, info: DatasetInfo, *, seed: int = 0, validation: float = 0.0
) -> tuple[Split, tuple[str, ...]]:
    """Load a client's folder.

    Parameters
    ----------
    data_dir : Path
        A folder that :func:`save_shard` wrote.
    info : DatasetInfo
        The data set it must come from.
    seed : int
        The run's.
    validation : float
        Share of the training data that the run's server draws by ``seed`` to validate on. Above 0,
        the shard must have been split by the same.

    Returns
    -------
    split : Split
        Renders what the full split does, for the modalities it holds.
    held_modalities : tuple of str
        In the data set's order.

    Raises
    ------
    DataError
        If there is no shard, it cannot be read, is another data set's, may hold what the server
        validates on, or contradicts itself.
    """
    path = data_dir / FILE_NAME
    if not path.is_file():
        raise DataError(
            f"no {FILE_NAME} in {data_dir}: write the folder with `bmsfed data split` or mend the "
            "node's data-dir"
        )
    header, tensors = _read(path)
    if fault := _header_fault(header, info) or _validation_fault(header, seed, validation):
        raise DataError(f"{path} {fault}")
    held = tuple(m for m in info.modalities if m in header["held_modalities"])
    renderers = {m: info.renderers[m] for m in held}
    masks = {m: tensors[m + _MASK] for m in held if m + _MASK in tensors}
    if fault := _content_fault(header["num_samples"], tensors, info, held):
        raise DataError(f"{path} {fault}: write it anew with `bmsfed data split`")
    stores = {s: tensors[s] for r in renderers.values() for s in r.stores}
    return Split(tensors[_LABELS], stores, renderers).lacking(masks), held


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_HEADER_KEY, "{}"))
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise DataError(
            f"cannot read {path} ({error}): write it anew with `bmsfed data split`"
        ) from None


def _header_fault(header: dict[str, Any], info: DatasetInfo) -> str:
    """Say what is wrong with what a shard says of itself, and the remedy; empty if nothing is."""
    if header.get("version") not in (FORMAT_VERSION, MASKED_VERSION):
        return (
            f"is no shard of format {FORMAT_VERSION} (it says {header.get('version')}): write it "
            "with this version's `bmsfed data split`"
        )
    if header["dataset"] != info.name:
        return (
            f"holds data of '{header['dataset']}', the experiment's data set is '{info.name}': "
            "name the right folder in the node's data-dir"
        )
    if foreign := [m for m in header["held_modalities"] if m not in info.modalities]:
        return (
            f"holds modality '{foreign[0]}', '{info.name}' has {', '.join(info.modalities)}: write "
            "it anew with `bmsfed data split`"
        )
    if header["classes"] != list(info.class_names):
        return (
            f"has the classes {', '.join(header['classes'])}, the experiment "
            f"{', '.join(info.class_names)}: give both the same classes in the same order, and "
            "write it anew with `bmsfed data split`"
        )
    for modality in header["held_modalities"]:
        if (there := header["kept"].get(modality)) != (here := info.kept.get(modality)):
            return (
                f"keeps '{modality}' as {there}, the experiment reads {here}: give both the same "
                "dataset_settings, and write it anew with `bmsfed data split`"
            )
    return ""


def _validation_fault(header: dict[str, Any], seed: int, validation: float) -> str:
    """Say why a shard may hold what the server validates on, and the remedy; empty if not."""
    if not validation or (header.get("seed"), header.get("validation")) == (seed, validation):
        return ""
    run = f"the run has seed {seed} and validation {validation}"
    anew = f"`bmsfed data split` with --set seed={seed} --set validation={validation}"
    if "seed" not in header:
        return f"does not say by which seed and validation it was split, {run}: write it by {anew}"
    return (
        f"was split with seed {header['seed']} and validation {header['validation']}, {run}, so "
        f"what the server validates on would be trained on: write it anew by {anew}, or run with "
        f"seed={header['seed']} and validation={header['validation']}"
    )


def _content_fault(
    num_samples: int, tensors: dict[str, Tensor], info: DatasetInfo, held: tuple[str, ...]
) -> str:
    """Say what is wrong with a shard's tensors; empty if nothing is."""
    masks = [m + _MASK for m in held if m + _MASK in tensors]
    for name in (_LABELS, *masks, *(s for m in held for s in info.renderers[m].stores)):
        if name not in tensors:
            return f"lacks the tensor '{name}'"
        if len(tensors[name]) != num_samples:
            return f"has {len(tensors[name])} rows in '{name}', {num_samples} by its header"
    labels = tensors[_LABELS]
    if not num_samples:
        return "holds no samples"
    if labels.min() < 0 or labels.max() >= info.num_classes:
        wrong = labels[(labels < 0) | (labels >= info.num_classes)][0]
        return f"has label {int(wrong)}, '{info.name}' has 0 to {info.num_classes - 1}"
    return ""

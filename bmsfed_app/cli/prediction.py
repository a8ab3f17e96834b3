"""``bmsfed predict``: class probabilities of new samples."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bmsfed_app.config import ExperimentConfig
    from bmsfed_app.datasets.base import Split
    from bmsfed_app.prediction import Predictor


def predict(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="New samples: a table (of a table run), an .npz with inputs by modality, or a "
            "data folder, whose test split is taken; by default the run's own data."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("predictions.csv"),
    at_round: Annotated[
        str,
        typer.Option("--round", help="Model after this round, or the best by validation: best."),
    ] = "",
    without: Annotated[
        str, typer.Option(help="Modalities that all samples lack, of a table: a,b.")
    ] = "",
) -> None:
    """Write class probabilities of new samples, some of whose modalities may be missing."""
    from bmsfed_app.prediction import load_model
    from bmsfed_app.record.files import RunFolderError

    if at_round not in ("", "best") and not at_round.isdecimal():
        raise RunFolderError(f"--round: a number or best, not '{at_round}'")
    wanted = int(at_round) if at_round.isdecimal() else None
    model = load_model(run, "best" if at_round == "best" else wanted)
    if data is None:
        _check_own_data(run.expanduser(), model.config)
    split, probabilities = _predicted(model, data and data.expanduser(), without)
    try:
        with out.open("w", encoding="utf-8", newline="") as stream:
            for line in _lines(model, split, probabilities):
                csv.writer(stream, lineterminator="\n").writerow(line)
    except OSError as error:
        raise RunFolderError(
            f"cannot write '{out}' ({error.strerror}): choose another --out"
        ) from None
    print(f"{len(split):,} samples by the model after round {model.round}: {out}")
    known = split.labels >= 0
    if bool(known.any()):
        rows = known.cpu().numpy()
        right = probabilities.argmax(axis=1)[rows] == split.labels.cpu().numpy()[rows]
        print(f"accuracy {100 * right.mean():.2f}% of {len(right):,} samples with a label")
    else:
        print("no labels: no accuracy", file=sys.stderr)


def _check_own_data(run: Path, config: ExperimentConfig) -> None:
    """Refuse data that is not what the run began on: what it trained on may be its test split."""
    from bmsfed_app.record.files import RunFolderError, read_json
    from bmsfed_app.record.rows import RunInfo
    from server_app.run_data import difference, folder_change

    then = read_json(run / "run.json", RunInfo)
    if fault := folder_change(then, config) or difference(then, config.check_data()):
        raise RunFolderError(
            f"'{run}' is a run on other data: {fault}; bring the data back, or name what to "
            "predict by --data"
        )


def _predicted(
    model: Predictor, data: Path | None, without: str
) -> tuple[Split, NDArray[np.float32]]:
    from bmsfed_app.datasets import DataError, find_source

    config, info = model.config, model.config.dataset_info()
    lacking = [m.strip() for m in without.split(",") if m.strip()]
    if unknown := [m for m in lacking if m not in info.modalities]:
        raise DataError(
            f"--without: there is no modality '{unknown[0]}' ({', '.join(info.modalities)})"
        )
    if data is not None and data.suffix == ".npz":
        return _from_arrays(model, data, lacking)
    if data is None or data.is_dir():
        changed = {"data_dir": str(data.absolute())} if data else {}
        there = config.model_copy(update=changed)
        there.check_data()
        split = there.load_data("test").test
        assert split is not None
        split = _without(split, lacking) if lacking else split
    elif config.dataset != "table":
        raise DataError(
            f"'{data}': a run on '{config.dataset}' takes a data folder of its layout, or an .npz "
            "file with inputs by modality"
        )
    else:
        from bmsfed_app.datasets.table.unseen import read_unseen

        settings = find_source("table").parse(config.dataset_settings)
        split = read_unseen(data, settings, info, lacking)
    return split, model.predict_split(split)


def _without(split: Split, lacking: Sequence[str]) -> Split:
    """Return a split without some modalities and the samples that have no other one."""
    import torch

    from bmsfed_app.datasets import DataError

    kept = split.only([m for m in split.modalities if m not in lacking])
    nothing, named = torch.ones_like(split.labels, dtype=torch.bool), ", ".join(lacking)
    for m in kept.modalities:
        nothing &= ~kept.present.get(m, torch.ones_like(nothing))
    if nothing.all():
        raise DataError(f"--without: no sample has a modality but {named}: name fewer")
    if not nothing.any():
        return kept
    print(
        f"{int(nothing.sum()):,} of {len(split):,} samples have no modality but {named}: left out"
    )
    return kept.subset((~nothing).nonzero().squeeze(1))


def _from_arrays(
    model: Predictor, file: Path, lacking: Sequence[str]
) -> tuple[Split, NDArray[np.float32]]:
    """Predict inputs by modality, ``present.<modality>``, ``ids`` and ``labels`` of an .npz."""
    import numpy as np
    import torch

    from bmsfed_app.datasets import DataError
    from bmsfed_app.datasets.base import Split

    arrays = _arrays(file)
    for m in lacking:
        arrays.pop(m, None), arrays.pop(f"present.{m}", None)
    ids, labels = arrays.pop("ids", None), arrays.pop("labels", None)
    names = [n for n in arrays if n.startswith("present.")]
    present = {n.removeprefix("present."): arrays.pop(n) for n in names}
    probabilities = model.predict_proba(arrays, present)
    count = len(probabilities)
    for name, values in (("ids", ids), ("labels", labels)):
        if values is not None and values.shape != (count,):
            raise DataError(f"'{file}': {name} has shape {values.shape}, not ({count},)")
    last = len(model.classes) - 1
    if labels is None:
        labels = np.full(count, -1)
    elif labels.dtype.kind not in "iu" or np.any((labels < -1) | (labels > last)):
        raise DataError(f"'{file}': labels are whole numbers, 0 to {last}, or -1 where unknown")
    masks = {m: torch.from_numpy(np.asarray(p, bool)) for m, p in present.items()}
    info = model.config.dataset_info()
    tensor = torch.from_numpy(labels.astype(np.int64))
    split = Split(tensor, {}, {m: info.renderers[m] for m in arrays}, ids=ids)
    return split.lacking(masks), probabilities


def _arrays(file: Path) -> dict[str, NDArray[Any]]:
    """Read an .npz, which may be cut off, empty, or a single array under that name."""
    from zipfile import BadZipFile

    import numpy as np

    from bmsfed_app.datasets import DataError

    try:
        found = np.load(file, allow_pickle=False)
        if isinstance(found, np.ndarray):
            raise ValueError("it holds one array without a name: write it by numpy.savez")
        with found:
            return dict(found)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise DataError(f"cannot read '{file}': {error}") from None


def _lines(
    model: Predictor, split: Split, probabilities: NDArray[np.float32]
) -> Iterator[list[str]]:
    """Yield the head of the file, then a line for each sample."""
    classes = model.classes
    yield ["id", "prediction", *classes, "modalities"]
    masks = {m: split.present.get(m) for m in split.modalities}
    for i, row in enumerate(probabilities):
        held = [m for m, mask in masks.items() if mask is None or bool(mask[i])]
        name = str(i) if split.ids is None else str(split.ids[i])
        best = classes[int(row.argmax())]
        yield [name, best, *(f"{p:.6f}" for p in row), " ".join(held)]

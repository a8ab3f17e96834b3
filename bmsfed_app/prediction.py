"""A run's global model, for new samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import load_file
from torch import Tensor

from bmsfed_app.config import ConfigError, ExperimentConfig, check_config
from bmsfed_app.datasets.base import DataError, Inputs, Split
from bmsfed_app.devices import find_device
from bmsfed_app.models import MultiModalNetwork
from bmsfed_app.record.files import RunFolderError, read_config, read_json
from bmsfed_app.record.rows import RunSummary
from bmsfed_app.registry import nearest
from strategies import Decisions, ServerState
from strategies.protocol import modalities_of


@dataclass
class Predictor:
    """The global model of a run, in evaluation mode.

    Methods that give clients models of their own have one as well: their mean.

    Attributes
    ----------
    config : ExperimentConfig
        The run's.
    network : MultiModalNetwork
    round : int
        After which the model is.
    absent : dict or None
        What a modality adds to the logits where a sample lacks it, (K,) by modality; empty for most
        methods. None: the folder lacks it, and samples must have all modalities.
    """

    config: ExperimentConfig
    network: MultiModalNetwork
    round: int
    absent: dict[str, Tensor] | None

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that the model knows."""
        return tuple(self.network.modalities)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the columns of probabilities."""
        return tuple(self.config.dataset_info().class_names)

    def predict_proba(
        self,
        inputs: Mapping[str, ArrayLike],
        present: Mapping[str, ArrayLike] | None = None,
    ) -> NDArray[np.float32]:
        """Return class probabilities.

        Parameters
        ----------
        inputs : mapping
            Model inputs (n, *shape) by modality, as the data set makes them
            (``Split.batch``); modalities that all samples lack are left out.
        present : mapping, optional
            (n,) bool by modality: which samples have it; by default all.

        Returns
        -------
        array (n, K)
            In the order of ``classes``; rows add up to 1.

        Raises
        ------
        DataError
            If a modality is unknown, shapes or values do not fit, a sample has nothing, or lacks a
            modality where ``absent`` is not known.
        """
        tensors = self._checked(inputs)
        count = len(next(iter(tensors.values())))
        masks = {
            m: torch.as_tensor(np.asarray(mask), dtype=torch.bool)
            for m, mask in (present or {}).items()
        }
        if unknown := masks.keys() - tensors.keys():
            raise DataError(f"present: there are no inputs of '{min(unknown)}'")
        if wrong := [m for m, mask in masks.items() if mask.shape != (count,)]:
            raise DataError(
                f"present: {wrong[0]} has shape {tuple(masks[wrong[0]].shape)}, not "
                f"({count},): one for each sample"
            )
        _check_any(tensors, masks)
        for m, x in tensors.items():
            self._check_values(m, x[masks[m]] if m in masks else x)
        parts = []
        for rows in torch.arange(count).split(self.config.eval_batch_size):
            batch = {m: x[rows] for m, x in tensors.items()}
            parts.append(self._batch(Inputs(batch, {m: k[rows] for m, k in masks.items()})))
        return self._probabilities(parts)

    def predict_split(self, split: Split) -> NDArray[np.float32]:
        """Return class probabilities (n, K) of a data set's samples, batch by batch.

        Raises
        ------
        DataError
            If a sample has nothing, or lacks a modality where ``absent`` is not known.
        """
        known = [m for m in self.modalities if m in split.modalities]
        _check_any(known, split.present)
        rows = torch.arange(len(split)).split(self.config.eval_batch_size)
        return self._probabilities([self._batch(split.batch(index, known)) for index in rows])

    def _probabilities(self, logits: list[Tensor]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = torch.cat(logits).softmax(dim=1).float().cpu().numpy()
        return found

    @torch.inference_mode()
    def _batch(self, inputs: Inputs) -> Tensor:
        """Return logits (b, K) from inputs of some modalities, of which samples may lack some."""
        device, features = next(self.network.parameters()).device, {}
        present = {m: mask.to(device) for m, mask in inputs.present.items()}
        for m, x in inputs.items():
            x = x.to(device)
            rows = present[m].nonzero().squeeze(1) if m in present else None
            if rows is None:
                features[m] = self.network.encode(m, x)
            elif len(rows):
                z = self.network.encode(m, x[rows])
                features[m] = z.new_zeros(len(x), *z.shape[1:]).index_copy(0, rows, z)
        held = {m: mask for m, mask in present.items() if m in features}
        if self.absent is None and (
            len(features) < len(self.modalities) or not all(map(torch.all, held.values()))
        ):
            raise DataError(
                f"samples lack modalities, and what '{self.config.method}' takes in their place is "
                "in the run's checkpoint.safetensors, which its folder has not: bring it from "
                "where the run was, or leave such samples out"
            )
        logits: Tensor = self.network.head(features, held)
        for m, constant in (self.absent or {}).items():
            if m not in features:
                logits = logits + constant
            elif m in held:
                logits = logits + constant * ~held[m][:, None]
        return logits

    def _checked(self, inputs: Mapping[str, ArrayLike]) -> dict[str, Tensor]:
        """Return inputs as tensors, having looked at names, shapes and counts."""
        if not inputs:
            raise DataError(f"no inputs: give some of {', '.join(self.modalities)}")
        info, found = self.config.dataset_info(), {}
        for m, values in inputs.items():
            if m not in self.modalities:
                raise DataError(
                    f"the model has no modality '{m}'{nearest(m, self.modalities)} (it has "
                    f"{', '.join(self.modalities)})"
                )
            try:
                x = values if isinstance(values, Tensor) else torch.from_numpy(np.asarray(values))
            except (TypeError, ValueError) as error:
                cause = str(error).partition(". ")[0]
                raise DataError(f"'{m}' is no array of numbers ({cause})") from None
            if tuple(x.shape[1:]) != tuple(info.shapes[m]):
                wanted = ", ".join(map(str, info.shapes[m]))
                raise DataError(f"'{m}' has shape {tuple(x.shape)}, not (n, {wanted})")
            found[m] = x if info.vocabularies.get(m) else x.float()
        if len({len(x) for x in found.values()}) > 1:
            sizes = ", ".join(f"{len(x)} of '{m}'" for m, x in found.items())
            raise DataError(f"inputs of different numbers of samples: {sizes}")
        if not len(next(iter(found.values()))):
            raise DataError("no samples: the inputs are empty")
        return found

    def _check_values(self, modality: str, x: Tensor) -> None:
        """Refuse values of samples that have a modality which no encoder can take."""
        vocabulary = self.config.dataset_info().vocabularies.get(modality)
        if not vocabulary:
            if not bool(x.isfinite().all()):
                raise DataError(
                    f"'{modality}' has values that are not finite: leave such samples out, or say "
                    "by present that they lack it"
                )
        elif x.is_floating_point() or bool(((x < 0) | (x >= vocabulary)).any()):
            raise DataError(f"'{modality}' holds tokens: whole numbers from 0 to {vocabulary - 1}")


def _check_any(modalities: Iterable[str], present: Mapping[str, Tensor]) -> None:
    """Refuse samples that lack all of some modalities, by masks (n,) of what some lack."""
    masks = [present.get(m) for m in modalities]
    gaps = [mask for mask in masks if mask is not None]
    if len(gaps) == len(masks) and not torch.stack(gaps).any(dim=0).all():
        raise DataError("present: a sample has no modality at all: leave it out")


def load_model(run: str | Path, server_round: int | Literal["best"] | None = None) -> Predictor:
    """Load the global model of a run, to predict new samples with.

    Parameters
    ----------
    run : str or Path
        The run's folder.
    server_round : int or "best", optional
        One whose checkpoint is kept, or the best by validation (of a run with ``keep: best``); by
        default the last.

    Raises
    ------
    RunFolderError
        If the folder holds no run, or no model of this round.

    Examples
    --------
    >>> model = load_model("runs/bmsfed")  # doctest: +SKIP
    >>> model.predict_proba({"gray": images})  # doctest: +SKIP
    array([[0.01, ...]])
    """
    folder = Path(run).expanduser()
    if not (folder / "config.yaml").is_file():
        raise RunFolderError(f"'{folder}' is not a run folder: it has no config.yaml")
    try:
        config = check_config(read_config(folder / "config.yaml"))
    except ConfigError as error:
        raise RunFolderError(f"'{folder / 'config.yaml'}': {error}") from None
    arrays, number, absent = _model(folder, config, server_round)
    network = MultiModalNetwork(config.network_spec(), modalities_of(arrays))
    device = find_device(config.device)
    network = network.restart(arrays).to(device).eval()
    if absent is not None:
        absent = {m: v.to(device) for m, v in absent.items()}
    return Predictor(config, network, number, absent)


def _model(
    folder: Path, config: ExperimentConfig, wanted: int | Literal["best"] | None
) -> tuple[dict[str, Any], int, dict[str, Tensor] | None]:
    """Return arrays, the round they are after, and what absent modalities add, if it is known."""
    newest, final = folder / "checkpoint.safetensors", folder / "model.safetensors"
    strategy = config.method_settings().strategy(seed=config.seed)
    if newest.is_file():
        state = _state(newest)
        if wanted not in (None, state.round):
            state = _state(_other(folder, wanted, state.round))
        strategy.state = state
        absent = {m: torch.tensor(v) for m, v in strategy.absent_logits().items()}
        return dict(state.arrays), state.round, absent
    if not final.is_file() or wanted is not None:
        what = "model" if wanted is None else f"checkpoint of round {wanted}"
        raise RunFolderError(f"'{folder}' holds no {what}: its run has not come to a round's end")
    told, fills = folder / "summary.json", type(strategy).absent_logits
    number = read_json(told, RunSummary).rounds if told.is_file() else config.rounds
    return load_file(final), number, {} if fills is Decisions.absent_logits else None


def _other(folder: Path, wanted: int | Literal["best"] | None, newest: int) -> Path:
    """Return the checkpoint of a round before the newest, or of the best one."""
    if wanted == "best":
        best = folder / "checkpoint-best.safetensors"
        if best.is_file():
            return best
        raise RunFolderError(
            f"'{folder}' keeps no best model: run it with keep: best and a validation part"
        )
    found = folder / "checkpoints" / f"round-{wanted:04d}.safetensors"
    if found.is_file():
        return found
    names = sorted((folder / "checkpoints").glob("round-*.safetensors"))
    kept = [*(str(int(f.stem.removeprefix("round-"))) for f in names), str(newest)]
    raise RunFolderError(
        f"'{folder}' keeps no model of round {wanted}: give one of {', '.join(kept)} "
        "(keep_checkpoints says how many are kept)"
    )


def _state(file: Path) -> ServerState:
    try:
        return ServerState.from_bytes(file.read_bytes())
    except (OSError, ValueError) as error:
        raise RunFolderError(f"cannot read '{file}' ({error}): restore it from its run") from None

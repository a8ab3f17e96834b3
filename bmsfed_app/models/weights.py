"""Initial weights from files: what an encoder starts from instead of a draw."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from bmsfed_app.models.encoders import Encoder
from bmsfed_app.models.network import MultiModalNetwork

#: In place of a file: what the encoder's makers publish.
PUBLISHED = "published"
#: What files of weights are called.
ENDINGS = (".safetensors", ".pt", ".pth")


class WeightsError(ValueError):
    """Weights cannot be used; the message names the modality, the file and what does not fit."""


def load_weights(network: MultiModalNetwork, sources: Mapping[str, str]) -> None:
    """Let encoders start from given weights, in place.

    A file holds a state dict: the encoder's own; one of the library that its model is from, a
    classifier included; or a whole network's, as ``model.safetensors`` of a run folder has it, of
    which the modality's encoder is taken. Step counters of batch norms may lack, as in old files.

    Parameters
    ----------
    network : MultiModalNetwork
        Holds the encoders.
    sources : mapping
        By modality: a ``.safetensors``, ``.pt`` or ``.pth`` file, or "published".

    Raises
    ------
    WeightsError
        If weights cannot be read, or are not exactly the encoder's.
    """
    for modality, source in sources.items():
        encoder = network.encoders[modality]
        assert isinstance(encoder, Encoder)
        label = f"initial_weights.{modality}: '{source}'"
        try:
            given = encoder.published_weights() if source == PUBLISHED else _read(Path(source))
            weights = _renamed(given, encoder, modality)
        except ValueError as error:
            raise WeightsError(f"{label}: {error}") from None
        if fault := _fault(weights, encoder.state_dict()):
            name = network.spec.encoders[modality]
            raise WeightsError(f"{label} does not fit encoder {name}: {fault}")
        encoder.load_state_dict(encoder.state_dict() | weights)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever unpickling something else raises
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"cannot be read as tensors by name: {reason}") from None
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ValueError("holds no state dict: save one with torch.save(model.state_dict(), file)")
    return found


def _renamed(given: Mapping[str, Tensor], encoder: Encoder, modality: str) -> dict[str, Tensor]:
    """Names as the encoder has them, without those of parts that it does not have."""
    if networks := sorted({n.split(".")[1] for n in given if n.startswith("encoders.")}):
        if modality not in networks:
            raise ValueError(f"holds encoders of {', '.join(networks)}, none of {modality}")
        start = f"encoders.{modality}."
        given = {n.removeprefix(start): v for n, v in given.items() if n.startswith(start)}
    if not any(n.startswith(encoder.prefix) for n in given):
        kept = {n: v for n, v in given.items() if not n.startswith(encoder.unused)}
        given = {encoder.prefix + n: v for n, v in kept.items()}
    return dict(given)


def _fault(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """What does not fit first, or nothing."""
    for name in sorted(set(own) | set(given)):
        if name not in given and name.endswith(".num_batches_tracked"):
            continue
        found = tuple(given[name].shape) if name in given else "nothing"
        expected = tuple(own[name].shape) if name in own else "nothing"
        if found != expected:
            return f"it has {found} as '{name}', expected is {expected}"
    return ""

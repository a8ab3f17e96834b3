"""Tensors in the memory of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def shared_tensor(array: NDArray[Any]) -> Tensor:
    """Return a tensor in an array's own memory, which may be read-only: it is only to be read.

    torch takes arrays that cannot be written to with a warning, and has no tensors of this kind.
    """
    return torch.from_numpy(array if array.flags.writeable else np.asarray(_Writable(array)))


class _Writable:
    """Describes the memory of an array to numpy as one that may be written to."""

    def __init__(self, array: NDArray[Any]) -> None:
        place, _ = array.__array_interface__["data"]
        self.__array_interface__ = array.__array_interface__ | {"data": (place, False)}
        self.array = array  # whose memory it is

"""Arrays that become bytes only where somebody asks for bytes.

Flower's ``Array`` holds an array in numpy's file format: making one copies, reading one copies.
Within a machine neither is needed. A :class:`LazyArray` is an ``Array`` to everybody and carries
the numpy array itself; what sends it over a network makes the bytes, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray


class LazyArray(Array):
    """A numpy array in the place of Flower's serialised one.

    Parameters
    ----------
    values : array
        Kept, not copied: whoever makes a message must not write into it afterwards.

    Examples
    --------
    >>> lazy = LazyArray(np.zeros(3, np.float32))
    >>> lazy.numpy().tolist(), lazy.size, len(lazy.data)
    ([0.0, 0.0, 0.0], 140, 140)
    """

    def __init__(self, values: NDArray[Any]) -> None:
        view = values.view()
        view.flags.writeable = False
        about = {"dtype": str(view.dtype), "shape": tuple(view.shape), "stype": "numpy.ndarray"}
        self.__dict__.update(about, _view=view, _plain=None)

    @property
    def view(self) -> NDArray[Any]:
        """The values, read-only and without a copy."""
        values: NDArray[Any] | None = self.__dict__["_view"]
        return self._serialised().numpy() if values is None else values

    @property
    def size(self) -> int:
        """Bytes of :attr:`data`, without making them."""
        values: NDArray[Any] | None = self.__dict__["_view"]
        if values is None:
            return len(self.data)
        order = bool(values.flags.fnc)
        return _header_bytes(values.dtype.str, values.shape, order) + values.nbytes

    def numpy(self) -> NDArray[Any]:
        """Return a copy, which may be written into, as Flower's arrays do."""
        return np.array(self.view)

    @property
    def data(self) -> bytes:
        """The array in numpy's file format."""
        return self._serialised().data

    @data.setter
    def data(self, value: bytes) -> None:
        self._serialised().data = value
        self.__dict__["_view"] = None
        self.is_dirty = True

    def _serialised(self) -> Array:
        if self.__dict__["_plain"] is None:
            self.__dict__["_plain"] = Array(self.__dict__["_view"])
        plain: Array = self.__dict__["_plain"]
        return plain

    # What Flower calls to send it: the receiver finds one of its own.

    def slice_array(self) -> Any:
        """Return the bytes in chunks."""
        return self._serialised().slice_array()

    def deflate(self) -> bytes:
        """Return what describes the array and its chunks."""
        return self._serialised().deflate()

    def __reduce__(self) -> Any:
        return LazyArray, (self.view,)


def record_of(arrays: Mapping[str, Array]) -> ArrayRecord:
    """Return a record that holds these very arrays; Flower's constructor makes others of them."""
    record = ArrayRecord()
    for name, value in arrays.items():
        record[name] = value
    return record


@lru_cache(maxsize=4096)
def _header_bytes(dtype: str, shape: tuple[int, ...], fortran_order: bool) -> int:
    """Bytes that numpy's file format puts before an array's values."""
    header = BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": dtype, "fortran_order": fortran_order, "shape": shape}
    )
    return header.tell()

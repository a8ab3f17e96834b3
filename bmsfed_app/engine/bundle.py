"""Messages with their arrays beside them, so that arrays need not be pickled with each."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from strategies.federation.lazy_array import LazyArray


class Bundle:
    """Distinct arrays that some messages hold, each once, and their places.

    Parameters
    ----------
    messages : iterable of Message
        What is in their records counts.

    Attributes
    ----------
    arrays : list of array
        By place.
    """

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self.arrays: list[NDArray[Any]] = []
        # By id, with the array itself: while it is kept, no other has its id.
        self._places: dict[int, tuple[LazyArray, int]] = {}
        for message in messages:
            if message.has_content():
                for record in message.content.array_records.values():
                    for value in record.values():
                        if isinstance(value, LazyArray):
                            self.place(value)

    def place(self, value: LazyArray) -> int:
        """Return an array's place, of a new one the next."""
        if id(value) not in self._places:
            self._places[id(value)] = value, len(self.arrays)
            self.arrays.append(value.view)
        return self._places[id(value)][1]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(a.nbytes for a in self.arrays)

    def dumps(self, value: Any) -> bytes:
        """Pickle anything that holds these arrays, without them; new ones are taken up."""
        buffer = io.BytesIO()
        _Pickler(buffer, self).dump(value)
        return buffer.getvalue()


def loads(data: bytes, arrays: Sequence[NDArray[Any]]) -> Any:
    """Read what :meth:`Bundle.dumps` wrote; arrays are taken as they are, without a copy."""
    return _Unpickler(io.BytesIO(data), arrays).load()


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, bundle: Bundle) -> None:
        super().__init__(file, protocol=5)
        self.bundle = bundle

    def persistent_id(self, obj: Any) -> int | None:
        """Name an array by its place."""
        return self.bundle.place(obj) if type(obj) is LazyArray else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, arrays: Sequence[NDArray[Any]]) -> None:
        super().__init__(file)
        self.arrays = arrays

    def persistent_load(self, pid: Any) -> LazyArray:
        """Return the array at a place."""
        return LazyArray(np.asarray(self.arrays[pid]))

"""Mean, deviation and range of features, gathered piece by piece."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Moments:
    """Moments of k features over all rows that :meth:`add` was given.

    Attributes
    ----------
    count : int
        Rows so far.
    mean, low, high : array (k,), float64
        Of each feature, once there is a row.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.low = self.high = self._squares = np.zeros(0)

    def add(self, rows: NDArray[np.float64]) -> None:
        """Take rows (n, k) in; n at least 1."""
        mean, squares = rows.mean(axis=0), ((rows - rows.mean(axis=0)) ** 2).sum(axis=0)
        low, high, count = rows.min(axis=0), rows.max(axis=0), self.count + len(rows)
        if self.count:
            # Chan et al. (1979): moments of two parts give those of the whole, without cancelling.
            apart = mean - self.mean
            squares = self._squares + squares + apart**2 * self.count * len(rows) / count
            mean = self.mean + apart * len(rows) / count
            low, high = np.minimum(self.low, low), np.maximum(self.high, high)
        self.count, self.mean, self._squares, self.low, self.high = count, mean, squares, low, high

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviations (k,) of these rows themselves; exactly 0 of a constant."""
        spread: NDArray[np.float64] = np.sqrt(self._squares / self.count)
        return np.where(self.constant, 0.0, spread)

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Whether each feature (k,) is the same in all rows."""
        same: NDArray[np.bool_] = self.low == self.high
        return same

"""How much privacy is spent: (ε, δ) after every round, by Opacus's accountant."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from strategies import Callback, Decisions, Metric, RoundReport
from strategies.privacy import releases


def epsilon(released: NDArray[np.float64], delta: float) -> float:
    """Return ε of Gaussian releases at δ, by Rényi differential privacy.

    Parameters
    ----------
    released : array (n, 2)
        Sampling rate (1: none claimed) and noise multiplier of each release; rates below 1 are of
        Poisson sampling.
    delta : float

    Returns
    -------
    float
        Infinite where one was released without noise, 0 where none was.
    """
    if not len(released):
        return 0.0
    if not released[:, 1].all():
        return float("inf")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's hooks, and that an order is the largest
        from opacus.accountants import RDPAccountant

        accountant = RDPAccountant()
        kinds, numbers = np.unique(released, axis=0, return_counts=True)
        accountant.history = [
            (z, q, int(n)) for (q, z), n in zip(kinds.tolist(), numbers, strict=True)
        ]
        return float(accountant.get_epsilon(delta=delta, alphas=_ORDERS))


#: Orders at which Rényi divergences are bounded; large ones matter where little is spent.
_ORDERS = [*np.arange(1.1, 11, 0.1).tolist(), *range(11, 64), *range(64, 1025, 32)]


class PrivacyCallback(Callback):
    """Puts what is spent so far into every round: ``epsilon``, at the experiment's δ.

    Left out where nothing is noised: there is no bound then.
    """

    def __init__(self, delta: float) -> None:
        self.delta = delta
        self.metrics = (
            Metric(
                "epsilon",
                "ε spent",
                figure="privacy spent (ε)",
                column="ε",
                about=f"ε: client-level differential privacy spent so far, at δ = {delta:g}, of "
                "what the server passes on; not of this run folder, which has more than that.",
                lower_is_better=True,
            ),
        )

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        """Add the round's."""
        spent = epsilon(releases(strategy.state), self.delta)
        if np.isfinite(spent):
            report.metrics["epsilon"] = spent

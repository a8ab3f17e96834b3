"""What samples lose in a simulation of missing modalities: masks that are fixed over the rounds.

A mask is made of one uniform number per (seed, sample, modality), or per (seed, client, modality):
a modality is lost where that is below the rate q, so that what a smaller rate masks, a larger one
masks too. Shape legend: n samples, K modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bmsfed_app.checked import Settings
from strategies.randomness import generator

Matrix = NDArray[np.bool_]
Uniforms = NDArray[np.float64]


class Missing(Settings):
    """``missing`` of an experiment: which modalities samples lose, and who trains without.

    Attributes
    ----------
    scheme : {"one", "bernoulli", "client"}
        "one": a share ``rate`` of the samples loses one of its modalities, each as likely.
        "bernoulli": a sample loses each modality with chance ``rate``. "client": a client loses
        each with that chance, in all its samples. What would lose all it has keeps one, so that of
        K modalities each is lost with chance q - q^K / K.
    rate : float
        q, 0 to 1.
    complete_only : bool
        Clients train on those of their samples alone that have all that the client has.
    """

    scheme: Literal["one", "bernoulli", "client"] = "one"
    rate: float = Field(default=0.0, ge=0, le=1)
    complete_only: bool = False

    @property
    def leaves_gaps(self) -> bool:
        """Whether clients train on samples that lack what others of theirs have."""
        return self.rate > 0 and self.scheme != "client" and not self.complete_only

    def describe(self) -> str:
        """Say in a line what is missing; empty if nothing is."""
        q = f"{100 * self.rate:g} %"
        lost = {
            "one": f"{q} of the samples lack a modality",
            "bernoulli": f"samples lack each modality with chance {q}",
            "client": f"clients lack each modality with chance {q}",
        }
        parts = [lost[self.scheme]] * (self.rate > 0)
        return ", ".join(parts + ["trained on complete samples only"] * self.complete_only)


def sample_draws(
    total: int, modalities: Sequence[str], split: str, seed: int
) -> tuple[Uniforms, Uniforms]:
    """Draw the uniforms of all samples of a split, (total, K), and those of scheme "one", (total,).

    A modality's numbers are the same whichever others there are.
    """
    own = [generator(seed, "missing", split, m).random(total) for m in modalities]
    return np.stack(own, axis=1), generator(seed, "missing one", split).random(total)


def client_draws(client: str, modalities: Sequence[str], seed: int) -> Uniforms:
    """Draw the uniforms (1, K) of a client."""
    return np.array([[generator(seed, "missing client", client, m).random() for m in modalities]])


def lose_one(held: Matrix, uniforms: Uniforms, chance: Uniforms, rate: float) -> Matrix:
    """Return what is left (n, K) where a share of the samples loses one of several modalities.

    Parameters
    ----------
    held : array (n, K), bool
        What there is.
    uniforms : array (n, K)
        The lowest of a sample's names what it loses.
    chance : array (n,)
        A sample loses where this is below the rate.
    rate : float
    """
    loses = (chance < rate) & (held.sum(axis=1) > 1)
    which = np.where(held, uniforms, np.inf).argmin(axis=1)
    left = held.copy()
    left[np.flatnonzero(loses), which[loses]] = False
    return left


def lose_each(held: Matrix, uniforms: Uniforms, rate: float) -> Matrix:
    """Return what is left (n, K) where each modality is lost below the rate.

    Where all would be, the one of the largest uniform stays: it is the last to go as the rate
    rises, so masks stay nested.
    """
    left = held & (uniforms >= rate)
    none = ~left.any(axis=1) & held.any(axis=1)
    last = np.where(held, uniforms, -1.0).argmax(axis=1)
    left[np.flatnonzero(none), last[none]] = True
    return left

"""Client-level differential privacy: what clients send is clipped and noised before it counts.

The server is trusted; who sees only what it passes on (models, prototypes, the weak modality, who
is selected) is not. Two federations are neighbours if all that one client sends is zero in one of
them; who takes part, which modalities each one holds and whether it answers are taken as known.
``docs/privacy.md`` derives what is claimed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .aggregation import imbalance_ratios
from .messages import Arrays, ClientInfo, Prototypes, Update, owner
from .state import ServerState

#: What a client sends that counts; each has its share of a round's budget.
QUANTITIES = ("update", "prototypes", "scores", "signatures")

#: Where the state keeps what was released: rows of sampling rate and noise multiplier.
RELEASES = "dp.releases"

#: Running variances stay above, scores (shares of samples) within what noise can take them from.
_MIN_VARIANCE, _MIN_SCORE = 1e-3, 1e-2


@dataclass(frozen=True)
class Budget:
    """How much is clipped and noised.

    Attributes
    ----------
    clip : float
        Largest Euclidean norm of a client's update, all parts together; above 0.
    noise : float
        Noise multiplier z of a round, over all that a client sends in it; 0: clipping alone.
    prototypes_clip, signatures_clip : float
        Largest norm of a client's prototypes of all modalities, and of its signatures.
    shares : mapping
        Each of :data:`QUANTITIES`'s part of the budget, above 0; of what is sent, they are taken
        relative to their sum. A quantity with share s of it has multiplier z / sqrt(s), so that
        all of them together cost what one release with multiplier z does.
    """

    clip: float
    noise: float
    prototypes_clip: float = 10.0
    signatures_clip: float = 1.0
    shares: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(QUANTITIES, 1.0))


def check_accounted(method: type, head_columns: str) -> None:
    """Refuse a method whose releases are not all accounted for.

    Parameters
    ----------
    method : type
        A class of :class:`strategies.Decisions`.
    head_columns : str
        Whose average a head's columns are: see :func:`strategies.aggregation.aggregate_parts`.

    Raises
    ------
    ValueError
        If no guarantee is known for it.
    """
    if "private" not in vars(method):  # one that inherits it may release more
        raise ValueError(
            f"no differential privacy for {method.__name__}: what it makes of clients' "
            "answers besides averages, prototypes, ratios and signatures is not noised; take "
            "FedAvg, BMSFed or RandomModality"
        )
    if head_columns != "own":
        raise ValueError(
            "no differential privacy with head_columns='all': a part's average is over its "
            "trainers; take 'own'"
        )


@dataclass(frozen=True)
class _Draw:
    """A Poisson draw: who counts, and how many trainers each modality is expected to have."""

    share: float
    members: frozenset[str]
    expected: Mapping[str | None, float]


class ClientPrivacy:
    """Clips and noises what one federation's clients send.

    Parameters
    ----------
    budget : Budget
    measuring : bool
        Whether the method keeps what clients measure. Without, updates have the whole budget, and
        clients are drawn so that sampling amplifies privacy.
    rng : Generator, optional
        Of noise and draws. By default from the operating system: with a seed that is written
        down, noise could be taken off again.
    """

    def __init__(
        self, budget: Budget, *, measuring: bool, rng: np.random.Generator | None = None
    ) -> None:
        self.budget, self.measuring = budget, measuring
        self._rng = rng or np.random.default_rng()
        self._draw: _Draw | None = None

    def multiplier(self, quantity: str) -> float:
        """Return the noise multiplier of one of :data:`QUANTITIES`."""
        shares = self.budget.shares
        total = sum(shares[q] for q in (QUANTITIES if self.measuring else ("update",)))
        return self.budget.noise / math.sqrt(shares[quantity] / total)

    # --- who trains ------------------------------------------------------------------------------

    def draw(self, clients: Sequence[ClientInfo], number: int) -> list[ClientInfo]:
        """Draw each client by itself, ``number`` of them on average (Poisson sampling).

        Where nobody is drawn, one trains whose answer does not count: noise alone is released.
        """
        share = number / len(clients)
        drawn = [
            c for c, u in zip(clients, self._rng.random(len(clients)), strict=True) if u < share
        ]
        held = Counter(m for c in clients for m in c.modalities)
        expected: dict[str | None, float] = {m: share * n for m, n in held.items()}
        expected[None] = share * len(clients)
        self._draw = _Draw(share, frozenset(c.client_id for c in drawn), expected)
        return drawn or [clients[int(self._rng.integers(len(clients)))]]

    # --- updates ---------------------------------------------------------------------------------

    def average(
        self, current: Arrays, updates: Sequence[Update], frozen: Collection[str] = ()
    ) -> Arrays:
        """Return the new model: current plus clipped updates' noisy sums by fixed denominators.

        The denominator of an array is the number of its trainers where that is known, and the
        expected number where clients were drawn in secret; every client weighs the same. Counters
        (integers) stay. Running variances are kept above 0.
        """
        draw = self._draw
        counted = [u for u in updates if draw is None or u.client_id in draw.members]
        names = [n for n, v in current.items() if _is_float(v) and n not in frozen]
        sums = {n: np.zeros(current[n].shape) for n in names}
        trainers = dict.fromkeys(names, 0.0)
        for update in sorted(counted, key=lambda u: u.client_id):
            changes = {
                n: update.arrays[n] - current[n].astype(float) for n in names if n in update.arrays
            }
            factor = _clipping(changes.values(), self.budget.clip)
            for name, change in changes.items():
                sums[name] += factor * change
                trainers[name] += 1
        if draw is not None:
            trainers = {n: draw.expected.get(owner(n), 0.0) for n in names}
        scale = self.multiplier("update") * self.budget.clip
        new = dict(current)
        for name in names:
            if trainers[name] > 0:
                noised = self._noised(sums[name], scale)
                moved = current[name] + noised / max(trainers[name], 1.0)
                if name.endswith("running_var"):
                    moved = np.maximum(moved, _MIN_VARIANCE)
                new[name] = moved.astype(current[name].dtype)
        return new

    # --- measurements ----------------------------------------------------------------------------

    def measured(self, update: Update) -> Update:
        """Return what may be kept of an answer: noised measurements, no arrays, no metrics.

        Prototypes of classes that a client has not got are zeros like any other, and every class
        counts once. Scores are taken per sample; ratios are those of the noised scores.
        """
        if not self.measuring:
            return Update(update.client_id, update.modalities)
        scores = self._scores(update)
        return replace(
            update,
            num_samples=1,
            arrays={},
            prototypes=self._prototypes(update.prototypes),
            scores=scores,
            ratios=imbalance_ratios(scores) if len(scores) > 1 else {},
            signatures=self._signatures(update.signatures),
            measurements={},
            metrics={},
            present={},
        )

    def _prototypes(self, found: Mapping[str, Prototypes]) -> dict[str, Prototypes]:
        rows = {m: np.where(p.counts[:, None] > 0, p.means, 0.0) for m, p in found.items()}
        noised = self._released(rows, self.budget.prototypes_clip, "prototypes")
        return {m: Prototypes(v, np.ones(len(v), np.int64)) for m, v in noised.items()}

    def _signatures(
        self, found: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        return self._released(found, self.budget.signatures_clip, "signatures")

    def _scores(self, update: Update) -> dict[str, float]:
        n = max(update.num_samples, 1)
        rates = {m: np.array([min(max(s / n, 0.0), 1.0)]) for m, s in update.scores.items()}
        noised = self._released(rates, math.sqrt(max(len(rates), 1)), "scores")
        return {m: min(max(float(v[0]), _MIN_SCORE), 1.0) for m, v in noised.items()}

    def _released(
        self, arrays: Mapping[str, NDArray[Any]], clip: float, quantity: str
    ) -> dict[str, NDArray[np.float32]]:
        """Clip arrays jointly and add noise."""
        factor, scale = _clipping(arrays.values(), clip), self.multiplier(quantity) * clip
        return {
            n: self._noised(factor * v.astype(float), scale).astype(np.float32)
            for n, v in arrays.items()
        }

    def _noised(self, values: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
        return values + scale * self._rng.standard_normal(values.shape)

    # --- what is spent ---------------------------------------------------------------------------

    def spend_round(self, state: ServerState) -> None:
        """Note a round: every client is charged as if it had trained, and none trains twice."""
        _note(state, 1.0 if self._draw is None else self._draw.share, self.budget.noise)

    def spend_measuring(self, state: ServerState) -> None:
        """Note that clients were measured before they train: once each, and so charged once."""
        if RELEASES not in state.memory.get("", {}):
            rates = [self.multiplier(q) ** -2 for q in QUANTITIES[1:]] if self.budget.noise else []
            _note(state, 1.0, sum(rates) ** -0.5 if rates else 0.0)

    def resume(self, state: ServerState) -> None:
        """Note that the round after a checkpoint may have been released with other noise."""
        if state.round > 0 and len(found := releases(state)):
            _note(state, *found[-1])


def releases(state: ServerState) -> NDArray[np.float64]:
    """Return sampling rate and noise multiplier of every release so far, (n, 2)."""
    return state.memory.get("", {}).get(RELEASES, np.zeros((0, 2)))


def _note(state: ServerState, share: float, noise: float) -> None:
    noted = np.concatenate([releases(state), [[share, noise]]])
    state.memory.setdefault("", {})[RELEASES] = noted


def _clipping(arrays: Iterable[NDArray[Any]], clip: float) -> float:
    """Return what takes arrays' joint norm to ``clip`` where it is above; 1 for zeros."""
    square = sum(float(np.square(a.astype(float)).sum()) for a in arrays)
    return clip / max(math.sqrt(square), clip)


def _is_float(array: NDArray[Any]) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))

"""What a method decides: who trains what, what each client is told, and how answers are merged.

Free of transport: everything taken and returned is a plain dataclass of numpy arrays, so a method
can be imported and tested alone. :class:`strategies.ModalityStrategy` carries it over Flower.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np

from .aggregation import aggregate_parts
from .evaluated import EvaluationModel
from .expected import Expected, Shape, expected_of
from .messages import (
    Arrays,
    Assignment,
    ClientInfo,
    Kind,
    Orders,
    Prototypes,
    Task,
    Update,
    select_parts,
)
from .privacy import Budget, ClientPrivacy, check_accounted
from .randomness import generator
from .ranges import Parameter
from .ratios import weakest
from .robust import Rule
from .state import ServerState

OUTLIER_FACTOR = Parameter(10.0, ge=0)


class Decisions:
    """Base of all methods: the round's decisions, FedAvg's where a method does not override them.

    Parameters
    ----------
    clients_per_round : int or float, optional
        Clients that train each round: a number >= 1, or a share in (0, 1) of those connected
        (rounded up, at least 2 where there are 2).
    seed : int, default 0
        Every draw of the strategy comes from (seed, round, purpose).
    head_columns : {"own", "all"}, default "own"
        See :func:`strategies.aggregation.aggregate_parts`.
    share_prototypes : bool, default False
        Send global prototypes, the weak modality and the client's ratio with every task.
    aggregation : Rule, optional
        How parts are merged: one of :mod:`strategies.robust`. With one, global imbalance ratios
        are medians as well. By default all are means weighted by samples.
    outlier_factor : float, default 10
        An update whose norm is beyond so many times the round's median is scaled down to it (see
        :mod:`strategies.federation.outliers`), an imbalance ratio beyond it is not counted; 0 or
        at least 1, and 0 looks at neither.

    Attributes
    ----------
    state : ServerState
        Everything the method remembers. ``state.arrays`` is the global model.
    frozen : frozenset of str
        Arrays that nobody trains: they are sent to clients, but not expected back.
    privacy : ClientPrivacy or None
        Clips and noises what clients send, once :meth:`protect` was called.
    attempt : int
        How often the round was tried before: another try draws other clients.
    fraction, min_clients : float, int
        Flower's rule where ``clients_per_round`` is None: a share of the connected clients,
        rounded down, but at least so many.

    Raises
    ------
    ValueError
        If ``clients_per_round`` is not positive, or ``outlier_factor`` is out of range.
    """

    #: What the accuracy is of, for those who watch.
    evaluated: ClassVar[str] = "the global model"

    #: Whether the method works on the columns ``head.weight.<modality>`` of a head such as ours.
    needs_linear_head: ClassVar[bool] = False

    #: Whether what one client trains reaches another.
    merges: ClassVar[bool] = True

    #: Of a method whose releases are all accounted for: whether it keeps what clients measure
    #: ("measuring"), or their averages alone ("averages"). Not inherited.
    private: ClassVar[Literal["averages", "measuring"]]

    #: What the clients of :meth:`configure_probe` are asked for.
    probes: ClassVar[Kind] = "measure"

    #: Whether each client is asked but once, when it is new: it is measured beside a round's
    #: training then, wherever there is somebody to train meanwhile.
    measures_once: ClassVar[bool] = False

    def __init__(
        self,
        clients_per_round: int | float | None = None,
        *,
        seed: int = 0,
        head_columns: Literal["own", "all"] = "own",
        share_prototypes: bool = False,
        aggregation: Rule | None = None,
        outlier_factor: float = OUTLIER_FACTOR.default,
    ) -> None:
        OUTLIER_FACTOR.check("outlier_factor", outlier_factor)
        if 0 < outlier_factor < 1:
            raise ValueError(f"outlier_factor is {outlier_factor}, it must be 0 or at least 1")
        if clients_per_round is not None and not clients_per_round > 0:
            raise ValueError(f"clients_per_round is {clients_per_round}, it must be above 0")
        self.clients_per_round = clients_per_round
        self.seed = seed
        self.head_columns: Literal["own", "all"] = head_columns
        self.share_prototypes = share_prototypes
        self.aggregation, self.outlier_factor = aggregation, outlier_factor
        self.fraction, self.min_clients = 1.0, 2
        self.frozen: frozenset[str] = frozenset()
        self.privacy: ClientPrivacy | None = None
        self.attempt = 0
        self.state = ServerState()
        self._shared: tuple[str | None, dict[str, Prototypes]] | None = None

    # --- what a method overrides -----------------------------------------------------------------

    def configure_fit(self, server_round: int, clients: Sequence[ClientInfo]) -> list[Assignment]:
        """Decide which clients train which of their modalities this round, and say why."""
        raise NotImplementedError

    def aggregate_fit(self, server_round: int, updates: Sequence[Update]) -> Arrays:
        """Merge what clients trained into the global model and the state.

        Parameters
        ----------
        server_round : int
            The round that ends with this call.
        updates : sequence of Update
            Valid answers, in any order.

        Returns
        -------
        dict
            The new global model, also kept as ``state.arrays``.
        """
        self._absorb(updates)
        self.state.arrays = self.aggregate(updates)
        self.state.round = server_round
        return self.state.arrays

    def aggregate(self, updates: Sequence[Update]) -> Arrays:
        """Return the new global model: merged part by part, by sample counts unless told else."""
        if self.privacy is not None:
            self.privacy.spend_round(self.state)
            return self.privacy.average(self.state.arrays, updates, self.frozen)
        return aggregate_parts(self.state.arrays, updates, self.head_columns, rule=self.aggregation)

    def configure_probe(self, server_round: int, clients: Sequence[ClientInfo]) -> list[Assignment]:
        """Return the clients to ask before selection; nobody, unless a method needs it."""
        return []

    def aggregate_probe(self, server_round: int, updates: Sequence[Update]) -> None:
        """Take over what probed clients measured; they have trained nothing."""
        if self.privacy is not None:
            self.privacy.spend_measuring(self.state)
        self._absorb(updates)

    def orders(self, server_round: int, assignment: Assignment, kind: Kind) -> Orders:
        """Return what one client is told; ``method_state`` is free for the method's objective."""
        told = Orders(kind, assignment.modalities, server_round, assignment.client_id)
        if not self.share_prototypes:
            return told
        weak, known = self.shared()
        training = kind == "train"
        return replace(
            told,
            measure_prototypes=True,
            weak=weak if training else None,
            ratio=1.0 if weak is None else self.ratio(assignment.client_id, weak),
            prototypes={m: known[m] for m in assignment.modalities if training and m in known},
        )

    def model_for(self, assignment: Assignment) -> Arrays:
        """Return the arrays that one client receives: just the parts that it needs."""
        return select_parts(self.state.arrays, assignment.modalities)

    # --- what a method may refine ----------------------------------------------------------------

    def unsupported(self, client: ClientInfo) -> str | None:
        """Say why the method cannot work with a client, or None; such a client is refused."""
        return None

    def check_model(self) -> None:
        """Refuse a model that the method cannot work with.

        Raises
        ------
        ValueError
            If the method needs a head such as ours and ``state.arrays`` has another.
        """
        columns = [f"head.weight.{m}" for m in self.state.modalities]
        if self.needs_linear_head and not set(columns) <= set(self.state.arrays):
            raise ValueError(
                f"{type(self).__name__} works on the columns of a linear head, '{columns[0]}' and "
                "so on, which this model has not: build it with "
                "bmsfed_app.models.MultiModalNetwork, or take another strategy"
            )

    def expected_arrays(self, modalities: Sequence[str]) -> Arrays:
        """Return the arrays that a client which trained ``modalities`` must answer with."""
        needed = select_parts(self.state.arrays, modalities)
        return {name: value for name, value in needed.items() if name not in self.frozen}

    def expected(self, orders: Orders) -> Expected:
        """Return what an answer to these orders may hold besides arrays; all else is refused."""
        return expected_of(orders, self.state.arrays, self.expected_measurements(orders))

    def expected_measurements(self, orders: Orders) -> Mapping[str, Shape] | None:
        """Return the names and shapes of the measurements that the method takes from an answer.

        None, of a method that does not say, lets any pass, in bounds.
        """
        return None

    def check_update(self, update: Update, kind: Kind) -> str | None:
        """Say what the method misses in an answer, or None; such an answer is left out."""
        return None

    def complete(self, update: Update, received: Arrays) -> None:
        """Add to an answer what a client that runs another app does not measure.

        Parameters
        ----------
        update : Update
            Its answer, with arrays, changed in place.
        received : dict
            The arrays that it was sent, of the same names.
        """

    def models(self) -> list[EvaluationModel]:
        """Return the models whose weighted mean accuracy counts: the global one."""
        state, absent = self.state, self.absent_logits()
        known = state.global_prototypes()
        return [EvaluationModel("", state.round, 1.0, state.arrays, known, absent)]

    def absent_logits(self) -> Arrays:
        """Return what a modality adds to the logits of a test sample that lacks it.

        By modality (K,), a constant per class; nothing of those that are not in it, as of all by
        default: they count as a zero block.
        """
        return {}

    # --- what methods have in common -------------------------------------------------------------

    def task(self, server_round: int, assignment: Assignment, kind: Kind = "train") -> Task:
        """Return all that one client receives."""
        orders = self.orders(server_round, assignment, kind)
        return Task(orders, self.model_for(assignment))

    def shared(self) -> tuple[str | None, dict[str, Prototypes]]:
        """Return weak modality and global prototypes (Eqs. 15, 18), computed once a round."""
        if self._shared is None:
            self._shared = self.weak_modality(), self.state.global_prototypes()
        return self._shared

    def global_ratios(self) -> dict[str, float]:
        """Return the global imbalance ratios (Eq. 18), of which none can be turned by a few."""
        return self.state.global_ratios(self.outlier_factor, self.aggregation is not None)

    def weak_modality(self) -> str | None:
        """Return the globally weak modality: the one of the largest ratio; None if unknown."""
        return weakest(self.global_ratios())

    def draw(self, purpose: str, server_round: int) -> np.random.Generator:
        """Return a generator for one purpose in this try of a round."""
        again = (self.attempt,) if self.attempt else ()
        return generator(self.seed, purpose, server_round, *again)

    def ratio(self, client_id: str, modality: str) -> float:
        """Return a client's last known imbalance ratio of a modality; 1 where none is."""
        return self.state.ratios.get(client_id, {}).get(modality, 1.0)

    def resolve_clients_per_round(self, available: int) -> int:
        """Return this round's number of clients among ``available``."""
        wanted = self.clients_per_round
        if wanted is None:
            return min(max(int(self.fraction * available), self.min_clients), available)
        if wanted >= 1:
            return min(int(wanted), available)
        return min(max(math.ceil(wanted * available), 2), available)

    def protect(self, budget: Budget, rng: np.random.Generator | None = None) -> None:
        """Clip and noise what clients send; see :class:`strategies.privacy.ClientPrivacy`.

        Raises
        ------
        ValueError
            If no guarantee is known for the method.
        """
        check_accounted(type(self), self.head_columns)
        measuring = self.private == "measuring" or self.share_prototypes
        self.privacy = ClientPrivacy(budget, measuring=measuring, rng=rng)

    def start_from(self, initial: Arrays | ServerState, frozen: Collection[str] = ()) -> None:
        """Begin with a model by state-dict name, or go on from a saved state.

        Raises
        ------
        ValueError
            If ``frozen`` names an array that the model has not.
        """
        self.state = initial if isinstance(initial, ServerState) else ServerState(arrays=initial)
        if unknown := sorted(set(frozen) - set(self.state.arrays)):
            raise ValueError(f"the model has no array '{unknown[0]}' to freeze")
        self.frozen = frozenset(frozen)
        self._shared = None
        if self.privacy is not None:
            self.privacy.resume(self.state)

    def forget_shared(self) -> None:
        """Compute anew what follows from the state: it was put back."""
        self._shared = None

    def forget(self, client_id: str, *, measured_only: bool = False) -> None:
        """Drop what is remembered of a client: see :meth:`strategies.ServerState.forget`."""
        self.state.forget(client_id, measured_only=measured_only)
        self._shared = None

    def _absorb(self, updates: Sequence[Update]) -> None:
        for update in sorted(updates, key=lambda u: u.client_id):
            self.state.absorb(update if self.privacy is None else self.privacy.measured(update))
        self._shared = None


def whole(client: ClientInfo, **reasons: object) -> Assignment:
    """Let a client train all that it holds."""
    return Assignment(client.client_id, client.modalities, {"role": "multi", **reasons})

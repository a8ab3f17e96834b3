"""``ModalityStrategy``: one federated round, whatever the method decides.

A method overrides :meth:`ModalityStrategy.configure_fit` (who trains what) and, where it must,
:meth:`ModalityStrategy.aggregate_fit`. Both are free of transport: they take and return plain
dataclasses of numpy arrays. Three ways carry them over Flower: :meth:`ModalityStrategy.run` with
clients of this app, :meth:`~strategies.message.MessageStrategy.start` with anybody's ClientApps,
and :mod:`strategies.classic` for Flower's older interface.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Unpack

from flwr.serverapp import Grid

from .aggregation import aggregate_parts
from .callbacks import Callback
from .loop import FederatedRun
from .message import FlowerOptions, MessageStrategy
from .protocol import Arrays, Assignment, ClientInfo, Prototypes, Task, Update, select_parts
from .state import ServerState
from .transport import GridTransport, Interrupted


@dataclass(frozen=True)
class EvaluationModel:
    """One model that a strategy's accuracy is made of.

    Attributes
    ----------
    name : str
        Whose model it is.
    version : int
        The round it is from: a model of the same name and version need not be evaluated again.
    weight : float
        Of its accuracy in the mean over all models.
    arrays : dict
        The model by state-dict name; it may lack modalities.
    prototypes : dict
        Prototypes of training data by modality.
    """

    name: str
    version: int
    weight: float
    arrays: Arrays
    prototypes: dict[str, Prototypes]


class StrategyOptions(FlowerOptions, total=False):
    """Keywords that every strategy hands on to :class:`ModalityStrategy`."""

    seed: int
    head_columns: Literal["own", "all"]
    app_version: str | None


class ModalityStrategy(MessageStrategy):
    """Base of all strategies: the round, with decisions left to the method.

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
    app_version : str, optional
        If given, nodes that run another version are refused with a message that says so.
    **flower
        For use in other Flower projects: see :class:`strategies.message.MessageStrategy`.

    Attributes
    ----------
    state : ServerState
        Everything the strategy remembers. ``state.arrays`` is the global model: set it before
        the first round, or pass it to :meth:`run`.
    picks : list of dict
        What was behind each pick of the last :meth:`configure_fit`.

    Raises
    ------
    ValueError
        If ``clients_per_round`` is not positive.
    """

    #: What the accuracy is of, for those who watch.
    evaluated: ClassVar[str] = "the global model"

    #: Whether the method works on the columns ``head.weight.<modality>`` of a head such as ours.
    needs_linear_head: ClassVar[bool] = False

    def __init__(
        self,
        clients_per_round: int | float | None = None,
        *,
        seed: int = 0,
        head_columns: Literal["own", "all"] = "own",
        share_prototypes: bool = False,
        app_version: str | None = None,
        **flower: Unpack[FlowerOptions],
    ) -> None:
        super().__init__(**flower)
        if clients_per_round is not None and not clients_per_round > 0:
            raise ValueError(f"clients_per_round is {clients_per_round}, it must be above 0")
        self.clients_per_round = clients_per_round
        self.seed = seed
        self.head_columns: Literal["own", "all"] = head_columns
        self.share_prototypes = share_prototypes
        self.app_version = app_version
        self.state = ServerState()
        self.picks: list[dict[str, Any]] = []
        self._shared: tuple[str | None, dict[str, Prototypes]] | None = None

    # --- decisions: what a method overrides ------------------------------------------------------

    def configure_fit(self, server_round: int, clients: Sequence[ClientInfo]) -> list[Assignment]:
        """Decide which clients train which of their modalities this round."""
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
        for update in sorted(updates, key=lambda u: u.client_id):
            self.state.absorb(update)
        self._shared = None
        self.state.arrays = self.aggregate(updates)
        self.state.round = server_round
        return self.state.arrays

    def aggregate(self, updates: Sequence[Update]) -> Arrays:
        """Return the new global model: averages by sample counts, part by part."""
        return aggregate_parts(self.state.arrays, updates, self.head_columns)

    def configure_probe(self, server_round: int, clients: Sequence[ClientInfo]) -> list[Assignment]:
        """Return the clients to measure before selection; nobody, unless a method needs it."""
        return []

    def aggregate_probe(self, server_round: int, updates: Sequence[Update]) -> None:
        """Take over what probed clients measured; they have trained nothing."""
        for update in sorted(updates, key=lambda u: u.client_id):
            self.state.absorb(update)
        self._shared = None

    def task(self, server_round: int, assignment: Assignment, *, probe: bool = False) -> Task:
        """Return what one client is sent: just the parts that it needs.

        ``settings["method_state"]`` is free for what the method's local objective must know.
        """
        arrays = select_parts(self.state.arrays, assignment.modalities)
        task = Task(assignment.modalities, arrays)
        if self.share_prototypes:
            weak, known = self.shared()
            task.settings = {"prototypes": True, "weak": None if probe else weak}
            if weak is not None:
                task.settings["ratio"] = self.ratio(assignment.client_id, weak)
            if not probe:
                task.prototypes = {m: known[m] for m in assignment.modalities if m in known}
        return task

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
        return select_parts(self.state.arrays, modalities)

    def check_update(self, update: Update, *, probe: bool) -> str | None:
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
        state = self.state
        return [EvaluationModel("", state.round, 1.0, state.arrays, state.global_prototypes())]

    def shared(self) -> tuple[str | None, dict[str, Prototypes]]:
        """Return weak modality and global prototypes (Eqs. 15, 18), computed once a round."""
        if self._shared is None:
            self._shared = self.state.weak_modality(), self.state.global_prototypes()
        return self._shared

    def ratio(self, client_id: str, modality: str) -> float:
        """Return a client's last known imbalance ratio of a modality; 1 where none is."""
        return self.state.ratios.get(client_id, {}).get(modality, 1.0)

    def resolve_clients_per_round(self, available: int) -> int:
        """Return this round's number of clients among ``available``."""
        wanted = self.clients_per_round
        if wanted is None:  # flwr's rule
            return min(max(int(self.fraction_train * available), self.min_train_nodes), available)
        if wanted >= 1:
            return min(int(wanted), available)
        return min(max(math.ceil(wanted * available), 2), available)

    # --- the loop with clients of this app -------------------------------------------------------

    def run(
        self,
        grid: Grid,
        initial: Arrays | ServerState,
        *,
        num_rounds: int,
        settings: Mapping[str, Any] | None = None,
        round_settings: Callable[[int], Mapping[str, Any]] | None = None,
        callbacks: Sequence[Callback] = (),
        min_clients: int = 1,
        connect_timeout: float = 120.0,
        timeout: float = 3600.0,
        stop: threading.Event | None = None,
    ) -> ServerState:
        """Run the federation until ``num_rounds`` rounds are complete.

        Parameters
        ----------
        grid : Grid
            Flower's grid.
        initial : dict or ServerState
            The initial model by state-dict name, or a saved state to go on from.
        num_rounds : int
            The last round's number.
        settings : mapping, optional
            JSON values sent with every message.
        round_settings : callable, optional
            Further JSON values by round, e.g. the learning rate.
        callbacks : sequence of Callback, optional
            Hooks, called in this order.
        min_clients : int, default 1
            Clients to wait for before the first round.
        connect_timeout : float, default 120
            Seconds to wait for them, and for a node to say who it is; one that stays silent is
            left out until it connects anew.
        timeout : float, default 3600
            Seconds to wait for a round's answers.
        stop : threading.Event, optional
            Ends the federation at the next look, keeping the last complete round.

        Returns
        -------
        ServerState
            The state after the last complete round.

        Raises
        ------
        FederationError
            If no client could be enrolled, selected or used in a round.
        """
        self.state = initial if isinstance(initial, ServerState) else ServerState(arrays=initial)
        self._shared = None
        run = FederatedRun(
            self,
            GridTransport(grid),
            dict(settings or {}),
            callbacks,
            timeout,
            connect_timeout,
            stop,
        )
        error: BaseException | None = None
        try:
            for callback in callbacks:
                callback.on_start(self, num_rounds)
            run.wait_for(min_clients)
            for server_round in range(self.state.round + 1, num_rounds + 1):
                report = run.round(server_round, dict((round_settings or _nothing)(server_round)))
                # Every callback sees the round, also after one of them asked to stop.
                wishes = [callback.after_round(self, report) for callback in callbacks]
                if any(wishes):
                    break
        except Interrupted as interrupted:
            error = interrupted
        except BaseException as raised:
            error = raised
            raise
        finally:
            for callback in callbacks:
                callback.on_end(self, error)
        return self.state


def _nothing(_: int) -> Mapping[str, Any]:
    return {}

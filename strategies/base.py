"""``ModalityStrategy``: a method's decisions, carried over Flower.

A method overrides :meth:`~strategies.decisions.Decisions.configure_fit` (who trains what) and,
where it must, what else :class:`~strategies.decisions.Decisions` has. Three ways carry it over
Flower: :meth:`ModalityStrategy.run` with clients of this app, ``start`` (Flower's own loop) with
anybody's ClientApps, and :mod:`strategies.classic` for Flower's older interface.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Unpack

from flwr.serverapp import Grid

from .callbacks import Callback, RoundReport, tell_end
from .decisions import OUTLIER_FACTOR, Decisions
from .federation.attempts import complete
from .federation.client_tests import have_clients_test
from .federation.dialects import Native
from .federation.flower import FlowerOptions, FlowerStrategy
from .federation.loop import FederatedRun
from .federation.registrar import Dialects
from .federation.transport import GridTransport, Interrupted
from .federation.waiting import Patience, Waiting
from .messages import Arrays
from .robust import Rule
from .state import ServerState


class StrategyOptions(FlowerOptions, total=False):
    """Keywords that every strategy hands on to :class:`ModalityStrategy`."""

    seed: int
    head_columns: Literal["own", "all"]
    aggregation: Rule | None
    outlier_factor: float
    app_version: str | None


class ModalityStrategy(Decisions, FlowerStrategy):
    """Base of all strategies: decisions that are left to the method, and all of Flower's interface.

    Parameters
    ----------
    clients_per_round, seed, head_columns, share_prototypes, aggregation, outlier_factor
        What is decided by: see :class:`strategies.decisions.Decisions`.
    app_version : str, optional
        If given, nodes that run another version are refused with a message that says so.
    **flower
        For use in other Flower projects: see
        :class:`strategies.federation.flower.FlowerStrategy`.

    Attributes
    ----------
    state : ServerState
        Everything the strategy remembers. ``state.arrays`` is the global model: set it before
        the first round, or pass it to :meth:`run`.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """

    def __init__(
        self,
        clients_per_round: int | float | None = None,
        *,
        seed: int = 0,
        head_columns: Literal["own", "all"] = "own",
        share_prototypes: bool = False,
        aggregation: Rule | None = None,
        outlier_factor: float = OUTLIER_FACTOR.default,
        app_version: str | None = None,
        **flower: Unpack[FlowerOptions],
    ) -> None:
        Decisions.__init__(
            self,
            clients_per_round,
            seed=seed,
            head_columns=head_columns,
            share_prototypes=share_prototypes,
            aggregation=aggregation,
            outlier_factor=outlier_factor,
        )
        FlowerStrategy.__init__(self, self, app_version=app_version, **flower)

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
        waiting: Waiting = Waiting(),  # noqa: B008  (frozen)
        frozen: Collection[str] = (),
        authenticated: bool | None = None,
        test_every: int = 0,
    ) -> ServerState:
        """Run the federation until ``num_rounds`` rounds are complete, with clients of this app.

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
        waiting : Waiting, optional
            What is done about clients that are slow or gone.
        frozen : collection of str, optional
            Arrays that clients do not train: they are sent, but not expected back, and stay as
            they are. An answer that holds one is left out.
        authenticated : bool, optional
            Whether the SuperLink knows its nodes by their keys, so that each client id belongs to
            the key that first came with it; by default it is seen from how nodes register.
        test_every : int, default 0
            Rounds between tests by all clients on the samples that they hold out (``holdout``
            among the settings), after the last one as well; 0: none.

        Returns
        -------
        ServerState
            The state after the last complete round.

        Raises
        ------
        FederationError
            If no client could be enrolled, selected or used in a round; its subclass ``Paused``
            if those that a round needs have been gone for too long.
        ValueError
            If ``frozen`` names an array that the model has not.
        """
        self.start_from(initial, frozen)
        native = Native(dict(settings or {}))
        federation = FederatedRun(
            self,
            GridTransport(grid, waiting.clock),
            Dialects(native),
            app_version=self.app_version,
            callbacks=callbacks,
            patience=Patience(timeout, connect_timeout, stop or threading.Event(), waiting),
            authenticated=authenticated,
        )

        def came_to_nothing(report: RoundReport) -> bool:
            """Tell the callbacks of a try of a round."""
            wishes = [callback.after_failure(self, report) for callback in callbacks]
            return any(wishes)

        error: BaseException | None = None
        try:
            for callback in callbacks:
                callback.on_start(self, num_rounds)
            federation.wait_for(min_clients)
            for server_round in range(self.state.round + 1, num_rounds + 1):
                native.settings |= (round_settings or _nothing)(server_round)
                last = server_round == num_rounds
                testing = test_every and (server_round % test_every == 0 or last)
                before = self.state.snapshot() if testing else None
                report = complete(federation, server_round, came_to_nothing)
                if report is None:
                    break
                if before is not None:
                    have_clients_test(federation, report, before)
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
            tell_end(callbacks, self, error, failed=not isinstance(error, Interrupted | None))
        return self.state


def _nothing(_: int) -> Mapping[str, Any]:
    return {}

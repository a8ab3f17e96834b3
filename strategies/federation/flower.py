"""flwr's Message API: every strategy is a ``flwr.serverapp.strategy.Strategy`` as well.

``BMSFed(...).start(grid, initial_arrays, num_rounds=…)`` runs Flower's own loop, so that what wraps
a strategy there (differential privacy) or a client (mods) wraps ours too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, TypedDict, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg as StockFedAvg
from flwr.serverapp.strategy import Strategy

from ..callbacks import RoundReport
from ..decisions import Decisions
from .dialects import Keys
from .loop import OpenRound
from .parts import Patterns
from .session import Session
from .transport import Answer, GridTransport, read_reply
from .wire import array_record, decode_arrays

log = logging.getLogger("flwr")

#: How a metric function of flwr looks: contents of the answers and the weight's key.
MetricsFn = Callable[[list[RecordDict], str], MetricRecord]


class FlowerOptions(TypedDict, total=False):
    """Keywords of :class:`FlowerStrategy`, which every strategy takes."""

    parts: Patterns | None
    fraction_train: float
    fraction_evaluate: float
    min_train_nodes: int
    min_evaluate_nodes: int
    min_available_nodes: int
    weighted_by_key: str
    arrayrecord_key: str
    configrecord_key: str
    train_metrics_aggr_fn: MetricsFn | None
    evaluate_metrics_aggr_fn: MetricsFn | None
    loss_key: str
    send_whole_model: bool


class FlowerStrategy(Strategy):
    """Any selection and aggregation as a strategy of Flower's Message API.

    Arguments that flwr's own strategies have mean what they mean there. Clients run the user's own
    ClientApp; with :class:`strategies.client.ModalityMod` they say what they hold and receive only
    the parts that they need. A client without it is served as one that holds everything.

    Parameters
    ----------
    decisions : Decisions
        Decides and averages.
    app_version : str, optional
        If given, clients of our app that run another version are refused.
    parts : mapping of str to str or list of str, optional
        The model's parameters by part, such as
        ``{"image": "vision.*", "text": "bert.*", "head": "classifier.*"}``; see :class:`Parts`.
        Without it, names must be ``encoders.<modality>.…``.
    fraction_train : float, default 1.0
        Share of the connected clients that train, rounded down, at least ``min_train_nodes``;
        ``clients_per_round`` overrides it.
    fraction_evaluate : float, default 1.0
        Share that evaluates the whole model after each round; 0 for none.
    min_train_nodes, min_evaluate_nodes, min_available_nodes : int, default 2
        Least numbers of clients that train, evaluate, and must be connected.
    weighted_by_key, arrayrecord_key, configrecord_key : str
        Keys in messages, by default ``"num-examples"``, ``"arrays"``, ``"config"``.
    train_metrics_aggr_fn, evaluate_metrics_aggr_fn : callable, optional
        Combine the answers' metrics; by default their weighted means, each metric's over the
        clients that report it.
    loss_key : str, default "eval_loss"
        The metric of a client's evaluation that is its loss (for pow-d).
    send_whole_model : bool, default False
        Send everybody the whole model and expect the whole model back; only the parts assigned
        are taken over. Wrappers need it that compare an answer with the global model, such as
        flwr's differential privacy with clipping on the server.

    Raises
    ------
    ValueError
        If a number is out of its range.
    """

    def __init__(
        self,
        decisions: Decisions,
        *,
        app_version: str | None = None,
        parts: Patterns | None = None,
        fraction_train: float = 1.0,
        fraction_evaluate: float = 1.0,
        min_train_nodes: int = 2,
        min_evaluate_nodes: int = 2,
        min_available_nodes: int = 2,
        weighted_by_key: str = "num-examples",
        arrayrecord_key: str = "arrays",
        configrecord_key: str = "config",
        train_metrics_aggr_fn: MetricsFn | None = None,
        evaluate_metrics_aggr_fn: MetricsFn | None = None,
        loss_key: str = "eval_loss",
        send_whole_model: bool = False,
    ) -> None:
        if not 0 < fraction_train <= 1:
            raise ValueError(f"fraction_train is {fraction_train}, it must be above 0, at most 1")
        self.decisions, self.app_version, self.patterns = decisions, app_version, parts
        decisions.fraction, decisions.min_clients = fraction_train, min_train_nodes
        keys = Keys(arrayrecord_key, configrecord_key, weighted_by_key, loss_key)
        self.session = Session(
            decisions, parts, keys, whole=send_whole_model, app_version=app_version
        )
        self._flwr = {
            "fraction_evaluate": fraction_evaluate,
            "min_train_nodes": min_train_nodes,
            "min_evaluate_nodes": min_evaluate_nodes,
            "min_available_nodes": min_available_nodes,
            "weighted_by_key": weighted_by_key,
            "arrayrecord_key": arrayrecord_key,
            "configrecord_key": configrecord_key,
            "train_metrics_aggr_fn": train_metrics_aggr_fn or mean_metrics,
            "evaluate_metrics_aggr_fn": evaluate_metrics_aggr_fn or mean_metrics,
        }

    @property
    def report(self) -> RoundReport | None:
        """The last complete round: who trained what, and the reasons (``report.picks``)."""
        return self.session.report

    @cached_property
    def stock(self) -> StockFedAvg:
        """flwr's own strategy with the same arguments: evaluation and metrics are its."""
        return StockFedAvg(**cast(Any, self._flwr))

    # --- flwr's interface ------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Select modalities of clients, and make each client's message.

        In between, clients that are new say who they are, and are measured where the method
        needs it.

        Parameters
        ----------
        server_round : int
            From 1.
        arrays : ArrayRecord
            The global model; what was aggregated before is forgotten in its favour.
        config : ConfigRecord
            Sent to every client, with ``server-round``, ``modalities`` and ``probe`` added.
        grid : Grid
            Reaches the clients.

        Raises
        ------
        ValueError
            If the model's names do not fit the parts, or have changed.
        FederationError
            If no client can be selected.
        """
        self.session.accept(decode_arrays(arrays))
        self._wait(grid)
        opened = self.session.open(server_round, dict(config), grid, GridTransport)
        return [Message(c, node, kind) for node, (kind, c) in opened.outgoing.items()]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average every part over the clients that trained it.

        Answers that cannot be used are left out, each with a warning that says why; if none can,
        the model stays as it is.
        """
        answers: dict[str, Answer] = {}

        def read(opened: OpenRound) -> dict[int, Answer]:
            """Answers by node id, kept by client id for their metrics."""
            by_node = {r.metadata.src_node_id: read_reply(r, Answer(None)) for r in replies}
            names = {s.node_id: s.assignment.client_id for s in opened.sent}
            answers.update({names[n]: a for n, a in by_node.items() if n in names})
            return by_node

        report = self.session.close(read)
        if report is None:
            return None, None
        used = [answers[c.client_id].content for c in report.trained]
        stock = self.stock
        metrics = stock.train_metrics_aggr_fn(
            [c for c in used if c is not None], stock.weighted_by_key
        )
        return array_record(self.session.arrays()), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the whole model to a sample of the clients, as flwr's FedAvg does."""
        return self.stock.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Average the clients' metrics, as flwr's FedAvg does."""
        return self.stock.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Log what the strategy is."""
        stock = self.stock
        per_round = self.decisions.clients_per_round or f"{self.decisions.fraction:.2f} of all"
        log.info("\t├──> Clients per round: %s", per_round)
        log.info("\t├──> Minimum available nodes: %d", stock.min_available_nodes)
        for part, patterns in (self.patterns or {"<modality>": "encoders.<modality>.*"}).items():
            log.info("\t├──> Part '%s': %s", part, patterns)
        log.info("\t└──> Weighted by: '%s'", stock.weighted_by_key)

    def _wait(self, grid: Grid) -> None:
        """Wait for enough nodes, saying so, as flwr's own strategies do."""
        least = self.stock.min_available_nodes
        while (connected := len(list(grid.get_node_ids()))) < least:
            log.info(
                "Waiting for nodes to connect: %d connected (minimum required: %d).",
                connected,
                least,
            )
            time.sleep(1)


def mean_metrics(contents: list[RecordDict], weighted_by_key: str) -> MetricRecord:
    """Weighted mean of every metric over the clients that report it.

    flwr's own divides by everybody's weight, which is wrong for what only some report, such as the
    score of a modality that others do not hold. Lists are averaged elementwise.
    """
    sums: dict[str, Any] = {}
    weights: dict[str, float] = {}
    for content in contents:
        metrics = {k: v for r in content.metric_records.values() for k, v in r.items()}
        weight = metrics.pop(weighted_by_key, 0)
        if not isinstance(weight, int | float) or weight <= 0:
            continue
        for key, value in metrics.items():
            sums[key] = sums.get(key, 0.0) + weight * np.asarray(value, np.float64)
            weights[key] = weights.get(key, 0.0) + weight
    return MetricRecord({key: (total / weights[key]).tolist() for key, total in sums.items()})

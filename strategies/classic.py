"""Flower's classic interface: the same strategies as ``flwr.server.strategy.Strategy``.

A ``NumPyClient`` learns from ``config`` what to do, gets the arrays it needs as a list, and returns
a list of the same arrays. It says who it is by ``get_properties``::

    class Client(NumPyClient):
        def get_properties(self, config):
            return {"client-id": "alice", "modalities": "image,text", "num-samples": 600}

        def fit(self, parameters, config):
            modalities = config["modalities"].split(",")  # what to train
            names = json.loads(config["names"])           # whose parameters these are
            ...
            return parameters, num_examples, {}

or leaves both to :class:`strategies.client.ModalityMod` and always handles the whole list. A client
that does neither is served as one that holds everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

from flwr.common import (
    FitIns,
    FitRes,
    Parameters,
    Scalar,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.server import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg as StockFedAvg

import strategies as core

from .base import ModalityStrategy
from .classic_transport import ClassicTransport, fit_answer, fit_instructions
from .loop import FederatedRun, FederationError, OpenRound, log
from .parts import Parts, Patterns

#: Arguments of ``flwr.server.strategy.FedAvg`` that mean here what they mean there.
_FLOWER = (
    "fraction_fit",
    "fraction_evaluate",
    "min_fit_clients",
    "min_evaluate_clients",
    "min_available_clients",
    "evaluate_fn",
    "on_fit_config_fn",
    "on_evaluate_config_fn",
    "accept_failures",
    "initial_parameters",
    "fit_metrics_aggregation_fn",
    "evaluate_metrics_aggregation_fn",
)


class ClassicStrategy(StockFedAvg):
    """A strategy of this package behind Flower's classic interface.

    Parameters
    ----------
    names : sequence of str
        The model's parameter names in the order of the parameter lists, such as
        ``list(model.state_dict())``.
    parts : mapping, optional
        As for :class:`strategies.message.MessageStrategy`.
    **options
        Those of ``flwr.server.strategy.FedAvg`` (``fraction_fit``, ``min_available_clients``,
        ``on_fit_config_fn``, …; not ``inplace``), and those of the method of the same name in
        :mod:`strategies`, such as ``clients_per_round``, ``seed``, ``threshold``.

    Attributes
    ----------
    method : ModalityStrategy
        Decides and averages; ``method.picks`` says what was behind each pick.

    Raises
    ------
    ValueError, TypeError
        If names and parts do not fit, or an argument is out of range or unknown.
    """

    core: ClassVar[Callable[..., ModalityStrategy]]

    def __init__(
        self, names: Sequence[str], *, parts: Patterns | None = None, **options: Any
    ) -> None:
        flower = {key: options.pop(key) for key in _FLOWER if key in options}
        super().__init__(**flower)
        self.parts = Parts(names, parts)
        self.method = type(self).core(
            parts=parts,
            fraction_train=self.fraction_fit,
            min_train_nodes=self.min_fit_clients,
            **options,
        )
        self._run: FederatedRun | None = None
        self._open: OpenRound | None = None

    def __repr__(self) -> str:
        """Name the strategy, for Flower's log."""
        return f"classic.{type(self).__name__}({list(self.parts.modalities)})"

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Select modalities of clients; each receives the arrays that it needs.

        Raises
        ------
        ValueError
            If the parameters are not as many as the names.
        FederationError
            If no client can be selected.
        """
        run = self._begin(parameters, client_manager)
        config = self.on_fit_config_fn(server_round) if self.on_fit_config_fn else {}
        run.config = dict(config)
        client_manager.wait_for(self.min_available_clients, timeout=86400)  # flwr's default
        run.enrol(server_round)
        run.check_setting()
        self._open = run.open(server_round, {})
        log.info("configure_fit: %s", self._open.summary())
        transport = cast(ClassicTransport, run.transport)
        return [
            (transport.proxies[node], fit_instructions(content))
            for node, (_, content) in self._open.sent.outgoing.items()
        ]

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        """Average every part over the clients that trained it.

        Answers that cannot be used are left out, each with a warning that says why.
        """
        opened, run = self._open, self._run
        if opened is None or run is None:
            raise FederationError("aggregate_fit was called before configure_fit")
        self._open = None
        if not self.accept_failures and failures:
            return None, {}
        transport = cast(ClassicTransport, run.transport)
        nodes = {id(proxy): node for node, proxy in transport.proxies.items()}
        answers = {}
        for proxy, result in results:
            node = nodes[id(proxy)]
            answers[node] = fit_answer(result, opened.sent.outgoing[node][1], run.keys)
        for failure in failures:
            log.warning("aggregate_fit: a client failed: %s", failure)
        try:
            report = run.close(opened, answers)
        except FederationError as error:
            log.warning("aggregate_fit: %s", error)
            return None, {}
        metrics: dict[str, Scalar] = {}
        if self.fit_metrics_aggregation_fn:
            used = [(c.num_samples, dict(c.metrics)) for c in report.clients if c.phase == "train"]
            metrics = self.fit_metrics_aggregation_fn(
                [(n, cast(dict[str, Scalar], m)) for n, m in used]
            )
        arrays = self.parts.outside(self.method.state.arrays)
        return ndarrays_to_parameters(list(arrays.values())), metrics

    def _begin(self, parameters: Parameters, client_manager: ClientManager) -> FederatedRun:
        arrays = parameters_to_ndarrays(parameters)
        if len(arrays) != len(self.parts.names):
            raise ValueError(
                f"the model has {len(arrays)} arrays, but {len(self.parts.names)} names were given "
                f"to {type(self).__name__}: pass names=list(model.state_dict()) of the same model"
            )
        model = dict(zip(self.parts.names, arrays, strict=True))
        if self._run is None:
            self._run = FederatedRun(self.method, ClassicTransport(client_manager))
            self._run.parts = self.parts
        self.method.state.arrays = self.parts.inside(model)
        self.method.check_model()
        return self._run


class FedAvg(ClassicStrategy):
    """:class:`strategies.FedAvg` on the classic interface."""

    core = core.FedAvg


class BMSFed(ClassicStrategy):
    """:class:`strategies.BMSFed` on the classic interface."""

    core = core.BMSFed


class DivFL(ClassicStrategy):
    """:class:`strategies.DivFL` on the classic interface."""

    core = core.DivFL


class PowerOfChoice(ClassicStrategy):
    """:class:`strategies.PowerOfChoice` on the classic interface; ``evaluate`` gives the loss."""

    core = core.PowerOfChoice


class RandomModality(ClassicStrategy):
    """:class:`strategies.RandomModality` on the classic interface."""

    core = core.RandomModality


class ModalityDropout(ClassicStrategy):
    """:class:`strategies.ModalityDropout` on the classic interface."""

    core = core.ModalityDropout


class LocalTraining(ClassicStrategy):
    """:class:`strategies.LocalTraining` on the classic interface."""

    core = core.LocalTraining


class AGM(ClassicStrategy):
    """:class:`strategies.AGM` on the classic interface."""

    core = core.AGM


class GBlending(ClassicStrategy):
    """:class:`strategies.GBlending` on the classic interface."""

    core = core.GBlending


class FedMSplit(ClassicStrategy):
    """:class:`strategies.FedMSplit` on the classic interface."""

    core = core.FedMSplit


class FedNH(ClassicStrategy):
    """:class:`strategies.FedNH` on the classic interface."""

    core = core.FedNH


class FedPAC(ClassicStrategy):
    """:class:`strategies.FedPAC` on the classic interface."""

    core = core.FedPAC


__all__ = [
    "AGM",
    "BMSFed",
    "ClassicStrategy",
    "DivFL",
    "FedAvg",
    "FedMSplit",
    "FedNH",
    "FedPAC",
    "GBlending",
    "LocalTraining",
    "ModalityDropout",
    "PowerOfChoice",
    "RandomModality",
]

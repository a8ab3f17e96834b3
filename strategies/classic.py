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

import logging
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
from .callbacks import RoundReport
from .federation.classic_transport import ClassicTransport, fit_answer, fit_instructions
from .federation.loop import OpenRound
from .federation.parts import Parts, Patterns
from .federation.transport import Answer
from .messages import Arrays

log = logging.getLogger("flwr")

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

#: Arguments of the Message API that mean nothing here, and what stands for them.
_OF_MESSAGES = {
    "fraction_train": "fraction_fit",
    "min_train_nodes": "min_fit_clients",
    "min_evaluate_nodes": "min_evaluate_clients",
    "min_available_nodes": "min_available_clients",
    "train_metrics_aggr_fn": "fit_metrics_aggregation_fn",
    "evaluate_metrics_aggr_fn": "evaluate_metrics_aggregation_fn",
    "arrayrecord_key": None,
    "configrecord_key": None,
}


class ClassicStrategy(StockFedAvg):
    """A strategy of this package behind Flower's classic interface.

    Parameters
    ----------
    names : sequence of str
        The model's parameter names in the order of the parameter lists, such as
        ``list(model.state_dict())``.
    parts : mapping, optional
        As for :class:`strategies.federation.flower.FlowerStrategy`.
    **options
        Those of ``flwr.server.strategy.FedAvg`` (``fraction_fit``, ``min_available_clients``,
        ``on_fit_config_fn``, …; not ``inplace``), and those of the method of the same name in
        :mod:`strategies`, such as ``clients_per_round``, ``seed``, ``threshold``.

    Attributes
    ----------
    method : ModalityStrategy
        Decides and averages; ``report.picks`` says what was behind each pick of the last round.

    Raises
    ------
    ValueError, TypeError
        If names and parts do not fit, or an argument is out of range or unknown.
    """

    core: ClassVar[Callable[..., ModalityStrategy]]

    def __init__(
        self, names: Sequence[str], *, parts: Patterns | None = None, **options: Any
    ) -> None:
        if foreign := [key for key in options if key in _OF_MESSAGES]:
            instead = _OF_MESSAGES[foreign[0]]
            remedy = f"use {instead}" if instead else "leave it out, messages have no records here"
            raise TypeError(f"{foreign[0]} is an argument of Flower's Message API: {remedy}")
        flower = {key: options.pop(key) for key in _FLOWER if key in options}
        super().__init__(**flower)
        self.parts = Parts(names, parts)
        self._transport: ClassicTransport | None = None
        self.method = type(self).core(
            parts=parts,
            fraction_train=self.fraction_fit,
            min_train_nodes=self.min_fit_clients,
            **options,
        )
        self.method.session.parts = self.parts

    def __repr__(self) -> str:
        """Name the strategy, for Flower's log."""
        return f"classic.{type(self).__name__}({list(self.parts.modalities)})"

    @property
    def report(self) -> RoundReport | None:
        """The last complete round: who trained what, and the reasons (``report.picks``)."""
        return self.method.report

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
        config = self.on_fit_config_fn(server_round) if self.on_fit_config_fn else {}
        self.method.session.accept(self._model(parameters))
        client_manager.wait_for(self.min_available_clients, timeout=86400)  # flwr's default
        opened = self.method.session.open(server_round, config, client_manager, self._reach)
        proxies = self._proxies
        return [(proxies[n], fit_instructions(c)) for n, (_, c) in opened.outgoing.items()]

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        """Average every part over the clients that trained it.

        Answers that cannot be used are left out, each with a warning that says why.
        """
        if not self.accept_failures and failures:
            return None, {}
        for failure in failures:
            log.warning("aggregate_fit: a client failed: %s", failure)

        def read(opened: OpenRound) -> dict[int, Answer]:
            """Answers by node id."""
            nodes = {id(proxy): node for node, proxy in self._proxies.items()}
            sent = {node: content for node, (_, content) in opened.outgoing.items()}
            return {(n := nodes[id(proxy)]): fit_answer(r, sent[n]) for proxy, r in results}

        report = self.method.session.close(read)
        if report is None:
            return None, {}
        metrics: dict[str, Scalar] = {}
        if self.fit_metrics_aggregation_fn:
            used = [(c.num_samples, cast(dict[str, Scalar], c.metrics)) for c in report.trained]
            metrics = self.fit_metrics_aggregation_fn(used)
        return ndarrays_to_parameters(list(self.method.session.arrays().values())), metrics

    def _reach(self, client_manager: ClientManager) -> ClassicTransport:
        self._transport = ClassicTransport(client_manager)
        return self._transport

    @property
    def _proxies(self) -> dict[int, ClientProxy]:
        return {} if self._transport is None else self._transport.proxies

    def _model(self, parameters: Parameters) -> Arrays:
        arrays = parameters_to_ndarrays(parameters)
        if len(arrays) != len(self.parts.names):
            raise ValueError(
                f"the model has {len(arrays)} arrays, but {len(self.parts.names)} names were given "
                f"to {type(self).__name__}: pass names=list(model.state_dict()) of the same model"
            )
        return dict(zip(self.parts.names, arrays, strict=True))


class FedAvg(ClassicStrategy):
    """:class:`strategies.FedAvg` on the classic interface."""

    core = core.FedAvg


class BMSFed(ClassicStrategy):
    """:class:`strategies.BMSFed` on the classic interface."""

    core = core.BMSFed


class BMSFedPlus(ClassicStrategy):
    """:class:`strategies.BMSFedPlus` on the classic interface."""

    core = core.BMSFedPlus


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


class PmcmFL(ClassicStrategy):
    """:class:`strategies.PmcmFL` on the classic interface."""

    core = core.PmcmFL


class PrivateHead(ClassicStrategy):
    """:class:`strategies.PrivateHead` on the classic interface."""

    core = core.PrivateHead


class MFedMC(ClassicStrategy):
    """:class:`strategies.MFedMC` on the classic interface."""

    core = core.MFedMC


__all__ = [
    "AGM",
    "BMSFed",
    "BMSFedPlus",
    "ClassicStrategy",
    "DivFL",
    "FedAvg",
    "FedMSplit",
    "FedNH",
    "FedPAC",
    "GBlending",
    "LocalTraining",
    "MFedMC",
    "ModalityDropout",
    "PmcmFL",
    "PowerOfChoice",
    "PrivateHead",
    "RandomModality",
]

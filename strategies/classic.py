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

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, cast

from flwr.app import ConfigRecord, MetricRecord, RecordDict
from flwr.common import (
    Code,
    EvaluateIns,
    FitIns,
    FitRes,
    GetPropertiesIns,
    Parameters,
    Scalar,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg as StockFedAvg

import strategies as core

from .base import ModalityStrategy
from .client import CLIENT_ID, NUM_SAMPLES
from .foreign import EVALUATE, MODALITIES, NAMES, Keys
from .loop import FederatedRun, FederationError, OpenRound, log
from .parts import Parts, Patterns
from .protocol import (
    ENROL,
    Arrays,
    ClientInfo,
    array_record,
    pack_enrolment,
    payload_bytes,
)
from .transport import Answer, Outgoing

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


class ClassicTransport:
    """Carries a round's messages over Flower's client proxies.

    Attributes
    ----------
    proxies : dict
        Connected clients by node id: the proxy's own, or a number given here.
    """

    def __init__(self, client_manager: ClientManager) -> None:
        self.client_manager = client_manager
        self.proxies: dict[int, ClientProxy] = {}
        self._numbers: dict[str, int] = {}

    def node_ids(self) -> Iterable[int]:
        """Return the nodes that are connected now."""
        self.client_manager.num_available()  # Flower refreshes its proxies here
        proxies = dict(self.client_manager.all())
        self.proxies = {self._number(cid): proxy for cid, proxy in proxies.items()}
        return list(self.proxies)

    def _number(self, cid: str) -> int:
        return self._numbers.setdefault(cid, int(cid) if cid.isdecimal() else -len(self._numbers))

    def exchange(
        self,
        outgoing: Mapping[int, Outgoing],
        *,
        group: str,
        timeout: float,
        on_reply: Callable[[int], None],
        should_stop: Callable[[], bool],
    ) -> dict[int, Answer]:
        """Ask clients for properties, or let them train or evaluate, all at a time."""

        def ask(node_id: int) -> Answer:
            """Wait for one client's answer."""
            started = time.monotonic()
            kind, content = outgoing[node_id]
            try:
                answer = _ask(self.proxies[node_id], kind, content, timeout, int(group))
            except Exception as error:  # whatever a client raises must not end the run
                answer = Answer(None, " ".join(str(error).split()) or repr(error))
            answer.seconds = time.monotonic() - started
            return answer

        with ThreadPoolExecutor(max(len(outgoing), 1)) as pool:
            return dict(zip(outgoing, pool.map(ask, outgoing), strict=True))


def _ask(proxy: ClientProxy, kind: str, content: RecordDict, timeout: float, group: int) -> Answer:
    if kind == ENROL:
        properties = proxy.get_properties(GetPropertiesIns({}), timeout, group)
        if properties.status.code != Code.OK or CLIENT_ID not in properties.properties:
            return Answer(None, "it says not who it is", plain=True)
        return Answer(_enrolment(properties.properties))
    if kind == EVALUATE:
        ins = fit_instructions(content)
        result = proxy.evaluate(EvaluateIns(ins.parameters, ins.config), timeout, group)
        metrics = MetricRecord({Keys.weight: result.num_examples, Keys.loss: result.loss})
        return Answer(RecordDict({"metrics": metrics}), bytes_down=payload_bytes(content))
    return fit_answer(proxy.fit(fit_instructions(content), timeout, group), content, Keys())


def _enrolment(properties: Mapping[str, Scalar]) -> RecordDict:
    listed = str(properties.get(MODALITIES, ""))
    held = tuple(m.strip() for m in listed.split(",") if m.strip())
    samples = int(properties.get(NUM_SAMPLES, 1))
    return pack_enrolment(ClientInfo(str(properties[CLIENT_ID]), held, samples), "", native=False)


def fit_instructions(content: RecordDict) -> FitIns:
    """Turn a message's content into what a classic client is given."""
    [arrays], [config] = content.array_records.values(), content.config_records.values()
    given: dict[str, Scalar] = {}
    for key, value in config.items():
        given[key] = ",".join(map(str, value)) if isinstance(value, list) else value
    if MODALITIES in given:  # plain clients get nothing that flwr would not send
        given[NAMES] = json.dumps(list(arrays))
    else:
        given = {key: value for key, value in given.items() if key != "server-round"}
    return FitIns(ndarrays_to_parameters([a.numpy() for a in arrays.values()]), given)


def fit_answer(result: FitRes, sent: RecordDict, keys: Keys) -> Answer:
    """Turn a classic client's answer into a message's content, by the names that were sent."""
    [asked] = sent.array_records.values()
    answer = Answer(None, bytes_down=payload_bytes(sent))
    if result.status.code != Code.OK:
        answer.error = result.status.message or f"status {result.status.code}"
        return answer
    values = parameters_to_ndarrays(result.parameters)
    if len(values) != len(asked):
        answer.error = (
            f"it returned {len(values)} arrays, but was sent {len(asked)}: return the arrays of "
            f"config['{NAMES}'] in their order, or add strategies.client.ModalityMod to its "
            "ClientApp"
        )
        return answer
    arrays: Arrays = dict(zip(asked, values, strict=True))
    numbers: dict[str, int | float] = {
        k: v for k, v in result.metrics.items() if isinstance(v, int | float)
    }
    records: dict[str, Any] = {
        "arrays": array_record(arrays),
        "metrics": MetricRecord({**numbers, keys.weight: result.num_examples}),
    }
    if "update" in result.metrics:
        measured = {k: result.metrics[k] for k in ("update", "blob") if k in result.metrics}
        records["config"] = ConfigRecord(cast(Any, measured))
    answer.content = RecordDict(records)
    answer.bytes_up = payload_bytes(answer.content)
    return answer


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

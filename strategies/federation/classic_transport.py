"""Messages over Flower's classic client proxies: instructions out, results back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from flwr.app import ConfigRecord, MetricRecord, RecordDict
from flwr.common import (
    Code,
    EvaluateIns,
    FitIns,
    FitRes,
    GetPropertiesIns,
    Scalar,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.server import ClientManager
from flwr.server.client_proxy import ClientProxy

from ..messages import Arrays, ClientInfo
from .dialects import CLIENT_ID, EVALUATE, MODALITIES, NAMES, NUM_SAMPLES, Keys
from .enrolment import pack_enrolment
from .transport import Answer, Outgoing
from .waiting import Closing
from .wire import ENROL, array_record, decode_arrays, payload_bytes


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

    @property
    def complete(self) -> bool:
        """Return False: Flower does not tell."""
        return False

    def _number(self, cid: str) -> int:
        return self._numbers.setdefault(cid, int(cid) if cid.isdecimal() else -len(self._numbers))

    def busy(self) -> set[int]:
        """Return nobody: Flower waits for every call here."""
        return set()

    def exchange(
        self,
        outgoing: Mapping[int, Outgoing],
        *,
        group: str,
        timeout: float,
        on_reply: Callable[[int], None],
        should_stop: Callable[[], bool],
        closing: Closing,
    ) -> dict[int, Answer]:
        """Ask clients for properties, or let them train or evaluate, all at a time.

        Each is waited for until ``timeout``: Flower's proxies know no other end.
        """

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
        if result.status.code != Code.OK:
            return Answer(None, _said(result.status), bytes_down=payload_bytes(content))
        metrics = _metrics(result.metrics, result.num_examples) | {Keys.loss: result.loss}
        answered = RecordDict({"metrics": MetricRecord(metrics)})
        return Answer(answered, bytes_down=payload_bytes(content))
    return fit_answer(proxy.fit(fit_instructions(content), timeout, group), content)


def _metrics(metrics: Mapping[str, Scalar], num_examples: int) -> dict[str, Any]:
    """An answer's numbers, with the number of examples under flwr's name."""
    numbers = {k: v for k, v in metrics.items() if isinstance(v, int | float)}
    return {**numbers, Keys.weight: num_examples}


def _said(status: Status) -> str:
    return status.message or f"status {status.code}"


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
    return FitIns(ndarrays_to_parameters(list(decode_arrays(arrays).values())), given)


def fit_answer(result: FitRes, sent: RecordDict) -> Answer:
    """Turn a classic client's answer into a message's content, by the names that were sent."""
    [asked] = sent.array_records.values()
    answer = Answer(None, bytes_down=payload_bytes(sent))
    if result.status.code != Code.OK:
        answer.error = _said(result.status)
        return answer
    try:
        values = parameters_to_ndarrays(result.parameters)
    except Exception as error:  # whatever a client sends must not end the run
        answer.error = f"unreadable answer: {error!r}"[:500]
        return answer
    if len(values) != len(asked):
        answer.error = (
            f"it returned {len(values)} arrays, but was sent {len(asked)}: return the arrays of "
            f"config['{NAMES}'] in their order, or add strategies.client.ModalityMod to its "
            "ClientApp"
        )
        return answer
    arrays: Arrays = dict(zip(asked, values, strict=True))
    records: dict[str, Any] = {
        "arrays": array_record(arrays),
        "metrics": MetricRecord(_metrics(result.metrics, result.num_examples)),
    }
    if "update" in result.metrics:
        measured = {k: result.metrics[k] for k in ("update", "blob") if k in result.metrics}
        records["config"] = ConfigRecord(cast(Any, measured))
    answer.content = RecordDict(records)
    answer.bytes_up = payload_bytes(answer.content)
    return answer

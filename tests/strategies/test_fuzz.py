"""Ten thousand mutated answers: none raises, and a refused one changes no bit of the state."""

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from safetensors.numpy import load, save

from bmsfed_app.models import build_network
from bmsfed_app.settings import ClientSettings
from strategies import RoundReport, ServerState, Update
from strategies._flower import private
from strategies.federation.dialects import Native
from strategies.federation.loop import FederatedRun, OpenRound
from strategies.federation.registrar import Dialects
from strategies.federation.transport import Answer, GridTransport
from strategies.testing import FakeGrid
from tests.test_methods import build
from tests.test_three_modalities import HELD, handler

METHODS = "bmsfed fedavg fednh fedpac fedproto fedmsplit divfl g-blending agm pow-d".split()
MUTATIONS = 10_000
Rng = np.random.Generator

ODD: list[Any] = [None, True, -1, 0, 0.5, 10**15, 10**400, "", "x", "é" * 300, [], {}, [[]], 1e300]
ODD += [float("nan"), float("inf"), {"a": 1}, ["touch", "touch"], {"touch": 1e40}, [1, "2"]]


def opened(name: str) -> tuple[FederatedRun, OpenRound, dict[int, Answer]]:
    """A federation in its second round, and honest answers to it."""
    strategy, settings = build(name)
    strategy.clients_per_round = len(HELD)
    spec = ClientSettings.from_json(settings).network
    network = build_network(spec, 0)
    arrays = {n: v.numpy().copy() for n, v in network.state_dict().items()}
    strategy.start_from(arrays, spec.frozen())
    held = {c: h for c, h in HELD.items() if name != "pow-d" or len(h) == 3}
    transport = GridTransport(FakeGrid({c: handler(c) for c in held}))
    run = FederatedRun(strategy, transport, Dialects(Native(settings)))
    run.round(1)
    second = run.open(2)
    return run, second, run.exchange(2, "train", second.outgoing)


def pick(rng: Rng, values: Any) -> Any:
    values = list(values)
    return values[int(rng.integers(len(values)))]


def flipped(data: bytes, rng: Rng) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def odd_array(value: np.ndarray, rng: Rng) -> np.ndarray:
    kinds: list[Callable[[], np.ndarray]] = [
        lambda: np.full(value.shape, np.nan, value.dtype if value.dtype.kind == "f" else "f4"),
        lambda: np.full(value.shape, 3e38, "f4"),
        lambda: np.full(value.shape, 1e300),
        lambda: np.full(value.shape, 2**64 - 1, np.uint64),
        lambda: np.full(value.shape, 2**62, np.int64),
        lambda: -np.ones(value.shape, value.dtype),
        lambda: value.astype(np.float64),
        lambda: value.astype(np.float16),
        lambda: value.astype(bool),
        lambda: value[..., None],
        lambda: value.ravel()[:3],
        lambda: np.zeros((0, 4), value.dtype),
        lambda: np.zeros((), value.dtype),
    ]
    return np.asarray(pick(rng, kinds)())


def in_arrays(content: RecordDict, rng: Rng) -> None:
    record = content.array_records["arrays"]
    name = pick(rng, record)
    value = record[name].numpy()
    data = record[name].data
    way = int(rng.integers(6))
    if way == 0:
        del record[name]
    elif way == 1:
        record["encoders.extra.w"] = Array(value)
    elif way == 2:
        record[name] = Array(odd_array(value, rng))
    elif way == 3:
        record[name] = Array(str(value.dtype), value.shape, "numpy.ndarray", flipped(data, rng))
    elif way == 4:
        record[name] = Array(str(value.dtype), value.shape, pick(rng, ["pickle", "", "npz"]), data)
    else:
        junk = pick(rng, [b"", b"PK\x03\x04junk", b"\x80\x04]q\x00.", data[:-3], data + b"x"])
        record[name] = Array(str(value.dtype), value.shape, "numpy.ndarray", junk)


def in_metrics(content: RecordDict, rng: Rng) -> None:
    record = content.metric_records["metrics"]
    name = pick(rng, [*record, "new", "n" * 5000])
    record[name] = pick(rng, [float("nan"), float("inf"), 2**63 - 1, -1, [1.0, 2.0], []])
    if rng.random() < 0.05:
        content["metrics"] = MetricRecord({f"m{i}": 1.0 for i in range(2000)})


def in_header(content: RecordDict, rng: Rng) -> None:
    config = content.config_records["config"]
    header = json.loads(str(config["update"]))
    key = pick(rng, [*header, "new"])
    way = int(rng.integers(5))
    if way == 0:
        header[key] = pick(rng, ODD)
    elif way == 1:
        header.pop(key, None)
    elif way == 2:
        numbers = header[pick(rng, ["scores", "ratios"])]
        numbers[pick(rng, ["touch", "sound", "smell", "other"])] = pick(rng, ODD)
    elif way == 3:
        header["ratios"] = {f"r{i}": 1.0 for i in range(int(rng.integers(1, 3000)))}
    text = json.dumps(header)
    if way == 4:
        text = pick(rng, ["[" * 100_000, "{}", "", "null", text[:-2], flipped_text(text, rng)])
    config["update"] = text


def flipped_text(text: str, rng: Rng) -> str:
    return flipped(text.encode(), rng).decode("utf-8", "replace")


def in_blob(content: RecordDict, rng: Rng) -> None:
    config = content.config_records["config"]
    blob = config.get("blob")
    if not isinstance(blob, bytes):
        config["blob"] = pick(rng, [b"x", "text", 3, save({"prototypes/x/means": np.ones(3)})])
        return
    way = int(rng.integers(4))
    tensors = load(blob)
    name = pick(rng, tensors)
    if way == 0:
        config["blob"] = flipped(blob, rng)
    elif way == 1:
        del tensors[name]
    elif way == 2:
        tensors[name] = odd_array(tensors[name], rng)
    else:
        kind = pick(rng, ["prototypes/x/means", "signatures/x", "measurements/x", "prototypes//"])
        tensors[kind] = odd_array(tensors[name], rng)
    if way:
        config["blob"] = save({n: np.ascontiguousarray(v) for n, v in tensors.items()})


def in_records(content: RecordDict, rng: Rng) -> None:
    name = pick(rng, content)
    if rng.random() < 0.5:
        del content[name]
    else:
        content[name] = pick(rng, [ArrayRecord(), MetricRecord(), ConfigRecord({"a": 1})])


WAYS = [in_arrays, in_metrics, in_header, in_blob, in_records]


def mutated(content: RecordDict, rng: Rng) -> RecordDict | None:
    """One change of a message, or of its bytes; None where Flower itself cannot read these."""
    if rng.random() < 0.15:
        try:
            proto = private("flwr.common.serde:recorddict_to_proto")(content)
            data = flipped(proto.SerializeToString(), rng)
            return private("flwr.common.serde:recorddict_from_proto")(type(proto).FromString(data))
        except Exception:
            return None
    fresh: RecordDict = private("flwr.common.serde:recorddict_from_proto")(
        private("flwr.common.serde:recorddict_to_proto")(content)
    )
    pick(rng, WAYS)(fresh, rng)
    return fresh


def aggregated(run: FederatedRun, state: bytes, updates: list[Update]) -> bytes:
    """The state after a round that begins with a state."""
    strategy = copy.copy(run.decisions)
    strategy.start_from(ServerState.from_bytes(state), strategy.frozen)
    strategy.aggregate_fit(2, updates)
    report = {"ratios": strategy.state.global_ratios(), "weak": strategy.state.weak_modality()}
    json.dumps(report, allow_nan=False)
    assert all(np.isfinite(v).all() for v in strategy.state.arrays.values())
    return strategy.state.to_bytes()


@pytest.mark.parametrize("name", METHODS)
def test_a_mutated_answer_ends_nothing_and_changes_nothing(name: str) -> None:
    rng = np.random.default_rng(sum(map(ord, name)))
    run, second, answers = opened(name)
    before = run.decisions.state.to_bytes()
    nodes = {s.assignment.client_id: s.node_id for s in second.sent}
    honest = run.judge(second.sent, answers, RoundReport(2))
    assert len(honest) == len(second.sent)
    refused = 0
    for number in range(MUTATIONS // len(METHODS)):
        victim = pick(rng, nodes)
        content = answers[nodes[victim]].content
        assert content is not None
        spoiled = mutated(content, rng)
        if spoiled is None:
            continue
        given = answers | {nodes[victim]: Answer(spoiled)}
        alone = [s for s in second.sent if s.assignment.client_id == victim]
        report = RoundReport(2)
        updates = run.judge(alone if number % 10 else second.sent, given, report)
        assert run.decisions.state.to_bytes() == before
        json.dumps([vars(c) for c in report.clients], allow_nan=False)
        assert set(report.failures) <= {victim}
        refused += bool(report.failures)
        if number % 10 == 0:  # the others count as if it had never answered
            assert aggregated(run, before, updates)
            if report.failures:
                others = [u for u in honest if u.client_id != victim]
                assert aggregated(run, before, updates) == aggregated(run, before, others)
    assert refused > MUTATIONS // len(METHODS) // 2

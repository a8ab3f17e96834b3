"""Private heads: reductions to FedAvg and to local heads, and who is sent which head."""

from dataclasses import replace

import numpy as np

from strategies import (
    Arrays,
    Assignment,
    FedAvg,
    LocalTraining,
    ModalityStrategy,
    PrivateHead,
    ServerState,
    Update,
)
from strategies.testing import FakeGrid
from tests import synthetic
from tests.federation import federate, initial
from tests.test_three_modalities import HELD, handler

SPEC = synthetic.spec("mlp")
MODEL = {
    "encoders.a.w": np.zeros(2, np.float32),
    "encoders.b.w": np.zeros(2, np.float32),
    "head.weight.a": np.zeros((2, 3), np.float32),
    "head.weight.b": np.zeros((2, 2), np.float32),
    "head.bias": np.zeros(2, np.float32),
}


def same(one: Arrays, other: Arrays) -> bool:
    return list(one) == list(other) and all(np.array_equal(one[n], other[n]) for n in one)


def alone(strategy: ModalityStrategy) -> Arrays:
    """The model after three rounds with one client."""
    return strategy.run(
        FakeGrid({"c0": handler("c0")}),
        initial(SPEC),
        num_rounds=3,
        settings=synthetic.settings(network=SPEC).to_json(),
    ).arrays


def test_with_one_client_it_is_fedavg() -> None:
    assert same(alone(PrivateHead()), alone(FedAvg()))


def test_where_encoders_stand_still_heads_are_those_of_local_training() -> None:
    still = replace(SPEC, freeze={m: ["*"] for m in synthetic.WIDTHS})
    runs = [s(6) for s in (PrivateHead, LocalTraining)]
    found, local = (federate(s, initial(still), 5, network=still)[0].memory for s in runs)
    assert set(found) == set(local) == set(HELD)
    for client, head in found.items():
        own = {n: v for n, v in local[client].items() if n.startswith("head.")}
        assert set(head) == {"head.bias"} | {f"head.weight.{m}" for m in HELD[client]}
        assert all(np.array_equal(head[n], own[n]) for n in own)


def test_the_first_round_is_fedavgs_and_later_ones_are_not() -> None:
    def arrays(strategy: ModalityStrategy, rounds: int) -> Arrays:
        return federate(strategy, initial(SPEC), rounds, network=SPEC)[0].arrays

    assert same(arrays(PrivateHead(6), 1), arrays(FedAvg(6), 1))
    found, plain = arrays(PrivateHead(6), 2), arrays(FedAvg(6), 2)
    assert not any(np.array_equal(found[n], plain[n]) for n in found if n.endswith("weight"))


def update(name: str, held: str, samples: int, value: float) -> Update:
    parts = {n: v for n, v in MODEL.items() if n == "head.bias" or set(n.split(".")) & set(held)}
    return Update(name, tuple(held), samples, {n: np.full_like(v, value) for n, v in parts.items()})


def test_each_is_sent_its_own_head_and_newcomers_the_mean_of_those_that_came_last() -> None:
    strategy = PrivateHead()
    strategy.state = ServerState(arrays=dict(MODEL))
    strategy.aggregate_fit(1, [update("y", "ab", 3, 4.0), update("x", "b", 1, 8.0)])
    strategy.aggregate_fit(2, [update("z", "a", 2, 1.0)])
    strategy.state = ServerState.from_bytes(strategy.state.to_bytes())

    def sent(client: str, held: str = "ab") -> dict[str, float]:
        task = strategy.task(3, Assignment(client, tuple(held)))
        return {n: float(v.flat[0]) for n, v in task.arrays.items()}

    shared = {"encoders.a.w": 1.0, "encoders.b.w": 5.0}  # b: (3 * 4 + 1 * 8) / 4
    assert sent("y") == shared | {"head.weight.a": 4.0, "head.weight.b": 4.0, "head.bias": 4.0}
    assert sent("x", "b") == {"encoders.b.w": 5.0, "head.weight.b": 8.0, "head.bias": 8.0}
    mean = shared | {"head.weight.a": 1.0, "head.weight.b": 5.0, "head.bias": 1.0}
    assert sent("late") == mean
    [model] = strategy.models()
    assert {n: float(v.flat[0]) for n, v in model.arrays.items()} == mean
    strategy.forget("y", measured_only=True)  # back with other data, but the same modalities
    assert sent("y")["head.bias"] == 4.0
    strategy.forget("y")
    assert sent("y") == mean

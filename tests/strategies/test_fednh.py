"""FedNH's class directions by hand and by brute force, and whole federations."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bmsfed_app.methods import METHODS
from server_app.evaluation import Evaluator
from strategies import FedNH, Update
from tests import synthetic
from tests.federation import federate, initial, whole_and_resumed

SPEC = replace(synthetic.spec("mlp"), head="cosine", head_settings={"scale": 5.0})
CLIENT = {"network": SPEC, "objective": "frozen_head"}


def strategy(weight: dict[str, list[list[float]]], rho: float = 0.9) -> FedNH:
    made = FedNH(rho=rho)
    made.state.arrays = {f"head.weight.{m}": np.array(w) for m, w in weight.items()}
    made.state.arrays |= {f"encoders.{m}.w": np.zeros(2) for m in weight}
    return made


def answer(
    name: str, directions: dict[str, list[list[float]]], counts: list[float], samples: int = 1
) -> Update:
    arrays = {f"encoders.{m}.w": np.ones(2) for m in directions}
    measured = {f"directions.{m}": np.array(d) for m, d in directions.items()}
    measured["counts"] = np.array(counts)
    return Update(name, tuple(directions), samples, arrays, measurements=measured)


def test_directions_turn_towards_the_prototypes() -> None:
    made = strategy({"a": [[1.0, 0.0]]})
    new = made.aggregate_fit(1, [answer("k", {"a": [[0.0, 1.0]]}, [4])])
    np.testing.assert_allclose(new["head.weight.a"], [[0.993884, 0.110432]], atol=1e-6)


def test_rho_one_never_moves_them() -> None:
    start = [[0.6, 0.8], [-0.8, 0.6]]
    made = strategy({"a": start}, rho=1.0)
    for server_round in range(1, 4):
        made.aggregate_fit(server_round, [answer("k", {"a": [[0.0, 1.0], [1.0, 0.0]]}, [4, 2])])
    np.testing.assert_allclose(made.state.arrays["head.weight.a"], start, rtol=1e-15)


def test_classes_and_blocks_that_nobody_has_keep_their_directions() -> None:
    weight = {"a": [[0.6, 0.0], [0.1, 0.7]], "b": [[0.8], [0.3]]}
    made = strategy(weight, rho=0.5)
    new = made.aggregate_fit(1, [answer("k", {"a": [[0.0, 1.0], [0.0, 0.0]]}, [3, 0])])
    # Class 1: nobody. Class 0: block b stays in the prototype as W has it, then both are scaled.
    np.testing.assert_array_equal(new["head.weight.a"][1], weight["a"][1])
    np.testing.assert_array_equal(new["head.weight.b"][1], weight["b"][1])
    towards = np.array([0.0, 1.0, 0.8]) / np.hypot(1.0, 0.8)
    moved = 0.5 * np.array([0.6, 0.0, 0.8]) + 0.5 * towards
    moved /= np.linalg.norm(moved)
    np.testing.assert_allclose(new["head.weight.a"][0], moved[:2])
    np.testing.assert_allclose(new["head.weight.b"][0], moved[2:])


def test_blocks_are_means_over_their_holders_by_class_counts() -> None:
    rng = np.random.default_rng(0)
    widths = {"a": 3, "b": 2, "c": 4}
    made = strategy({m: rng.normal(size=(2, d)).tolist() for m, d in widths.items()}, rho=0.3)
    old = {m: made.state.arrays[f"head.weight.{m}"] for m in widths}
    held = [("a", "b", "c"), ("a",), ("b", "c"), ("c",)]
    counts = [[3, 1], [0, 5], [2, 2], [7, 0]]
    updates = [
        answer(f"k{i}", {m: rng.normal(size=(2, widths[m])).tolist() for m in h}, n, 50 - i)
        for i, (h, n) in enumerate(zip(held, counts, strict=True))
    ]
    new = made.aggregate_fit(1, updates[::-1])
    for label in range(2):
        towards = []
        for m in widths:
            total, n = np.zeros(widths[m]), 0.0
            for u in updates:
                if m in u.modalities:
                    total = (
                        total
                        + u.measurements["counts"][label] * u.measurements[f"directions.{m}"][label]
                    )
                    n += u.measurements["counts"][label]
            towards.append(total / n)
        p = np.concatenate(towards)
        whole = 0.3 * np.concatenate([old[m][label] for m in widths])
        whole += 0.7 * p / np.linalg.norm(p)
        found = np.concatenate([new[f"head.weight.{m}"][label] for m in widths])
        np.testing.assert_allclose(found, whole / np.linalg.norm(whole), rtol=1e-12)


def drop(name: str) -> Callable[[Update], None]:
    def spoil(update: Update) -> None:
        del update.measurements[name]

    return spoil


def set_to(name: str, value: Any) -> Callable[[Update], None]:
    return lambda update: update.measurements.update({name: np.array(value, np.float32)})


def test_bad_answers_are_left_out_by_name() -> None:
    spoil = {
        "c0": drop("directions.touch"),
        "c1": set_to("directions.smell", [[1.0]]),
        "c3": drop("counts"),
        "c4": set_to("counts", [1, -1, 3]),
        "c5": lambda update: update.arrays.update({"head.weight.touch": np.ones((3, 64), "f4")}),
    }
    state, keep = federate(FedNH(6), initial(SPEC), 1, spoil, **CLIENT)
    [report] = keep.reports
    assert report.failures == {
        "c0": "class directions of 'touch' have shape None, expected (3, 64)",
        "c1": "measurement 'directions.smell' has shape (1, 1), expected (3, 64)",
        "c3": "class counts are not 3 numbers of 0 or more",
        "c4": "class counts are not 3 numbers of 0 or more",
        "c5": "unknown array 'head.weight.touch' (1 unknown)",
    }
    assert state.round == 1  # c2 is enough


def test_a_federation_of_three_modalities_goes_on_where_it_stopped() -> None:
    whole, resumed = whole_and_resumed(lambda: FedNH(4), lambda: initial(SPEC), **CLIENT)
    assert whole == resumed
    state, keep = federate(FedNH(6), initial(SPEC), 4, **CLIENT)
    assert [r.failures for r in keep.reports] == [{}] * 4
    assert state.memory == {}
    rows = np.concatenate(
        [v for n, v in state.arrays.items() if n.startswith("head.weight.")], axis=1
    )
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-6)
    evaluate = Evaluator(SPEC, synthetic.split(300, seed=99), torch.device("cpu"))
    result = evaluate(state.arrays, state.global_prototypes())
    assert result.accuracy > 0.8  # one of three classes at random: 0.33
    assert result.by_head["touch"] > 0.6
    assert set(result.by_prototype) == set(synthetic.WIDTHS)


def test_identity_encoders_too() -> None:
    spec = replace(SPEC, encoders=dict.fromkeys(synthetic.WIDTHS, "identity"))
    state, keep = federate(FedNH(6), initial(spec), 3, **(CLIENT | {"network": spec}))
    assert [r.failures for r in keep.reports] == [{}] * 3
    assert all(np.isfinite(v).all() for v in state.arrays.values())


def test_what_is_out_of_range_is_refused_and_the_registry_explains_it() -> None:
    with pytest.raises(ValueError, match="rho is -1"):
        FedNH(rho=-1)
    settings = METHODS.find("fednh")(scale=20.0)
    assert settings.head() == ("cosine", {"scale": 20.0})
    assert settings.objective() == ("frozen_head", {})
    made = settings.strategy(clients_per_round=3)
    assert isinstance(made, FedNH)
    assert made.rho == 0.9
    assert settings.overrides == {"clip_norm": 10.0}


def test_more_classes_than_features_are_refused_before_the_start() -> None:
    class Config:
        def __init__(self, classes: int) -> None:
            self.spec = replace(synthetic.spec("identity"), num_classes=classes)

        def network_spec(self) -> Any:
            return self.spec

    settings = METHODS.find("fednh")()
    assert settings.check(Config(9)) is None  # type: ignore[arg-type]
    fault = settings.check(Config(10))  # type: ignore[arg-type]
    assert fault is not None
    assert "9 features for 10 classes" in fault

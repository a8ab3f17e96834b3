"""PmcmFL: what is sent and averaged, the rule at test, reductions to FedAvg, resuming."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bmsfed_app.aggregations import build_aggregation
from server_app.callbacks import CALLBACKS, Watched
from server_app.evaluation import Evaluator
from strategies import Assignment, FedAvg, PmcmFL, Prototypes, RoundReport, ServerState, Update
from strategies.testing import FakeGrid
from tests import synthetic
from tests.federation import federate, initial, whole_and_resumed
from tests.test_three_modalities import HELD, answering

SPEC = synthetic.spec("mlp")
FILLING = {"network": SPEC, "objective": "prototype_fill"}
MODEL = {
    "encoders.A.scale": np.ones((), np.float32),
    "encoders.V.scale": np.ones((), np.float32),
    "head.weight.A": np.eye(2, dtype=np.float32),
    "head.weight.V": np.diag([2.0, 1.0]).astype(np.float32),
    "head.bias": np.zeros(2, np.float32),
}
IDENTITY = Prototypes(np.eye(2, dtype=np.float32), np.array([4, 4]))


def knowing(**prototypes: Prototypes) -> PmcmFL:
    strategy = PmcmFL()
    strategy.state = ServerState(arrays=dict(MODEL), prototypes={"k": prototypes})
    return strategy


def test_the_constants_at_test_by_hand() -> None:
    """Of z_A = (0, 0.5) the logits are (2, 1.5) where V is missing."""
    constants = knowing(V=IDENTITY).absent_logits()
    assert constants["V"].tolist() == [2.0, 1.0]
    assert (np.array([0.0, 0.5]) + constants["V"]).tolist() == [2.0, 1.5]
    unseen = Prototypes(np.full((2, 2), 9.0, np.float32), np.array([0, 2]))
    assert knowing(V=unseen).absent_logits()["V"].tolist() == [0.0, 9.0]
    assert knowing().absent_logits() == {}


def test_who_lacks_a_modality_is_sent_its_columns_once_there_are_prototypes() -> None:
    before, after = knowing(), knowing(A=IDENTITY, V=IDENTITY)
    lacking, whole = Assignment("x", ("A",)), Assignment("y", ("A", "V"))
    own = {"encoders.A.scale", "head.weight.A", "head.bias"}
    assert set(before.task(1, lacking).arrays) == own
    told = after.task(1, lacking)
    assert set(told.arrays) == own | {"head.weight.V"}
    assert set(after.expected_arrays(("A",))) == own | {"head.weight.V"}
    assert set(told.orders.prototypes) == {"A", "V"}
    assert list(after.task(1, whole).arrays) == list(MODEL)


def test_columns_are_averaged_over_all_that_trained_them() -> None:
    strategy = knowing(V=IDENTITY)
    full = {n: np.full_like(v, 6.0) for n, v in MODEL.items()}
    part = {n: np.full_like(v, 2.0) for n, v in MODEL.items() if n != "encoders.V.scale"}
    updates = [Update("x", ("A",), 3, part), Update("y", ("A", "V"), 1, full)]
    new = strategy.aggregate_fit(1, updates)
    means = {n: float(v.flat[0]) for n, v in new.items()}
    assert means == dict.fromkeys(MODEL, 3.0) | {"encoders.V.scale": 6.0}


def test_where_nothing_is_missing_it_is_fedavg() -> None:
    def model(strategy: FedAvg, objective: str) -> dict[str, bytes]:
        clients = [synthetic.client(f"w{i}", n=30 + 6 * i, seed=i) for i in range(4)]
        settings = synthetic.settings(network=SPEC, objective=objective)
        state = strategy.run(
            FakeGrid({c.client_id: answering(c) for c in clients}),
            initial(SPEC),
            num_rounds=3,
            settings=settings.to_json(),
            min_clients=4,
        )
        return {n: v.tobytes() for n, v in state.arrays.items()}

    assert model(PmcmFL(3, seed=4), "prototype_fill") == model(FedAvg(3, seed=4), "cross_entropy")


def test_clients_that_lack_modalities_train_its_columns_and_a_run_goes_on_as_it_stopped() -> None:
    whole, resumed = whole_and_resumed(lambda: PmcmFL(3, seed=4), lambda: initial(SPEC), **FILLING)
    assert whole == resumed
    [filled, plain] = (
        federate(s(6), initial(SPEC), 2, network=SPEC, objective=o)
        for s, o in ((PmcmFL, "prototype_fill"), (FedAvg, "cross_entropy"))
    )
    assert [r.failures for r in filled[1].reports] == [{}] * 2
    assert any(len(held) < 3 for held in HELD.values())
    for name in ("head.weight.touch", "head.weight.smell", "encoders.smell.layers.1.weight"):
        assert not np.array_equal(filled[0].arrays[name], plain[0].arrays[name])


def test_a_rule_of_merging_serves_it() -> None:
    rule = build_aggregation({"name": "trimmed-mean", "trim": 0.2})
    _, keep = federate(PmcmFL(6, aggregation=rule), initial(SPEC), 2, **FILLING)
    assert [r.failures for r in keep.reports] == [{}] * 2


def test_subsets_of_the_modalities_are_tested_by_the_rule() -> None:
    strategy = PmcmFL(6)
    strategy.state, _ = federate(strategy, initial(SPEC), 2, **FILLING)
    test = synthetic.split(300, seed=99)
    evaluator = Evaluator(SPEC, test, torch.device("cpu"))
    network = evaluator._network(strategy.state.arrays)
    known, [model] = strategy.state.global_prototypes(), strategy.models()
    with torch.no_grad():
        z = {m: network.encode(m, test.stores[m]) for m in synthetic.WIDTHS}

        def accuracy(seen: tuple[str, ...]) -> float:
            """Each class judged as if it were the true one, in a batch of its own."""
            columns = []
            for c in range(synthetic.CLASSES):
                means = {m: torch.tensor(p.means[c]).expand(300, -1) for m, p in known.items()}
                columns.append(network.head(means | {m: z[m] for m in seen})[:, c])
            return float((torch.stack(columns, dim=1).argmax(dim=1) == test.labels).double().mean())

        rest = {m: tuple(o for o in z if o != m) for m in z}
        by_head = {m: accuracy((m,)) for m in z}
        without = {m: accuracy(seen) for m, seen in rest.items()}
        everything = accuracy(tuple(z))
    found = evaluator(model.arrays, model.prototypes, model.absent)
    assert found.by_head == pytest.approx(by_head)
    assert found.accuracy == pytest.approx(everything)
    assert found.accuracy == evaluator(model.arrays, model.prototypes).accuracy
    report = RoundReport(2)
    CALLBACKS.find("missing-modality")(Watched(Path(), evaluator)).after_round(strategy, report)
    assert report.metrics["accuracy_without"] == pytest.approx(without)
    plain = evaluator.accuracies(model.arrays, rest)
    assert plain != without


def test_test_samples_that_lack_a_modality_are_tested_by_the_rule() -> None:
    """Those that have smell and those that lack it, as if they were splits of their own."""
    strategy, spec = PmcmFL(6), synthetic.spec()
    strategy.state, _ = federate(strategy, initial(spec), 2, **FILLING | {"network": spec})
    test, has = synthetic.split(300, seed=99), torch.arange(300) % 3 > 0
    [model], device = strategy.models(), torch.device("cpu")

    def right(rows: torch.Tensor, seen: tuple[str, ...]) -> float:
        evaluator = Evaluator(spec, test.subset(rows.nonzero().squeeze(1)), device)
        [share] = evaluator.accuracies(model.arrays, {"": seen}, model.absent).values()
        return share * int(rows.sum())

    gaps = Evaluator(spec, test.lacking({"smell": has}), device)
    apart = right(has, tuple(synthetic.WIDTHS)) + right(~has, ("touch", "sound"))
    found = gaps(model.arrays, model.prototypes, model.absent).accuracy
    assert found == pytest.approx(apart / 300)
    assert found != gaps(model.arrays, model.prototypes).accuracy

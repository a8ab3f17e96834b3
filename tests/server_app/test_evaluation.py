"""Central evaluation against scikit-learn."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid

from bmsfed_app.config import load_config
from bmsfed_app.models import build_network
from bmsfed_app.models.encoders import ENCODERS, Encoder
from server_app.evaluation import Evaluator
from server_app.history import EvaluateCallback
from server_app.outcome import Evaluation, mean_evaluation
from strategies import ClientInfo, LocalTraining, Prototypes, ServerState, Update
from tests import synthetic


def test_accuracies_agree_with_independent_ones() -> None:
    spec, test = synthetic.spec(), synthetic.split(90, seed=5)
    train = synthetic.split(300, seed=1)
    network = build_network(spec, 0)
    arrays = {n: v.numpy() for n, v in network.state_dict().items()}
    centroids = {m: NearestCentroid().fit(train.stores[m], train.labels) for m in synthetic.WIDTHS}
    prototypes = {
        m: Prototypes(c.centroids_.astype(np.float32), np.full(3, 100))
        for m, c in centroids.items()
    }
    found = Evaluator(spec, test, torch.device("cpu"), batch_size=17)(arrays, prototypes)
    labels = test.labels.numpy()
    for m, c in centroids.items():  # identity encoders: features are the inputs
        assert found.by_prototype[m] == pytest.approx(c.score(test.stores[m], labels))
        w, b = arrays[f"head.weight.{m}"], arrays["head.bias"]
        alone = (test.stores[m].numpy() @ w.T + b).argmax(1)
        assert found.by_head[m] == pytest.approx((alone == labels).mean())
    logits = sum(test.stores[m].numpy() @ arrays[f"head.weight.{m}"].T for m in synthetic.WIDTHS)
    assert found.accuracy == pytest.approx(
        ((logits + arrays["head.bias"]).argmax(1) == labels).mean()
    )
    assert found.prototypes == "train"


@pytest.fixture
def summing(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An encoder that adds up more numbers than one thread does alone: threads change the sum."""

    class Summing(Encoder):
        def __init__(self, shape: tuple[int, ...], vocabulary: int = 0, width: int = 0) -> None:
            super().__init__()
            self.width, self.scale = shape[0], torch.nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale * x * x.repeat(100, 1).sum()

    threads = torch.get_num_threads()
    monkeypatch.setitem(ENCODERS.own, "summing", Summing)
    yield "summing"
    torch.set_num_threads(threads)


def test_threads_set_before_make_no_difference_nor_does_a_thread_of_its_own(summing: str) -> None:
    spec, test = synthetic.spec(summing), synthetic.split(900, seed=5)
    arrays = {n: v.numpy() for n, v in build_network(spec, 0).state_dict().items()}
    evaluator = Evaluator(spec, test, torch.device("cpu"), batch_size=900)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        with ThreadPoolExecutor(1) as worker:
            found += [evaluator(arrays), worker.submit(evaluator, arrays).result()]
            assert worker.submit(torch.get_num_threads).result() == threads
        assert torch.get_num_threads() == threads
    assert [e.as_row() for e in found] == [found[0].as_row()] * 6


def test_the_published_protocol_uses_the_test_features_themselves() -> None:
    spec, test = synthetic.spec(), synthetic.split(90, seed=5)
    arrays = {n: v.numpy() for n, v in build_network(spec, 0).state_dict().items()}
    found = Evaluator(spec, test, torch.device("cpu"))(arrays, None)
    for m in synthetic.WIDTHS:
        own = NearestCentroid().fit(test.stores[m], test.labels)
        assert found.by_prototype[m] == pytest.approx(own.score(test.stores[m], test.labels))
    assert found.prototypes == "test"


def test_without_prototypes_a_modality_has_no_accuracy() -> None:
    spec, test = synthetic.spec(), synthetic.split(30)
    arrays = {n: v.numpy() for n, v in build_network(spec, 0).state_dict().items()}
    found = Evaluator(spec, test, torch.device("cpu"))(arrays, {})
    assert found.by_prototype == {}
    assert set(found.by_head) == set(synthetic.WIDTHS)


def test_the_mean_over_models_is_weighted_and_a_modality_counts_where_it_is() -> None:
    whole = Evaluation(0.5, 1.0, {"a": 0.2, "b": 0.4}, {"a": 0.1, "b": 0.3}, metrics={"uar": 0.2})
    part = Evaluation(0.9, 3.0, {"b": 0.8}, {"b": 0.7}, metrics={"uar": 0.6})
    mean = mean_evaluation([(whole, 1.0), (part, 3.0)])
    assert mean.accuracy == pytest.approx(0.8)
    assert mean.loss == pytest.approx(2.5)
    assert mean.by_prototype == pytest.approx({"a": 0.2, "b": 0.7})
    assert mean.by_head == pytest.approx({"a": 0.1, "b": 0.6})
    assert mean.metrics == pytest.approx({"uar": 0.5})
    assert mean_evaluation([(whole, 5.0)]) is whole


def test_a_model_that_lacks_modalities_is_tested_without_them() -> None:
    spec = synthetic.spec()
    test = synthetic.split(90, seed=3)
    evaluator = Evaluator(spec, test, torch.device("cpu"))
    state = build_network(spec, 0).state_dict()
    arrays = {n: v.numpy() for n, v in state.items()}
    part = {n: v for n, v in arrays.items() if "smell" not in n and "sound" not in n}
    alone = evaluator(part)
    assert set(alone.by_prototype) == {"touch"}
    assert alone.accuracy == evaluator(arrays).by_head["touch"]


def test_only_models_that_changed_are_evaluated_again() -> None:
    seen: list[float] = []

    def evaluator(arrays: dict[str, np.ndarray], *_: object) -> Evaluation:
        seen.append(float(arrays["head.bias"][0]))
        return Evaluation(float(arrays["head.bias"][0]), 0.0)

    callback = EvaluateCallback(evaluator, load_config("cg-digits"))  # type: ignore[arg-type]
    strategy = LocalTraining(1)
    strategy.state = ServerState(arrays={"encoders.a.w": np.zeros(1), "head.bias": np.zeros(1)})
    for name, samples in (("x", 10), ("y", 30)):
        strategy.state.clients[name] = ClientInfo(name, ("a",), samples)
    assert callback.evaluate(strategy).accuracy == 0.0
    strategy.aggregate_fit(1, [Update("x", ("a",), 10, {"head.bias": np.full(1, 0.4)})])
    assert callback.evaluate(strategy).accuracy == pytest.approx(0.1)
    strategy.aggregate_fit(2, [Update("y", ("a",), 30, {"head.bias": np.full(1, 0.8)})])
    assert callback.evaluate(strategy).accuracy == pytest.approx(0.7)
    assert seen == [0.0, 0.4, 0.8]  # one for both beginners, then one per round

"""Accuracy of clients' own models on their own mix of classes, against the definition."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bmsfed_app.models import MultiModalNetwork
from server_app.callbacks import CALLBACKS, Watched
from server_app.evaluation import Evaluator
from strategies import ClientInfo, Decisions, FedAvg, LocalTraining, PrivateHead, RoundReport
from tests import synthetic
from tests.federation import federate, initial
from tests.test_three_modalities import HELD

SPEC = synthetic.spec("mlp")
TEST = synthetic.split(150, seed=99)


def personal(strategy: Decisions) -> float:
    watched = Watched(Path(), Evaluator(SPEC, TEST, torch.device("cpu")))
    report = RoundReport(strategy.state.round)
    CALLBACKS.find("personal")(watched).after_round(strategy, report)
    return float(report.metrics["accuracy_personal"])


def by_hand(strategy: Decisions) -> float:
    """A forward pass of each client's own network, sample by sample weighed by its class."""
    total = samples = 0.0
    for client, info in strategy.state.clients.items():
        network = MultiModalNetwork(SPEC, info.modalities).eval()
        own = strategy.state.memory.get(client, {})
        arrays = {n: own.get(n, strategy.state.arrays[n]) for n in network.state_dict()}
        network.load_state_dict({n: torch.tensor(v) for n, v in arrays.items()})
        with torch.no_grad():
            logits = network({m: TEST.stores[m] for m in info.modalities}).logits
        counts = np.array(info.class_counts or np.bincount(TEST.labels), np.float64)
        weights = (counts / np.bincount(TEST.labels))[TEST.labels]
        right = (logits.argmax(dim=1) == TEST.labels).numpy()
        total += info.num_samples * float((weights * right).sum() / weights.sum())
        samples += info.num_samples
    return total / samples


@pytest.mark.parametrize("method", [FedAvg, PrivateHead, LocalTraining])
def test_it_is_the_mean_over_clients_of_their_own_models(
    method: type[FedAvg | PrivateHead | LocalTraining],
) -> None:
    strategy = method(4, seed=1)
    strategy.state, _ = federate(strategy, initial(SPEC), 3, network=SPEC)
    clients = strategy.state.clients
    # One class only, classes in other shares than the split's, and unknown counts.
    clients["c1"] = ClientInfo("c1", HELD["c1"], 300, (0, 0, 300))
    clients["c2"] = ClientInfo("c2", HELD["c2"], 90, (60, 30, 0))
    clients["c3"] = ClientInfo("c3", HELD["c3"], 40, ())
    assert personal(strategy) == pytest.approx(by_hand(strategy), abs=1e-12)


def test_one_model_for_all_on_the_splits_own_mix_has_the_splits_accuracy() -> None:
    strategy = FedAvg(4, seed=1)
    strategy.state, _ = federate(strategy, initial(SPEC), 2, network=SPEC)
    held = tuple(synthetic.WIDTHS)
    strategy.state.clients = {c: ClientInfo(c, held, 10) for c in ("x", "y")}
    evaluate = Evaluator(SPEC, TEST, torch.device("cpu"))
    assert personal(strategy) == pytest.approx(evaluate(strategy.state.arrays).accuracy)

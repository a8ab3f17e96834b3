"""Whole federations with real local training: three modalities, clients that lack some, no Ray."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict

from bmsfed_app.models import build_network
from bmsfed_app.settings import ClientSettings
from client_app.data import LocalData
from client_app.training import run_task
from server_app.evaluation import Evaluator
from strategies import BMSFed, Callback, FedAvg, ModalityStrategy, RoundReport, ServerState
from strategies.protocol import pack_enrolment, pack_update, unpack_settings, unpack_task
from strategies.testing import FakeGrid
from tests import synthetic

HELD = {
    "c0": ("touch", "sound", "smell"),
    "c1": ("touch", "sound", "smell"),
    "c2": ("touch", "smell"),
    "c3": ("smell",),
    "c4": ("touch", "sound"),
    "c5": ("touch", "sound", "smell"),
}


def handler(name: str) -> Callable[[Message], RecordDict]:
    number = int(name[1:])
    return answering(synthetic.client(name, n=30 + 6 * number, seed=number, modalities=HELD[name]))


def answering(data: LocalData) -> Callable[[Message], RecordDict]:
    """A client with real local training on its data."""

    def answer(message: Message) -> RecordDict:
        if message.metadata.message_type == "query.enrol":
            return pack_enrolment(data.info(), "1")
        settings = ClientSettings.from_json(unpack_settings(message.content))
        return pack_update(run_task(unpack_task(message.content), data, settings))

    return answer


class Keep(Callback):
    def __init__(self) -> None:
        self.reports: list[RoundReport] = []

    def after_round(self, strategy: ModalityStrategy, report: RoundReport) -> None:
        self.reports.append(report)

    def rows(self) -> list[Any]:
        def timeless(metrics: dict[str, float]) -> dict[str, float]:
            return {k: v for k, v in metrics.items() if not k.startswith("seconds")}

        return [
            [
                [(a.client_id, a.modalities) for a in r.assignments],
                [(c.client_id, c.status, c.ratios, timeless(c.metrics)) for c in r.clients],
                r.ratios,
                r.picks,
                r.bytes_down,
                r.bytes_up,
            ]
            for r in self.reports
        ]


def federate(
    strategy: ModalityStrategy, *, encoder: str = "identity", seed: int = 0, rounds: int = 5
) -> tuple[ServerState, Keep]:
    settings = synthetic.settings(
        network=synthetic.spec(encoder), prototypes=True, **synthetic.ENHANCING
    ).to_json()
    network = build_network(synthetic.spec(encoder), 0)
    initial = {n: v.numpy().copy() for n, v in network.state_dict().items()}
    order = sorted(HELD) if seed % 2 == 0 else sorted(HELD, reverse=True)
    keep = Keep()
    grid = FakeGrid({name: handler(name) for name in order}, seed=seed)
    state = strategy.run(
        grid,
        initial,
        num_rounds=rounds,
        settings=settings,
        callbacks=[keep],
        min_clients=len(HELD),
        connect_timeout=600,
    )
    return state, keep


STRATEGIES: dict[str, Callable[[], ModalityStrategy]] = {
    "fedavg": lambda: FedAvg(3, seed=4),
    "bmsfed": lambda: BMSFed(3, seed=4, threshold=1.0, sketch_dim=32),
    "exact": lambda: BMSFed(3, seed=4, threshold=1.0, sketch_dim=0),
    "update": lambda: BMSFed(3, seed=4, threshold=1.0, gradient="update", sketch_dim=0),
    "single": lambda: BMSFed(3, seed=4, pick="single", uni_cover="uni", uni_ratio="refresh"),
}


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("encoder", ["identity", "mlp"])
def test_a_federation_of_three_modalities(name: str, encoder: str) -> None:
    state, keep = federate(STRATEGIES[name](), encoder=encoder)
    for report in keep.reports:
        assert report.failures == {}
        assert len(report.assignments) == 3
        for a in report.assignments:
            assert set(a.modalities) <= set(HELD[a.client_id])
    assert state.weak_modality() == "smell"
    test = synthetic.split(300, seed=99)
    evaluate = Evaluator(synthetic.spec(encoder), test, torch.device("cpu"))
    accuracy = evaluate(state.arrays, state.global_prototypes()).accuracy
    assert accuracy > 0.6  # one of three classes at random: 0.33


def test_the_weak_modality_is_trained_alone_where_the_ratio_says_so() -> None:
    _, keep = federate(STRATEGIES["bmsfed"](), rounds=8)
    alone = [p for r in keep.reports for p in r.picks if p["role"] == "uni"]
    assert alone
    assert {m for p in alone for m in p["modalities"]} == {"smell"}
    several = [p for p in alone if len(HELD[p["client"]]) > 1]
    assert all(p["ratio"] > 1.0 for p in several)


@pytest.mark.parametrize("name", STRATEGIES)
def test_one_seed_one_history_whatever_ids_and_order(name: str) -> None:
    (one, rows), (other, same) = (federate(STRATEGIES[name](), seed=s) for s in (0, 1))
    assert json.dumps(rows.rows()) == json.dumps(same.rows())
    assert {n: v.tobytes() for n, v in one.arrays.items()} == {
        n: v.tobytes() for n, v in other.arrays.items()
    }


def test_a_client_that_lacks_a_modality_leaves_it_alone() -> None:
    state, keep = federate(FedAvg(6), rounds=1)
    [report] = keep.reports
    trained = {c.client_id: c for c in report.clients}
    assert set(state.prototypes["c3"]) == {"smell"}
    assert trained["c3"].ratios == {}
    assert set(trained["c4"].ratios) == {"touch", "sound"}
    assert np.isfinite(state.arrays["head.weight.smell"]).all()

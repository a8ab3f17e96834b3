"""What clients of other apps say late, say in their own words, or do not say at all."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from flwr.common import ndarrays_to_parameters

import strategies
from strategies import Assignment, ClientInfo, classic
from strategies.protocol import pack_enrolment
from tests.strategies.foreign_app import (
    PARTS,
    ClassicClient,
    classic_app,
    grid_of,
    loss,
    manager_of,
    message_app,
    model,
    run_classic,
    samples,
)
from tests.strategies.test_interfaces import Short, record

HELD = {f"c{i}": ("image", "text") for i in range(4)}


def test_metrics_are_aggregated_over_the_clients_that_were_used() -> None:
    """The usual function looks a metric up in every client's; one that failed has none."""

    def usual(metrics: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
        total = sum(n for n, _ in metrics)
        return {"score.text": sum(n * m["score.text"] for n, m in metrics) / total}

    apps = {w: classic_app(ClassicClient(w, h, [])) for w, h in HELD.items()}
    apps["c1"] = classic_app(Short("c1", HELD["c1"], []))
    grid = grid_of(apps)
    strategy = classic.FedAvg(list(model()), parts=PARTS, fit_metrics_aggregation_fn=usual)
    manager = manager_of(grid)
    sent = strategy.configure_fit(1, ndarrays_to_parameters(list(model().values())), manager)
    results = [(proxy, proxy.fit(ins, None, 1)) for proxy, ins in sent]
    _, metrics = strategy.aggregate_fit(1, results, [])
    assert metrics == {"score.text": pytest.approx(0.2)}
    assert strategy.report is not None
    assert list(strategy.report.failures) == ["c1"]


class OwnWords(ClassicClient):
    """Gives its loss, and the weight of its answer, under names of its own."""

    def evaluate(self, parameters: Any, config: Any) -> Any:
        found, n, _ = super().evaluate(parameters, config)
        return 0.0, n, {"my_loss": found, "weight": n}

    def fit(self, parameters: Any, config: Any) -> Any:
        new, n, metrics = super().fit(parameters, config)
        return new, 1, {**metrics, "weight": n}


def test_the_classic_interface_reads_loss_and_weight_by_the_names_given() -> None:
    def picks_and_model(make: type[ClassicClient], **names: str) -> tuple[list[Any], Any]:
        apps = {w: classic_app(make(w, h, [])) for w, h in HELD.items()}
        strategy = classic.PowerOfChoice(
            list(model()), parts=PARTS, clients_per_round=2, d=4, **names
        )
        after = run_classic(strategy, grid_of(apps), 1)
        assert strategy.report is not None
        return strategy.report.picks, after

    stock, by_stock = picks_and_model(ClassicClient)
    own, by_own = picks_and_model(OwnWords, loss_key="my_loss", weighted_by_key="weight")
    whole = {w: loss(dict(enumerate(model().values())), w) for w in HELD}
    for pick in own:
        assert pick["loss"] == pytest.approx(whole[pick["client"]])
    assert own == stock
    for name, value in by_stock.items():
        np.testing.assert_array_equal(value, by_own[name])


@pytest.mark.parametrize(
    ("argument", "remedy"),
    [
        ({"arrayrecord_key": "a"}, "leave it out"),
        ({"configrecord_key": "c"}, "leave it out"),
        ({"min_available_nodes": 3}, "use min_available_clients"),
    ],
)
def test_what_means_nothing_on_the_classic_interface_is_refused(
    argument: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(argument))} is an argument of .*{remedy}"):
        classic.FedAvg(list(model()), parts=PARTS, **argument)


def test_a_new_client_manager_is_another_federation() -> None:
    first = {w: classic_app(ClassicClient(w, h, [])) for w, h in HELD.items()}
    others = {w: classic_app(ClassicClient(w, ("text",), [])) for w in ("c7", "c8")}
    strategy = classic.FedAvg(list(model()), parts=PARTS)
    run_classic(strategy, grid_of(first), 1)
    run_classic(strategy, grid_of(others, seed=5), 1)
    assert strategy.report is not None
    assert {a.client_id for a in strategy.report.assignments} == {"c7", "c8"}


def test_a_model_that_does_not_fit_is_refused_before_any_waiting() -> None:
    nobody = grid_of({})
    strategy = strategies.FedAvg(parts={"image": "vision.*", "head": "classifier.*"})
    with pytest.raises(ValueError, match=r"'bert.w' is in no part"):
        strategy.start(nobody, record(model()), num_rounds=1)


class Watching(strategies.FedAvg):
    """Notes what the method is told of its clients."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.told: list[dict[str, int]] = []

    def configure_fit(self, server_round: int, clients: Sequence[ClientInfo]) -> list[Assignment]:
        self.told.append({c.client_id: c.num_samples for c in clients})
        return super().configure_fit(server_round, clients)


def test_samples_learnt_from_answers_reach_the_method_and_outlast_a_reconnection() -> None:
    learnt = {w: samples(w) for w in HELD}
    grid = grid_of({w: message_app(w, h, []) for w, h in HELD.items()})
    for who, handler in list(grid.handlers.items()):
        grid.handlers[who] = _without_samples(handler, who)
    strategy = Watching(parts=PARTS, fraction_evaluate=0.0, min_available_nodes=1)

    def reconnect(server_round: int, arrays: Any) -> None:
        if server_round == 2:  # it is gone for a round, and comes back as another node
            grid.offline = {"c1"}
        if server_round == 3:
            grid.offline = set()

    strategy.start(grid, record(model()), num_rounds=5, evaluate_fn=reconnect)
    gone = {w: n for w, n in learnt.items() if w != "c1"}  # also while it says who it is
    assert strategy.told == [dict.fromkeys(HELD, 1), learnt, gone, gone, learnt]


def _without_samples(handler: Any, who: str) -> Any:
    def answer(message: Any) -> Any:
        if message.metadata.message_type == "query.enrol":
            return pack_enrolment(ClientInfo(who, HELD[who]), "", native=False)
        return handler(message)

    return answer

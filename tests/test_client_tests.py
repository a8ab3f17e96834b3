"""Tests by clients on samples that they hold out, from configuration to run folder, no Ray."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict

from bmsfed_app.cli.simulate import check_experiment
from bmsfed_app.config import ConfigError, ExperimentConfig, load_config
from bmsfed_app.partitions import held_out_rows
from client_app.counting import count_right
from client_app.data import LocalData, local_data
from server_app.client_tests import ClientTestsCallback
from server_app.evaluation import Evaluator
from server_app.experiment import build_strategy
from server_app.failures import FailureLimit
from server_app.run_folder import RunFolder
from strategies import (
    Assignment,
    ClientReport,
    FedAvg,
    FederationError,
    RoundReport,
    ServerState,
)
from strategies.federation.transport import Interrupted
from strategies.messages import RIGHT, TESTED, select_parts
from strategies.testing import FakeGrid, Handler
from tests import synthetic
from tests.federation import initial
from tests.run_folders import rows
from tests.test_methods_on_digits import CLIENTS, run
from tests.test_three_modalities import Keep, answering

SMALL: dict[str, Any] = {
    "clients": CLIENTS,
    "per_round": 3,
    "rounds": 3,
    "data_fraction": 0.15,
    "partition": "dirichlet",
    "min_samples": 8,
    "connect_timeout": 600,
    "holdout": 0.25,
    "eval_every": 2,
    "encoders": {"colored": "mlp", "gray": "mlp"},
}


def node(number: int) -> dict[str, int]:
    return {"partition-id": number, "num-partitions": CLIENTS}


def by_hand(config: ExperimentConfig, folder: RunFolder) -> dict[str, tuple[int, float, float]]:
    """Samples, and accuracies of own and global model, of each client, by the central evaluator."""
    strategy, state = build_strategy(config), folder.load_checkpoint()
    assert state is not None
    strategy.start_from(state)
    found = {}
    for number in range(CLIENTS):
        data = local_data(node(number), config.client_settings())
        assert data.held_out is not None
        split = data.split.subset(data.held_out)
        evaluator = Evaluator(config.network_spec(), split, torch.device("cpu"))
        told = Assignment(data.client_id, data.modalities)
        own = select_parts(strategy.model_for(told), data.modalities)
        shared = select_parts(state.arrays, data.modalities)
        absent = strategy.absent_logits()
        accuracies = (evaluator(arrays, None, absent).accuracy for arrays in (own, shared))
        found[data.client_id] = (len(split), *accuracies)
    return found


@pytest.mark.parametrize("method", ["fedavg", "private-head", "local", "pmcmfl", "fedpac"])
def test_counts_are_those_of_the_central_evaluator_also_after_a_resume(
    method: str, tmp_path: Path
) -> None:
    config = load_config("cg-digits", SMALL | {"method": method, "whole_share": 0.5})
    whole = RunFolder.create(tmp_path / "whole", config)
    run(whole)
    broken = RunFolder.create(tmp_path / "broken", config)
    run(broken, last=2)
    run(RunFolder.reopen(broken.path, config), seed=1)
    assert rows(broken.path) == rows(whole.path)

    last = next(r for r in rows(whole.path) if r["kind"] == "round" and r["round"] == 3)
    assert last["failures"] == {}
    expected = by_hand(config, whole)
    for phase, column in (("test", 1), ("test-global", 2)):
        for row in rows(whole.path):
            if row.get("phase") == phase and row["round"] == 3:
                samples = expected[row["client"]][0]
                assert row["metrics"][TESTED] == samples
                accuracy = row["metrics"][RIGHT] / samples
                assert accuracy == pytest.approx(expected[row["client"]][column], abs=1e-9)
    own = np.array([accuracy for _, accuracy, _ in expected.values()])
    samples = [n for n, *_ in expected.values()]
    assert last["accuracy_clients"] == pytest.approx(own.mean())
    assert last["accuracy_clients_weighted"] == pytest.approx(np.average(own, weights=samples))
    assert last["accuracy_clients_std"] == pytest.approx(own.std())
    assert last["accuracy_clients_lowest"] == pytest.approx(own.min())  # a tenth of five is one
    if method in ("private-head", "fedpac"):
        shared = [accuracy for *_, accuracy in expected.values()]
        assert last["accuracy_clients_global"] == pytest.approx(np.mean(shared))
        assert last["accuracy_clients_global_lowest"] == pytest.approx(min(shared))
    else:
        assert "accuracy_clients_global" not in last
    held = {r["client"]: "+".join(r["assigned"]) for r in rows(whole.path) if "phase" in r}
    for kind, value in last["accuracy_clients_by_held"].items():
        same = [expected[c][1] for c, what in held.items() if what == kind]
        assert value == pytest.approx(np.mean(same))
    assert len(last["accuracy_clients_by_held"]) > 1
    tested_in = {r["round"] for r in rows(whole.path) if r.get("phase") == "test"}
    assert tested_in == {2, 3}  # as the model is evaluated, and after the last round


def test_what_is_held_out_is_no_training_data() -> None:
    config = load_config("cg-digits", SMALL)
    whole = load_config("cg-digits", SMALL | {"holdout": 0.0})
    for number in range(CLIENTS):
        data = local_data(node(number), config.client_settings())
        everything = local_data(node(number), whole.client_settings())
        assert data.held_out is not None
        assert everything.held_out is None
        together = torch.cat([data.index, data.held_out]).sort().values
        assert torch.equal(together, everything.index)
        assert data.info().num_samples == len(everything) - round(0.25 * len(everything))
        assert len(data.tested) == len(data.held_out)
    assert (held_out_rows(9, 0.3, 1, "a") == held_out_rows(9, 0.3, 1, "a")).all()
    assert (held_out_rows(99, 0.3, 1, "a") != held_out_rows(99, 0.3, 1, "b")).any()
    assert held_out_rows(1, 0.9, 0, "a").tolist() == [False]
    assert held_out_rows(2, 0.01, 0, "a").sum() == held_out_rows(2, 0.99, 0, "a").sum() == 1


def test_who_is_left_with_one_sample_is_refused_before_anything_starts() -> None:
    """conv4 normalises over batches: it needs two, of which one is held out."""
    given = {"partition": "iid", "samples_per_client": 2, "min_samples": 1, "data_fraction": 1.0}
    given["encoders"] = {"colored": "conv4", "gray": "conv4"}
    check_experiment(load_config("cg-digits", SMALL | given | {"holdout": 0.0}))
    with pytest.raises(ConfigError, match="client-0"):
        check_experiment(load_config("cg-digits", SMALL | given))


def test_who_has_nothing_left_of_a_modality_to_train_on_does_not_hold_it() -> None:
    given = {"partition": "iid", "samples_per_client": 4, "min_samples": 1, "data_fraction": 1.0}
    given["missing"] = {"scheme": "bernoulli", "rate": 0.5}

    def held(holdout: float) -> list[LocalData]:
        settings = load_config("cg-digits", SMALL | given | {"holdout": holdout}).client_settings()
        return [local_data(node(k), settings) for k in range(CLIENTS)]

    halves = held(0.5)
    assert any(
        len(h.modalities) < len(w.modalities) for h, w in zip(halves, held(0.0), strict=True)
    )
    for data in halves:
        for modality in data.modalities:
            there = data.present(modality)
            assert there is None or there.any()


def test_what_is_missing_adds_to_the_logits() -> None:
    """Of samples without a modality, and of all where the client lacks it."""
    data = synthetic.client(modalities=("touch", "smell"))
    has = torch.arange(60) % 3 > 0
    data = replace(data, split=data.split.lacking({"smell": has}), held_out=torch.arange(60))
    arrays = initial(synthetic.spec("mlp"))
    absent = {"sound": np.float32([0, 0, 1]), "smell": np.float32([2, 0, 0])}
    network = Evaluator(synthetic.spec("mlp"), data.split, torch.device("cpu"))
    parts = select_parts(arrays, data.modalities)
    expected = network(parts, None, absent)
    told = {"absent_logits": {m: v.tolist() for m, v in absent.items()}}
    found = count_right(network.networks[data.modalities].eval(), data.tested, told)
    assert found[RIGHT] / found[TESTED] == pytest.approx(expected.accuracy)
    assert set(found) == {TESTED, RIGHT}  # counts alone leave the client
    assert found != count_right(network.networks[data.modalities].eval(), data.tested, {})


def test_it_is_refused_where_it_is_not_accounted_for() -> None:
    with pytest.raises(ConfigError, match=r"holdout: what clients count .* set it to 0"):
        load_config("cg-digits", SMALL | {"method": "fedavg", "dp": {"noise": 1.0}})


# --- answers that are no good --------------------------------------------------------------------


def handlers(spoilt: dict[str, float] | None = None) -> dict[str, Handler]:
    """Three clients, of which the second counts what it is told to."""

    def spoiling(answer: Handler) -> Handler:
        def changed(message: Message) -> RecordDict:
            content = answer(message)
            if message.metadata.message_type == "query.measure":
                content.metric_records["metrics"].update(spoilt or {})
            return content

        return changed

    data = [synthetic.client(f"c{i}", seed=i) for i in range(3)]
    parts = [replace(d, index=torch.arange(40), held_out=torch.arange(40, 60)) for d in data]
    found = {d.client_id: answering(d) for d in parts}
    return found | {"c1": spoiling(found["c1"])}


def federate(grid: FakeGrid, rounds: int) -> tuple[ServerState, Keep]:
    """So many rounds, after the last of which clients test."""
    keep = Keep()
    state = FedAvg(2, seed=0).run(
        grid,
        initial(synthetic.spec("mlp")),
        num_rounds=rounds,
        settings=synthetic.settings(network=synthetic.spec("mlp"), holdout=1 / 3).to_json(),
        callbacks=[ClientTestsCallback(), keep],
        min_clients=3,
        connect_timeout=600,
        test_every=rounds,
    )
    return state, keep


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ({RIGHT: 21.0}, "of 20 samples tested it counts 21 as right"),
        ({RIGHT: 1.5}, "it counts 1.5 as right"),
        ({TESTED: -1.0, RIGHT: -2.0}, "of -1 samples tested"),
    ],
)
def test_a_count_that_cannot_be_is_left_out_by_name(spoilt: dict[str, float], said: str) -> None:
    [report] = federate(FakeGrid(handlers(spoilt)), 1)[1].reports
    assert said in report.failures["c1"]
    counted = [c for c in report.clients if c.phase == "test" and c.status == "ok"]
    assert {c.client_id for c in counted} == {"c0", "c2"}
    accuracies = [c.metrics[RIGHT] / 20 for c in counted]
    assert report.metrics["accuracy_clients"] == pytest.approx(np.mean(accuracies))


def test_who_holds_nothing_out_does_not_count() -> None:
    report = RoundReport(1)
    for name, counts in (("a", (4.0, 1.0)), ("b", (0.0, 0.0))):
        entry = ClientReport(
            name, "test", ("x",), metrics=dict(zip((TESTED, RIGHT), counts, strict=True))
        )
        report.clients.append(entry)
    ClientTestsCallback().after_round(FedAvg(1), report)
    assert report.metrics["accuracy_clients"] == 0.25
    assert report.metrics["accuracy_clients_by_held"] == {"x": 0.25}


def test_tests_that_fail_end_no_run(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", load_config("cg-digits", SMALL))
    limit = FailureLimit(folder)
    report = RoundReport(3, clients=[ClientReport("a", "train", ("x",))])
    failed = [ClientReport(f"c{i}", "test", ("x",), status="no answer") for i in range(20)]
    report.clients += failed
    limit.after_round(FedAvg(1), report)
    for entry in failed:
        entry.phase = "train"
    with pytest.raises(FederationError, match=r"20 of 2\d answers"):
        limit.after_round(FedAvg(1), report)


def test_whoever_is_interrupted_while_clients_test_has_not_ended_the_round() -> None:
    asked: list[Message] = []

    class Grid(FakeGrid):
        def push_messages(self, messages: Any) -> Any:
            sent = list(messages)
            if any(m.metadata.message_type == "query.measure" for m in sent):
                asked.extend(sent)
                raise Interrupted("stopped on request")
            return super().push_messages(sent)

    state, keep = federate(Grid(handlers()), 2)
    assert asked
    assert [r.round for r in keep.reports] == [1]
    assert state.round == 1

"""Counts of a test against scikit-learn and numbers made by hand; how a run's end is written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    recall_score,
)

from bmsfed_app.config import load_config
from bmsfed_app.engine import InlineGrid
from bmsfed_app.models import build_network
from bmsfed_app.record.evaluation import read_evaluation
from bmsfed_app.record.files import RunFolderError, is_complete, read_json
from bmsfed_app.record.run import read_run
from client_app.app import app
from server_app.evaluation import Evaluator
from server_app.experiment import run_experiment
from server_app.metrics import METRICS
from server_app.run_folder import RunFolder
from server_app.tally import Tally
from strategies import Callback, Decisions, Prototypes, RoundReport
from tests import synthetic


def drawn(classes: int = 5, samples: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and labels, of which the last class has none."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, classes - 1, samples)
    logits = rng.normal(size=(samples, classes)) + 2 * np.eye(classes)[labels]
    return torch.from_numpy(logits).log_softmax(1), torch.from_numpy(labels)


def test_numbers_agree_with_scikit_learn() -> None:
    log_p, labels = drawn()
    found, tally = log_p.argmax(1), Tally.of(log_p, labels)
    every = list(range(5))
    np.testing.assert_array_equal(tally.confusion, confusion_matrix(labels, found, labels=every))
    view = tally.view()
    assert view.accuracy == pytest.approx(accuracy_score(labels, found))
    assert view.macro_f1 == pytest.approx(f1_score(labels, found, labels=every, average="macro"))
    there = every[:-1]
    assert view.uar == pytest.approx(recall_score(labels, found, labels=there, average="macro"))
    assert view.loss == pytest.approx(log_loss(labels, log_p.exp(), labels=every))
    precision, recall, f1, support = precision_recall_fscore_support(labels, found, labels=there)
    assert view.by_class.precision[:-1] == pytest.approx(precision)
    assert view.by_class.recall[:-1] == pytest.approx(recall)
    assert view.by_class.f1[:-1] == pytest.approx(f1)
    assert view.by_class.samples == [*support, 0]
    assert view.by_class.recall[-1] is None
    shares = log_p.exp().numpy()
    for name, expected in (("macro-f1", view.macro_f1), ("uar", view.uar), ("ece", view.ece)):
        assert METRICS.find(name)(labels.numpy(), shares) == pytest.approx(expected)


def test_the_calibration_error_by_hand() -> None:
    # Two in the bin from 9/15 to 10/15, one of them right; one in the last bin, right.
    log_p = torch.tensor([[0.61, 0.39], [0.65, 0.35], [0.05, 0.95]]).double().log()
    tally = Tally.of(log_p, torch.tensor([0, 1, 1]))
    assert tally.ece() == pytest.approx((abs(1 - 1.26) + abs(1 - 0.95)) / 3, abs=1e-6)
    by_class = tally.view().by_class.ece
    assert by_class == pytest.approx([abs(1 - 0.61), (0.65 + 0.05) / 2], abs=1e-6)


def test_a_confidence_on_the_edge_of_two_bins_is_of_the_lower_one() -> None:
    log_p = torch.tensor([[0.0, -torch.inf], [0.0, -torch.inf]])
    tally = Tally.of(log_p, torch.tensor([0, 1]))
    assert tally.hits.tolist()[0][-1] == 1
    assert tally.view().loss is None
    assert tally.view().by_class.loss == [0.0, None]


def test_counts_of_parts_and_of_several_models_add_up() -> None:
    log_p, labels = drawn()
    whole, parts = Tally.of(log_p, labels), [Tally.of(log_p[i::2], labels[i::2]) for i in (0, 1)]
    mean = Tally.mean([(part, 3.0) for part in parts])
    torch.testing.assert_close(2 * mean.confusion, whole.confusion)
    torch.testing.assert_close(2 * mean.losses, whole.losses)
    assert mean.ece() == pytest.approx(whole.ece())


def test_views_are_what_the_evaluation_says() -> None:
    spec, test = synthetic.spec(), synthetic.split(90, seed=5)
    arrays = {n: v.numpy() for n, v in build_network(spec, 0).state_dict().items()}
    evaluator = Evaluator(spec, test, torch.device("cpu"), batch_size=17)
    means = {
        m: Prototypes(np.eye(3, w, dtype=np.float32), np.ones(3, np.int64))
        for m, w in synthetic.WIDTHS.items()
    }
    found, tallies = evaluator(arrays, means), evaluator.tallies(arrays, means)
    assert tallies["all", ""].accuracy() == found.accuracy
    assert tallies["all", ""].loss() == pytest.approx(found.loss)
    without = {m: [o for o in synthetic.WIDTHS if o != m] for m in synthetic.WIDTHS}
    left_out = evaluator.accuracies(arrays, without)
    for m in synthetic.WIDTHS:
        assert tallies["prototype", m].accuracy() == found.by_prototype[m]
        assert tallies["head", m].accuracy() == found.by_head[m]
        assert tallies["without", m].accuracy() == left_out[m]


def test_the_end_of_a_run_is_evaluated_on_every_split_and_its_history_has_the_metrics(
    tmp_path: Path,
) -> None:
    small: dict[str, Any] = {"clients": 3, "per_round": 2, "rounds": 2, "data_fraction": 0.1}
    small |= {"method": "fedavg", "validation": 0.2, "missing": {"scheme": "one", "rate": 0.3}}
    folder = RunFolder.create(tmp_path / "run", load_config("cg-digits", small))
    run_experiment(InlineGrid(app, 3), folder)
    run, found = read_run(folder.path), read_evaluation(folder.path)
    assert found is not None
    assert found.last.round == 2
    assert found.class_names == run.info.class_names
    assert set(found.last.splits) == {"test", "masked", "validation"}
    test = found.last.splits["test"]
    assert test.all.accuracy == run.values("accuracy")[-1][1]
    assert test.all.uar == pytest.approx(run.values("uar")[-1][1])
    assert found.last.splits["masked"].all.accuracy == run.values("accuracy_masked")[-1][1]
    assert test.head["gray"].accuracy == run.values("head_accuracy_by_modality", "gray")[-1][1]
    assert test.prototype["gray"].accuracy == run.values("accuracy_by_modality", "gray")[-1][1]
    assert set(test.without) == {"colored", "gray"}
    assert test.without["gray"].samples == 360
    assert {"macro-f1", "uar", "ece"} < set(json.loads((folder.path / "summary.json").read_text()))
    # A complete run that is gone on with ends with the same.
    before = (folder.path / "evaluation.json").read_bytes()
    run_experiment(InlineGrid(app, 3), RunFolder.reopen(folder.path))
    assert (folder.path / "evaluation.json").read_bytes() == before


class _InTheWay(Callback):
    """Somebody's folder where the run's last file belongs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        self.folder.mkdir()


def test_a_run_is_complete_once_its_last_model_is_evaluated(tmp_path: Path) -> None:
    small: dict[str, Any] = {"clients": 2, "per_round": 2, "rounds": 1, "data_fraction": 0.05}
    folder = RunFolder.create(tmp_path / "run", load_config("cg-digits", small))
    file = folder.path / "evaluation.json"
    with pytest.raises(RunFolderError, match=r"evaluation\.json"):
        run_experiment(InlineGrid(app, 2), folder, callbacks=[_InTheWay(file)])
    assert not is_complete(folder.path)  # a sweep would not have tried it again
    status = read_json(folder.path / "status.json", dict)
    assert (status["state"], "evaluation.json" in status["why"]) == ("failed", True)
    file.rmdir()
    run_experiment(InlineGrid(app, 2), RunFolder.reopen(folder.path))
    assert is_complete(folder.path)
    assert file.is_file()

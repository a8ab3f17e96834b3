"""Callbacks by name: from a line of the configuration to history, report and TensorBoard."""

from pathlib import Path
from typing import Any

import pytest

from bmsfed_app.config import ExperimentConfig, load_config
from bmsfed_app.engine import InlineGrid
from bmsfed_app.record.run import read_run
from client_app.app import app
from server_app.evaluation import Evaluator
from server_app.experiment import build_evaluator, initial_model, run_experiment
from server_app.run_folder import RunFolder

SMALL: dict[str, Any] = {"clients": 3, "per_round": 2, "data_fraction": 0.1, "method": "fedavg"}


def experiment(rounds: int, callbacks: dict[str, Any]) -> ExperimentConfig:
    more = {"rounds": rounds, "callbacks": callbacks, "connect_timeout": 5}
    return load_config("cg-digits", SMALL | more)


def run(path: Path, config: ExperimentConfig) -> RunFolder:
    folder = RunFolder.create(path, config)
    run_experiment(InlineGrid(app, 3), folder)
    return folder


def test_accuracy_without_a_modality_and_tensorboard(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    wanted = {"missing-modality": {"every": 2}, "tensorboard": {}}
    folder = run(tmp_path / "run", experiment(3, wanted))
    found = read_run(folder.path)
    looked = found.values("accuracy_without", "gray")
    assert [n for n, _ in looked] == [2, 3]
    # Without gray, the head sees colored alone.
    assert looked == found.values("head_accuracy_by_modality", "colored")[-2:]
    written = events.EventAccumulator(str(folder.path / "tensorboard"))
    written.Reload()
    assert [e.step for e in written.Scalars("accuracy_without/gray")] == [2, 3]
    assert [e.value for e in written.Scalars("accuracy")] == pytest.approx(
        [v for n, v in found.values("accuracy") if n > 0]
    )


def test_any_subset_of_the_modalities_can_be_evaluated() -> None:
    config = experiment(1, {})
    evaluator: Evaluator = build_evaluator(config)
    model = initial_model(config)
    whole = evaluator(model)
    found = evaluator.accuracies(model, {"all": ("colored", "gray"), "g": ["gray"], "none": []})
    assert found == {"all": whole.accuracy, "g": whole.by_head["gray"]}


@pytest.mark.parametrize(
    ("callbacks", "says"),
    [
        ({"tensorbord": {}}, r"unknown callback 'tensorbord'; did you mean 'tensorboard'\?"),
        (
            {"missing-modality": {"evry": 2}},
            r"missing-modality: .*'evry'; did you mean 'every'",
        ),
    ],
)
def test_a_callback_that_is_not_there_is_refused_before_any_round(
    callbacks: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=says):
        run(tmp_path / "run", experiment(1, callbacks))

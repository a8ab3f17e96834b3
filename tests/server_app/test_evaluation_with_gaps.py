"""Test splits that lack modalities: accuracies against plain loops over the samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bmsfed_app.config import load_config
from bmsfed_app.engine import InlineGrid
from bmsfed_app.models import build_network
from bmsfed_app.partitions import Missing, masked_as_training
from bmsfed_app.record.run import read_run
from client_app.app import app
from server_app.evaluation import Evaluator
from server_app.experiment import build_evaluator, run_experiment
from server_app.run_folder import RunFolder
from strategies import Prototypes
from tests import synthetic

CPU = torch.device("cpu")
NAMES = tuple(synthetic.WIDTHS)


def arrays() -> dict[str, Any]:
    network = build_network(synthetic.spec(), 0)
    return {n: v.numpy() for n, v in network.state_dict().items()}


def test_each_sample_by_what_it_has() -> None:
    rng = torch.Generator().manual_seed(0)
    present = {"sound": torch.rand(90, generator=rng) < 0.6, "smell": torch.arange(90) % 3 > 0}
    test, model = synthetic.split(90, seed=5).lacking(present), arrays()
    means = {m: torch.randn(3, d, generator=rng) for m, d in synthetic.WIDTHS.items()}
    prototypes = {m: Prototypes(v.numpy(), np.full(3, 9)) for m, v in means.items()}
    evaluator = Evaluator(synthetic.spec(), test, CPU, batch_size=17)
    found = evaluator(model, prototypes)
    hits, losses = [], []
    own: dict[str, list[bool]] = {m: [] for m in NAMES}
    near: dict[str, list[bool]] = {m: [] for m in NAMES}
    for i, label in enumerate(test.labels.tolist()):
        logits = torch.tensor(model["head.bias"])
        for m in NAMES:
            if m in present and not present[m][i]:
                continue
            x = test.stores[m][i]  # identity encoders: features are the inputs
            part = torch.tensor(model[f"head.weight.{m}"]) @ x
            logits = logits + part
            own[m].append(int((part + torch.tensor(model["head.bias"])).argmax()) == label)
            near[m].append(int(((means[m] - x) ** 2).sum(1).argmin()) == label)
        hits.append(int(logits.argmax()) == label)
        losses.append(float(F.cross_entropy(logits[None], torch.tensor([label]))))
    assert found.accuracy == pytest.approx(np.mean(hits))
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert found.by_head == pytest.approx({m: np.mean(v) for m, v in own.items()})
    assert found.by_prototype == pytest.approx({m: np.mean(v) for m, v in near.items()})
    assert len(own["sound"]) == int(present["sound"].sum())
    alone = evaluator.accuracies(model, {"s": ["sound"], "all": NAMES})
    assert alone == pytest.approx({"s": found.by_head["sound"], "all": found.accuracy})


def test_what_no_test_sample_has_has_no_accuracy() -> None:
    """All of a modality masked is a model without it."""
    test, model = synthetic.split(90, seed=5), arrays()
    none = torch.zeros(90, dtype=torch.bool)
    found = Evaluator(synthetic.spec(), test.lacking({"sound": none}), CPU)(model)
    less = {n: v for n, v in model.items() if ".sound" not in n}
    without = Evaluator(synthetic.spec(), test, CPU)(less)
    assert list(found.by_head) == list(found.by_prototype) == ["touch", "smell"]
    assert found.loss == pytest.approx(without.loss)
    assert found.accuracy == without.accuracy
    assert found.by_prototype == without.by_prototype


def test_accuracy_masked_as_training_is_in_the_history(tmp_path: Path) -> None:
    small: dict[str, Any] = {"clients": 3, "per_round": 2, "rounds": 1, "data_fraction": 0.1}
    small |= {"method": "fedavg", "eval_every": 1}
    missing = {"scheme": "bernoulli", "rate": 0.5}
    config = load_config("cg-digits", small | {"missing": missing})
    folder = RunFolder.create(tmp_path / "run", config)
    state = run_experiment(InlineGrid(app, 3), folder)
    evaluator = build_evaluator(config)
    masked = masked_as_training(evaluator.test, Missing(**missing), seed=config.seed)
    found = read_run(folder.path)
    alone = build_evaluator(config, masked)(state.arrays, None)
    assert found.values("accuracy_masked")[-1] == (1, pytest.approx(alone.accuracy))
    assert found.values("loss_masked")[-1] == (1, pytest.approx(alone.loss))
    whole = evaluator(state.arrays, None)
    assert found.values("accuracy")[-1] == (1, pytest.approx(whole.accuracy))
    assert whole.loss != alone.loss

"""Test samples that lack modalities: accuracies against plain loops, and beside those of all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bmsfed_app.config import load_config
from bmsfed_app.engine import InlineGrid
from bmsfed_app.models import build_network
from bmsfed_app.partitions import masked_as_training
from bmsfed_app.record.run import read_run
from client_app.app import app
from server_app.evaluation import Evaluator
from server_app.experiment import build_evaluator, run_experiment
from server_app.run_folder import RunFolder
from tests import synthetic

ALL = tuple(synthetic.WIDTHS)
MASKS = {"sound": torch.arange(90) % 4 > 0, "smell": torch.arange(90) % 5 > 0}
CPU = torch.device("cpu")


@pytest.mark.parametrize("head", ["linear", "cosine", "mmtm"])
def test_accuracies_are_those_of_a_loop_over_samples(head: str) -> None:
    """Each sample goes through the network alone, without what it lacks."""
    spec = replace(synthetic.spec(), head=head)
    network = build_network(spec, 0).eval()
    arrays = {n: v.numpy() for n, v in network.state_dict().items()}
    split = synthetic.split(90, seed=5)
    evaluator = Evaluator(spec, split.lacking(MASKS), CPU, batch_size=17)
    found = evaluator(arrays)

    def right(i: int, modalities: tuple[str, ...]) -> bool:
        x = {m: split.stores[m][i : i + 1] for m in modalities}
        return bool(network(x).logits.argmax() == split.labels[i])

    held = [tuple(m for m in ALL if m not in MASKS or MASKS[m][i]) for i in range(90)]
    with torch.no_grad():
        assert found.accuracy == pytest.approx(np.mean([right(i, held[i]) for i in range(90)]))
        for m in ALL:
            own = [right(i, (m,)) for i in range(90) if m in held[i]]
            assert found.by_head[m] == pytest.approx(np.mean(own))
            means = torch.stack(
                [
                    torch.stack([split.stores[m][i] for i in range(c, 90, 3) if m in held[i]]).mean(
                        0
                    )
                    for c in range(3)
                ]
            )
            rows = torch.tensor([m in h for h in held])
            near = torch.cdist(split.stores[m][rows], means).argmin(1) == split.labels[rows]
            assert found.by_prototype[m] == pytest.approx(float(near.double().mean()))
        pair = ("sound", "smell")
        some = [i for i in range(90) if set(held[i]) & set(pair)]
        kept = [right(i, tuple(m for m in pair if m in held[i])) for i in some]
        assert evaluator.accuracies(arrays, {"pair": pair})["pair"] == pytest.approx(np.mean(kept))


def test_accuracy_masked_as_in_training_stands_beside_that_of_the_whole_split(
    tmp_path: Path,
) -> None:
    given: dict[str, Any] = {"clients": 3, "per_round": 2, "rounds": 3, "data_fraction": 0.1}
    missing = {"scheme": "bernoulli", "rate": 0.5}
    changes = given | {"method": "fedavg", "eval_every": 2, "missing": missing}
    config = load_config("cg-digits", changes)
    folder = RunFolder.create(tmp_path / "run", config)
    state = run_experiment(InlineGrid(app, 3), folder)
    found = read_run(folder.path)
    assert [n for n, _ in found.values("accuracy_masked")] == [2, 3]
    whole = build_evaluator(config)
    masked = masked_as_training(whole.test, config.division().missing, seed=config.seed)
    assert (
        found.values("accuracy_masked")[-1][1]
        == build_evaluator(config, masked)(state.arrays, state.global_prototypes()).accuracy
    )
    assert found.values("accuracy")[-1][1] == whole(state.arrays).accuracy
    plain = load_config("cg-digits", given | {"missing": {"rate": 0.0}, "rounds": 1})
    folder = RunFolder.create(tmp_path / "plain", plain)
    run_experiment(InlineGrid(app, 3), folder)
    assert read_run(folder.path).values("accuracy_masked") == []

"""Clients trained together against the same clients one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from bmsfed_app.models import build_network
from bmsfed_app.settings import ClientSettings
from client_app.data import LocalData
from client_app.packed import packing_fault, train_together
from client_app.training import run_task
from strategies import Orders, Prototypes, SignatureOrders, Task, Update
from strategies.protocol import select_parts
from tests import synthetic

ALL = tuple(synthetic.WIDTHS)
SIZES = (60, 45, 61, 7, 60)  # in batches of 20: whole ones, a rest, a rest of one, a rest alone


def clients(sizes: Sequence[int] = SIZES) -> list[LocalData]:
    return [synthetic.client(f"c{k}", n, seed=k) for k, n in enumerate(sizes)]


def tasks(settings: ClientSettings, modalities: tuple[str, ...], **told: Any) -> list[Task]:
    state = build_network(settings.network, 0).state_dict()
    arrays = select_parts({n: v.numpy().copy() for n, v in state.items()}, modalities)
    return [
        Task(Orders("train", modalities, 2, f"c{k}", **told), arrays) for k in range(len(SIZES))
    ]


def prototypes(width: int) -> dict[str, Prototypes]:
    """The server's; class 0 of smell has none."""
    rng = np.random.default_rng(0)
    means = {m: rng.normal(size=(synthetic.CLASSES, width)).astype(np.float32) for m in ALL}
    return {m: Prototypes(v, np.array([int(m != "smell"), 5, 5])) for m, v in means.items()}


def close(one: Update, other: Update) -> None:
    """All of two answers but seconds."""
    assert (one.client_id, one.modalities, one.num_samples) == (
        other.client_id,
        other.modalities,
        other.num_samples,
    )
    for a, b in (
        (one.arrays, other.arrays),
        (one.signatures, other.signatures),
        (one.measurements, other.measurements),
        ({m: p.means for m, p in one.prototypes.items()}, {m: p.means for m, p in other.prototypes.items()}),
        (one.scores, other.scores),
        (one.ratios, other.ratios),
    ):
        assert list(a) == list(b)
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-5, err_msg=name)
    assert set(one.metrics) == set(other.metrics)
    for name in ("loss_first", "loss", "steps"):
        assert one.metrics[name] == pytest.approx(other.metrics[name], rel=1e-5, abs=1e-5)


def compare(settings, modalities=ALL, **told):
    what, data = tasks(settings, modalities, **told), clients()
    together = train_together(what, data, settings)
    for task, client, update in zip(what, data, together, strict=True):
        assert isinstance(update, Update), update
        close(run_task(task, client, settings), update)


@pytest.mark.parametrize("modalities", [ALL, ("smell",)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"clip_norm": 0.05},
        {"optimizer": {"name": "adam"}},
    ],
)
def test_cross(changes, modalities):
    compare(synthetic.settings(network=synthetic.spec("mlp"), local_epochs=3, prototypes=True, **changes), modalities)

@pytest.mark.parametrize("modalities", [ALL, ("smell",)])
def test_me(modalities):
    compare(synthetic.settings(network=synthetic.spec("mlp"), local_epochs=3, prototypes=True, **synthetic.ENHANCING), modalities, prototypes=prototypes(64), weak="smell", ratio=1.7, signature=SignatureOrders())

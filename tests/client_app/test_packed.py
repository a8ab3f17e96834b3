"""Clients trained together answer what each of them answers alone, but for rounding."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bmsfed_app.datasets.base import Renderer
from bmsfed_app.models import ENCODERS, Encoder, NetworkSpec, build_network
from bmsfed_app.settings import ClientSettings
from client_app.data import LocalData
from client_app.divergence import DivergedError
from client_app.objectives import OBJECTIVES
from client_app.objectives.cross_entropy import CrossEntropy
from client_app.packed import packing_fault, train_together
from client_app.training import run_task
from strategies import Orders, Prototypes, SignatureOrders, Task, Update
from strategies.protocol import select_parts
from tests import synthetic

ALL = tuple(synthetic.WIDTHS)
SMELL = ("smell",)
#: In batches of 20: whole ones, one with a rest, one with a rest of one sample, a rest alone.
SIZES = (60, 45, 61, 7, 60)


def clients(sizes: Sequence[int] = SIZES) -> list[LocalData]:
    return [synthetic.client(f"c{k}", n, seed=k) for k, n in enumerate(sizes)]


def settings(**changes: Any) -> ClientSettings:
    values = {"network": synthetic.spec("mlp"), "local_epochs": 3, "prototypes": True}
    return synthetic.settings(**(values | changes))


def tasks(told: ClientSettings, modalities: tuple[str, ...], **orders: Any) -> list[Task]:
    """Each client has a model of its own."""
    found = []
    for k in range(len(SIZES)):
        state = build_network(told.network, k).state_dict()
        arrays = select_parts({n: v.numpy() for n, v in state.items()}, modalities)
        found.append(Task(Orders("train", modalities, 2, f"c{k}", **orders), arrays))
    return found


def prototypes(modalities: Sequence[str] = ALL, width: int = 64) -> dict[str, Prototypes]:
    """The server's; of smell there are none of class 0."""
    rng = np.random.default_rng(0)
    means = {m: rng.normal(size=(synthetic.CLASSES, width)).astype(np.float32) for m in modalities}
    return {m: Prototypes(v, np.array([int(m != "smell"), 5, 5])) for m, v in means.items()}


def assert_alike(
    told: ClientSettings,
    what: Sequence[Task],
    data: Sequence[LocalData],
    distance: float | None = None,
) -> list[Update]:
    """All of the answers but seconds, within 1e-5; or each array's whole distance, relative to
    its norm where that is above 1: where a rounded zero is another side of a ReLU."""
    together = train_together(what, data, told)
    for task, client, update in zip(what, data, together, strict=True):
        assert isinstance(update, Update), update
        alone = run_task(task, client, told)
        same = (update.client_id, update.modalities, update.num_samples)
        assert same == (alone.client_id, alone.modalities, alone.num_samples)
        assert set(update.metrics) == set(alone.metrics)
        numbers, expected = _numbers(update), _numbers(alone)
        assert list(numbers) == list(expected)
        for name, values in numbers.items():
            where = f"{client.client_id} {name}"
            if distance is None:
                np.testing.assert_allclose(
                    values, expected[name], rtol=1e-5, atol=1e-5, err_msg=where
                )
            else:
                norm, off = (np.linalg.norm(x) for x in (expected[name], values - expected[name]))
                assert off <= distance * max(norm, 1), where
    return [u for u in together if isinstance(u, Update)]


def _numbers(update: Update) -> dict[str, Any]:
    means = {f"means {m}": p.means for m, p in update.prototypes.items()}
    counts = {f"counts {m}": p.counts for m, p in update.prototypes.items()}
    scores = {f"score {m}": s for m, s in update.scores.items()}
    ratios = {f"ratio {m}": r for m, r in update.ratios.items()}
    metrics = {n: update.metrics[n] for n in ("loss_first", "loss", "steps")}
    arrays = update.arrays | update.signatures | update.measurements
    return arrays | means | counts | scores | ratios | metrics


@pytest.mark.parametrize("modalities", [ALL, ("touch", "smell"), SMELL])
def test_cross_entropy_of_unequal_clients(modalities: tuple[str, ...]) -> None:
    told = settings()
    updates = assert_alike(told, tasks(told, modalities), clients())
    assert [u.metrics["steps"] for u in updates] == [9.0, 9.0, 12.0, 3.0, 9.0]
    assert len({u.arrays["head.bias"].tobytes() for u in updates}) == len(SIZES)


OPTIMISERS: list[dict[str, Any]] = [
    {"optimizer": {"name": "adam"}, "lr": 1e-3},
    {"optimizer": {"name": "rmsprop", "momentum": 0.5}, "lr": 1e-3},
    {"optimizer": {"name": "sgd", "nesterov": True}, "clip_norm": 0.05},
]


@pytest.mark.parametrize("changes", OPTIMISERS)
def test_clipping_and_optimisers_with_a_state(changes: dict[str, Any]) -> None:
    told = settings(**changes)
    assert_alike(told, tasks(told, ALL), clients())


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"coefficient": "constant", "head_weight": 0.5},
        {"prototypes": "local"},
    ],
)
@pytest.mark.parametrize("modalities", [ALL, SMELL])
def test_modal_enhancement_with_signatures(
    modalities: tuple[str, ...], own: dict[str, Any]
) -> None:
    changes = {"objective_settings": synthetic.ENHANCEMENT | own}
    told = settings(**synthetic.ENHANCING | changes)
    orders = {"prototypes": prototypes(), "weak": "smell", "ratio": 1.7}
    what = tasks(told, modalities, signature=SignatureOrders(), **orders)
    updates = assert_alike(told, what, clients())
    plain = train_together(tasks(settings(), modalities), clients(), settings())
    for update, without in zip(updates, plain, strict=True):
        assert isinstance(without, Update)
        name = "encoders.smell.layers.1.weight"
        assert not np.allclose(update.arrays[name], without.arrays[name], atol=1e-4)


def test_enhancement_of_who_knows_no_prototypes_or_is_not_weak() -> None:
    told = settings(**synthetic.ENHANCING)
    what = tasks(told, ALL, prototypes=prototypes(("touch",)), weak="smell", ratio=1.7)
    what[1] = Task(replace(what[1].orders, prototypes={}), what[1].arrays)
    assert_alike(told, what, clients())
    alone = tasks(told, ("touch",), prototypes=prototypes(), weak="smell", ratio=1.7)
    assert_alike(told, alone, clients())


@pytest.mark.parametrize("changes", [{"objective": "frozen_head"}, {"clip_norm": 0.05}])
def test_frozen_parts_and_the_changes_that_are_signed(changes: dict[str, Any]) -> None:
    freeze = {"touch": ["*"], "sound": ["layers.1.*"]}
    told = settings(network=replace(synthetic.spec("mlp"), freeze=freeze), **changes)
    signed = SignatureOrders(gradient="update", sketch_dim=0)
    [first, *_] = assert_alike(told, tasks(told, ALL, signature=signed), clients())
    assert not any(n.startswith("encoders.touch") for n in first.arrays)


def test_what_no_loss_touches_is_not_even_decayed() -> None:
    network = replace(synthetic.spec("mlp"), head="blending")
    told = settings(network=network, weight_decay=0.1)
    what = tasks(told, ALL)
    for task, update in zip(what, assert_alike(told, what, clients()), strict=True):
        name = "head.own_weight.touch"
        np.testing.assert_array_equal(update.arrays[name], task.arrays[name])


def pictures(told: ClientSettings, n: int, seed: int) -> LocalData:
    """A client with random pictures, augmented by flips."""
    data = synthetic.client(f"c{seed}", n, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    shapes = told.network.shapes
    stores = {m: torch.randn(n, *s, generator=rng) for m, s in shapes.items()}

    def flipped(x: Tensor, rng: torch.Generator) -> Tensor:
        flips = torch.rand(len(x), generator=rng) < 0.5
        return torch.where(flips[:, None, None, None], x.flip(-1), x)

    renderers = {m: Renderer((m,), lambda x: x, flipped) for m in shapes}
    held = replace(data.split, stores=stores, renderers=renderers)
    return replace(data, split=held, modalities=tuple(shapes))


PAIR = {"colored": (3, 8, 8), "gray": (1, 8, 8)}
CONV4 = NetworkSpec(dict.fromkeys(PAIR, "conv4"), PAIR, 3, feature_norm=10.0)


@pytest.mark.parametrize("modalities", [("colored", "gray"), ("gray",)])
def test_pairs_of_four_convolutions_with_batch_norm_and_augmentation(
    modalities: tuple[str, ...],
) -> None:
    told = settings(network=CONV4, local_epochs=2, **synthetic.ENHANCING)
    # Two clients of one size, and a rest of one sample, which batch norm cannot do with.
    data = [pictures(told, n, k) for k, n in enumerate((41, 30, 41))]
    known = prototypes(tuple(PAIR), 512)
    what = tasks(told, modalities, prototypes=known, weak="gray", ratio=1.3)[: len(data)]
    # How convolutions round differs by model of CPU: 3e-4 has been seen.
    for task, update in zip(what, assert_alike(told, what, data, distance=2e-3), strict=True):
        name = "encoders.gray.layers.0.running_mean"
        assert not np.allclose(update.arrays[name], task.arrays[name])


def test_who_cannot_start_changes_nothing_of_what_the_others_train() -> None:
    told = settings(network=CONV4, local_epochs=1, objective="frozen_head")
    what = tasks(told, tuple(PAIR))[:3]
    data = [pictures(told, n, k) for k, n in enumerate((25, 25, 1))]
    *found, failed = train_together(what, data, told)
    assert str(failed).startswith("client 'c2' has 1 sample to train on, but encoder conv4")
    for task, client, update in zip(what, data, found, strict=False):
        assert isinstance(update, Update)
        alone = run_task(task, client, told)
        for name, values in alone.arrays.items():
            np.testing.assert_allclose(update.arrays[name], values, rtol=1e-5, atol=1e-5)
        name = "directions.gray"
        np.testing.assert_allclose(
            update.measurements[name], alone.measurements[name], rtol=1e-5, atol=1e-5
        )


def test_clients_of_one_split_are_rendered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = synthetic.client(n=120)
    rows = torch.arange(120).split([40, 40, 25, 15])
    data = [replace(whole, client_id=f"c{k}", index=i) for k, i in enumerate(rows)]
    told = settings(local_epochs=1, prototypes=False)
    what = tasks(told, ALL)[: len(data)]
    assert_alike(told, what, data)
    drawn: list[int] = []
    batch = type(whole.split).batch

    def counted(self: Any, index: Tensor, *given: Any) -> Any:
        drawn.append(len(index))
        return batch(self, index, *given)

    monkeypatch.setattr(type(whole.split), "batch", counted)
    train_together(what, data, told)
    assert sorted(drawn) == [5, 15, 40, 60]  # three first batches of 20, two second ones


def test_one_that_diverges_or_lacks_what_it_shall_train_leaves_the_others_alone() -> None:
    told = settings(lr=0.01)
    what, data = tasks(told, ALL), clients()
    wild = {n: v * np.float32(1e20) for n, v in what[1].arrays.items()}
    what[1] = Task(what[1].orders, wild)
    data[3] = replace(data[3], modalities=SMELL)
    found = train_together(what, data, told)
    for place, outcome in enumerate(found):
        if place not in (1, 3):
            assert isinstance(outcome, Update)
            alone = run_task(what[place], data[place], told)
            for name, values in alone.arrays.items():
                np.testing.assert_allclose(outcome.arrays[name], values, rtol=1e-5, atol=1e-5)
            continue
        with pytest.raises(ValueError, match=re.escape(str(outcome))):
            run_task(what[place], data[place], told)
    assert isinstance(found[1], DivergedError)
    assert str(found[3]) == "client 'c3' was told to train 'sound', it lacks it"


class Squared(CrossEntropy):
    """Somebody's own, on top of one that can be packed."""

    def loss(self, output: Any, labels: Tensor) -> Tensor:
        return super().loss(output, labels).square()


def test_who_does_not_say_that_it_can_be_packed_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES.own, "squared", Squared)
    for name in ("pmr", "squared", "ogm_ge"):
        fault = packing_fault(settings(objective=name), ALL)
        assert fault == f"the objective '{name}' cannot be packed"
    fault = packing_fault(settings(optimizer={"name": "adafactor"}), ALL)
    assert fault == "the optimizer 'adafactor' cannot be packed"
    assert packing_fault(settings(compile=True), ALL) == "compiled networks cannot be packed"
    assert packing_fault(settings(), ALL) is None


class Dropping(Encoder):
    """Draws random numbers in training."""

    def __init__(self, shape: tuple[int, ...], vocabulary: int = 0, width: int = 0) -> None:
        super().__init__()
        self.width = 8
        self.layers = nn.Sequential(nn.Linear(shape[0], self.width), nn.Dropout())

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x)
        return features


def test_a_network_that_does_not_allow_it_is_known_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(ENCODERS.own, "dropping", Dropping)
    told = settings(network=synthetic.spec("dropping"))
    with pytest.raises(RuntimeError, match="random"):
        train_together(tasks(told, ALL), clients(), told)
    assert "random" in str(packing_fault(told, ALL))
    assert packing_fault(settings(), ALL) is None

"""A training step never waits for the device: each objective on a GPU that only exists in shapes.

torch's fake tensors know no values, so whatever wants to see one (``.item()``, ``float``, a mask as
an index) raises; so does what mixes tensors of the host with those of the device.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from bmsfed_app.datasets.base import constant
from bmsfed_app.datasets.kinds import Array, Frames, Image
from bmsfed_app.models import MultiModalNetwork
from bmsfed_app.prototypes import ClassMeans
from client_app import training
from client_app.data import LocalData
from client_app.objectives import (
    OBJECTIVES,
    LocalContext,
    Objective,
    build_objective,
    infiltration,
)
from client_app.objectives.feature_alignment import FeatureAlignment
from client_app.objectives.g_blending import GradientBlending
from client_app.objectives.hold_back import HoldBack
from client_app.objectives.infiltration import Infiltration
from strategies import Orders
from tests import synthetic
from tests.methods import method_with

ALL = tuple(synthetic.WIDTHS)


class EpochIsOver(Exception):
    """Raised where the losses of an epoch are looked at, which may wait."""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A device without values; gradients are there, but nothing goes backwards."""

    def over(*args: Any) -> None:
        raise EpochIsOver

    def no_copy(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("copied to the host")

    with FakeTensorMode(), torch.device("cuda"):
        monkeypatch.setattr(training, "check_losses", over)
        monkeypatch.setattr(Tensor, "cpu", no_copy)
        monkeypatch.setattr(Tensor, "numpy", no_copy)
        # Generators are of real devices only.
        monkeypatch.setattr(LocalContext, "generator", lambda *args: torch.Generator("cpu"))
        yield torch.device("cuda")


def client(device: torch.device) -> LocalData:
    data = synthetic.client()
    stores = {m: torch.empty(60, d, device=device) for m, d in synthetic.WIDTHS.items()}
    labels = torch.empty(60, dtype=torch.int64, device=device)
    index = torch.empty(60, dtype=torch.int64, device=device)
    split = type(data.split)(labels, stores, data.split.renderers)
    return LocalData("c", split, index, ALL, synthetic.CLASSES)


def means(device: torch.device, width: int) -> ClassMeans:
    counts = torch.empty(synthetic.CLASSES, dtype=torch.int64, device=device)
    return ClassMeans(torch.empty(synthetic.CLASSES, width, device=device), counts, covering=True)


def steps(
    name: str, modalities: tuple[str, ...], device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """An epoch of an objective as its method has it, with whatever it is given."""
    method = method_with(name)
    head, head_settings = method.head()
    spec = synthetic.spec("mlp")
    network = MultiModalNetwork(
        type(spec)(**{**vars(spec), "head": head, "head_settings": head_settings}), modalities
    )
    settings = synthetic.settings(network=network.spec, clip_norm=1.0)
    orders = Orders("train", modalities, round=2, weak=modalities[0], ratio=3.0)
    known = {m: means(device, 64) for m in modalities}
    features = {m: torch.empty(60, 64, device=device) for m in modalities}
    context = LocalContext(orders, settings, features, known, known)
    objective = build_objective(*method.objective()).bind(network, context)

    def backward(loss: Tensor) -> None:
        assert loss.device.type == device.type
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def grad(loss: Tensor, inputs: list[Tensor], **kwargs: Any) -> list[Tensor]:
        assert loss.device.type == device.type
        return [torch.zeros_like(x) for x in inputs]

    monkeypatch.setattr(Tensor, "backward", backward)
    monkeypatch.setattr(torch.autograd, "grad", grad)
    # Left out is what is done once a task or an epoch, and so may wait; not FedPAC's own loop.
    if isinstance(objective, FeatureAlignment):
        monkeypatch.setattr(objective, "on_start", objective._train_head)
    if isinstance(objective, GradientBlending | HoldBack):
        monkeypatch.setattr(objective, "training_data", lambda data: data)
    if isinstance(objective, Infiltration):  # a copy of what is fake is fake in another way
        another = MultiModalNetwork(network.spec, modalities)
        monkeypatch.setattr(infiltration, "deepcopy", lambda network, memo: another)
    monkeypatch.setattr(objective, "on_epoch", lambda data, epoch: None)
    return lambda: training.train(objective, client(device)) and None


@pytest.mark.parametrize("modalities", [ALL, ("sound",)], ids=["several", "one"])
@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_no_step_waits_for_the_device(
    name: str,
    modalities: tuple[str, ...],
    gpu: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    epoch = steps(name, modalities, gpu, monkeypatch)
    with pytest.raises(EpochIsOver):
        epoch()


class Crossings(TorchDispatchMode):
    """Counts the copies from the device to the host."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default:
            self.count += args[0].device.type == "cuda" and out.device.type == "cpu"
        return out


def test_inputs_on_the_host_are_looked_up_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are drawn once a pass; with every batch, nothing comes back from the device."""
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)  # fake memory cannot be
    with FakeTensorMode(), Crossings() as crossings:
        data = client(torch.device("cuda"))
        stores = {m: store.cpu() for m, store in data.split.stores.items()}
        data = replace(data, split=replace(data.split, stores=stores))
        crossings.count = 0
        for inputs, labels in data.batches(7, ALL, torch.Generator()):
            assert {t.device.type for t in (*inputs.values(), labels)} == {"cuda"}
    assert crossings.count == 1


@pytest.mark.parametrize("kind", [Image(side=8), Frames(side=8, most=4), Array((3,), scale=2.0)])
def test_rendering_waits_for_nothing(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    renderer = kind.renderer("x")
    kept = {
        "pixels": (4, 3, 9, 9) if isinstance(kind, Frames) else (3, 9, 9),
        "number": (),
        "aspect": (),
        "values": (3,),
    }
    with FakeTensorMode(), Crossings() as crossings:
        constant.cache_clear()  # of what other tests need
        rows = [torch.empty(5, *kept[part], device="cuda") for part in kind.parts]
        rendered = [renderer.render(*rows)]
        if renderer.augment is not None:
            rendered.append(renderer.augment(*rows, torch.Generator()))
    constant.cache_clear()
    assert {(x.device.type, tuple(x.shape)) for x in rendered} == {("cuda", (5, *kind.shape))}
    assert crossings.count == 0


def test_what_waits_is_found(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Objective, "loss", lambda self, output, labels: float(output.logits.sum()))
    epoch = steps("cross_entropy", ALL, gpu, monkeypatch)
    with pytest.raises(DataDependentOutputException):
        epoch()

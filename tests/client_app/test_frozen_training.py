"""One client's task where encoders are frozen, and batches of one sample."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.datasets.base import Renderer, Split
from bmsfed_app.models import MultiModalNetwork, NetworkSpec, Output, build_network
from client_app import app
from client_app.data import LocalData
from client_app.training import run_task
from strategies import Orders, SignatureOrders, Task, Update
from strategies.protocol import ask_enrolment
from strategies.selection.sketch import count_sketch
from tests import synthetic
from tests.federation import initial

ALL = tuple(synthetic.WIDTHS)
EXACT = SignatureOrders(sketch_dim=0)
PARTLY = replace(synthetic.spec("mlp"), freeze={"touch": ["*"], "sound": ["layers.1.*"]})


def run(spec: NetworkSpec, data: LocalData, orders: Orders, **changes: object) -> Update:
    settings = synthetic.settings(**({"network": spec, "batch_size": 60} | changes))
    return run_task(Task(orders, initial(spec)), data, settings)


def gradient(spec: NetworkSpec, names: list[str]) -> np.ndarray:
    """Of the cross-entropy at the initial model over all samples, for these parameters."""
    network = build_network(replace(spec, freeze={}), 0)
    inputs, labels = next(synthetic.client().batches(60, ALL))
    F.cross_entropy(network(inputs).logits, labels).backward()
    flat = [network.get_parameter(n).grad for n in names]
    return torch.cat([g.ravel() for g in flat if g is not None]).numpy()


SIGNED = [
    "head.weight.touch",  # its encoder has nothing left to sign
    *("encoders.sound.layers.3.weight", "encoders.sound.layers.3.bias"),
    *(f"encoders.smell.layers.{n}" for n in ("1.weight", "1.bias", "3.weight", "3.bias")),
]


def test_signatures_are_of_what_is_trained_of_encoders_or_else_of_heads() -> None:
    found = run(PARTLY, synthetic.client(), Orders("measure", ALL, signature=EXACT)).signatures
    np.testing.assert_allclose(found["multi"], gradient(PARTLY, SIGNED), rtol=1e-3, atol=1e-6)
    assert not found["enhance.touch"].any()  # enhancement reaches features only
    assert found["enhance.sound"].any()


def test_a_sketch_is_of_the_same_numbers() -> None:
    orders = Orders("measure", ALL, signature=SignatureOrders(sketch_dim=64, seed=3))
    found = run(PARTLY, synthetic.client(), orders).signatures["multi"]
    parts = {m: gradient(PARTLY, [n for n in SIGNED if f".{m}" in n]) for m in ALL}
    np.testing.assert_allclose(found, count_sketch(parts, 64, 3), rtol=1e-3, atol=1e-6)


def test_a_lacking_modality_is_a_block_of_zeros_of_what_others_sign() -> None:
    data = synthetic.client(modalities=("sound", "smell"))
    spec = PARTLY
    part = {n: v for n, v in initial(spec).items() if "touch" not in n}
    settings = synthetic.settings(network=spec)
    task = Task(Orders("measure", ("sound", "smell"), signature=EXACT), part)
    found = run_task(task, data, settings).signatures["multi"]
    assert len(found) == len(gradient(spec, SIGNED))
    assert not found[: 64 * synthetic.CLASSES].any()


def test_the_change_of_a_frozen_model_is_of_the_same_parameters() -> None:
    orders = Orders("train", ALL, signature=replace(EXACT, gradient="update"))
    update, before = run(PARTLY, synthetic.client(), orders), initial(PARTLY)
    change = np.concatenate([(before[n] - update.arrays[n]).ravel() for n in SIGNED])
    np.testing.assert_allclose(update.signatures["multi"], change, rtol=1e-5, atol=1e-7)


def test_what_is_free_trains_as_if_frozen_weights_were_constants() -> None:
    """Against plain SGD by hand, with weight decay and the gradient's norm clipped."""
    orders = Orders("train", ALL)
    update = run(PARTLY, synthetic.client(), orders, weight_decay=0.1, clip_norm=0.01, lr=0.2)
    network = MultiModalNetwork(PARTLY)
    network.load_state_dict({n: torch.tensor(v) for n, v in initial(PARTLY).items()})
    inputs, labels = next(synthetic.client().batches(60, ALL))
    F.cross_entropy(network(inputs).logits, labels).backward()
    grads = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    norm = float(torch.cat([g.ravel() for g in grads.values()]).norm())
    assert set(update.arrays) == set(grads)
    for name, g in grads.items():
        p = network.get_parameter(name).detach()
        expected = p - 0.2 * (g * min(1.0, 0.01 / norm) + 0.1 * p)
        np.testing.assert_allclose(update.arrays[name], expected.numpy(), rtol=1e-3, atol=1e-5)


# --- images, batch norm, one sample ---------------------------------------------------------------

IMAGES = NetworkSpec({"a": "conv4", "b": "mlp"}, {"a": (1, 8, 8), "b": (4,)}, 3)
FROZEN = replace(IMAGES, freeze={"a": ["*"]})


def images(n: int, modalities: tuple[str, ...] = ("a", "b")) -> LocalData:
    rng = torch.Generator().manual_seed(0)
    stores = {
        "a": torch.randn(n, 1, 8, 8, generator=rng) * 3 + 1,
        "b": torch.randn(n, 4, generator=rng),
    }
    renderers = {m: Renderer((m,), lambda x: x) for m in stores}
    split = Split(torch.arange(n) % 3, stores, renderers)
    return LocalData("ward", split, torch.arange(n), modalities, 3)


def test_running_statistics_of_a_frozen_encoder_stand_still() -> None:
    update = run(FROZEN, images(40), Orders("train", ("a", "b")), batch_size=8, local_epochs=2)
    assert all(not n.startswith("encoders.a.") for n in update.arrays)
    assert {"head.weight.a", "encoders.b.layers.1.weight"} <= set(update.arrays)
    free = run(IMAGES, images(40), Orders("train", ("a", "b")), batch_size=8, local_epochs=2)
    mean = "encoders.a.layers.0.running_mean"
    assert (free.arrays[mean] != initial(IMAGES)[mean]).all()


@pytest.mark.parametrize(("samples", "sizes"), [(17, [8, 9]), (18, [8, 8, 2]), (3, [3]), (2, [2])])
def test_a_last_batch_of_one_joins_the_one_before_where_batches_are_normalised(
    samples: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def note(network: MultiModalNetwork, inputs: dict[str, Tensor]) -> Output:
        if network.training:
            seen.append(len(next(iter(inputs.values()))))
        return forward(network, inputs)

    forward = MultiModalNetwork.forward
    monkeypatch.setattr(MultiModalNetwork, "forward", note)
    run(IMAGES, images(samples), Orders("train", ("a", "b")), batch_size=8)
    assert seen == sizes
    seen.clear()
    run(FROZEN, images(samples), Orders("train", ("a", "b")), batch_size=8)  # at running statistics
    assert seen == [min(8, samples - i) for i in range(0, samples, 8)]


ONE = r"client 'ward' has 1 sample to train on, but encoder conv4 of 'a' normalises.*min_samples"


def test_one_sample_has_nothing_to_be_normalised_by() -> None:
    with pytest.raises(ValueError, match=ONE):
        run(IMAGES, images(1), Orders("train", ("a", "b")))
    with pytest.raises(ValueError, match="batch_size is 1, but encoder conv4 of 'a'"):
        run(IMAGES, images(9), Orders("train", ("a", "b")), batch_size=1)
    run(FROZEN, images(1), Orders("train", ("a", "b")))
    only_b = images(1, ("b",))
    part = {n: v for n, v in initial(IMAGES).items() if not n.startswith("encoders.a.")}
    del part["head.weight.a"]
    settings = synthetic.settings(network=IMAGES)
    run_task(Task(Orders("train", ("b",)), part), only_b, settings)


def test_holding_out_may_leave_too_few() -> None:
    settings = {"objective": "g_blending", "objective_settings": {"holdout": 0.2, "measure": True}}
    spec = replace(IMAGES, head="blending")
    with pytest.raises(ValueError, match=ONE):
        run(spec, images(2), Orders("train", ("a", "b")), **settings)


def test_a_node_with_one_sample_is_refused_before_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "local_data", lambda config, settings: images(1))
    settings = synthetic.settings(network=IMAGES).to_json()
    question, node = (
        SimpleNamespace(content=ask_enrolment(settings)),
        SimpleNamespace(node_config={}),
    )
    with pytest.raises(ValueError, match=ONE):
        app.enrol(question, node)  # type: ignore[arg-type]

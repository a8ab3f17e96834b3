"""The torch helper lets clients of other projects do what our own clients do."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmsfed_app.datasets import Inputs
from bmsfed_app.models import MultiModalNetwork
from client_app.local_task import LocalTask
from client_app.training import run_task
from strategies import Orders, Prototypes, SignatureOrders, Task, Update
from strategies.federation.dialects import Parcel
from strategies.protocol import (
    Kind,
    modalities_of,
    owner,
    pack_orders,
    select_parts,
    unpack_measurements,
)
from tests import synthetic
from tests.client_app.test_training import model

ONE_BATCH = {"network": synthetic.spec("mlp"), "batch_size": 60}


def foreign(modalities: tuple[str, ...], kind: Kind, protos: Any = None) -> tuple[Any, ...]:
    """A task as a foreign client receives it, the network and data it has, and ours."""
    arrays = select_parts(model(), modalities)
    orders = Orders(
        kind,
        modalities,
        measure_prototypes=True,
        prototypes=protos or {},
        weak="smell" if kind == "train" else None,
        ratio=1.4,
        signature=SignatureOrders(sketch_dim=64, seed=3),
    )
    encoder_of = {n: str(owner(n)) for n in arrays if n.startswith("encoders.")}
    config = pack_orders(orders) | Parcel([], encoder_of, held=3).pack()
    task = LocalTask(config, synthetic.CLASSES)
    network = MultiModalNetwork(synthetic.spec("mlp"), modalities)
    network.load_state_dict({n: torch.tensor(v) for n, v in arrays.items()})
    inputs, labels = next(synthetic.client().batches(60, modalities))
    return task, network, inputs, labels, Task(orders, arrays)


def answered(task: LocalTask) -> Update:
    return unpack_measurements("client-0", task.answer())


@pytest.mark.parametrize(
    "modalities", [("touch", "sound", "smell"), ("touch", "smell"), ("smell",)]
)
def test_a_probe_measures_what_our_client_measures(modalities: tuple[str, ...]) -> None:
    task, network, inputs, labels, sent = foreign(modalities, "measure")
    assert task.probe
    ours = run_task(sent, synthetic.client(), synthetic.settings(**ONE_BATCH))
    output = network.eval()(inputs)
    task.begin(output.features, labels)
    task.sign(network, output.logits, output.features, labels)
    task.measure(output.features, labels)
    theirs = answered(task)
    assert set(theirs.signatures) == set(ours.signatures)
    for name, vector in ours.signatures.items():
        np.testing.assert_allclose(theirs.signatures[name], vector, rtol=1e-3, atol=1e-5)
    assert theirs.scores == pytest.approx(ours.scores, rel=1e-5)
    assert theirs.ratios == pytest.approx(ours.ratios, rel=1e-5)
    assert set(theirs.prototypes) == set(modalities)
    for m, p in ours.prototypes.items():
        np.testing.assert_allclose(theirs.prototypes[m].means, p.means, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(theirs.prototypes[m].counts, p.counts)


@pytest.mark.parametrize("modalities", [("touch", "smell"), ("smell",), ("touch",)])
def test_one_step_with_enhancement_is_our_clients_step(modalities: tuple[str, ...]) -> None:
    rng = np.random.default_rng(1)
    network = MultiModalNetwork(synthetic.spec("mlp"))
    width = {
        m: e(torch.zeros(1, synthetic.WIDTHS[m])).shape[1] for m, e in network.encoders.items()
    }
    protos = {
        m: Prototypes(rng.normal(size=(3, width[m])).astype(np.float32), np.array([4, 4, 4]))
        for m in modalities
    }
    task, network, inputs, labels, sent = foreign(modalities, "train", protos)
    assert not task.probe
    settings = synthetic.settings(
        **synthetic.ENHANCING,
        lr=0.5,
        momentum=0.0,
        weight_decay=0.0,
        local_epochs=1,
        **ONE_BATCH,
    )
    ours = run_task(sent, synthetic.client(), settings)
    with torch.no_grad():
        task.begin(network.eval()(inputs).features, labels)
    output = network.train()(inputs)
    extra = task.enhancement(output.features, labels)
    assert (float(extra.detach()) > 0) == ("smell" in modalities)
    (F.cross_entropy(output.logits, labels) + extra).backward()
    for name, p in network.named_parameters():
        want = ours.arrays[name]
        np.testing.assert_allclose((p - 0.5 * p.grad).detach().numpy(), want, rtol=1e-3, atol=1e-5)
    assert set(modalities_of(ours.arrays)) == set(modalities)


def test_misuse_is_said() -> None:
    with pytest.raises(ValueError, match="ModalityMod among the ClientApp's mods"):
        LocalTask({"lr": 0.1}, 3)
    task, network, inputs, labels, _ = foreign(("touch", "smell"), "train")
    features = network(inputs).features
    with pytest.raises(RuntimeError, match=r"call LocalTask\.begin"):
        task.enhancement(features, labels)
    with pytest.raises(ValueError, match=r"features of \['touch'\] were given"):
        task.measure({"touch": features["touch"]}, labels)


@pytest.mark.parametrize("masked", [True, False], ids=["with a mask", "without their rows"])
def test_samples_that_lack_a_modality_are_refused(masked: bool) -> None:
    task, network, inputs, labels, _ = foreign(("touch", "smell"), "train")
    there = torch.arange(len(labels)) % 5 > 0
    output = network(Inputs(inputs, {"smell": there}))
    z = output.features
    gapped = Inputs(z, output.present) if masked else z | {"smell": z["smell"][there]}
    task.begin({m: z[there] for m, z in z.items()}, labels[there])
    for ask in (
        task.begin,
        task.enhancement,
        task.measure,
        lambda *given: task.sign(network, output.logits, *given),
    ):
        with pytest.raises(ValueError, match=r"lack 'smell' .*no masks: pass rows that have all"):
            ask(gapped, labels)


class TwoTowers(nn.Module):
    """Another project's model, with names of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.vision, self.bert = nn.Linear(4, 5), nn.Linear(3, 5)
        self.classifier = nn.Linear(10, 3)

    def forward(self, x: Tensor, y: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        z = {"image": self.vision(x).relu(), "text": self.bert(y).relu()}
        return z, self.classifier(torch.cat(list(z.values()), dim=1))


def test_a_foreign_models_signature_is_the_gradient_of_its_towers() -> None:
    torch.manual_seed(0)
    network, labels = TwoTowers(), torch.arange(12) % 3
    signature = SignatureOrders(sketch_dim=32, seed=1, enhancing=False)
    orders = Orders("train", ("image", "text"), signature=signature)
    towers = {n: {"v": "image", "b": "text"}[n[0]] for n in network.state_dict() if n[0] in "vb"}
    task = LocalTask(pack_orders(orders) | Parcel([], towers, held=2).pack(), 3)
    z, logits = network(torch.randn(12, 4), torch.randn(12, 3))
    task.sign(network, logits, z, labels)
    F.cross_entropy(logits, labels).backward()
    from strategies.selection.sketch import count_sketch

    flat = {
        m: torch.cat([p.grad.flatten() for p in t.parameters()]).numpy()
        for m, t in (("image", network.vision), ("text", network.bert))
    }
    got = answered(task).signatures
    assert set(got) == {"multi"}
    np.testing.assert_allclose(got["multi"], count_sketch(flat, 32, 1), rtol=1e-5, atol=1e-7)

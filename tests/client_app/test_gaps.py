"""Training on samples that lack modalities: what they have counts, what they lack is not there."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.datasets import Inputs
from bmsfed_app.methods import METHODS, MethodSettings, find_method
from bmsfed_app.models import MultiModalNetwork, NetworkSpec, build_network
from bmsfed_app.settings import ClientSettings
from client_app.data import LocalData
from client_app.features import extract_features, measure
from client_app.training import run_task
from strategies import Orders, Prototypes, Task, Update, aggregate_parts
from strategies.protocol import select_parts
from tests import synthetic
from tests.methods import method_with

ALL = tuple(synthetic.WIDTHS)
#: Every fourth sample lacks sound, every fifth smell, one both.
MASKS = {"sound": torch.arange(60) % 4 > 0, "smell": torch.arange(60) % 5 > 0}


def gapped(masks: Mapping[str, Tensor] = MASKS, garbage: float = 0.0) -> LocalData:
    """A client whose samples lack what masks say; what stands in its place is garbage."""
    data = synthetic.client("c")
    stores = dict(data.split.stores)
    for m, mask in masks.items():
        stores[m] = torch.where(mask[:, None], stores[m], garbage)
    return replace(data, split=replace(data.split, stores=stores).lacking(masks))


def prototypes(spec: NetworkSpec) -> dict[str, Prototypes]:
    rng, classes = np.random.default_rng(0), synthetic.CLASSES
    return {
        m: Prototypes(
            rng.normal(size=(classes, spec.width(m))).astype(np.float32), np.full(classes, 5)
        )
        for m in ALL
    }


def told(method: MethodSettings | None = None, **changes: Any) -> ClientSettings:
    """What an experiment with a method says, where all that it does is done in all rounds."""
    (head, head_settings), (objective, settings) = ("linear", {}), ("cross_entropy", {})
    if method is not None:
        (head, head_settings), (objective, settings) = method.head(), method.objective()
    spec = replace(synthetic.spec("mlp"), head=head, head_settings=head_settings)
    given = {"objective": objective, "objective_settings": settings, "local_epochs": 2}
    if method is not None:
        given["uni_weight"] = method.uni_weight
    return synthetic.settings(**({"network": spec, "prototypes": True} | given | changes))


def trained(data: LocalData, settings: ClientSettings, modalities: tuple[str, ...] = ALL) -> Update:
    spec = settings.network
    arrays = {n: v.numpy() for n, v in build_network(spec, 0).state_dict().items()}
    orders = Orders("train", modalities, 2, "c", prototypes=prototypes(spec), weak="smell")
    return run_task(Task(orders, select_parts(arrays, modalities)), data, settings)


def bits(update: Update) -> dict[str, bytes]:
    """All that an answer says, but how long it took."""
    found = {n: v.tobytes() for n, v in {**update.arrays, **update.measurements}.items()}
    found |= {f"prototypes.{m}": p.means.tobytes() for m, p in update.prototypes.items()}
    told = {n: v for n, v in update.metrics.items() if not n.startswith("seconds")}
    return found | {"metrics": repr((told, update.scores, update.ratios)).encode()}


def loop(data: LocalData, settings: ClientSettings, weight: float) -> dict[str, Tensor]:
    """Cross-entropy of what each sample has and, by weight, of each modality: sample by sample."""
    network = build_network(settings.network, 0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    rng = synthetic.context(round=2, client_id="c").generator("batches")
    for _ in range(settings.local_epochs):
        for rows in torch.randperm(60, generator=rng).split(settings.batch_size):
            fused, own = [], {m: list[Tensor]() for m in ALL}
            for i in rows.tolist():
                y, logits = data.split.labels[i], network.head.bias
                for m in ALL:
                    if m not in MASKS or MASKS[m][i]:
                        z = network.encode(m, data.split.stores[m][i : i + 1])[0]
                        part = network.head.weight[m] @ z
                        logits = logits + part
                        own[m].append(F.cross_entropy(part + network.head.bias, y))
                fused.append(F.cross_entropy(logits, y))
            uni = sum(torch.stack(losses).mean() for losses in own.values())
            optimizer.zero_grad()
            (torch.stack(fused).mean() + weight * uni).backward()
            optimizer.step()
    return network.state_dict()


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_training_is_a_loop_over_samples_and_what_they_have(weight: float) -> None:
    settings = told(uni_weight=weight)
    found, expected = trained(gapped(), settings), loop(gapped(), settings, weight)
    assert set(found.arrays) == set(expected)
    for name, value in found.arrays.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
    counts = {m: int(MASKS[m].sum()) for m in MASKS}
    assert (found.num_samples, found.present) == (60, counts)


OF_METHODS = sorted({find_method(name)().objective()[0] for name in METHODS.names()})


@pytest.mark.parametrize("objective", OF_METHODS)
def test_what_stands_in_place_of_what_lacks_changes_nothing(objective: str) -> None:
    """Neither training nor any measurement; nor does who has no gaps notice that others may."""
    settings = told(method_with(objective))
    if objective == "infiltration":
        why = "samples of client 'c' lack 'sound', but with the objective 'infiltration' one mod"
        with pytest.raises(ValueError, match=why):
            trained(gapped(), settings)
        return
    zeros, garbage = trained(gapped(), settings), trained(gapped(garbage=100.0), settings)
    assert bits(zeros) == bits(garbage)
    assert zeros.metrics["loss"] > 0
    whole = trained(synthetic.client("c"), settings)
    assert bits(whole) != bits(zeros)
    for name, value in zeros.arrays.items():
        assert np.isfinite(value).all(), name


@pytest.mark.parametrize("encoder", ["mlp", "identity"])
def test_a_modality_that_all_lack_is_one_that_the_client_lacks_to_the_bit(encoder: str) -> None:
    network = build_network(synthetic.spec(encoder), 0)
    labels, stores = synthetic.split().labels, synthetic.split().stores
    nobody = Inputs(stores, {"sound": torch.zeros(60, dtype=torch.bool)})
    found = []
    for inputs in (nobody, {m: x for m, x in stores.items() if m != "sound"}):
        network.zero_grad()
        output = network(inputs)
        F.cross_entropy(output.logits, labels).backward()
        grads = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
        found.append((output.logits, {n: g for n, g in grads.items() if "sound" not in n}))
        assert not any(g.any() for n, g in grads.items() if "sound" in n)
    (masked, own), (without, expected) = found
    assert torch.equal(masked, without)
    assert set(own) == set(expected)
    assert all(torch.equal(own[n], expected[n]) for n in own)


def test_nothing_of_an_absent_row_is_learnt() -> None:
    """Neither its input nor its feature has a gradient; without it, encoders learn the same."""
    network = build_network(synthetic.spec("mlp"), 0)
    stores = {m: x[:20].clone().requires_grad_() for m, x in synthetic.split().stores.items()}
    masks = {m: mask[:20] for m, mask in MASKS.items()}
    output = network(Inputs(stores, masks))
    for z in output.features.values():
        z.retain_grad()
    output.logits.square().sum().backward()
    for m, mask in masks.items():
        assert not stores[m].grad[~mask].any()
        assert not output.features[m][~mask].any()
        assert not output.parts[m][~mask].any()
        assert stores[m].grad[mask].any(dim=1).all()
    with_gaps = [p.grad.clone() for p in network.encoders["sound"].parameters()]
    network.zero_grad()
    logits = sum(
        network(
            Inputs({m: x[i : i + 1] for m, x in stores.items() if m not in masks or masks[m][i]})
        )
        .logits.square()
        .sum()
        for i in range(20)
    )
    logits.backward()
    for a, p in zip(with_gaps, network.encoders["sound"].parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-4, atol=1e-5)


def test_batch_norm_sees_present_rows_alone_and_never_one() -> None:
    spec = synthetic.spec("identity")
    network = MultiModalNetwork(spec)
    norm = torch.nn.BatchNorm1d(3, momentum=1.0)
    network.encoders["sound"] = norm
    network.normalising = ("sound",)
    network.train()
    stores = synthetic.split().stores
    network(Inputs(stores, {"sound": MASKS["sound"]}))
    rows = stores["sound"][MASKS["sound"]]
    torch.testing.assert_close(norm.running_mean, rows.mean(dim=0))
    before = norm.running_mean.clone()
    output = network(Inputs(stores, {"sound": torch.arange(60) == 7}))
    assert not output.present["sound"].any()
    assert torch.equal(norm.running_mean, before)
    network.eval()
    assert network(Inputs(stores, {"sound": torch.arange(60) == 7})).present["sound"].sum() == 1


def test_prototypes_and_scores_are_of_the_samples_that_have_the_modality() -> None:
    data = gapped()
    features = extract_features(build_network(synthetic.spec(), 0), data)
    found, alone = Update("c", ALL), Update("c", ALL)
    measure(found, features, data.labels, 3, gaps=data.gaps(features))
    for m, mask in MASKS.items():
        rows = data.split.stores[m][mask]
        measure(alone, {m: rows}, data.labels[mask], 3)
        np.testing.assert_array_equal(found.prototypes[m].counts, alone.prototypes[m].counts)
        np.testing.assert_allclose(found.prototypes[m].means, alone.prototypes[m].means, rtol=1e-6)
        assert found.scores[m] == pytest.approx(alone.scores[m] * 60 / len(rows), rel=1e-6)
    assert found.prototypes["touch"].counts.sum() == 60


def test_who_has_more_of_a_modality_weighs_more_in_its_parts_alone() -> None:
    """Both have ten samples; of sound one of them has two."""
    names = ("encoders.sound.w", "head.weight.sound", "encoders.touch.w", "head.bias")
    old = {n: np.zeros(1, np.float32) for n in names}
    updates = [
        Update(c, ("touch", "sound"), 10, {n: np.array([v], np.float32) for n in names}, present=p)
        for c, v, p in (("a", 1.0, {"sound": 2}), ("b", 7.0, {}))
    ]
    new = {n: float(v[0]) for n, v in aggregate_parts(old, updates).items()}
    of_sound, shared = (2 * 1 + 10 * 7) / 12, 4.0
    assert new == pytest.approx(dict(zip(names, (of_sound, of_sound, shared, shared), strict=True)))


def test_what_a_client_is_not_told_to_train_does_not_count() -> None:
    """Who trains sound alone has the samples that have it, and no others."""
    update = trained(gapped(), told(), ("sound",))
    assert (update.num_samples, update.present) == (45, {})
    rows = MASKS["sound"].nonzero().squeeze(1)
    data = synthetic.client("c")
    assert bits(update) == bits(trained(replace(data, index=rows), told(), ("sound",)))

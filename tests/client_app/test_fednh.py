"""The cosine head, and what a client of FedNH trains and sends."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bmsfed_app.models import CosineHead, build_network
from client_app.training import run_task
from strategies import Orders, Task
from strategies.protocol import select_parts
from tests import synthetic
from tests.federation import initial

SPEC = replace(synthetic.spec("mlp"), head="cosine", head_settings={"scale": 4.0})


def features(rows: int = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {m: torch.randn(rows, d, generator=rng) for m, d in synthetic.WIDTHS.items()}


def head(scale: float = 4.0) -> CosineHead:
    made = CosineHead(synthetic.WIDTHS, synthetic.CLASSES, scale=scale)
    made.reset(torch.Generator().manual_seed(3))
    return made


@pytest.mark.parametrize("present", [("touch", "sound", "smell"), ("sound", "smell"), ("smell",)])
def test_logits_are_scaled_cosines_over_the_modalities_that_are_there(
    present: tuple[str, ...],
) -> None:
    made, z = head(), {m: x for m, x in features().items() if m in present}
    joined = torch.cat(list(z.values()), dim=1)
    rows = torch.cat([made.weight[m] for m in present], dim=1)
    cosines = F.cosine_similarity(joined[:, None], rows[None], dim=2)
    torch.testing.assert_close(made(z), 4.0 * cosines)
    torch.testing.assert_close(sum(made.parts(z).values()), made(z))


def test_scaling_the_features_changes_nothing() -> None:
    made, z = head(), features()
    torch.testing.assert_close(made({m: 7.0 * x for m, x in z.items()}), made(z))


def test_rows_start_orthonormal_over_all_modalities_and_depend_on_the_seed() -> None:
    rows = torch.cat(list(head().weight.values()), dim=1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(synthetic.CLASSES))
    same = torch.cat(list(head().weight.values()), dim=1)
    assert torch.equal(rows, same)
    one, other = (build_network(SPEC, s).head.weight["smell"] for s in (0, 1))
    assert not torch.equal(one, other)


def test_what_cannot_be_orthogonal_or_scaled_says_why() -> None:
    with pytest.raises(ValueError, match="10 classes cannot be orthogonal in 9 features"):
        CosineHead(synthetic.WIDTHS, 10).reset(torch.Generator())
    with pytest.raises(ValueError, match="scale is 0"):
        CosineHead(synthetic.WIDTHS, 3, scale=0)
    # A client that holds the narrow modality alone gets its rows from the server.
    CosineHead({"smell": 2}, 3)


def test_a_feature_of_zeros_has_a_gradient_without_nan() -> None:
    z = {m: torch.zeros(2, d, requires_grad=True) for m, d in synthetic.WIDTHS.items()}
    F.cross_entropy(head()(z), torch.tensor([0, 1])).backward()
    assert all(torch.isfinite(x.grad).all() for x in z.values())


@pytest.mark.parametrize("held", [("touch", "sound", "smell"), ("smell",)])
def test_a_client_trains_all_but_the_directions_and_sends_its_own(held: tuple[str, ...]) -> None:
    data = synthetic.client(modalities=held, n=50)
    received = select_parts(initial(SPEC), held)
    settings = synthetic.settings(network=SPEC, objective="frozen_head", weight_decay=0.5)
    update = run_task(Task(Orders("train", held), dict(received)), data, settings)
    assert set(received) - set(update.arrays) == {f"head.weight.{m}" for m in held}
    assert "head.bias" not in received
    assert all(not np.array_equal(update.arrays[n], received[n]) for n in update.arrays)

    network = build_network(SPEC, 0).eval()
    network.load_state_dict({n: torch.tensor(v) for n, v in update.arrays.items()}, strict=False)
    inputs, labels = next(data.batches(50, held))
    with torch.no_grad():
        z = torch.cat(list(network(inputs).features.values()), dim=1).double()
    z = z / z.norm(dim=1, keepdim=True)
    sent = np.concatenate([update.measurements[f"directions.{m}"] for m in held], axis=1)
    for label in range(synthetic.CLASSES):
        mean = z[labels == label].mean(dim=0)
        np.testing.assert_allclose(sent[label], mean / mean.norm(), atol=1e-6)
    counts = torch.bincount(labels, minlength=synthetic.CLASSES)
    np.testing.assert_array_equal(update.measurements["counts"], counts)
    assert sent.dtype == np.float32


def test_a_class_that_the_client_lacks_has_no_direction() -> None:
    held = ("touch", "smell")
    data = synthetic.client(modalities=held)
    data = replace(data, index=data.index[data.labels != 1])
    settings = synthetic.settings(network=SPEC, objective="frozen_head")
    task = Task(Orders("train", held), select_parts(initial(SPEC), held))
    sent = run_task(task, data, settings).measurements
    assert sent["counts"].tolist() == [20, 0, 20]
    assert not sent["directions.touch"][1].any()
    norms = sum((sent[f"directions.{m}"] ** 2).sum(axis=1) for m in held)
    np.testing.assert_allclose(norms, [1, 0, 1], atol=1e-6)

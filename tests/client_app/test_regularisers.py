"""FedProx's and FedProto's terms against hand-worked numbers and other libraries' arithmetic."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bmsfed_app.models import Output, build_network
from bmsfed_app.prototypes import ClassMeans, enhancement_loss
from client_app.objectives import Objective
from client_app.objectives.cross_entropy import CrossEntropy
from client_app.objectives.prototype_distance import PrototypeDistance, squared_distance
from client_app.objectives.proximal import Proximal
from client_app.training import train
from tests import synthetic


def test_the_proximal_term_is_half_mu_times_the_squared_drift() -> None:
    network, data = build_network(synthetic.spec(), 0), synthetic.client()
    objective = Proximal(mu=0.5).bind(network, synthetic.context())
    objective.on_start(data)
    inputs, labels = next(data.batches(20, network.modalities))
    plain = F.cross_entropy(network(inputs).logits, labels)
    assert objective.loss(network(inputs), labels).item() == plain.item()
    with torch.no_grad():
        for i, p in enumerate(network.parameters()):
            p += 0.1 * (i + 1)
    drift = sum(p.numel() * (0.1 * (i + 1)) ** 2 for i, p in enumerate(network.parameters()))
    output = network(inputs)
    expected = F.cross_entropy(output.logits, labels).item() + 0.25 * drift
    found = objective.loss(output, labels).item()
    assert found == pytest.approx(expected, rel=1e-5)


class Quadratic(Proximal):
    """(c/2) (w - v)^2 in place of cross-entropy, on every parameter."""

    c, v = 3.0, 2.0

    def loss(self, output, labels):  # type: ignore[no-untyped-def]
        proximal = super().loss(output, labels)
        plain = F.cross_entropy(output.logits, labels)
        own = sum(((p - self.v) ** 2).sum() for p in self.network.parameters())
        return proximal - plain + self.c / 2 * own


def test_with_a_quadratic_the_minimum_is_the_weighted_mean() -> None:
    network, data = build_network(synthetic.spec(), 0), synthetic.client()
    received = [p.detach().clone() for p in network.parameters()]
    settings = synthetic.settings(local_epochs=80, lr=0.1, momentum=0.0, weight_decay=0.0)
    train(Quadratic(mu=1.5).bind(network, synthetic.context(shared=settings)), data)
    for p, w in zip(network.parameters(), received, strict=True):
        torch.testing.assert_close(p.detach(), (3.0 * 2.0 + 1.5 * w) / 4.5, rtol=1e-4, atol=1e-4)


def test_the_first_step_is_fedavgs() -> None:
    states = []
    objectives: tuple[Objective, ...] = (CrossEntropy(), Proximal(mu=10.0))
    for objective in objectives:
        network = build_network(synthetic.spec("mlp"), 0)
        train(objective.bind(network, synthetic.context()), synthetic.client(), max_steps=1)
        states.append(network.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_an_anchor_is_taken_anew_for_every_training() -> None:
    """Workers keep networks: a second task starts from what it received."""
    network, data = build_network(synthetic.spec(), 0), synthetic.client()
    objective = Proximal(mu=1.0).bind(network, synthetic.context())
    objective.on_start(data)
    with torch.no_grad():
        next(network.parameters()).add_(1.0)
    objective.on_start(data)
    inputs, labels = next(data.batches(20, network.modalities))
    output = network(inputs)
    assert float(objective.loss(output, labels)) == float(F.cross_entropy(output.logits, labels))


# --- FedProto -------------------------------------------------------------------------------------


def protos(*rows: list[float], counts: list[int] | None = None) -> ClassMeans:
    return ClassMeans(torch.tensor(rows), torch.tensor(counts or [1] * len(rows)))


def test_the_distance_is_the_mean_over_batch_and_width() -> None:
    z = torch.tensor([[1.0, 2.0], [0.0, 0.0], [5.0, 5.0]], requires_grad=True)
    labels = torch.tensor([0, 1, 1])
    c = protos([1.0, 0.0], [3.0, 4.0])
    loss = squared_distance(z, labels, c)
    assert float(loss) == pytest.approx((4 + 25 + 4 + 1) / 6)
    lam = 0.7
    (lam * loss).backward()
    expected = 2 * lam * (z.detach() - c.means[labels]) / (2 * 3)  # 2 λ (z - c) / (D B)
    torch.testing.assert_close(z.grad, expected)


def test_features_at_their_prototypes_cost_nothing_and_absent_classes_do_not_count() -> None:
    c = protos([1.0, 0.0], [9.0, 9.0], counts=[4, 0])
    on_it = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert float(squared_distance(on_it, torch.tensor([0, 0]), c)) == 0
    mixed = torch.tensor([[2.0, 0.0], [7.0, 7.0]], requires_grad=True)
    loss = squared_distance(mixed, torch.tensor([0, 1]), c)
    assert float(loss) == pytest.approx(1 / 4)  # the mean is still over the whole batch
    loss.backward()
    np.testing.assert_array_equal(mixed.grad[1], [0, 0])


@pytest.mark.parametrize("distance", ["squared", "softmax"])
def test_every_assigned_modality_counts(distance: str) -> None:
    features = {m: torch.randn(4, 3, generator=torch.Generator().manual_seed(1)) for m in "ab"}
    labels, logits = torch.tensor([0, 1, 0, 1]), torch.zeros(4, 2)
    known = {m: protos([0.0, 1.0, 2.0], [1.0, 1.0, 1.0]) for m in "ab"}
    objective = PrototypeDistance(lam=2.0, distance=distance)  # type: ignore[arg-type]
    objective.context = synthetic.context("a", "b")
    objective.context.global_prototypes = known
    term = squared_distance if distance == "squared" else enhancement_loss
    expected = F.cross_entropy(logits, labels) + 2.0 * sum(
        term(z, labels, known[m]) for m, z in features.items()
    )
    found = objective.loss(Output(features, logits), labels)
    torch.testing.assert_close(found, expected)


def test_without_global_prototypes_it_is_cross_entropy() -> None:
    logits, labels = torch.tensor([[1.0, 2.0]]), torch.tensor([0])
    output = Output({"a": torch.ones(1, 3)}, logits)
    objective = PrototypeDistance(1.0, "squared")
    objective.context = synthetic.context("a")
    assert float(objective.loss(output, labels)) == float(F.cross_entropy(logits, labels))

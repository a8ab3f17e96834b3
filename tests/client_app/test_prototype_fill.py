"""PmcmFL's clients: hand-worked logits, and training against a plain loop over whole samples."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bmsfed_app.models import MultiModalNetwork, NetworkSpec, Output, build_network
from bmsfed_app.settings import ClientSettings
from client_app.objectives import build_objective
from client_app.objectives.prototype_fill import PrototypeFill
from client_app.packed import train_together
from client_app.training import run_task
from strategies import Orders, Prototypes, Task, Update
from strategies.protocol import select_parts
from tests import synthetic
from tests.federation import initial

PAIR = NetworkSpec({"A": "identity", "V": "identity"}, {"A": (2,), "V": (2,)}, 2)
IDENTITY = Prototypes(np.eye(2, dtype=np.float32), np.array([3, 3]))
Z = torch.tensor([[0.0, 0.5], [0.0, 0.5]])
LABELS = torch.tensor([1, 0])
#: Logits of z_A = (0, 0.5) with W_A = I, W_V = diag(2, 1), and c_V = I in place of z_V.
FILLED = [[0.0, 1.5], [2.0, 0.5]]


def bound(held: tuple[str, ...], known: Prototypes = IDENTITY, **told: Any) -> PrototypeFill:
    network = MultiModalNetwork(PAIR, held, ("A", "V"))
    with torch.no_grad():
        network.head.weight["A"].copy_(torch.eye(2))
        network.head.weight["V"].copy_(torch.diag(torch.tensor([2.0, 1.0])))
    context = synthetic.context(
        *held, prototypes={"A": known, "V": known}, shared=synthetic.settings(network=PAIR, **told)
    )
    objective = build_objective("prototype_fill", {}).bind(network, context)
    assert isinstance(objective, PrototypeFill)
    objective.on_start(synthetic.client())
    return objective


def logits_of(objective: PrototypeFill, output: Output) -> list[list[float]]:
    found: list[list[float]] = objective.filled(output, LABELS, objective.fills).tolist()
    return found


def test_a_client_that_lacks_a_modality_by_hand() -> None:
    objective = bound(("A",))
    output = objective.network({"A": Z})
    assert logits_of(objective, output) == FILLED
    loss = objective.loss(output, LABELS)
    assert loss.item() == pytest.approx(F.cross_entropy(torch.tensor(FILLED), LABELS).item())
    loss.backward()
    error = torch.softmax(torch.tensor(FILLED), dim=1) - F.one_hot(LABELS, 2)
    means = torch.eye(2)[LABELS]  # what V's columns are trained through
    torch.testing.assert_close(objective.network.head.weight["V"].grad, error.T @ means / 2)
    assert not objective.fills["V"].requires_grad


def test_samples_that_lack_a_modality_by_hand() -> None:
    """The first sample lacks V, the second has it: (1, 1), where W_V gives (2, 1)."""
    objective = bound(("A", "V"))
    v = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    output = objective.network({"A": Z, "V": v})
    output.present["V"] = torch.tensor([False, True])
    assert logits_of(objective, output) == [FILLED[0], [2.0, 1.5]]
    assert logits_of(objective, objective.network({"A": Z, "V": v})) == [[0.0, 0.5], [2.0, 1.5]]


def test_a_class_without_prototype_adds_nothing() -> None:
    known = Prototypes(np.full((2, 2), 7.0, np.float32), np.array([0, 3]))
    objective = bound(("A",), known)
    assert logits_of(objective, objective.network({"A": Z})) == [[14.0, 7.5], [0.0, 0.5]]


def test_uni_modal_losses_go_through_what_is_there_alone() -> None:
    alone = F.cross_entropy(Z, LABELS).item()
    objective = bound(("A",), uni_weight=0.5)
    output = objective.network({"A": Z})
    filled = objective.loss(output, LABELS).item()
    assert objective.total(output, LABELS).item() == pytest.approx(filled + 0.5 * alone)
    objective.fills = {}  # before there are prototypes its loss is that of its modality alone
    assert objective.total(output, LABELS).item() == pytest.approx(alone)


SPEC = synthetic.spec("mlp")
MEANS = {
    m: Prototypes(
        np.random.default_rng(i).normal(size=(synthetic.CLASSES, 64)).astype(np.float32),
        np.array([int(m != "smell"), 5, 5]),  # of smell there are none of class 0
    )
    for i, m in enumerate(synthetic.WIDTHS)
}


def told(**changes: Any) -> ClientSettings:
    values = {"network": SPEC, "objective": "prototype_fill", "local_epochs": 2}
    return synthetic.settings(**(values | changes))


def task(client: str, held: tuple[str, ...], known: dict[str, Prototypes]) -> Task:
    arrays = initial(SPEC)
    columns = {n: arrays[n] for m in known if (n := f"head.weight.{m}")}
    orders = Orders("train", held, 2, client, measure_prototypes=True, prototypes=known)
    return Task(orders, select_parts(arrays, held) | columns)


def test_training_is_a_loop_over_samples_whose_missing_features_are_prototypes() -> None:
    held, data = ("touch",), synthetic.client("c", n=45, modalities=("touch",))
    found = run_task(task("c", held, MEANS), data, told())
    network = build_network(SPEC, 0)
    trained = [*network.encoders["touch"].parameters(), *network.head.parameters()]
    optimizer = torch.optim.SGD(trained, lr=0.05, momentum=0.9, weight_decay=1e-4)
    rng = synthetic.context(*held, round=2, client_id="c").generator("batches")
    for _ in range(2):
        for rows in torch.randperm(45, generator=rng).split(20):
            y = data.split.labels[rows]
            z = {"touch": network.encode("touch", data.split.stores["touch"][rows])}
            for m in ("sound", "smell"):
                means, counts = torch.tensor(MEANS[m].means), torch.tensor(MEANS[m].counts)
                z[m] = torch.stack([means[c] * (counts[c] > 0) for c in y])
            optimizer.zero_grad()
            F.cross_entropy(network.head(z), y).backward()
            optimizer.step()
    assert {n for n in found.arrays if n.startswith("head.")} == {
        n for n in initial(SPEC) if n.startswith("head.")
    }
    for name, value in found.arrays.items():
        expected = network.state_dict()[name].numpy()
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6, err_msg=name)
        assert not np.array_equal(value, initial(SPEC)[name])
    assert set(found.prototypes) == {"touch"}  # only of what it has


@pytest.mark.parametrize("known", [{}, MEANS])
def test_where_nothing_is_missing_it_is_cross_entropy_to_the_bit(
    known: dict[str, Prototypes],
) -> None:
    held = tuple(synthetic.WIDTHS)
    data = synthetic.client("c", n=45)
    found, plain = (
        run_task(task("c", held, known), data, told(objective=o))
        for o in ("prototype_fill", "cross_entropy")
    )
    assert found.metrics["loss"] == plain.metrics["loss"]
    assert {n: v.tobytes() for n, v in found.arrays.items()} == {
        n: v.tobytes() for n, v in plain.arrays.items()
    }


@pytest.mark.parametrize("uni_weight", [0.0, 1.0])
@pytest.mark.parametrize("held", [("touch", "sound"), ("smell",)])
def test_clients_trained_together_answer_as_each_alone(
    held: tuple[str, ...], uni_weight: float
) -> None:
    data = [synthetic.client(f"c{k}", n, k, held) for k, n in enumerate((60, 45, 7))]
    settings = told(uni_weight=uni_weight)
    tasks = [task(d.client_id, held, MEANS) for d in data]
    for what, own, update in zip(tasks, data, train_together(tasks, data, settings), strict=True):
        assert isinstance(update, Update), update
        alone = run_task(what, own, settings)
        assert list(update.arrays) == list(alone.arrays)
        for name, value in update.arrays.items():
            np.testing.assert_allclose(value, alone.arrays[name], rtol=1e-5, atol=1e-5)


def test_columns_besides_leave_all_else_as_it_was() -> None:
    plain, more = MultiModalNetwork(SPEC, ["touch"]), MultiModalNetwork(SPEC, ["touch"], ["smell"])
    assert set(more.state_dict()) - set(plain.state_dict()) == {"head.weight.smell"}
    assert more.modalities == ("touch",)
    more.load_state_dict(plain.state_dict(), strict=False)
    x = {"touch": torch.randn(4, 4)}
    assert torch.equal(plain(x).logits, more(x).logits)
    assert isinstance(more.head, nn.Module)

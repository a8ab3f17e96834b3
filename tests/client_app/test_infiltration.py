"""FedCMI's objective: published constants, a plain loop over samples, who learns from whom."""

import doctest
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.config import ConfigError, load_config
from bmsfed_app.models import MultiModalNetwork, build_network
from client_app.objectives import Needs, infiltration
from client_app.objectives.infiltration import Infiltration, distillation, temperatures
from client_app.training import extract_features, train
from strategies.protocol import select_parts
from tests import synthetic
from tests.test_methods import federate

SPEC = replace(synthetic.spec("mlp"), head="infiltration")
HELD = tuple(synthetic.WIDTHS)
DATA = synthetic.client()


def network(modalities: tuple[str, ...] = HELD, spec: Any = SPEC) -> MultiModalNetwork:
    arrays = {n: v.numpy() for n, v in build_network(spec, 3).state_dict().items()}
    return MultiModalNetwork(spec, modalities).restart(select_parts(arrays, modalities))


def started(
    model: MultiModalNetwork, *, server_round: int = 2, beta: float = 1.0, mu: float = 0.0
) -> Infiltration:
    """Bound, given what it needs, and started."""
    context = synthetic.context(*model.modalities, round=server_round)
    objective = Infiltration(mu, beta).bind(model, context)
    if Needs.FEATURES in objective.needs:
        context.features = extract_features(model, DATA)
    objective.on_start(DATA)
    return objective


def moved(model: MultiModalNetwork) -> None:
    """Train the model away from what was received."""
    rng = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn(p.shape, generator=rng)


def a_loss(objective: Infiltration, model: MultiModalNetwork) -> tuple[Tensor, Tensor]:
    """The loss of a batch, and its labels."""
    inputs, labels = next(DATA.batches(20, model.modalities))
    objective.on_batch(inputs)
    return objective.loss(model(inputs), labels), labels


# --- published rules -----------------------------------------------------------------------------


def test_the_oracle_of_temperatures() -> None:
    p = torch.tensor([[0.9, 0.6, 0.4], [0.3, 0.5, 0.4]])
    t = temperatures(p, torch.tensor([True] * 3))
    assert t[0, 1].tolist() == pytest.approx([0.476842, 1.0, 1.0], abs=1e-6)
    assert torch.equal(t[0, 0], torch.ones(3))
    assert doctest.testmod(infiltration).failed == 0


def test_temperatures_are_of_the_classes_seen_and_above_0() -> None:
    p = torch.tensor([[0.9, 0.6, 0.0], [0.3, 0.5, 0.7]])
    mean = (3 + 1.2) / 2
    t = temperatures(p, torch.tensor([True, True, False]))
    expected = float(1 / (1 + 2 * torch.tensor(3 / mean).log()))
    assert t[0, 1, :2].tolist() == pytest.approx([expected, 1.0])
    never = temperatures(torch.tensor([[1.0, 1.0], [0.0, 1.0]]), torch.tensor([True, True]))
    assert ((never > 0) & (never <= 1)).all()


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.432465), (0.5, 0.162900)])
def test_the_oracle_of_distillation(temperature: float, expected: float) -> None:
    taught = torch.tensor([[[2.0, 0.0]], [[9.0, 9.0]]])
    learnt = torch.tensor([[[5.0, 7.0]], [[1.0, 0.0]]])
    found = distillation(taught, learnt, torch.tensor(0), torch.full((2, 2, 1), temperature))
    assert float(found) == pytest.approx(expected, abs=1e-6)


@torch.no_grad()
def by_hand(received: MultiModalNetwork, model: MultiModalNetwork, beta: float) -> float:
    """The loss of the first batch, sample by sample, in float64."""
    received, model = received.double().eval(), model.double().eval()
    inputs, labels = next(DATA.batches(20, model.modalities))
    whole = {m: x.double() for m, x in next(DATA.batches(60, model.modalities))[0].items()}

    def logits(net: MultiModalNetwork, x: dict[str, Tensor], what: str) -> dict[str, Tensor]:
        found = {}
        for m, z in net({m: v.double() for m, v in x.items()}).features.items():
            head = net.head
            projected = z @ head.get_parameter(f"{what}.{m}").T
            projected = projected + head.get_parameter(f"{what}_bias.{m}")
            found[m] = projected @ head.own_weight[m].T + head.own_bias[m]
        return found

    total = F.cross_entropy(model({m: x.double() for m, x in inputs.items()}).logits, labels)
    own, learnt = logits(model, inputs, "specific"), logits(model, inputs, "infiltrated")
    taught, known = logits(received, inputs, "specific"), logits(received, whole, "specific")
    total = total + 2 * sum(F.cross_entropy(own[m], labels) for m in own)
    score = {m: sum(x[i].softmax(0)[y] for i, y in enumerate(labels)) for m, x in own.items()}
    leader = max(score, key=lambda m: float(score[m]))
    right = {
        m: [x.softmax(1)[DATA.labels == c, c].mean() for c in range(3)] for m, x in known.items()
    }
    students = [m for m in own if m != leader]
    for m in students:
        r = torch.stack([a / b for a, b in zip(right[leader], right[m], strict=True)])
        for i, y in enumerate(labels):
            above = r[y] / r.mean()
            t = 1 / (1 + 2 * above.log()) if above > 1 else 1.0
            target = (taught[leader][i] / t).softmax(0)
            kd = -(target * (learnt[m][i] / t).log_softmax(0)).sum()
            total = total + beta * kd / len(labels) / len(students)
    return float(total)


@pytest.mark.parametrize("modalities", [HELD, ("touch", "smell")], ids=["three", "two"])
def test_the_loss_is_that_of_a_plain_loop(modalities: tuple[str, ...]) -> None:
    model, received = network(modalities), network(modalities)
    objective = started(model, beta=0.7)
    moved(model)
    found, _ = a_loss(objective, model)
    assert found.item() == pytest.approx(by_hand(received, model, 0.7), rel=1e-5)


# --- who learns from whom ------------------------------------------------------------------------


def gradients(beta: float) -> tuple[dict[str, Tensor], str, Infiltration]:
    """Gradients of the whole loss; who leads the batch; the objective."""
    model = network()
    objective = started(model, beta=beta)
    moved(model)
    loss, labels = a_loss(objective, model)
    loss.backward()
    inputs, _ = next(DATA.batches(20, HELD))
    p = model.head.own(model(inputs).features).softmax(-1)
    scores = p[:, torch.arange(20), labels].sum(1)
    there = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return there, HELD[int(scores.argmax())], objective


def test_the_leader_teaches_and_learns_nothing_and_its_teacher_gets_no_gradient() -> None:
    with_kd, leader, objective = gradients(1.0)
    without, _, _ = gradients(0.0)
    assert not any(n.startswith("head.infiltrated") for n in without)
    for m in HELD:
        taught = float(with_kd[f"head.infiltrated.{m}"].abs().max())
        encoder = [n for n in without if n.startswith(f"encoders.{m}.")]
        assert (taught == 0) == (m == leader)
        assert all(torch.equal(with_kd[n], without[n]) == (m == leader) for n in encoder)
        assert torch.equal(with_kd[f"head.specific.{m}"], without[f"head.specific.{m}"])
    assert objective.teacher is not None
    assert all(p.grad is None for p in objective.teacher.parameters())


def test_the_teacher_is_the_received_model_and_holds_what_is_frozen_once() -> None:
    model = network(spec=replace(SPEC, freeze={"sound": ["*"]}))
    before = {n: v.clone() for n, v in model.state_dict().items()}
    objective = started(model)
    moved(model)
    teacher = objective.teacher
    assert teacher is not None
    assert not teacher.training
    for name, p in teacher.named_parameters():
        if name in model.frozen:
            assert p is model.get_parameter(name)
        else:
            assert torch.equal(p, before[name])


@pytest.mark.parametrize(
    ("modalities", "server_round", "beta"), [(HELD, 1, 1.0), (HELD, 5, 0.0), (("smell",), 5, 1.0)]
)
def test_nobody_teaches_in_round_1_at_beta_0_or_alone(
    modalities: tuple[str, ...], server_round: int, beta: float
) -> None:
    model = network(modalities)
    objective = started(model, server_round=server_round, beta=beta)
    assert objective.needs == Needs.NOTHING
    assert objective.teacher is None
    inputs, labels = next(DATA.batches(20, modalities))
    objective.on_batch(inputs)
    output = model(inputs)
    expected = F.cross_entropy(output.logits, labels)
    if len(modalities) > 1:
        expected = expected + 2 * sum(
            F.cross_entropy(x, labels) for x in model.head.own(output.features)
        )
    torch.testing.assert_close(objective.loss(output, labels), expected)


def test_alone_the_second_projection_learns_by_the_columns_of_who_is_absent() -> None:
    model = network(("smell",))
    loss, _ = a_loss(started(model), model)
    loss.backward()
    assert float(model.head.infiltrated["smell"].grad.abs().max()) > 0
    assert (model.head.weight.grad != 0).all()
    assert model.head.own_weight["smell"].grad is None


def test_the_proximal_term_adds_mu_times_the_drift_to_gradients() -> None:
    found = []
    for mu in (0.0, 0.3):
        model, received = network(), network()
        objective = started(model, mu=mu)
        moved(model)
        a_loss(objective, model)[0].backward()
        found.append(model)
    for name, w in received.named_parameters():
        plain, pulled = (model.get_parameter(name) for model in found)
        before = 0.0 if plain.grad is None else plain.grad
        torch.testing.assert_close(pulled.grad, before + 0.3 * (plain.detach() - w.detach()))


def test_a_client_without_samples_of_a_class_trains_all_the_same() -> None:
    index = torch.nonzero(DATA.labels < 2)[:, 0]
    few, model = replace(DATA, index=index), network()
    context = synthetic.context(*HELD, round=2)
    objective = Infiltration(0.0, 1.0).bind(model, context)
    context.features = extract_features(model, few)
    assert torch.isfinite(torch.tensor(train(objective, few)["loss"]))
    assert objective.temperatures.isfinite().all()


# --- as a method ---------------------------------------------------------------------------------


def test_distillation_starts_in_the_second_round() -> None:
    for rounds, same in ((1, True), (2, False)):
        runs = [federate("fedcmi", rounds=rounds, encoder="mlp", beta=b)[0] for b in (0.0, 1.0)]
        infiltrated = [s.arrays["head.infiltrated.touch"].tobytes() for s in runs]
        assert (infiltrated[0] == infiltrated[1]) == same


def test_what_it_cannot_do_is_refused() -> None:
    plain = build_network(synthetic.spec(), 0)
    with pytest.raises(ValueError, match="needs the head 'infiltration', not 'linear'"):
        Infiltration(0.0, 1.0).bind(plain, synthetic.context())
    for given, reason in (
        ({"uni_weight": 1.0}, "uni_weight: the head 'infiltration' .* no columns by modality"),
        ({"head": "linear"}, "head: method 'fedcmi' takes no other head"),
        ({"beta": 11}, "beta: .*less than or equal to 10"),
    ):
        with pytest.raises(ConfigError, match=reason):
            load_config("cg-digits", {"method": "fedcmi"} | given)

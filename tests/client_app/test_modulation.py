"""OGM-GE, AGM and PMR: published factors, gradients against autograd, who is left alone."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bmsfed_app.models import MultiModalNetwork, Output, build_network
from bmsfed_app.prototypes import ClassMeans
from client_app.features import extract_features, local_prototypes
from client_app.objectives import LocalContext, Objective
from client_app.objectives.agm import AdaptiveGradientModulation
from client_app.objectives.modal_enhancement import NOTHING, Target
from client_app.objectives.modulation import others_mean, split_logits
from client_app.objectives.ogm_ge import OgmGe
from client_app.objectives.pmr import PrototypicalModalRebalance
from client_app.training import train
from tests import synthetic

OGM = OgmGe(0.8, noise=True, until=0.4)
AGM = AdaptiveGradientModulation(1.0, until=0.4)


def shares(*probabilities: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Shares of the logits (a, 1, 2) that give the true class these probabilities."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()], dim=1)[:, None], torch.tensor([0])


def passed(objective: Objective, modalities: tuple[str, ...] = tuple(synthetic.WIDTHS)) -> tuple:
    """Gradients of cross-entropy, plain and as an objective leaves them."""
    network = MultiModalNetwork(synthetic.spec("mlp"), modalities)
    whole = build_network(synthetic.spec("mlp"), 0).state_dict()
    network.load_state_dict({n: whole[n] for n in network.state_dict()})
    objective.bind(network, synthetic.context(*modalities))
    data = synthetic.client()
    inputs, labels = next(data.batches(20, modalities))
    output = network(inputs)
    objective.on_start(data)
    objective.loss(output, labels).backward()
    plain = {n: p.grad.clone() for n, p in network.named_parameters()}
    objective.after_backward(output, labels)
    return network, plain, {n: p.grad for n, p in network.named_parameters()}, output, labels


# --- shares of the logits -----------------------------------------------------------------------


@pytest.mark.parametrize("present", [("touch", "sound", "smell"), ("touch", "smell")])
def test_shares_sum_to_the_logits_and_are_shapley_values(present: tuple[str, ...]) -> None:
    network = build_network(synthetic.spec("mlp"), 0)
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor([0.5, -1.0, 2.0]))
    data = synthetic.client()
    inputs, _ = next(data.batches(7, present))
    output = network(inputs)
    split = split_logits(network, output)
    torch.testing.assert_close(split.sum(dim=0), output.logits.detach())
    # Shapley values by definition: padded features, f(empty) dropped, here by all orders.
    from itertools import permutations

    features = output.features
    for i, m in enumerate(present):
        gains = []
        for order in permutations(present):
            before = order[: order.index(m)]
            with_m = network.head({n: features[n] for n in [*before, m]})
            without = network.head({n: features[n] for n in before}) if before else 0.0
            gains.append(with_m - without)
        torch.testing.assert_close(split[i], torch.stack(gains).mean(dim=0).detach())


def test_the_mean_of_the_others() -> None:
    found = others_mean(torch.tensor([1.0, 2.0, 6.0]))
    torch.testing.assert_close(found, torch.tensor([4.0, 3.5, 1.5]))


# --- OGM-GE -------------------------------------------------------------------------------------


def test_ogm_slows_down_the_leader() -> None:
    split, labels = shares(0.8, 0.4)
    k = OGM.factors(split, labels)
    np.testing.assert_allclose(k, [0.078331, 1.0], atol=1e-6)
    np.testing.assert_allclose(OGM.factors(split.flip(0), labels), k.flip(0))


def test_a_tie_modulates_nobody_and_of_three_all_above_the_others_mean_are() -> None:
    assert OGM.factors(*shares(0.5, 0.5)).tolist() == [1.0, 1.0]
    k = OgmGe(0.5, noise=True, until=0.4).factors(*shares(0.9, 0.6, 0.1))
    rho = np.array([0.9 / 0.35, 0.6 / 0.5])
    np.testing.assert_allclose(k, [*(1 - np.tanh(0.5 * rho)), 1.0], atol=1e-6)


def test_without_noise_encoder_weights_are_scaled_and_nothing_else() -> None:
    objective = OgmGe(0.8, noise=False, until=0.4)
    network, plain, found, output, labels = passed(objective)
    k = dict(
        zip(output.features, objective.factors(split_logits(network, output), labels), strict=True)
    )
    assert min(k.values()) < 1 <= max(k.values())
    for name, gradient in plain.items():
        scope, owner, *_ = name.split(".")
        scaled = scope == "encoders" and gradient.dim() >= 2
        expected = gradient * float(k[owner]) if scaled else gradient
        assert torch.equal(found[name], expected), name


def test_noise_has_the_unscaled_gradients_spread_and_is_the_same_for_a_seed() -> None:
    network, plain, found, output, labels = passed(OgmGe(0.8, noise=True, until=0.4))
    again = passed(OgmGe(0.8, noise=True, until=0.4))[2]
    factors = OGM.factors(split_logits(network, output), labels)
    name = "encoders.touch.layers.3.weight"
    k = float(factors[list(output.features).index("touch")])
    noise = found[name] - k * plain[name]
    assert float(noise.std() / plain[name].std()) == pytest.approx(1.0, abs=0.05)
    assert float(noise.mean().abs()) < 0.05 * float(noise.std())
    assert all(torch.equal(found[n], again[n]) for n in found)
    assert torch.equal(found["encoders.touch.layers.3.bias"], plain["encoders.touch.layers.3.bias"])


@pytest.mark.parametrize("objective", [OGM, AGM])
def test_one_modality_alone_is_left_alone(objective: Objective) -> None:
    _, plain, found, *_ = passed(objective, ("sound",))
    assert all(torch.equal(found[n], g) for n, g in plain.items())


# --- AGM ----------------------------------------------------------------------------------------


def test_agms_first_step_and_its_running_means() -> None:
    objective = AdaptiveGradientModulation(1.0, until=0.4)
    objective.means = torch.zeros(2, dtype=torch.float64)
    first = shares(float(np.exp(-0.2)), float(np.exp(-1.0)))
    np.testing.assert_allclose(objective.factors(*first), [0.293599, 1.734416], atol=1e-6)
    np.testing.assert_allclose(objective.means, [0.2, 1.0], atol=1e-9)
    # The second step, lead as usual: no modulation; S becomes the mean of both.
    np.testing.assert_allclose(objective.factors(*first), [1.0, 1.0], atol=1e-9)
    second = shares(float(np.exp(-0.5)), float(np.exp(-0.4)))
    objective.factors(*second)
    np.testing.assert_allclose(objective.means, [0.3, 0.8], atol=1e-9)
    assert objective.steps == 3


def test_agm_scales_encoder_and_head_columns_alike_and_the_bias_by_the_mean() -> None:
    objective = AdaptiveGradientModulation(0.1, until=0.4)
    network, plain, found, output, labels = passed(objective)
    judge = AdaptiveGradientModulation(0.1, until=0.4)
    judge.means = torch.zeros(3, dtype=torch.float64)
    kappa = judge.factors(split_logits(network, output), labels)
    by_name = dict(zip(output.features, kappa, strict=True))
    for name, gradient in plain.items():
        owner = name.split(".")[-1] if name.startswith("head.weight") else name.split(".")[1]
        k = float(kappa.mean()) if name == "head.bias" else float(by_name[owner])
        torch.testing.assert_close(found[name], gradient * k, rtol=1e-5, atol=1e-8)
    assert max(by_name.values()) != min(by_name.values())


def test_agm_clips_where_the_heads_gradient_grows_beyond_1() -> None:
    _, _, found, *_ = passed(AdaptiveGradientModulation(5.0, until=0.4))
    norm = torch.stack([g.norm() for g in found.values()]).norm()
    assert float(norm) <= 1.0 + 1e-4


def test_agm_goes_on_from_the_means_it_is_sent() -> None:
    network, data = build_network(synthetic.spec(), 0), synthetic.client()
    objective = AdaptiveGradientModulation(1.0, until=0.4).bind(network, synthetic.context())
    train(objective, data)
    sent = objective.after_training({}, data)
    assert set(sent) == {"agm.touch", "agm.sound", "agm.smell", "agm.steps"}
    assert {v.shape for v in sent.values()} == {(1,)}
    assert sent["agm.steps"] == 3  # 60 samples in batches of 20
    means = {m: float(sent[f"agm.{m}"][0]) for m in network.modalities}
    context = synthetic.context(method_state={"means": means, "steps": 3})
    later = AdaptiveGradientModulation(1.0, until=0.4).bind(network, context)
    later.on_start(data)
    assert later.means.tolist() == objective.means.tolist()
    assert later.steps == 3


# --- PMR ----------------------------------------------------------------------------------------


def pmr(
    context: LocalContext, encoder: str = "identity", **changes: Any
) -> PrototypicalModalRebalance:
    values = {"coefficient": "clipped", "coefficient_value": 1.0, "until": 0.4} | changes
    network = build_network(synthetic.spec(encoder), 0)
    return PrototypicalModalRebalance(**values).bind(network, context)


def test_pmr_enhances_by_own_prototypes() -> None:
    """Distances 1 and 3, the first true: loss 0.126928, score 0.880797."""
    own = ClassMeans(torch.tensor([[0.0], [4.0]]), torch.ones(2, dtype=torch.long))
    far = ClassMeans(torch.tensor([[1.0], [-9.0]]), torch.ones(2, dtype=torch.long))
    features = {"a": torch.tensor([[1.0]]), "b": torch.tensor([[-5.0]])}
    context = synthetic.context("a", "b")
    context.begin({"a": own, "b": far})
    context.global_prototypes = {"a": far, "b": own}  # not looked at
    logits, labels = torch.zeros(1, 2), torch.tensor([0])
    objective = pmr(context, coefficient="constant")
    # b: distances 6 and 4, so its score is softmax(-6, -4)[0] = 0.119203 and it is the weakest.
    assert objective.target(features, labels) == Target({"a": 0.0, "b": 1.0}, 1.0)
    loss = float(objective.loss(Output(features, logits), labels))
    assert loss == pytest.approx(float(np.log(2)) + np.log1p(np.exp(2.0)), abs=1e-6)
    context.begin({"a": own, "b": own})
    weak_a = Output({"a": torch.tensor([[1.0]]), "b": torch.tensor([[0.0]])}, logits)
    assert objective.target(weak_a.features, labels) == Target({"a": 1.0, "b": 0.0}, 1.0)
    found = float(objective.loss(weak_a, labels))
    assert found == pytest.approx(float(np.log(2)) + 0.126928, abs=1e-6)


def test_equal_scores_and_a_single_modality_are_cross_entropy() -> None:
    own = ClassMeans(torch.tensor([[0.0], [4.0]]), torch.ones(2, dtype=torch.long))
    context = synthetic.context("a", "b", weak="b", ratio=3.0)
    context.begin({"a": own, "b": own})
    context.global_prototypes = {"a": own, "b": own}
    logits, labels = torch.tensor([[0.3, 0.1]]), torch.tensor([0])
    plain = float(F.cross_entropy(logits, labels))
    for features in ({"a": torch.ones(1, 1), "b": torch.ones(1, 1)}, {"b": torch.ones(1, 1)}):
        output = Output(features, logits)
        assert float(pmr(context).loss(output, labels)) == pytest.approx(plain)


def test_prototypes_are_taken_anew_after_each_epoch() -> None:
    data, context = synthetic.client(), synthetic.context()
    objective = pmr(context, "mlp", until=1.0)
    network = objective.network
    objective.on_epoch(data, 0)
    first = context.local_prototypes
    features = extract_features(network, data)
    expected = local_prototypes(features, data.labels, data.num_classes)
    assert all(torch.equal(first[m].means, expected[m].means) for m in expected)
    with torch.no_grad():
        next(network.parameters()).add_(1.0)
    objective.on_epoch(data, 1)
    assert not torch.equal(context.local_prototypes["touch"].means, first["touch"].means)


@pytest.mark.parametrize("progress", [0.4, 0.9])
def test_past_its_share_of_the_rounds_pmr_is_cross_entropy(progress: float) -> None:
    data, context = (
        synthetic.client(),
        synthetic.context(shared=synthetic.settings(progress=progress)),
    )
    objective = pmr(context)
    objective.on_epoch(data, 0)
    assert context.local_prototypes == {}
    inputs, labels = next(data.batches(20, data.modalities))
    assert objective.target(objective.network(inputs).features, labels) is NOTHING

"""Fusion heads against plain numpy."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call

from bmsfed_app.models import MMTMHead, MultiModalNetwork, NetworkSpec, UniModalHeads, build_network
from bmsfed_app.models.encoders import encoder_width
from server_app.evaluation import Evaluator
from strategies.protocol import owner, select_parts
from tests import synthetic

WIDTHS = synthetic.WIDTHS


def spec(head: str, encoder: str = "identity", **settings: Any) -> NetworkSpec:
    return replace(synthetic.spec(encoder), head=head, head_settings=settings)


def features(n: int = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {m: torch.randn(n, d, generator=rng) for m, d in WIDTHS.items()}


def mmtm(seed: int = 0, **settings: Any) -> MMTMHead:
    """A head whose arrays, biases too, are all random."""
    head = MMTMHead(WIDTHS, 3, all_widths=WIDTHS, **settings)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(generator=rng)
    return head


def by_hand(
    a: Mapping[str, np.ndarray], z: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Gates and logits from arrays by name and features, in float64."""
    concat = np.concatenate([z[m] for m in z], axis=1)
    u = np.concatenate([a[f"squeeze.{m}"] for m in z], axis=1)
    h = np.maximum(concat @ u.T + a["squeeze_bias"], 0)
    gates = {m: 1 / (1 + np.exp(-(h @ a[f"excite.{m}"].T + a[f"excite_bias.{m}"]))) for m in z}
    logits = [(z[m] * gates[m]) @ a[f"weight.{m}"].T + a[f"class_bias.{m}"] for m in z]
    return gates, sum(logits) / len(z)


def double(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {n: v.detach().double().numpy() for n, v in tensors.items()}


# --- blending ------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["identity", "mlp"])
def test_the_fused_part_of_blending_heads_is_the_plain_head_bit_for_bit(encoder: str) -> None:
    plain, more = (build_network(spec(h, encoder), 7) for h in ("linear", "blending"))
    arrays = more.state_dict()
    for name, value in plain.state_dict().items():
        assert torch.equal(arrays.pop(name), value)
    kinds = {f"head.{what}.{m}": m for what in ("own_weight", "own_bias") for m in WIDTHS}
    assert set(arrays) == set(kinds)
    assert {n: owner(n) for n in arrays} == kinds
    assert all(arrays[f"head.own_weight.{m}"].std() > 0 for m in WIDTHS)
    inputs = features()
    for some in (inputs, {"smell": inputs["smell"]}):
        assert torch.equal(plain(some).logits, more(some).logits)


def test_own_heads_by_hand() -> None:
    head = build_network(spec("blending"), 7).head
    assert isinstance(head, UniModalHeads)
    with torch.no_grad():
        head.own_bias["sound"][:] = torch.tensor([1.0, 2.0, 3.0])
    z = features()["sound"]
    expected = z.numpy() @ head.own_weight["sound"].detach().numpy().T + [1, 2, 3]
    np.testing.assert_allclose(head.own("sound", z).detach().numpy(), expected, rtol=1e-5)


# --- mmtm ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "there", [tuple(WIDTHS), ("touch", "smell"), ("sound",)], ids=["all", "two", "one"]
)
def test_gates_and_mean_logits_by_hand(there: tuple[str, ...]) -> None:
    head = mmtm().eval()
    z = {m: v for m, v in features().items() if m in there}
    gates, logits = by_hand(double(head.state_dict()), double(z))
    found = head.gates(z)
    for m in there:
        np.testing.assert_allclose(found[m].detach().numpy(), gates[m], rtol=1e-5)
    np.testing.assert_allclose(head(z).detach().numpy(), logits, rtol=1e-4, atol=1e-5)


def test_an_absent_modality_gates_as_a_zero_block() -> None:
    head, z = mmtm().eval(), features()
    without = head.gates({m: z[m] for m in ("touch", "sound")})
    zeros = head.gates(z | {"smell": torch.zeros_like(z["smell"])})
    for m, gate in without.items():
        torch.testing.assert_close(gate, zeros[m])


def test_zero_gates_halve_every_feature() -> None:
    head = mmtm()
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if not name.startswith(("weight", "class_bias")):
                parameter.zero_()
    z = features()
    assert all(torch.equal(g, torch.full_like(g, 0.5)) for g in head.gates(z).values())
    halves = [0.5 * z[m] @ head.weight[m].T + head.class_bias[m] for m in WIDTHS]
    torch.testing.assert_close(head(z), sum(halves) / 3)


@pytest.mark.parametrize(("ratio", "width"), [(1, 18), (4, 4), (5, 3), (1000, 1)])
def test_the_squeezed_width_counts_modalities_that_are_not_there(ratio: int, width: int) -> None:
    whole = build_network(spec("mmtm", ratio=ratio), 0)
    arrays = {n: v.numpy() for n, v in whole.state_dict().items()}
    for there in (("touch", "sound"), ("smell",)):
        part = MultiModalNetwork(whole.spec, there)
        wanted = select_parts(arrays, there)
        assert part.head.squeeze[there[0]].shape == (width, WIDTHS[there[0]])
        part.load_state_dict({n: torch.from_numpy(v) for n, v in wanted.items()})  # exactly these


def test_the_width_of_an_encoder_needs_no_weights() -> None:
    assert [encoder_width(e, (3, 28, 28)) for e in ("conv4", "mlp", "identity")] == [512, 64, 2352]


def test_initial_gates_are_xavier_normal_and_biases_zero() -> None:
    head = build_network(spec("mmtm", "mlp", ratio=1), 0).head
    u = torch.cat([head.squeeze[m].detach() for m in WIDTHS], dim=1)
    assert float(u.std()) == pytest.approx((2 / sum(u.shape)) ** 0.5, rel=0.02)
    for matrices in (head.excite, head.weight):
        for w in matrices.values():
            assert float(w.detach().std()) == pytest.approx((2 / sum(w.shape)) ** 0.5, rel=0.2)
    biases = [head.squeeze_bias, *head.excite_bias.values(), *head.class_bias.values()]
    assert not any(b.any() for b in biases)


def test_gradients_agree_with_finite_differences() -> None:
    head = mmtm().double().eval()
    z = {m: v.double() for m, v in features(3).items()}
    names, values = zip(*head.named_parameters(), strict=True)

    def logits(*parameters: torch.Tensor) -> torch.Tensor:
        return functional_call(head, dict(zip(names, parameters, strict=True)), (z,))

    assert torch.autograd.gradcheck(logits, values)


def test_running_means_of_gates_over_training_steps() -> None:
    head = mmtm()
    steps = [features(n, seed) for seed, n in enumerate((4, 7, 5))]
    means = [{m: g.mean(0) for m, g in head.eval().gates(z).items()} for z in steps]
    assert not any(v.any() for n, v in head.named_buffers())  # eval mode leaves no trace
    head.train()
    for z in steps:
        head(z)
    for m in WIDTHS:
        expected = torch.stack([step[m] for step in means]).mean(0)
        torch.testing.assert_close(head.gate_mean[m], expected)
        assert head.gate_steps[m].tolist() == [3]
    head({"smell": steps[0]["smell"]})
    assert [head.gate_steps[m].item() for m in WIDTHS] == [3, 3, 4]


def test_a_frozen_gate_is_its_own_mean_and_learns_nothing() -> None:
    head, z = mmtm().train(), features()
    head(features(9, 1))
    means = {m: head.gate_mean[m].clone() for m in WIDTHS}
    head.frozen = "sound"
    gates = head.gates(z)
    assert torch.equal(gates["sound"], means["sound"])
    assert gates["touch"].shape == (5, 4)
    head.zero_grad()
    logits = head(z)
    logits.square().sum().backward()
    assert head.excite["sound"].grad is None
    assert head.excite_bias["sound"].grad is None
    assert head.excite["touch"].grad.any()
    assert head.squeeze["sound"].grad.any()  # through the others' gates
    assert head.weight["sound"].grad.any()
    assert torch.equal(head.gate_mean["sound"], means["sound"])
    assert head.gate_steps["sound"].item() == 1
    assert head.gate_steps["touch"].item() == 3
    head.eval()
    assert head.gates(z)["sound"].shape == (5, 3)  # frozen is a matter of training
    assert "frozen" not in str(list(head.state_dict()))


def test_every_array_has_the_right_owner() -> None:
    names = build_network(spec("mmtm"), 0).head.state_dict()
    own = [n for n in names if owner(f"head.{n}") is not None]
    assert [n for n in names if n not in own] == ["squeeze_bias"]
    assert {owner(f"head.{n}") for n in own} == set(WIDTHS)
    assert len(own) == 7 * len(WIDTHS)


@pytest.mark.parametrize("head", ["blending", "mmtm"])
def test_the_evaluator_takes_one_modality_alone(head: str) -> None:
    network, test = build_network(spec(head), 3), synthetic.split(90, seed=5)
    arrays = {n: v.numpy() for n, v in network.state_dict().items()}
    found = Evaluator(network.spec, test, torch.device("cpu"))(arrays, None)
    z = double(test.stores)
    assert set(found.by_head) == set(WIDTHS)
    for there, accuracy in [(tuple(WIDTHS), found.accuracy)] + [
        ((m,), found.by_head[m]) for m in WIDTHS
    ]:
        some = {m: z[m] for m in there}
        if head == "mmtm":
            own = {n.removeprefix("head."): v for n, v in arrays.items()}
            _, logits = by_hand(own, some)
        else:
            logits = sum(v @ arrays[f"head.weight.{m}"].T for m, v in some.items())
        assert accuracy == pytest.approx((logits.argmax(1) == test.labels.numpy()).mean())


def test_a_ratio_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="ratio is 0, it must be at least 1"):
        MultiModalNetwork(spec("mmtm", ratio=0))

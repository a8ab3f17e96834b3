"""The network: parts by name, sizes, missing modalities, initial weights."""

import pytest
import torch

from bmsfed_app.models import MultiModalNetwork, NetworkSpec, build_network
from strategies.protocol import owner
from tests import synthetic

CG = NetworkSpec(
    encoders={"colored": "conv4", "gray": "conv4"},
    shapes={"colored": (3, 28, 28), "gray": (1, 28, 28)},
    num_classes=10,
)


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_sizes_are_the_papers() -> None:
    network = MultiModalNetwork(CG)
    assert parameters(network.encoders["gray"]) == 98_786
    assert parameters(network.encoders["colored"]) == 100_390
    assert parameters(network.head) == 10_250


def test_every_name_begins_with_its_part() -> None:
    owners = {owner(name) for name in MultiModalNetwork(CG).state_dict()}
    assert owners == {"colored", "gray", None}
    assert [n for n in MultiModalNetwork(CG).state_dict() if owner(n) is None] == ["head.bias"]


def test_head_is_one_matrix_over_the_concatenated_features() -> None:
    network = build_network(synthetic.spec(), 0)
    inputs = synthetic.split().batch(torch.arange(7), list(synthetic.WIDTHS))
    output = network(inputs)
    whole = torch.cat([network.head.weight[m] for m in network.modalities], dim=1)
    z = torch.cat([output.features[m] for m in network.modalities], dim=1)
    torch.testing.assert_close(output.logits, z @ whole.T + network.head.bias)


def test_a_missing_modality_counts_as_a_zero_block_and_the_bias_is_whole() -> None:
    network = build_network(synthetic.spec(), 0)
    torch.nn.init.ones_(network.head.bias)
    inputs = synthetic.split().batch(torch.arange(7), list(synthetic.WIDTHS))
    without = {m: x for m, x in inputs.items() if m != "sound"}
    padded = inputs | {"sound": torch.zeros_like(inputs["sound"])}
    torch.testing.assert_close(network(without).logits, network(padded).logits)


def test_a_partial_network_equals_the_whole_one_on_its_modalities() -> None:
    whole = build_network(synthetic.spec("mlp"), 3)
    part = MultiModalNetwork(synthetic.spec("mlp"), ("smell", "touch"))
    part.load_state_dict({n: v for n, v in whole.state_dict().items() if n in part.state_dict()})
    inputs = synthetic.split().batch(torch.arange(5), ("touch", "smell"))
    assert part.modalities == ("touch", "smell")  # the spec's order, whatever was asked
    torch.testing.assert_close(part(inputs).logits, whole(inputs).logits)


def test_features_have_the_norm_that_was_set() -> None:
    network = build_network(synthetic.spec("mlp", feature_norm=10.0), 0)
    inputs = synthetic.split().batch(torch.arange(9), list(synthetic.WIDTHS))
    for z in network(inputs).features.values():
        torch.testing.assert_close(z.norm(dim=1), torch.full((9,), 10.0))


def test_weights_depend_on_the_seed_only() -> None:
    one, same, other = (build_network(CG, s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(one[n], same[n]) for n in one)
    assert not torch.equal(one["head.weight.gray"], other["head.weight.gray"])
    head = torch.cat([one["head.weight.colored"], one["head.weight.gray"]], dim=1)
    assert float(head.std()) == pytest.approx((2 / (1024 + 10)) ** 0.5, rel=0.03)  # Xavier


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoders": {"gray": "conv5"}}, "did you mean 'conv4'"),
        ({"shapes": {"gray": (1, 7, 32)}}, r"takes images \(C, H, W\).* not \(1, 7, 32\)"),
        ({"widths": {"gray": 32}}, "conv4 has features of width 512, not 32"),
    ],
)
def test_what_cannot_be_built_says_why(change: dict[str, dict[str, object]], message: str) -> None:
    values = {"encoders": {"gray": "conv4"}, "shapes": {"gray": (1, 28, 28)}} | change
    with pytest.raises(ValueError, match=message):
        MultiModalNetwork(NetworkSpec(**values, num_classes=10))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown modality 'x'"):
        MultiModalNetwork(CG, ("x",))


def test_recurrent_layers_can_go_backwards_in_eval_mode_on_a_gpu() -> None:
    """cuDNN's want training mode for it, where those without dropout compute the same."""
    network = build_network(NetworkSpec({"motion": "gru"}, {"motion": (9, 5)}, 3), 0).eval()
    encoder, x = network.encoders["motion"], torch.randn(4, 9, 5)
    modes = {name: m.training for name, m in encoder.named_modules()}
    assert modes == {"": False, "norm": False, "gru": True}
    found = encoder(x)
    encoder.get_submodule("gru").eval()
    assert torch.equal(encoder(x), found)
    encoder.gru = torch.nn.GRU(5, 128, num_layers=2, dropout=0.5)
    assert not network.eval().encoders["motion"].get_submodule("gru").training

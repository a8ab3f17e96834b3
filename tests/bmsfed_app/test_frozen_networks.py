"""What of a network is frozen: by constructors and by patterns, and what stands still with it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from bmsfed_app.config import ConfigError, load_config
from bmsfed_app.models import ENCODERS, Encoder, MultiModalNetwork, NetworkSpec, build_network
from server_app.experiment import initial_model
from tests import synthetic


class Pretrained(Encoder):
    """A fixed first layer, as somebody's package may bring it, then one that is trained."""

    width = 5

    def __init__(self, shape: tuple[int, ...], vocabulary: int = 0, width: int = 0) -> None:
        super().__init__()
        self.fixed = nn.Sequential(nn.Linear(shape[0], 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
        nn.init.constant_(self.fixed[0].weight, 0.25)
        self.fixed.requires_grad_(False)
        self.norm = nn.BatchNorm1d(6, affine=False)
        self.last = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Encode inputs (B, D) as features (B, 5)."""
        z: Tensor = self.last(self.norm(self.fixed(x)))
        return z


@pytest.fixture
def pretrained(monkeypatch: pytest.MonkeyPatch) -> NetworkSpec:
    """A network of which one modality has that encoder."""
    monkeypatch.setitem(ENCODERS.own, "pretrained", Pretrained)
    spec = synthetic.spec("mlp")
    return replace(spec, encoders=spec.encoders | {"sound": "pretrained"})


class Bank(Encoder):
    """Nothing to train, one buffer to carry along."""

    width = 2

    def __init__(self, shape: tuple[int, ...], vocabulary: int = 0, width: int = 0) -> None:
        super().__init__()
        self.register_buffer("filters", torch.ones(shape[0], 2))

    def forward(self, x: Tensor) -> Tensor:
        """Filter inputs (B, D)."""
        return x @ self.get_buffer("filters")


FIXED = {
    f"encoders.sound.fixed.{name}"
    for name in (
        *("0.weight", "0.bias", "1.weight", "1.bias"),
        *("1.running_mean", "1.running_var", "1.num_batches_tracked"),
    )
}


def arrays(network: MultiModalNetwork) -> dict[str, np.ndarray]:
    return {n: v.numpy().copy() for n, v in network.state_dict().items()}


def step(network: MultiModalNetwork) -> set[str]:
    """Train one mini-batch; return the names of what has moved."""
    before = arrays(network)
    inputs, labels = next(synthetic.client().batches(20, network.modalities))
    network.train()
    F.cross_entropy(network(inputs).logits, labels).backward()
    torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=0.1).step()
    return {n for n, v in arrays(network).items() if (v != before[n]).any()}


def test_what_a_constructor_froze_stays_so_and_keeps_its_values(pretrained: NetworkSpec) -> None:
    network = build_network(pretrained, 0)
    assert network.frozen == pretrained.frozen() == FIXED
    first = network.encoders["sound"].get_parameter("fixed.0.weight")
    assert first.unique().tolist() == [0.25]  # not drawn anew
    network.restart(arrays(network))
    assert {n for n, p in network.named_parameters() if not p.requires_grad} <= FIXED
    assert step(network) == set(network.state_dict()) - FIXED


def test_a_new_task_trains_what_could_be_trained_at_first(pretrained: NetworkSpec) -> None:
    network = build_network(pretrained, 0)
    received = arrays(network)
    network.requires_grad_(False)  # as an objective that freezes all
    network.restart(received)
    assert {n for n, p in network.named_parameters() if p.requires_grad} == {
        n for n, _ in network.named_parameters() if n not in FIXED
    }


def test_modules_that_are_frozen_as_a_whole_compute_the_same_in_training(
    pretrained: NetworkSpec,
) -> None:
    network = build_network(pretrained, 0)
    fixed, x = network.encoders["sound"].get_submodule("fixed"), torch.randn(9, 3)
    evaluated = fixed.eval()(x)
    network.train()
    assert not any(m.training for m in fixed.modules())
    torch.testing.assert_close(fixed(x), evaluated)  # neither dropout nor a batch's statistics
    assert network.encoders["sound"].get_submodule("norm").training  # follows no frozen parameters


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        (["*"], {"layers.1.weight", "layers.1.bias", "layers.3.weight", "layers.3.bias"}),
        (["layers.1.*"], {"layers.1.weight", "layers.1.bias"}),
        (["*.bias", "layers.3.weight"], {"layers.1.bias", "layers.3.weight", "layers.3.bias"}),
    ],
)
def test_patterns_are_of_the_encoders_own_names(patterns: list[str], frozen: set[str]) -> None:
    spec = replace(synthetic.spec("mlp"), freeze={"smell": patterns})
    network = build_network(spec, 3)
    wanted = {f"encoders.smell.{name}" for name in frozen}
    assert network.frozen == wanted
    assert step(network) == set(network.state_dict()) - wanted
    drawn, plain = (arrays(build_network(s, 3)) for s in (spec, synthetic.spec("mlp")))
    assert all(drawn[name].tobytes() == value.tobytes() for name, value in plain.items())


def test_what_is_frozen_does_not_depend_on_what_a_client_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(ENCODERS.own, "bank", Bank)
    spec = synthetic.spec("mlp")
    spec = replace(spec, encoders=spec.encoders | {"sound": "bank"}, freeze={"smell": ["*"]})
    part = MultiModalNetwork(spec, ("sound", "smell"))
    assert part.frozen == spec.frozen()
    assert {n.split(".")[1] for n in part.frozen} == {"smell"}


def test_a_batch_norm_half_frozen_goes_on_counting() -> None:
    spec = NetworkSpec({"a": "conv4"}, {"a": (1, 8, 8)}, 3, freeze={"a": ["layers.0.weight"]})
    assert spec.frozen() == {"encoders.a.layers.0.weight"}
    both = replace(spec, freeze={"a": ["layers.0.*"]})
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert both.frozen() == {f"encoders.a.layers.0.{n}" for n in norm}


# --- the configuration ---------------------------------------------------------------------------


def config(freeze: Any) -> Any:
    return load_config("cg-digits", {"freeze": freeze})


def test_true_a_pattern_and_a_list_of_them_are_understood() -> None:
    spec = config({"gray": True, "colored": ["layers.1.*"]}).network_spec()
    assert spec.freeze == {"gray": ["*"], "colored": ["layers.1.*"]}
    assert len(spec.frozen()) == 15 + 2  # conv4: ten parameters, and its norm's five arrays
    assert config("{gray: false, colored: layers.1.*}").network_spec().freeze == {
        "colored": ["layers.1.*"]
    }
    assert load_config("cg-digits").network_spec().frozen() == frozenset()


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        ({"grey": True}, r"freeze: 'cg-digits' has no modality 'grey'; did you mean 'gray'\?"),
        ({"head": True}, r"freeze: 'cg-digits' has no modality 'head'"),
        (
            {"gray": ["layer.1.*"]},
            r"freeze.gray: no parameter of the encoder fits 'layer.1.\*'.*layers.0.weight, .*…\)",
        ),
        ({"gray": ["layers.12.wieght"]}, r"did you mean 'layers.12.weight'\?"),
        ({"gray": 3}, r"freeze.gray: Input should be a valid list, not 3"),
        (["gray"], r"freeze: Input should be a valid dictionary"),
    ],
)
def test_what_cannot_be_frozen_is_named(freeze: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(freeze)


def test_weights_from_a_file_are_what_is_frozen(tmp_path: Path) -> None:
    encoder = build_network(config({}).network_spec(), 9).encoders["gray"]
    theirs = {n: v.contiguous() for n, v in encoder.state_dict().items()}
    save_file(theirs, tmp_path / "gray.safetensors")
    weights = {"gray": str(tmp_path / "gray.safetensors")}
    made = load_config("cg-digits", {"freeze": {"gray": True}, "initial_weights": weights})
    started = initial_model(made)
    assert made.network_spec().frozen() == {f"encoders.gray.{n}" for n in theirs}
    for name, value in theirs.items():
        assert started[f"encoders.gray.{name}"].tobytes() == value.numpy().tobytes()

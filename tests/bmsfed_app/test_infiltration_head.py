"""FedCMI's head against numpy: what fills the blocks of absent modalities, and what travels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bmsfed_app.models import InfiltrationHead, MultiModalNetwork, build_network
from strategies.protocol import owner, select_parts
from tests import synthetic

WIDTHS = synthetic.WIDTHS
P = max(WIDTHS.values())


def head(there: tuple[str, ...] = tuple(WIDTHS)) -> InfiltrationHead:
    """A head whose arrays, biases too, are all random; float64."""
    made = InfiltrationHead({m: WIDTHS[m] for m in there}, 3, all_widths=WIDTHS).double()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(generator=rng)
    return made


def features(there: tuple[str, ...], n: int = 5) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    return {m: torch.randn(n, WIDTHS[m], generator=rng, dtype=torch.float64) for m in there}


@pytest.mark.parametrize(
    "there", [tuple(WIDTHS), ("touch", "smell"), ("sound",)], ids=["all", "two", "one"]
)
def test_the_mean_of_those_that_are_there_fills_every_gap(there: tuple[str, ...]) -> None:
    made, z = head(), features(there)
    a = {n: v.detach().numpy() for n, v in made.state_dict().items()}

    def project(what: str, m: str) -> np.ndarray:
        return z[m].numpy() @ a[f"{what}.{m}"].T + a[f"{what}_bias.{m}"]

    filling = np.mean([project("infiltrated", m) for m in there], axis=0)
    blocks = [project("specific", m) if m in there else filling for m in sorted(WIDTHS)]
    expected = np.concatenate(blocks, axis=1) @ a["weight"].T + a["bias"]
    np.testing.assert_allclose(made(z).detach().numpy(), expected, rtol=1e-10)
    parts = sum(p.detach().numpy() for p in made.parts(z).values())
    np.testing.assert_allclose(parts + a["bias"], expected, rtol=1e-10)
    for what, logits in (("specific", made.own(z)), ("infiltrated", made.learnt(z))):
        by_hand = [project(what, m) @ a[f"own_weight.{m}"].T + a[f"own_bias.{m}"] for m in there]
        np.testing.assert_allclose(logits.detach().numpy(), np.stack(by_hand), rtol=1e-10)


def test_with_identities_for_projections_it_is_the_plain_head() -> None:
    spec = synthetic.spec("mlp")
    plain = build_network(spec, 7)
    network = build_network(replace(spec, head="infiltration"), 7)
    with torch.no_grad():
        for block in network.head.specific.values():
            block.copy_(torch.eye(64))
    blocks = [plain.head.weight[m] for m in sorted(WIDTHS)]
    assert torch.equal(network.head.weight, torch.cat(blocks, dim=1))
    inputs, _ = next(synthetic.client().batches(20, tuple(WIDTHS)))
    torch.testing.assert_close(network(inputs).logits, plain(inputs).logits)


def test_what_rides_with_an_encoder_and_what_everybody_has() -> None:
    spec = replace(synthetic.spec("mlp"), head="infiltration")
    arrays = {n: v.numpy() for n, v in build_network(spec, 0).state_dict().items()}
    for m in WIDTHS:
        riding = [v for n, v in arrays.items() if n.startswith("head.") and owner(n) == m]
        assert sum(v.size for v in riding) == (2 * 64 + 3) * (64 + 1)
    shared = {n: v.shape for n, v in arrays.items() if owner(n) is None}
    assert shared == {"head.weight": (3, 3 * 64), "head.bias": (3,)}


@pytest.mark.parametrize("there", [("sound",), ("touch", "smell")])
def test_who_lacks_a_modality_computes_what_the_server_does(there: tuple[str, ...]) -> None:
    """Widths are 4, 3 and 2 here, so P is known from modalities that are not there."""
    whole = build_network(replace(synthetic.spec(), head="infiltration"), 0)
    arrays = select_parts({n: v.numpy() for n, v in whole.state_dict().items()}, there)
    part = MultiModalNetwork(whole.spec, there)
    part.load_state_dict({n: torch.from_numpy(v) for n, v in arrays.items()})  # exactly these
    assert part.head.specific[there[0]].shape == (P, WIDTHS[there[0]])
    inputs, _ = next(synthetic.client().batches(20, there))
    assert torch.equal(part(inputs).logits, whole(inputs).logits)

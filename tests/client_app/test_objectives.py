"""Local objectives on batches small enough to work out by hand."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from bmsfed_app.models import Output, build_network
from bmsfed_app.prototypes import ClassMeans, enhancement_loss
from client_app import objectives
from client_app.objectives import OBJECTIVES, LocalContext, Needs, build_objective
from client_app.objectives.modal_enhancement import ModalEnhancement
from tests import synthetic

LABELS = torch.tensor([0, 0])


def protos(*rows: list[float]) -> ClassMeans:
    return ClassMeans(torch.tensor(rows), torch.ones(len(rows), dtype=torch.long))


def case() -> tuple[Output, LocalContext]:
    """``a`` sits on its class's prototype, ``b`` halfway between two."""
    features = {"a": torch.zeros(2, 1), "b": torch.full((2, 1), 0.5)}
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    local = {m: protos([0.0], [1.0]) for m in features}
    context = synthetic.context("a", "b", weak="b", ratio=1.5)
    context.begin(local)
    context.global_prototypes = {m: protos([0.2], [2.0]) for m in features}
    return Output(features, logits), context


def enhancing(**changes: object) -> ModalEnhancement:
    return replace(ModalEnhancement.by_default(), **changes)


def loss(objective: ModalEnhancement, output: Output, context: LocalContext) -> float:
    objective.bind(build_network(synthetic.spec(), 0), context)
    return float(objective.loss(output, LABELS))


def test_several_modalities_enhance_the_batchs_weak_one_by_the_clipped_ratio() -> None:
    output, context = case()
    score_a = 1 / (1 + torch.tensor(-1.0).exp())  # softmax(0, -1)
    ratio = float(score_a / 0.5)  # Eq. 17: 1.46
    expected = F.cross_entropy(output.logits, LABELS) + (ratio - 1) * enhancement_loss(
        output.features["b"], LABELS, context.global_prototypes["b"]
    )
    assert loss(enhancing(), output, context) == pytest.approx(float(expected))


def test_the_constant_coefficient_ignores_the_ratio() -> None:
    output, context = case()
    me = enhancement_loss(output.features["b"], LABELS, context.global_prototypes["b"])
    expected = float(F.cross_entropy(output.logits, LABELS) + 2.0 * me)
    found = loss(enhancing(coefficient="constant", coefficient_value=2.0), output, context)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("modality", "when", "enhanced"),
    [("b", "weak", True), ("a", "weak", False), ("a", "always", True)],
)
def test_one_modality_is_enhanced_if_it_is_the_weak_one(
    modality: str, when: str, enhanced: bool
) -> None:
    output, context = case()
    alone = Output({modality: output.features[modality]}, output.logits)
    ce = float(F.cross_entropy(output.logits, LABELS))
    me = float(enhancement_loss(alone.features[modality], LABELS, context.global_prototypes["b"]))
    found = loss(enhancing(uni_enhancement=when), alone, context)
    assert found == pytest.approx(ce + 0.5 * me if enhanced else ce)  # the server's ratio is 1.5


def test_without_global_prototypes_only_cross_entropy_is_left() -> None:
    output, context = case()
    context.global_prototypes = {}
    ce = float(F.cross_entropy(output.logits, LABELS))
    assert loss(enhancing(), output, context) == pytest.approx(ce)


def test_head_weight_adds_cross_entropy_through_the_weak_columns() -> None:
    network = build_network(synthetic.spec(), 0)
    data = synthetic.client()
    inputs, labels = next(data.batches(20, data.modalities))
    output = network(inputs)
    local = {m: protos(*torch.randn(3, d).tolist()) for m, d in synthetic.WIDTHS.items()}
    context = synthetic.context()
    context.begin(local)
    found = enhancing().bind(network, context).target(output.features, labels).weak
    [weak] = [m for m, share in found.items() if share == 1]
    assert sum(found.values()) == 1
    own = F.linear(output.features[weak], network.head.weight[weak]) + network.head.bias
    expected = F.cross_entropy(output.logits, labels) + 0.3 * F.cross_entropy(own, labels)
    found = enhancing(head_weight=0.3).bind(network, context).loss(output, labels)
    torch.testing.assert_close(found, expected)


def test_unknown_objective() -> None:
    with pytest.raises(ValueError, match="unknown objective 'proximl'; did you mean 'proximal'"):
        build_objective("proximl", {})


def test_every_file_registers_its_objective() -> None:
    files = {f.stem for f in Path(objectives.__file__).parent.glob("*.py")}
    assert set(OBJECTIVES.names()) == files - {"__init__", "base", "modulation"}


def test_own_prototypes_in_place_of_the_servers() -> None:
    """BMSFed-local; where both are the same (one client), the losses are the same."""
    output, context = case()
    labels = LABELS
    local = enhancing(coefficient="constant", prototypes="local")
    assert local.needs == Needs.FEATURES
    assert enhancing().needs == Needs.LOCAL_PROTOTYPES
    own = enhancement_loss(output.features["b"], labels, context.local_prototypes["b"])
    expected = float(F.cross_entropy(output.logits, labels) + own)
    assert loss(local, output, context) == pytest.approx(expected)
    context.global_prototypes = context.local_prototypes
    assert loss(local, output, context) == loss(enhancing(coefficient="constant"), output, context)

"""Strong modalities held back: smoothed losses, and fused logits that train the weak one alone."""

import pytest
import torch
from torch.nn import functional as F

from client_app.objectives.holding_back import (
    smoothed_cross_entropy,
    strong_ones,
    trained_by_the_weak,
)

CPU = torch.device("cpu")


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_smoothing_is_torchs_label_smoothing_row_by_row() -> None:
    logits, labels = drawn(3, 7, 5), torch.arange(7) % 5
    found = smoothed_cross_entropy(logits, labels, torch.tensor([0.0, 0.3, 0.9]))
    for row, e in enumerate((0.0, 0.3, 0.9)):
        wanted = F.cross_entropy(logits[row], labels, reduction="none", label_smoothing=e)
        torch.testing.assert_close(found[row], wanted)


@pytest.mark.parametrize(
    ("weak", "trained"),
    [("b", {"b"}), (None, {"a", "b", "c"}), ("elsewhere", {"a", "b", "c"})],
)
def test_only_the_weak_modality_is_trained_where_it_is_there(
    weak: str | None, trained: set[str]
) -> None:
    parts = {m: drawn(4, 5).requires_grad_() for m in "abc"}
    strong = strong_ones(parts, weak, CPU)
    kept = trained_by_the_weak(parts, strong)
    for m, part in parts.items():
        assert torch.equal(kept[m], part)
    torch.stack(list(kept.values())).sum().backward()
    assert {m for m, p in parts.items() if p.grad is not None and p.grad.any()} == trained

"""Prototypes, ratios and the enhancement loss against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid

from bmsfed_app.prototypes import (
    MIN_SCORE,
    ClassMeans,
    class_means,
    coefficient,
    enhancement_loss,
    hits,
    log_probabilities,
    score,
)
from strategies import imbalance_ratios


def means(rows: list[list[float]], counts: list[int] | None = None) -> ClassMeans:
    values = torch.tensor(rows)
    return ClassMeans(values, torch.tensor(counts or [1] * len(rows)))


def test_class_means_under_uneven_counts_and_an_absent_class() -> None:
    features = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 4.0], [7.0, 7.0]])
    found = class_means(features, torch.tensor([0, 0, 0, 2]), 3)
    torch.testing.assert_close(found.means[[0, 2]], torch.tensor([[3.0, 2.0], [7.0, 7.0]]))
    assert found.counts.tolist() == [3, 0, 1]
    assert found.present.tolist() == [True, False, True]


def test_loss_and_score_by_hand() -> None:
    # Distances (1, 3), first class true: p = e^-1 / (e^-1 + e^-3).
    z, y, c = torch.zeros(1, 1), torch.tensor([0]), means([[1.0], [3.0]])
    assert float(enhancement_loss(z, y, c)) == pytest.approx(0.126928, abs=1e-6)
    assert float(score(z, y, c)) == pytest.approx(0.880797, abs=1e-6)


def test_an_absent_class_is_infinitely_far_not_a_zero_vector() -> None:
    z, y = torch.zeros(1, 1), torch.tensor([0])
    with_absent = means([[1.0], [0.0], [3.0]], [1, 0, 1])
    torch.testing.assert_close(
        log_probabilities(z, with_absent)[:, [0, 2]], log_probabilities(z, means([[1.0], [3.0]]))
    )
    assert float(log_probabilities(z, with_absent)[0, 1]) == -math.inf
    assert float(enhancement_loss(z, torch.tensor([1]), with_absent)) == 0.0
    two = torch.zeros(2, 1)  # the sample of the absent class is left out of the mean
    both = enhancement_loss(two, torch.tensor([0, 1]), with_absent)
    assert float(both) == pytest.approx(float(enhancement_loss(z, y, with_absent)))
    assert score(z, torch.tensor([1]), with_absent) == MIN_SCORE


def test_gradient_against_finite_differences() -> None:
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(5, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    c = ClassMeans(
        torch.randn(4, 3, generator=rng, dtype=torch.float64), torch.tensor([1, 2, 0, 1])
    )
    y = torch.tensor([0, 1, 3, 0, 1])
    assert torch.autograd.gradcheck(lambda x: enhancement_loss(x, y, c), z)


def test_gradient_at_zero_distance_is_finite() -> None:
    z = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    loss = enhancement_loss(z, torch.tensor([0, 1]), means([[1.0, 2.0], [0.0, 0.0]]))
    loss.backward()
    assert torch.isfinite(z.grad).all()
    # Away from it by a hair, it agrees with the limit of the formula.
    near = (z.detach() + 1e-6).requires_grad_()
    enhancement_loss(near, torch.tensor([0, 1]), means([[1.0, 2.0], [0.0, 0.0]])).backward()
    assert torch.isfinite(near.grad).all()


def test_one_class_gives_no_loss() -> None:
    assert (
        float(enhancement_loss(torch.ones(3, 2), torch.zeros(3).long(), means([[5.0, 5.0]]))) == 0
    )


def test_ratios_for_two_and_more_modalities() -> None:
    assert imbalance_ratios({"a": 0.8, "b": 0.4}) == {"a": 1.0, "b": 2.0}  # Eq. 17
    ratios = imbalance_ratios({"a": 0.2, "b": 0.6, "c": 0.3})
    assert ratios == pytest.approx({"a": 3.0, "b": 1.0, "c": 2.0})
    assert math.isfinite(imbalance_ratios({"a": MIN_SCORE, "b": 50.0})["a"])


@pytest.mark.parametrize(
    ("ratio", "expected"), [(0.5, 0.0), (1.0, 0.0), (1.3, 0.3), (2.0, 1.0), (9.0, 1.0)]
)
def test_coefficient_is_equation_19(ratio: float, expected: float) -> None:
    assert coefficient(ratio, "clipped") == pytest.approx(expected)
    assert coefficient(ratio, "constant", 0.7) == 0.7


def test_nearest_prototype_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(4, size=200)
    x = rng.normal(size=(200, 5)) + y[:, None]
    oracle = NearestCentroid().fit(x, y).score(x, y)
    found = class_means(torch.tensor(x), torch.tensor(y), 4)
    assert float(hits(torch.tensor(x), torch.tensor(y), found)) / 200 == pytest.approx(oracle)

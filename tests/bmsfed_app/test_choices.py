"""Heads, objectives, optimisers and metrics by name: chosen, refused, and what they do."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bmsfed_app.aggregations import AGGREGATIONS
from bmsfed_app.config import ConfigError, load_config
from bmsfed_app.models import HEADS, FusionHead, Head
from bmsfed_app.optimizers import OPTIMIZERS, build_optimizer
from bmsfed_app.schedules import SCHEDULES
from client_app.objectives import OBJECTIVES, Objective
from server_app.experiment import build_strategy
from server_app.metrics import METRICS, measured
from strategies.robust import Krum
from tests.plugins import only_here

EXPERIMENT = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}


class Nested(FusionHead):
    """Holds what all share in a module, whose arrays look like a modality's."""

    def __init__(self, widths, num_classes):
        super().__init__(widths, num_classes)
        self.query = nn.Linear(2, 2)


class Flat(FusionHead):
    def fuse(self, parts):
        return super().fuse(parts)[:, 0]


class Pair(FusionHead):
    def fuse(self, parts):
        return parts["colored"] + parts["gray"]


class Focal(Objective):
    def __init__(self, *, gamma: float, alpha: float = 1.0) -> None:
        if gamma < 0:
            raise ValueError("gamma is below 0")


def closure_only(parameters, *, lr):
    return torch.optim.LBFGS(parameters, lr=lr)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    only_here(monkeypatch, HEADS, OBJECTIVES, OPTIMIZERS, METRICS, SCHEDULES, AGGREGATIONS)
    for head in (Nested, Flat, Pair):
        HEADS.add(head.__name__.lower(), head)
    OBJECTIVES.add("focal", Focal)
    SCHEDULES.add("rising", lambda progress, *keys: 1.0 if progress < 1 else float("inf"))
    SCHEDULES.add("of-nothing", lambda: 0.1)
    AGGREGATIONS.add("no-rule", lambda: {})
    OPTIMIZERS.add("closure-only", closure_only)
    OPTIMIZERS.add("no-optimizer", lambda parameters, lr: nn.Identity())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"optimizer": "adaam"}, r"optimizer: unknown optimizer 'adaam'; did you mean 'adam'"),
        ({"optimizer": "lbfgs"}, "optimizer: unknown optimizer 'lbfgs'"),
        ({"optimizer": {"betas": [0.9]}}, "optimizer: say which by its key 'name'"),
        (
            {"optimizer": {"name": "adam", "beta": [0.9, 0.99]}},
            "optimizer: unknown setting 'beta'; did you mean 'betas'",
        ),
        ({"optimizer": {"name": "adam", "lr": 1}}, "optimizer: its learning rate is the .*'lr'"),
        ({"optimizer": {"name": "adam", "betas": [2, 3]}}, "optimizer: adam: Invalid beta"),
        ({"optimizer": "closure-only"}, "optimizer: closure-only: .*closure"),
        ({"optimizer": "no-optimizer"}, "optimizer: what 'no-optimizer' builds is no torch.optim"),
        ({"head": "linaer"}, "head: unknown head 'linaer'; did you mean 'linear'"),
        (
            {"head": {"name": "cosine", "scal": 2}},
            "head: cosine: unknown setting 'scal'; did you mean 'scale'",
        ),
        ({"head": {"name": "cosine", "scale": 0}}, "head: scale is 0, it must be above 0"),
        ({"head": "nested"}, "head: nested: its array 'query.weight' is neither .*hold 'query' as"),
        ({"head": "flat"}, r"head: flat: returns \(2,\) for two samples of colored, gray, not \(2"),
        ({"head": "pair"}, "head: pair: KeyError: 'gray'"),
        ({"method": "greedy", "head": "linear"}, "head: method 'greedy' takes no .*'mmtm' is part"),
        ({"method": "agm", "head": "cosine"}, "head: method 'agm' takes no other head.*share off"),
        ({"method": "fedpac", "head": "cosine"}, "head: method 'fedpac' .*columns of linear heads"),
        (
            {"method": "bmsfed", "objective": "cross_entropy"},
            "objective: method 'bmsfed' takes no other.*'modal_enhancement' is part of what it do",
        ),
        ({"objective": "focall"}, "objective: unknown objective 'focall'; did you mean 'focal'"),
        ({"objective": "focal"}, "objective: focal: lacks the setting 'gamma'"),
        (
            {"objective": {"name": "focal", "gama": 1}},
            "objective: focal: unknown setting 'gama'; did you mean 'gamma'",
        ),
        ({"objective": {"name": "focal", "gamma": -1}}, "objective: focal: gamma is below 0"),
        (
            {"schedule": "rising", "rounds": 3},
            "schedule: rising: the rate of round 3 is inf",
        ),
        ({"aggregation": "kram"}, "aggregation: unknown aggregation 'kram'; did you mean 'krum'"),
        (
            {"aggregation": {"name": "krum", "bat": 2}},
            "aggregation: unknown setting 'bat'; did you mean 'bad'",
        ),
        (
            {"aggregation": {"name": "trimmed-mean", "trim": 0.5}},
            "aggregation: trimmed-mean: trim is 0.5, it must be >= 0 and < 0.5",
        ),
        ({"aggregation": "no-rule"}, "aggregation: what 'no-rule' builds is neither a ByCoord"),
        *(
            ({"method": m, "aggregation": "median"}, f"aggregation: method '{m}' takes no other")
            for m in ("fedpac", "fednh", "fedmsplit", "local", "g-blending")
        ),
        ({"outlier_factor": 0.5}, "outlier_factor: 0.5 would scale down usual updates"),
        ({"schedule": "constantly"}, "schedule: unknown schedule .*did you mean 'constant'"),
        ({"schedule": "of-nothing"}, "schedule: of-nothing: .*takes 0 positional arguments"),
        ({"metrics": ["macro_f1"]}, "metrics: unknown metric 'macro_f1'; did you mean 'macro-f1'"),
    ],
)
def test_what_cannot_be_used_is_named_before_the_start(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config("cg-digits", {"method": "fedavg"} | given)


def test_a_choice_reaches_the_clients() -> None:
    config = load_config(
        "cg-digits",
        {
            "method": "fedavg",
            "head": {"name": "cosine", "scale": 2.0},
            "objective": "{name: focal, gamma: 2}",
            "optimizer": "{name: adam, eps: 1e-6}",  # a text to YAML, which wants a point
        },
    )
    told = config.client_settings()
    assert (told.network.head, told.network.head_settings) == ("cosine", {"scale": 2.0})
    assert (told.objective, told.objective_settings) == ("focal", {"gamma": 2})
    assert told.optimizer == {"name": "adam", "eps": 1e-6}
    assert load_config("cg-digits", {"optimizer": "adam"}).optimizer == {"name": "adam"}


def test_a_rule_reaches_the_strategy() -> None:
    choice = {"name": "krum", "bad": 2, "m": 3}
    values = {"method": "fedprox", "aggregation": choice, "outlier_factor": 0}
    strategy = build_strategy(load_config("cg-digits", values))
    assert isinstance(strategy.aggregation, Krum)
    assert (strategy.aggregation.bad, strategy.aggregation.m) == (2, 3)
    assert strategy.outlier_factor == 0
    assert build_strategy(load_config("cg-digits")).aggregation is None


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"name": "sgd"}, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
        ({"name": "sgd", "momentum": 0.5}, {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.01}),
        ({"name": "adam"}, {"lr": 0.1, "betas": (0.9, 0.999), "weight_decay": 0.01}),
        ({"name": "adamw", "weight_decay": 0}, {"lr": 0.1, "weight_decay": 0}),
        ({"name": "rmsprop"}, {"lr": 0.1, "momentum": 0, "weight_decay": 0.01}),
    ],
)
def test_which_of_the_experiments_keys_count(
    choice: dict[str, Any], expected: dict[str, Any]
) -> None:
    built = build_optimizer(choice, [nn.Parameter(torch.zeros(1))], **EXPERIMENT)
    assert {key: built.defaults[key] for key in expected} == expected


def test_torchs_own_optimisers_all_take_a_step() -> None:
    names = "sgd adam adamw rmsprop adagrad nadam radam adamax adadelta adafactor asgd rprop"
    assert set(names.split()) <= set(OPTIMIZERS.names())
    for name in names.split():
        assert load_config("cg-digits", {"optimizer": name}).optimizer == {"name": name}


def test_weights_of_a_head_are_drawn_without_a_word_of_its_own() -> None:
    class Plain(Head):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(3, 4))
            self.bias = nn.Parameter(torch.empty(3))

    one, same = Plain(), Plain()
    for head in (one, same):
        head.reset(torch.Generator().manual_seed(5))
    expected = nn.init.xavier_normal_(torch.empty(3, 4), generator=torch.Generator().manual_seed(5))
    assert torch.equal(one.weight, expected)
    assert torch.equal(one.weight, same.weight)
    assert one.bias.tolist() == [0, 0, 0]


def test_metrics_by_hand() -> None:
    """Classes 0 and 1 of three are there; of 0 both, of 1 one of two is found, the other is a 2."""
    labels, found = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 2])
    logits = nn.functional.one_hot(found, 3) * 9.0
    values = measured(["macro-f1", "uar"], logits, labels)
    assert values["uar"] == pytest.approx((1 + 1 / 2) / 2)
    assert values["macro-f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_a_metric_sees_labels_and_probabilities_and_is_named_when_it_fails() -> None:
    logits, labels = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]]), torch.tensor([2, 0])

    def confidence(labels: Any, probabilities: Any) -> float:
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        return probabilities[np.arange(2), labels].mean()

    METRICS.add("confidence", confidence)
    METRICS.add("broken", lambda labels, probabilities: labels.no_such_thing)
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True)
    expected = (p[0, 2] + p[1, 0]) / 2
    assert measured(["confidence"], logits, labels)["confidence"] == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"metrics: 'broken' failed: .*no_such_thing.*leave it"):
        measured(["broken"], logits, labels)


class Normed(FusionHead):
    """Normalises its logits over the batch."""

    def __init__(self, widths, num_classes):
        super().__init__(widths, num_classes)
        self.norm = nn.BatchNorm1d(num_classes, affine=False, track_running_stats=False)

    def fuse(self, parts):
        return self.norm(super().fuse(parts))


@pytest.mark.parametrize(
    ("source", "given", "says"),
    [
        ("cg-digits", {"missing.rate": 0.3}, "missing: .*complete_only=true.* another head"),
        ("cg-digits", {"sample_dropout": 0.2}, "sample_dropout: .*set it to 0"),
        ("crema-d", {"gaps": "keep"}, "gaps: .*complete_only=true.*gaps: refuse"),
    ],
)
def test_a_head_that_normalises_over_batches_allows_no_gaps(
    source: str, given: dict[str, Any], says: str
) -> None:
    HEADS.add("normed", Normed)
    plain = {"method": "fedavg"}
    load_config(source, plain | given)
    load_config(source, plain | {"head": "normed"})
    with pytest.raises(ConfigError, match=says) as refused:
        load_config(source, plain | given | {"head": "normed"})
    assert "the head 'normed' allows no samples that lack" in str(refused.value)
    assert "normalises over batches" in str(refused.value)
    if "sample_dropout" not in given:
        load_config(source, plain | given | {"head": "normed", "missing.complete_only": True})

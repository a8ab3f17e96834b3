"""A small data set of three modalities (vectors), for tests that need no images."""

from __future__ import annotations

import torch

from bmsfed_app.datasets.base import Renderer, Split
from bmsfed_app.models import NetworkSpec
from bmsfed_app.settings import ClientSettings
from client_app.data import LocalData
from client_app.objectives import LocalContext
from strategies import Orders

WIDTHS = {"touch": 4, "sound": 3, "smell": 2}
CLASSES = 3
#: Modal enhancement as the paper has it.
ENHANCEMENT = {
    "coefficient": "clipped",
    "coefficient_value": 1.0,
    "uni_enhancement": "weak",
    "head_weight": 0.0,
}
ENHANCING = {"objective": "modal_enhancement", "objective_settings": ENHANCEMENT}


def spec(encoder: str = "identity", feature_norm: float = 0.0) -> NetworkSpec:
    return NetworkSpec(
        encoders=dict.fromkeys(WIDTHS, encoder),
        shapes={m: (d,) for m, d in WIDTHS.items()},
        num_classes=CLASSES,
        feature_norm=feature_norm,
    )


def split(n: int = 60, seed: int = 0) -> Split:
    """Class means of growing separation: touch is strong, smell is weak."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    stores = {}
    for strength, (m, d) in zip((4.0, 2.0, 0.5), WIDTHS.items(), strict=True):
        means = torch.randn(CLASSES, d, generator=torch.Generator().manual_seed(len(m)))
        stores[m] = strength * means[labels] + torch.randn(n, d, generator=rng)
    return Split(labels, stores, {m: Renderer((m,), lambda x: x) for m in WIDTHS})


def client(
    name: str = "client-0",
    n: int = 60,
    seed: int = 0,
    modalities: tuple[str, ...] = tuple(WIDTHS),
) -> LocalData:
    data = split(n, seed)
    return LocalData(name, data, torch.arange(n), modalities, CLASSES)


def settings(**changes: object) -> ClientSettings:
    values: dict[str, object] = {
        "dataset": "synthetic",
        "network": spec(),
        "batch_size": 20,
        "lr": 0.05,
        "device": "cpu",
    }
    return ClientSettings(**(values | changes))  # type: ignore[arg-type]


def context(*modalities: str, shared: ClientSettings | None = None, **told: object) -> LocalContext:
    """What an objective reads where the experiment says ``shared`` and the strategy ``told``."""
    orders = Orders("train", modalities or tuple(WIDTHS), **told)  # type: ignore[arg-type]
    return LocalContext.of(orders, shared or settings())

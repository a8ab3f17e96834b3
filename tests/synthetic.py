"""A small data set of three modalities (vectors), for tests that need no images."""

from __future__ import annotations

import torch

from bmsfed_app.datasets.base import Renderer, Split
from bmsfed_app.models import NetworkSpec
from bmsfed_app.settings import ClientSettings, SignatureSettings
from client_app.data import LocalData

WIDTHS = {"touch": 4, "sound": 3, "smell": 2}
CLASSES = 3


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
        "signature": SignatureSettings("none"),
    }
    return ClientSettings(**(values | changes))  # type: ignore[arg-type]

"""(a) A client's local training against a bare PyTorch loop over the same tensors and model.

``python -m benchmarks.local_training [--out results.json]``: one client of CG-MNIST (2,000 made-up
digits, batches of 128), one epoch, one thread, ours and bare in turn; medians. About two minutes.
The bare loop finds its inputs rendered; ours colours and normalises each batch. Goal: >= 0.95.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.common import made_up_digits, write
from bmsfed_app.config import load_config
from bmsfed_app.models import build_network
from bmsfed_app.prototypes import class_means
from bmsfed_app.settings import ClientSettings
from client_app.data import LocalData
from client_app.objectives import LocalContext, Objective
from client_app.objectives.cross_entropy import CrossEntropy
from client_app.objectives.modal_enhancement import ModalEnhancement
from client_app.training import train
from strategies import Orders

SAMPLES, MODALITIES = 2_000, ("colored", "gray")


def bare(inputs: dict[str, torch.Tensor], labels: torch.Tensor, settings: ClientSettings) -> None:
    """The loop that anyone would write."""
    network = build_network(settings.network, 0).train()
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    for index in torch.randperm(SAMPLES).split(settings.batch_size):
        logits = network({m: x[index] for m, x in inputs.items()}).logits
        loss = F.cross_entropy(logits, labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def ours(data: LocalData, settings: ClientSettings, objective: Objective) -> None:
    """The app's local training."""
    network = build_network(settings.network, 0)
    context = LocalContext.of(Orders("train", MODALITIES), settings)
    if isinstance(objective, ModalEnhancement):
        z = torch.randn(SAMPLES, 512, generator=torch.Generator().manual_seed(0))
        means = class_means(z, data.labels, 10)
        context.local_prototypes = context.global_prototypes = dict.fromkeys(MODALITIES, means)
    train(objective.bind(network, context), data)


def rates(loops: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median samples per second of each loop, taken in turn after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for repeat in range(repeats + 1):
        for name, loop in loops.items():
            started = time.perf_counter()
            loop()
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    return {name: SAMPLES / statistics.median(s) for name, s in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    overrides = {"local_epochs": 1, "device": "cpu"}
    settings = load_config("cg-mnist", overrides).client_settings()
    split = made_up_digits(SAMPLES)
    data = LocalData("client", split, torch.arange(SAMPLES), MODALITIES, 10)
    inputs = split.batch(torch.arange(SAMPLES), MODALITIES)
    found = rates(
        {
            "bare PyTorch loop": lambda: bare(inputs, split.labels, settings),
            "cross_entropy": lambda: ours(data, settings, CrossEntropy()),
            "modal_enhancement": lambda: ours(data, settings, ModalEnhancement.by_default()),
        },
        given.repeats,
    )
    base = found["bare PyTorch loop"]
    for name, rate in found.items():
        print(f"{name:<20} {rate:7.0f} samples/s  {rate / base:.3f} of the bare loop")
    write(given.out, {"samples_per_second": found})


if __name__ == "__main__":
    main()

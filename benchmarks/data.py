"""(g) Reading samples against what training needs, and preparing them, for every data set at hand.

``python -m benchmarks.data mvsa=DIR avletters=DIR ... [--threads 1] [--out FILE]``: per set,
samples per second of decoding into a fresh cache (all cores), of reading batches as training does
(random rows, augmented), and of training steps on made batches with the set's encoders; then the
share of a training step that reading adds. Reading is fast enough where that share is small.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.common import write
from bmsfed_app.config import ExperimentConfig, load_config
from bmsfed_app.datasets import PreparedSource, find_source
from bmsfed_app.datasets.base import Split
from bmsfed_app.datasets.preparation import prepare
from bmsfed_app.models import build_network

SECONDS = 3.0


def rate(step: Callable[[], int], seconds: float = SECONDS) -> float:
    """Samples per second of a step, after one warm-up."""
    step()
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        done += step()
    return done / (time.perf_counter() - started)


def reading(split: Split, size: int) -> Callable[[], int]:
    """One batch as training reads it."""
    rng = torch.Generator().manual_seed(0)

    def step() -> int:
        index = torch.randint(len(split), (min(size, len(split)),), generator=rng)
        split.batch(index, split.modalities, rng)
        return len(index)

    return step


def training(split: Split, config: ExperimentConfig) -> Callable[[], int]:
    """One step of SGD on a batch that is there already."""
    network = build_network(config.network_spec(), 0).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    index = torch.arange(min(config.batch_size, len(split)))
    inputs, labels = split.batch(index, split.modalities), split.labels[index]

    def step() -> int:
        optimizer.zero_grad()
        F.cross_entropy(network(inputs).logits, labels).backward()
        optimizer.step()
        return len(index)

    return step


def measure(name: str, folder: Path) -> dict[str, Any]:
    """All figures of one data set."""
    config = load_config(name, {"data_dir": str(folder)})
    source = find_source(config.dataset)
    settings = source.parse(config.dataset_settings)
    found: dict[str, Any] = {}
    with _fresh_home():
        if isinstance(source, PreparedSource):
            started = time.perf_counter()
            done = prepare(source, folder, settings)
            found["decoded per s"] = sum(done.counts.values()) / (time.perf_counter() - started)
            size = sum(f.stat().st_size for f in done.cache.rglob("*") if f.is_file())
            found["cache MiB"] = size / 2**20
        split = source.load_split("train", folder, 0, settings)
        found["read per s"] = rate(reading(split, config.batch_size))
        found["trained per s"] = rate(training(split, config))
    found["reading adds"] = found["trained per s"] / found["read per s"]
    return found


@contextmanager
def _fresh_home() -> Iterator[None]:
    before = os.environ.get("BMSFED_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BMSFED_HOME"] = folder
        try:
            yield
        finally:
            os.environ.pop("BMSFED_HOME")
            if before is not None:
                os.environ["BMSFED_HOME"] = before


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+", metavar="NAME=DIR")
    parser.add_argument("--threads", type=int, default=1, help="of reading and training")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    figures = {}
    for pair in given.sets:
        name, _, folder = pair.partition("=")
        figures[name] = f = measure(name, Path(folder))
        decoded = f"{f['decoded per s']:,.0f}" if "decoded per s" in f else "-"
        print(
            f"{name:<12} decoded {decoded:>6}/s  read {f['read per s']:>8,.0f}/s  trained "
            f"{f['trained per s']:>8,.0f}/s  reading adds {f['reading adds']:.1%} to a step",
            flush=True,
        )
    write(given.out, figures)


if __name__ == "__main__":
    main()

"""What a training step of the paper's encoder takes, and what bfloat16 makes of it here.

``python -m benchmarks.encoder_step [--out results.json]``: ``conv4``'s steps on random batches of
CG-MNIST's and UTD-MHAD's shapes, forward and backward on one thread, in float32 and in bfloat16:
by the encoder's own way, and layer by layer (``encoder.layers``), in turn. The least CPU
milliseconds of 20, whatever else runs. A minute.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import write
from bmsfed_app.devices import has_bf16, prepare_device
from bmsfed_app.models.encoders.plain import Conv4

#: Pictures and the shape of one.
BATCHES = {
    "CG-MNIST, colored": (64, 3, 28, 28),
    "CG-MNIST, gray": (64, 1, 28, 28),
    "UTD-MHAD, depth": (64, 1, 64, 64),  # 16 clips of four
}
_REPEATS = 20


def steps(batch: tuple[int, ...], *, half: bool) -> tuple[float, float]:
    """Return the milliseconds of a step: by the encoder's own way, and layer by layer."""
    images, encoder = torch.randn(batch), Conv4(batch[1:]).train()

    def by_layers(x: Tensor) -> Tensor:
        features: Tensor = encoder.layers(x.contiguous(memory_format=encoder.layout))
        return features

    def step(encode: Callable[[Tensor], Tensor]) -> float:
        encoder.zero_grad()
        started = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            features = encode(images)
        features.float().square().mean().backward()
        return 1e3 * (time.process_time() - started)

    taken = [(step(encoder.encode), step(by_layers)) for _ in range(_REPEATS)]
    ours, plain = (min(column) for column in zip(*taken, strict=True))
    return ours, plain


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cpu = torch.device("cpu")
    prepare_device(cpu, "float32")
    print(f"this CPU has {'' if has_bf16(cpu) else 'no '}instructions for bfloat16")
    figures: dict[str, dict[str, float]] = {}
    for name, batch in BATCHES.items():
        for precision in ("float32", "bf16"):
            ours, plain = steps(batch, half=precision == "bf16")
            figures[f"{name}, {precision}"] = {"ms": ours, "layer by layer": plain}
            print(f"{name}, {batch[0]} a batch, {precision}: {ours:.1f} ms, {plain:.1f} by layers")
    write(out, {"steps": figures})


if __name__ == "__main__":
    main()

"""(d) Bytes per client and round of BMSFed against FedAvg sending everything.

``python -m benchmarks.traffic [--out results.json]``: four rounds on cg-digits (the encoders of
CG-MNIST), ten clients, five a round; payload of the training messages (arrays, settings,
prototypes, signatures) as the run folder's history has it. About two minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.common import write
from bmsfed_app.record.run import read_run

CASES = {
    "fedavg, whole model": ["--method", "fedavg", "--set", "prototypes=test"],
    "fedavg + prototypes": ["--method", "fedavg"],
    "bmsfed, sketch 4096": [],
    "bmsfed, exact gradients": ["--set", "sketch_dim=0"],
}


def measure(arguments: list[str], folder: Path) -> dict[str, float]:
    """Mean KiB down and up per client and round, for all clients and by what they trained."""
    command = [sys.executable, "-m", "bmsfed_app.cli.main", "run", "cg-digits", "--clients", "10"]
    command += ["--rounds", "4", "--set", "data_fraction=0.2", "--out", str(folder), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    clients = [r for r in read_run(folder).answers if r.phase == "train"]
    groups = {
        "": clients,
        " multi": [r for r in clients if len(r.assigned) > 1],
        " uni": [r for r in clients if len(r.assigned) == 1],
    }
    return {
        way + name: mean(getattr(r, f"bytes_{way}") for r in group) / 1024
        for name, group in groups.items()
        for way in ("down", "up")
        if group
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    given = parser.parse_args()
    found: dict[str, Any] = {}
    print(f"KiB per client and round {'down':>10} {'up':>8} {'of fedavg':>10}   uni-modal down, up")
    for name, arguments in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = values = measure(arguments, Path(folder) / "run")
        base = found["fedavg, whole model"]
        ratio = (values["down"] + values["up"]) / (base["down"] + base["up"])
        uni = f"{values['down uni']:.0f}, {values['up uni']:.0f}" if "up uni" in values else "-"
        print(
            f"{name:<24} {values['down']:>10.0f} {values['up']:>8.0f} {ratio:>10.2f}   {uni}",
            flush=True,
        )
    write(given.out, found)


if __name__ == "__main__":
    main()

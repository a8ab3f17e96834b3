"""(i) A GPU: clients at a time, packed clients, precision, compiled code, and how busy it is.

``benchmarks/gpu.sh --data-dir MNIST [--out results/gpu]``: CG-MNIST, all 60,000 images and 100
rounds of BMSFed, and two ResNet-18 at 224 x 224 on made-up pictures, each by ``bmsfed run`` in
several ways. Goal: CG-MNIST's 100 rounds in under 2 minutes on an H100. ``--device cpu --tiny``
tries the same commands on small work without a GPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from benchmarks.common import write
from bmsfed_app.record.run import read_run

ROOT = Path(__file__).resolve().parents[1]
NVIDIA_SMI = (
    *("nvidia-smi", "--query-gpu=utilization.gpu,memory.used"),
    *("--format=csv,noheader,nounits", "--loop=1"),
)


@dataclass(frozen=True)
class Case:
    """One run: what is trained, in which way, by which options of ``bmsfed run``."""

    work: str
    way: str
    options: tuple[str, ...]


def cases(data_dir: str, device: str, *, tiny: bool, cores: int) -> list[Case]:
    """Return all runs; the first of each work is what the others are compared with."""

    def at_once(clients: int) -> tuple[str, ...]:
        share = ("--gpus-per-client", f"{1 / clients:g}") if device == "cuda" else ()
        return ("--engine", "ray", *share, "--cpus-per-client", str(max(cores // clients, 1)))

    inline = ("--engine", "inline", "--cpus-per-client", str(cores), "--set", f"device={device}")
    numbers = {
        "tf32": (*inline, "--set", "precision=tf32"),
        "bf16": (*inline, "--set", "precision=bf16"),
        "compiled": (*inline, "--set", "compile=true"),
        "compiled, bf16": (*inline, "--set", "compile=true", "--set", "precision=bf16"),
    }
    ways = {"one after the other": inline}
    ways |= {f"{n} at a time": at_once(n) for n in ((2,) if tiny else (1, 4, 8))}
    packed = {"6 packed": (*inline, "--set", "packed_clients=6")}
    digits, pictures = work(data_dir, tiny=tiny)
    found = [Case("CG-MNIST", way, (*digits, *o)) for way, o in (ways | packed | numbers).items()]
    return found + [Case("ResNet-18 pair", w, (*pictures, *o)) for w, o in (ways | numbers).items()]


def work(data_dir: str, *, tiny: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what is trained, as arguments of ``bmsfed run``: digits, and pictures."""
    pictures = ("benchmarks/resnet-pair.yaml",)
    if not tiny:
        return ("cg-mnist", "--rounds", "100", "--data-dir", data_dir), pictures
    few = ("--rounds", "2", "--clients", "4", "--per-round", "2")
    return (
        ("cg-digits", *few, "--set", "data_fraction=0.1"),
        (*pictures, *few, "--set", "side=32", "--set", "samples=40"),
    )


@dataclass
class Watch:
    """What ``nvidia-smi`` said, a second apart: share of the time at work, MiB in use."""

    busy: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


@contextmanager
def watched(device: str) -> Iterator[Watch]:
    """Watch the first GPU while something runs; a CPU is not watched."""
    watch = Watch()
    if device != "cuda":
        yield watch
        return
    process = subprocess.Popen(NVIDIA_SMI, stdout=subprocess.PIPE, text=True)
    try:
        yield watch
    finally:
        process.terminate()
        lines = process.communicate()[0].splitlines()
        for line in lines[:: max(torch.cuda.device_count(), 1)]:
            busy, memory = line.split(",")
            if "N/A" not in line:  # a slice of a GPU says nothing of its use
                watch.busy.append(float(busy))
                watch.memory.append(float(memory))


def run(case: Case, device: str, folder: Path) -> dict[str, Any]:
    """Run a case; return its figures, or the last line of what it said where it failed."""
    command = [sys.executable, "-m", "bmsfed_app.cli.main", "run", *case.options]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with watched(device) as watch:
        started = time.perf_counter()
        done = subprocess.run(
            [*command, "--out", str(folder)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        seconds = time.perf_counter() - started
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        return {"failed": said[-1] if said else f"exit status {done.returncode}"}
    rounds = read_run(folder).rounds
    rows = [r.seconds + r.metrics.get("seconds_evaluation", 0.0) for r in rounds if r.round]
    return {
        "seconds": seconds,
        "rounds": len(rows),
        "seconds_round": median(rows),
        "accuracy": rounds[-1].metrics["accuracy"],
        "gpu_busy_percent": fmean(watch.busy) if watch.busy else None,
        "gpu_memory_gib": max(watch.memory) / 1024 if watch.memory else None,
    }


def table(found: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Write the figures as lines of Markdown."""
    lines = [
        "| work | clients | rounds | seconds in all | a round | times faster | accuracy % | "
        "GPU busy % | GPU GiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, ways in found.items():
        first = next(iter(ways.values())).get("seconds_round")
        for way, row in ways.items():
            if "failed" in row:
                lines.append(f"| {name} | {way} | failed: {row['failed']} ||||||| ")
                continue
            faster = f"{first / row['seconds_round']:.2f}" if first else "–"
            cells = [str(row["rounds"]), f"{row['seconds']:.0f}", f"{row['seconds_round']:.2f}"]
            cells += [faster, f"{100 * row['accuracy']:.1f}"]
            cells += [_number(row["gpu_busy_percent"], 0), _number(row["gpu_memory_gib"], 1)]
            lines.append(f"| {name} | {way} | " + " | ".join(cells) + " |")
    return lines


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default="", help="folder with the MNIST files")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small work, to try the commands")
    parser.add_argument("--out", type=Path, help="write the table to OUT.md, figures to OUT.json")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("no GPU is available; --device cpu --tiny tries this out", file=sys.stderr)
        raise SystemExit(2)
    device = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    found: dict[str, dict[str, dict[str, Any]]] = {}
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        wanted = cases(given.data_dir, given.device, tiny=given.tiny, cores=cores)
        for number, case in enumerate(wanted):
            row = run(case, given.device, Path(name) / str(number))
            found.setdefault(case.work, {})[case.way] = row
            print(table({case.work: {case.way: row}})[-1], flush=True)
    lines = [f"{device}, {cores} cores, torch {torch.__version__}", "", *table(found)]
    print("\n".join(lines))
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.with_suffix(".md").write_text("\n".join(lines) + "\n")
        write(given.out.with_suffix(".json"), {"device": device, "runs": found})


if __name__ == "__main__":
    main()

"""Accuracy of methods side by side: runs them, or goes on with what is there, and writes a table.

``python -m benchmarks.compare --data-dir MNIST --out results/NAME [--seeds 0 1] [--methods ...]
[--rounds N] [--set key=value ...]`` runs every method and seed on cg-mnist, for as many rounds as
its YAML file says unless told otherwise, each into its own run folder below ``--runs``, skips what
is complete and resumes what is not. A method may carry settings of its own,
``local:eval_every=30``. The table and every run's figures go to NAME.md and NAME.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from bmsfed_app.methods import METHODS
from bmsfed_app.record.files import read_json
from bmsfed_app.record.rows import RunSummary
from bmsfed_app.record.run import read_run


def run(method: str, seed: int, folder: Path, given: argparse.Namespace) -> bool:
    """Run one method and seed unless it is complete; say whether it now is."""
    name, _, own = method.partition(":")
    summary = folder / "summary.json"
    if summary.exists() and read_json(summary, RunSummary).complete:
        return True
    if given.table_only:
        return False
    program = [sys.executable, "-m", "bmsfed_app.cli.main", "run"]
    if (folder / "checkpoint.safetensors").exists():
        command = [*program, "--resume", str(folder)]
    else:
        command = [*program, given.config, "--method", name, "--seed", str(seed)]
        command += ["--out", str(folder)]
        if given.rounds is not None:
            command += ["--rounds", str(given.rounds)]
        if given.data_dir:
            command += ["--data-dir", given.data_dir]
        for pair in [*given.set, *(own.split(",") if own else [])]:
            command += ["--set", pair]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{name} seed {seed}: {done.stderr.strip()[-500:]}", file=sys.stderr, flush=True)
    return done.returncode == 0


def figures(folder: Path) -> dict[str, Any]:
    """What the table says of one run, accuracies in percent."""
    run = read_run(folder)
    evaluated = [n for n, _ in run.values("accuracy") if n][-3:]

    def middle(key: str, modality: str | None = None) -> float:
        return round(100 * mean(v for n, v in run.values(key, modality) if n in evaluated), 2)

    [last] = [r.metrics for r in run.rounds if r.round == evaluated[-1]]
    return {
        "accuracy": round(100 * last["accuracy"], 2),
        "late": middle("accuracy"),
        "alone": {m: middle("accuracy_by_modality", m) for m in last["accuracy_by_modality"]},
        "through_head": {
            m: middle("head_accuracy_by_modality", m) for m in last["head_accuracy_by_modality"]
        },
        "prototypes": last["prototypes"],
        "rounds": run.planned,
        "evaluated": evaluated,
        "commit": run.info.commit,
    }


def table(found: dict[str, dict[int, dict[str, Any]]]) -> list[str]:
    """Markdown: a line per method, seeds side by side."""
    first = next(iter(next(iter(found.values())).values()))
    modalities = list(first["alone"])
    head = ["method", "all: last", "all: last three", *[f"{m} alone" for m in modalities]]
    head += [f"{m} through the head" for m in modalities]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for method, by_seed in found.items():
        runs = list(by_seed.values())
        cells = [[f"{r['accuracy']:.1f}" for r in runs], [f"{r['late']:.1f}" for r in runs]]
        cells += [[f"{r['alone'].get(m, float('nan')):.1f}" for r in runs] for m in modalities]
        cells += [[f"{r['through_head'][m]:.1f}" for r in runs] for m in modalities]
        name = f"`{method}`" + (" ¹" if runs[0]["prototypes"] == "test" else "")
        lines.append("| " + " | ".join([name, *[", ".join(c) for c in cells]]) + " |")
    return lines


def _note(given: argparse.Namespace, found: dict[str, dict[int, dict[str, Any]]]) -> list[str]:
    first = next(iter(next(iter(found.values())).values()))
    return [
        f"`{given.config}`, {first['rounds']} rounds, seeds {given.seeds}, {' '.join(given.set)};",
        f"{platform.machine()}, {os.cpu_count()} cores. Percent of the test images, a number per",
        f"seed. Last three: mean of evaluations after rounds {first['evaluated']}; so are the",
        "columns to the right: each modality alone by nearest prototype of training data (¹: of",
        "test data), and through its own columns of the head.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="cg-mnist")
    parser.add_argument("--data-dir", default="", help="folder with the data")
    parser.add_argument("--methods", nargs="*", default=METHODS.names())
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1])
    parser.add_argument("--rounds", type=int, help="instead of the configuration's")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of run folders")
    parser.add_argument("--table-only", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, help="write the table to OUT.md, figures to OUT.json")
    given = parser.parse_args()
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for seed in given.seeds:
        for method in given.methods:
            name = method.partition(":")[0]
            folder = given.runs / f"{name}-s{seed}"
            if run(method, seed, folder, given):
                found.setdefault(name, {})[seed] = result = figures(folder)
                print(f"{name} seed {seed}: {result['accuracy']:.1f}", flush=True)
    if not found:
        raise SystemExit("no run is complete")
    lines = table(found)
    print("\n".join(lines))
    if given.out is not None:
        lines = [*_note(given, found), "", *lines]
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.with_suffix(".md").write_text("\n".join(lines) + "\n")
        given.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

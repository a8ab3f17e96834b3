"""(i) What an engine adds to a bare loop: ours, Flower's simulation, and other simulators.

``python -m benchmarks.engine [--quick] [--others FOLDER] [--only ROW …] [--out engine.json]`` runs
each federation in each way in a process of its own, prints a Markdown table, and with ``--out``
writes it beside the JSON as well. ``--others`` names a folder made by ``benchmarks/others.sh``.
About ten minutes on two idle cores, with ``--quick`` two.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.engines.rows import LARGE, MANY, QUICK, ROWS, SMALL, TRAINING, Row
from benchmarks.memory import end_tree, tree_memory

ROOT = Path(__file__).resolve().parents[1]
WAYS = ("bare", "inline", "ray 1", "ray 2", "run_simulation", "flwr run")
OTHERS = ("pfl", "fluke")
#: What would take minutes, and the row that is there for the memory of the large one.
LEFT_OUT = {MANY: ("run_simulation", *OTHERS), SMALL: ("run_simulation", "flwr run", *OTHERS)}
#: Row, column and the share of the bare loop's time that is the goal.
GOALS = [
    *((name, "inline", 1.05) for name in ROWS),
    (TRAINING, "ray 2", 0.6),
    (LARGE, "ray 2", 1.1),
]
PATIENCE = 600


def measure(row: Row, way: str, python: Path, *, quick: bool) -> dict[str, Any]:
    """Run one row in one way; return its figures, or why there are none.

    Returns
    -------
    dict
        ``seconds`` of a round (median of those after the first), ``start`` (seconds from the
        command to the end of the first round), ``peak_mib``; of our ways ``model`` (a hash) and
        its ``bytes``.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder) / "found.json", Path(folder) / "log"
        env = os.environ | {"PYTHONPATH": str(ROOT), "BMSFED_HOME": folder}
        env |= {"BENCHMARK_QUICK": "1" if quick else ""}
        command = [str(python), "-m", "benchmarks.engines.columns", row.name, way, str(file)]
        began, peak = time.time(), 0.0
        with log.open("w") as output:
            process = subprocess.Popen(command, env=env, stdout=output, stderr=output)
            try:
                while process.poll() is None and time.time() - began < PATIENCE:
                    peak = max(peak, tree_memory(process.pid))
                    time.sleep(0.5)
            finally:
                end_tree(process.pid)
                process.wait()
        if not file.exists():
            return {"failed": log.read_text()[-1500:] or f"no result within {PATIENCE} s"}
        found = json.loads(file.read_text())
    ends = found.pop("ends")
    return {
        **found,
        "seconds": statistics.median(b - a for a, b in itertools.pairwise(ends)),
        "start": ends[0] - began,
        "peak_mib": 1024 * peak,
    }


def table(found: dict[str, dict[str, Any]], rows: dict[str, Row]) -> list[str]:
    """Return Markdown: per row and way seconds a round, of bare, start, memory."""
    lines = ["| federation | way | s a round | of bare | first round done, s | peak MiB |"]
    lines.append("|---|---|---|---|---|---|")
    for name, ways in found.items():
        for way, figures in ways.items():
            about = rows[name].about if way == "bare" else ""
            if "failed" in figures:
                lines.append(f"| {about} | {way} | failed | | | |")
                continue
            share = figures["seconds"] / ways["bare"].get("seconds", float("nan"))
            lines.append(
                f"| {about} | {way} | {figures['seconds']:.3f} | {share:.2f} | "
                f"{figures['start']:.1f} | {figures['peak_mib']:.0f} |"
            )
    return lines


def judged(found: dict[str, dict[str, Any]]) -> list[str]:
    """Return a line per goal: what it is, and what was measured."""
    lines = []
    for name, way, goal in GOALS:
        figures = found.get(name, {})
        if all("seconds" in figures.get(w, {}) for w in ("bare", way)):
            share = figures[way]["seconds"] / figures["bare"]["seconds"]
            lines.append(f"{name}, {way}: {share:.2f} of bare, goal {goal}{_verdict(share, goal)}")
    for workers in (1, 2):
        pair = [found.get(name, {}).get(f"ray {workers}", {}) for name in (LARGE, SMALL)]
        if all("peak_mib" in figures for figures in pair):
            models = 2**20 * (pair[0]["peak_mib"] - pair[1]["peak_mib"]) / pair[0]["bytes"]
            lines.append(
                f"{LARGE}, ray {workers}: peak memory {models:.1f} models above the same with "
                f"{SMALL}, goal {workers + 3}{_verdict(models, workers + 3)}"
            )
    for name, figures in found.items():
        models = {f["model"] for f in figures.values() if f.get("model")}
        if len(models) > 1:
            lines.append(f"{name}: OUR WAYS DO NOT END WITH THE SAME MODEL")
    return lines


def _verdict(value: float, goal: float) -> str:
    return "" if value <= goal else " MISSED"


def main() -> None:
    """Measure all, and print and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a try of one small federation")
    parser.add_argument("--only", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--ways", nargs="*", metavar="WAY", help=f"of {', '.join(WAYS[1:])}")
    parser.add_argument("--others", type=Path, help="a folder made by benchmarks/others.sh")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    given = parser.parse_args()
    rows = QUICK if given.quick else ROWS
    pythons = {way: Path(sys.executable) for way in ("bare", *(given.ways or WAYS[1:]))}
    if given.others:
        pythons |= {way: given.others / way / "bin" / "python" for way in OTHERS}
    found: dict[str, dict[str, Any]] = {}
    for name in given.only or rows:
        found[name] = {}
        for way, python in pythons.items():
            if way in LEFT_OUT.get(name, ()):
                continue
            found[name][way] = figures = measure(rows[name], way, python, quick=given.quick)
            print(f"{name}, {way}: {figures}", file=sys.stderr, flush=True)
    lines = [*table(found, rows), "", *(f"- {line}" for line in judged(found))]
    print("\n".join(lines))
    if given.out:
        from benchmarks.common import write  # loads torch

        write(given.out, found)
        given.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

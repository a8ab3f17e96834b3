"""Time and memory of balanced selection, against plain N x N matrices where those fit.

``python -m benchmarks.selection [--out results.json]`` runs every size in a process of its own,
so that the peak memory is that size's; up to 5,000 clients the fastest of three runs counts. It
takes about a minute on two cores.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from strategies.selection.submodular import (
    FacilityLocation,
    balanced_selection,
    candidate_size,
    cover_rows,
)

SIZES = [(20, 5), (1_000, 20), (5_000, 50), (100_000, 100)]  # clients, selected per round
DIM = 1_024
COVER_SAMPLE = 5_000
THRESHOLD = 1.2
PLAIN_UP_TO = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--one", nargs=3, metavar=("WHAT", "CLIENTS", "N"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        what, clients, n = args.one
        print(json.dumps(measure(what, int(clients), int(n))))
        return
    rows = [compare(clients, n) for clients, n in SIZES]
    show(rows)
    from benchmarks.common import write  # loads torch: not in the processes that are measured

    write(args.out, {"dim": DIM, "rows": rows})


def compare(clients: int, n: int) -> dict[str, Any]:
    """Measure one size; the plain implementation too where its matrices fit."""
    ours = in_own_process("ours", clients, n)
    plain = in_own_process("plain", clients, n) if clients <= PLAIN_UP_TO else None
    return {
        "clients": clients,
        "n": n,
        "seconds": ours["seconds"],
        "peak_mib": ours["peak_mib"],
        "signatures_mib": ours["signatures_mib"],
        "plain_seconds": plain and plain["seconds"],
        "plain_peak_mib": plain and plain["peak_mib"],
        "time_ratio": plain and plain["seconds"] / ours["seconds"],
        "identical": plain and plain["picks"] == ours["picks"],
        "uni_picks": sum(role == "uni" for _, role in ours["picks"]),
    }


def in_own_process(what: str, clients: int, n: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.selection", "--one", what, str(clients), str(n)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(what: str, clients: int, n: int) -> dict[str, Any]:
    multi, weak, ratios = fleet(clients)
    run = ours if what == "ours" else plain
    times = []
    for _ in range(3 if clients <= PLAIN_UP_TO else 1):
        start = time.perf_counter()
        picks = run(multi, weak, ratios, n, np.random.default_rng(1))
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    size = (multi.nbytes + weak.nbytes) / 2**20
    return {"seconds": min(times), "peak_mib": peak, "signatures_mib": size, "picks": picks}


def fleet(clients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signatures in clusters with noise of the same size, and log-normal ratios around 1.3."""
    rng = np.random.default_rng(0)
    signatures = []
    for _ in range(2):
        centres = rng.standard_normal((max(4, min(50, clients // 10)), DIM), dtype=np.float32)
        rows = rng.standard_normal((clients, DIM), dtype=np.float32)
        label = rng.integers(len(centres), size=clients)
        for lo in range(0, clients, 4096):
            rows[lo : lo + 4096] += centres[label[lo : lo + 4096]]
        signatures.append(rows)
    return signatures[0], signatures[1], rng.lognormal(np.log(1.3), 0.3, clients)


def ours(multi, weak, ratios, n, rng) -> list[tuple[int, str]]:
    rows = cover_rows(len(multi), COVER_SAMPLE, rng)
    holds = np.ones(len(multi), bool)
    picks = balanced_selection(
        FacilityLocation(multi, rows),
        FacilityLocation(weak, rows),
        holds_weak=holds,
        holds_other=holds,
        ratios=ratios,
        n=n,
        threshold=THRESHOLD,
        rng=rng,
    )
    return [(p.client, p.role) for p in picks]


def plain(multi, weak, ratios, n, rng) -> list[tuple[int, str]]:
    """Full matrices, all candidates in full at every step."""
    d_multi, d_weak = distance_matrix(multi), distance_matrix(weak)
    near_multi = np.full(len(multi), np.inf)
    near_weak = np.full(len(multi), np.inf)
    left = np.ones(len(multi), bool)
    picks: list[tuple[int, str]] = []
    while len(picks) < n:
        size = candidate_size(len(multi), left.sum(), n)
        drawn = rng.choice(np.flatnonzero(left), size=size, replace=False)
        first = drawn[np.minimum(d_multi[:, drawn], near_multi[:, None]).sum(axis=0).argmin()]
        second = drawn[np.minimum(d_weak[:, drawn], near_weak[:, None]).sum(axis=0).argmin()]
        uni = ratios[second] > THRESHOLD
        chosen = [(first, "multi")]
        if first != second:
            chosen.append((second, "uni" if uni else "multi"))
        if len(chosen) > n - len(picks):
            none_yet = all(role == "multi" for _, role in picks)
            chosen = chosen[1:] if uni and none_yet else chosen[:1]
        for client, role in chosen:
            left[client] = False
            near_weak = np.minimum(near_weak, d_weak[:, client])
            if role == "multi":
                near_multi = np.minimum(near_multi, d_multi[:, client])
            picks.append((int(client), role))
    return picks


def distance_matrix(signatures: np.ndarray) -> np.ndarray:
    g = signatures.astype(np.float64)
    squares = (g**2).sum(axis=1)
    return np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * g @ g.T, 0))


def show(rows: list[dict[str, Any]]) -> None:
    print(
        f"d = {DIM}; sums over at most {COVER_SAMPLE} clients; matrices plain up to {PLAIN_UP_TO}"
    )
    print(
        f"{'clients':>8} {'n':>4} {'uni':>4} {'seconds':>9} {'peak MiB':>9} {'of it data':>10}",
        end=" ",
    )
    print(f"{'N x N s':>9} {'N x N MiB':>9} {'faster':>7} same picks")
    for r in rows:
        line = f"{r['clients']:>8} {r['n']:>4} {r['uni_picks']:>4} {r['seconds']:>9.3f}"
        line += f" {r['peak_mib']:>9.0f} {r['signatures_mib']:>10.0f}"
        if r["plain_seconds"] is None:
            print(line, f"{'-':>9} {'-':>9} {'-':>7} -")
        else:
            line += f" {r['plain_seconds']:>9.3f} {r['plain_peak_mib']:>9.0f}"
            print(line, f"{r['time_ratio']:>6.1f}x {'yes' if r['identical'] else 'NO'}")


if __name__ == "__main__":
    main()

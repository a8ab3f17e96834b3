"""Do two commits compute the same? Histories, picks and final models compared, number by number.

::

    python -m benchmarks.same_histories OLD_COMMIT [NEW_COMMIT]

Runs six methods on cg-digits (Dirichlet; one client lacks a modality, but for pow-d, which refuses
such clients) with the code of each commit, by its own command line, in a work tree of its own;
without a second commit, with the code as it stands here. Clocks and bytes are left out: how a
message is written may change, what it says may not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("bmsfed", "divfl", "pow-d", "fedpac", "g-blending", "fedmsplit")
SETTING = (
    *("--clients", "6", "--per-round", "3", "--rounds", "5", "--seed", "0"),
    *("--set", "partition=dirichlet", "--set", "alpha=1.0", "--set", "data_fraction=0.4"),
)


def run(code: Path, method: str, out: Path) -> Path:
    """Run one method with the code of a folder; return the run folder."""
    folder = out / method
    lacking = () if method == "pow-d" else ("--set", "whole_share=0.8")
    command = [sys.executable, "-m", "bmsfed_app.cli.main", "run", "conf/cg-digits.yaml"]
    command += ["--method", method, *SETTING, *lacking, "--out", str(folder)]
    env = os.environ | {"PYTHONPATH": str(code), "BMSFED_HOME": str(out)}
    subprocess.run(command, cwd=code, env=env, check=True, stdout=subprocess.DEVNULL)
    return folder


def timeless(value: Any) -> Any:
    """Return a row without clocks and bytes."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not k.startswith(("seconds", "bytes"))}
        return {k: timeless(v) for k, v in kept.items()}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def rows(folder: Path, file: str) -> list[Any]:
    """Return the timeless rows of a file of JSON lines."""
    return [timeless(json.loads(line)) for line in (folder / file).read_text().splitlines()]


def differences(old: Path, new: Path) -> list[str]:
    """Say what differs between two run folders; nothing where all is alike."""
    found = []
    for file in ("history.jsonl", "selection.jsonl"):
        ours, theirs = rows(new, file), rows(old, file)
        if len(ours) != len(theirs):
            found.append(f"{file}: {len(theirs)} rows before, {len(ours)} now")
        for number, (a, b) in enumerate(zip(theirs, ours, strict=False), 1):
            keys = [k for k in a if a[k] != b.get(k)]  # new columns are no difference
            found += [
                f"{file}, line {number}, {k}: {a.get(k)} before, {b.get(k)} now" for k in keys
            ]
    before, now = (load_file(f / "model.safetensors") for f in (old, new))
    if list(before) != list(now):
        found.append("model.safetensors: other names")
    return found + [
        f"model.safetensors, {n}: other values"
        for n in before
        if n in now and (before[n].dtype != now[n].dtype or not np.array_equal(before[n], now[n]))
    ]


def work_tree(commit: str, parent: Path) -> Path:
    """Check a commit out beside this checkout."""
    folder = parent / f"code-{commit[:12]}"
    git = ["git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", str(folder), commit]
    subprocess.run(git, check=True)
    return folder


def main() -> None:
    """Compare and print; exit status 1 if anything differs."""
    old_commit, *rest = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        parent = Path(name)
        trees = [work_tree(commit, parent) for commit in (old_commit, *rest[:1])]
        try:
            codes = [*trees, ROOT][:2]
            differing = False
            for method in METHODS:
                old, new = (
                    run(code, method, parent / f"runs-{side}")
                    for side, code in zip(("old", "new"), codes, strict=True)
                )
                found = differences(old, new)
                differing |= bool(found)
                print(f"{method:<12} {'the same' if not found else 'DIFFERENT'}", flush=True)
                print("".join(f"    {line}\n" for line in found[:10]), end="")
        finally:
            for tree in trees:
                git = ["git", "-C", str(ROOT), "worktree", "remove", "--force", str(tree)]
                subprocess.run(git, check=True)
    sys.exit(differing)


if __name__ == "__main__":
    main()

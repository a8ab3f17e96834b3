"""Run folders: as a run would leave them, written by the tests; stopping and reading real ones."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from strategies import Callback, ModalityStrategy, RoundReport

MODALITIES = ["colored", "gray"]


def make_run(
    folder: Path,
    *,
    method: str = "bmsfed",
    seed: int = 0,
    accuracies: list[float | None] | None = None,
    rounds: int | None = None,
    modalities: list[str] | None = None,
    config: dict[str, Any] | None = None,
    info: dict[str, Any] | None = None,
    clients: list[str] | None = None,
    change: dict[int, dict[str, Any]] | None = None,
) -> Path:
    """Write a run folder; ``accuracies`` are those of rounds 0, 1, 2, ..."""
    accuracies = [0.1, 0.5, 0.75, 0.625] if accuracies is None else accuracies
    modalities = modalities or MODALITIES
    clients = clients or ["client-00", "client-01", "client-02"]
    folder.mkdir(parents=True)
    values = {"dataset": "cg-digits", "method": method, "seed": seed, "partition": "iid"}
    values |= {"rounds": len(accuracies) - 1 if rounds is None else rounds, **(config or {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    about = {"method": method, "dataset": values["dataset"], "seed": seed, "commit": "0123abc"}
    about |= {"source": "89abcdef", "bundle": "bmsfed.bmsfed.1.0.0a1b2c3d"}
    about |= {"command": f"bmsfed run --seed {seed}", "hardware": "x86_64, 4 cores", "started": "x"}
    about |= {
        "data": "1a2b3c4d5e6f7081",
        "modalities": modalities,
        "class_names": ["zero", "one"],
        "versions": {"flwr": "1"},
    }
    (folder / "run.json").write_text(json.dumps(about | (info or {})))
    held = {"modalities": modalities, "num_samples": 9, "enrolled_round": 1}
    counts = [{**held, "class_counts": [4 + i, 5]} for i in range(len(clients))]
    (folder / "clients.json").write_text(json.dumps(dict(zip(clients, counts, strict=True))))
    lines = []
    for number, accuracy in enumerate(accuracies):
        row = round_row(number, accuracy, modalities, clients) | (change or {}).get(number, {})
        lines.append(json.dumps(row) + "\n")
    (folder / "history.jsonl").write_text("".join(lines))
    return folder


def round_row(
    number: int, accuracy: float | None, modalities: list[str], clients: list[str]
) -> dict[str, Any]:
    trained = {clients[0]: modalities, clients[1]: modalities[-1:]} if number else {}
    by_modality = {m: accuracy / (i + 2) for i, m in enumerate(modalities)} if accuracy else {}
    return {
        "kind": "round",
        "round": number,
        "accuracy": accuracy,
        "loss": 1.0,
        "accuracy_by_modality": by_modality,
        "prototypes": "train",
        "ratio": {m: 1.0 + i for i, m in enumerate(modalities)} if number else {},
        "weak": modalities[-1] if number else None,
        "assignments": trained,
        "failures": {},
        "bytes_down": 2 * 2**20 if number else 0,
        "bytes_up": 2**20 if number else 0,
        "seconds": 60.0,
    }


class StopAfter(Callback):
    """Ends a run after a round, as if it had been interrupted there."""

    def __init__(self, last: int) -> None:
        self.last = last

    def after_round(self, strategy: ModalityStrategy, report: RoundReport) -> bool:
        return report.round == self.last


def rows(run: Path, file: str = "history.jsonl") -> list[dict[str, Any]]:
    """A run's rows without what a clock says; a line that is being written is none yet."""
    path = run / file
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [_timeless(json.loads(line)) for line in lines if line.endswith("\n")]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if not k.startswith("seconds")}
    return value


def limited(size: int, work: Callable[[], object]) -> tuple[str, str]:
    """Do something in a child whose files cannot grow beyond so many bytes, as on a full disk.

    Returns
    -------
    raised, message : str
        What it raised; empty if nothing.
    """
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        raised = "", ""
        try:
            work()
        except BaseException as error:
            raised = type(error).__name__, str(error)
        os.write(send, json.dumps(raised).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(send)
    with os.fdopen(receive) as stream:
        kind, message = json.load(stream)
    return kind, message

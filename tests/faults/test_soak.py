"""A long run of many clients, a tenth of which fail: memory stays as it was, nothing is lost."""

import gc
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from bmsfed_app.config import check_config
from bmsfed_app.engine import InlineGrid
from bmsfed_app.record.run import read_run
from client_app.app import app
from server_app.experiment import run_experiment
from server_app.run_folder import RunFolder
from strategies import Callback, ModalityStrategy, RoundReport
from tests.faults.table import fault
from tests.own_table import SETTINGS, write_table
from tests.run_folders import rows

CLIENTS, ROUNDS, FAILING = 20, 200, 0.1


class Memory(Callback):
    """What Python holds and the process' resident memory, in MB, after every tenth round."""

    def __init__(self) -> None:
        self.held: list[float] = []
        self.resident: list[float] = []

    def after_round(self, strategy: ModalityStrategy, report: RoundReport) -> None:
        if report.round % 10 == 0:
            gc.collect()
            self.held.append(tracemalloc.get_traced_memory()[0] / 1e6)
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.resident.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


def failing() -> ClientApp:
    """Our ClientApp, a tenth of whose answers to training are errors, drawn by a seed."""
    unreliable, rng = ClientApp(), np.random.default_rng(0)

    @unreliable.query("enrol")
    def enrol(message: Message, context: Context) -> Message:
        return app(message, context)

    @unreliable.query("measure")
    def measure(message: Message, context: Context) -> Message:
        return app(message, context)

    @unreliable.train()
    def train(message: Message, context: Context) -> Message:
        if rng.random() < FAILING:
            raise RuntimeError("the battery is empty")
        return app(message, context)

    return unreliable


@pytest.mark.faults
@pytest.mark.long
@fault(
    f"{ROUNDS} rounds of {CLIENTS} clients, a tenth of whose answers fail at random",
    happens="each is left out of its round",
    kept="a row of every round and client; the last quarter's memory is the first's within 5 %",
    message="the battery is empty",
)
def test_a_long_run_with_failures_neither_grows_nor_loses_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BMSFED_HOME", str(tmp_path / "home"))
    names = [f"actor-{n:02}" for n in range(CLIENTS)]
    values = {"dataset": "table", "data_dir": str(write_table(tmp_path / "data", names))}
    values |= {"dataset_settings": SETTINGS, "partition": "natural", "clients": CLIENTS}
    values |= {"rounds": ROUNDS, "per_round": 10, "method": "bmsfed", "device": "cpu"}
    folder, memory = RunFolder.create(tmp_path / "run", check_config(values), "soak"), Memory()
    tracemalloc.start()
    try:
        run_experiment(InlineGrid(failing(), CLIENTS), folder, callbacks=[memory])
    finally:
        tracemalloc.stop()
    for what in (memory.held, memory.resident):
        quarters = [float(np.mean(q)) for q in np.array_split(what, 4)]
        first, last = quarters[0], quarters[-1]
        print(f"MB in the first quarter {first:.2f}, in the last {last:.2f}")
        assert last <= 1.05 * first
    assert json.loads((folder.path / "summary.json").read_text())["complete"]
    assert [r["round"] for r in rows(folder.path) if r["kind"] == "round"] == [*range(ROUNDS + 1)]
    asked = [r for r in rows(folder.path) if r["kind"] == "client" and r["phase"] == "train"]
    lost = [r for r in asked if r["status"] != "ok"]
    assert all("the battery is empty" in r["status"] for r in lost)
    assert 0.05 < len(lost) / len(asked) < 0.15
    assert len(read_run(folder.path).rounds) == ROUNDS + 1

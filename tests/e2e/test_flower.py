"""The app under Flower's own commands: `flwr run .`, and SuperLink with SuperNodes."""

import json
import os
import shutil
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import PATIENCE, ROOT, SMALL, Processes, bmsfed, free_port, wait_until
from tests.plugins import describe
from tests.run_folders import rows

pytestmark = pytest.mark.e2e


def superlink(processes: Processes, *arguments: str) -> None:
    """Start a SuperLink and make it the default of `flwr run`."""
    home = Path(processes.env["FLWR_HOME"])
    home.mkdir(parents=True)
    (home / "config.toml").write_text(
        '[superlink]\ndefault = "test"\n\n'
        f'[superlink.test]\naddress = "127.0.0.1:{processes.port}"\ninsecure = true\n'
    )
    # The dependencies are those of this environment: nothing needs to be installed for a run.
    started = processes.start(
        "flower-superlink",
        "--insecure",
        "--disable-runtime-dependency-installation",
        "--port",
        str(processes.port),
        *arguments,
    )
    wait_until(
        lambda: (
            "startup complete" in processes.text("flower-superlink.log").lower()
            or "SuperLinkLifespan" in processes.text("flower-superlink.log")
        ),
        "the SuperLink",
        started,
    )


def run_config(**values: object) -> str:
    return " ".join(f'{k}="{v}"' if isinstance(v, str) else f"{k}={v}" for k, v in values.items())


def test_flwr_run_gives_the_history_of_bmsfed_run(processes: Processes, tmp_path: Path) -> None:
    run, whole = tmp_path / "flwr-run", tmp_path / "whole"
    trackers = [name for name in ("tensorboard", "wandb") if find_spec(name)]
    bmsfed("run", *SMALL, "--rounds", "3", "--engine", "inline", "--out", str(whole))
    superlink(processes, "--simulation")
    code, text = processes.run(
        "flwr",
        "run",
        ".",
        "--stream",
        "--federation-config",
        "num-supernodes=4 client-resources-num-cpus=1",
        "--run-config",
        run_config(
            rounds=3,
            out=str(run),
            set="per_round=3 data_fraction=0.1 local_epochs=1 clients=4",
            track=" ".join(trackers),
        ),
    )
    assert code == 0, text
    assert f"run folder: {run}" in text
    assert rows(run) == rows(whole)
    told = json.loads((run / "trackers.json").read_text()) if trackers else {}
    assert {name: noted["round"] for name, noted in told.items()} == dict.fromkeys(trackers, 3)


def test_supernodes_with_their_own_data_packages_and_one_that_comes_late(
    processes: Processes, tmp_path: Path
) -> None:
    """Alice, bob, who holds gray alone, and carol, who comes later; started by `bmsfed run --on`.

    The example package of one's own is installed as pip would, and a module is there that registers
    an optimiser; SuperNodes run a fresh process for every message.
    """
    run = tmp_path / "run"
    own_package(processes)
    superlink(processes)
    shards = str(processes.folder / "shards")
    bmsfed("data", "split", "cg-digits", "--clients", "6", "--out", shards)
    start_node(processes, 0, "alice")
    start_node(processes, 2, "bob", 'modalities="gray"')
    own = "head=gated-attention metrics=[worst-class] plugins=[registered] optimizer=registered"
    pairs = f"per_round=3 local_epochs=1 min_clients=2 {own}".split()
    going = processes.start(
        "bmsfed",
        *("run", "cg-digits", "--on", "test", "--rounds", "7", "--out", str(run)),
        *(part for pair in pairs for part in ("--set", pair)),
        log="flwr.log",
    )
    wait_until(lambda: len(rounds(run)) > 1, "the first round", going)
    start_node(processes, 1, "carol")
    assert going.wait(PATIENCE) == 0, processes.text("flwr.log")
    # The folder has come back, with all but the checkpoint, beside the one that is there.
    [origin] = Path(processes.env["BMSFED_HOME"]).glob("runs/*")
    files = {p.name for p in origin.iterdir() if not p.name.startswith("checkpoint")}
    assert {"summary.json", "model.safetensors"} <= files
    for name in files - {"run.lock"}:
        assert (run / name).read_bytes() == (origin / name).read_bytes(), name
    clients = json.loads((run / "clients.json").read_text())
    assert clients["bob"]["modalities"] == ["gray"]
    history = {r["round"]: r for r in rounds(run)}
    assert set(history) == set(range(8))
    assert set(history[1]["assignments"]) == {"alice", "bob"}
    late = clients["carol"]["enrolled_round"]
    assert late > 1
    assert late + 2 < 8
    for number in range(late + 2, 8):  # in between it was measured, beside a round
        assert set(history[number]["assignments"]) == {"alice", "bob", "carol"}
        assert history[number]["assignments"]["bob"] == ["gray"]
    assert not any(r["failures"] for r in history.values())
    assert 0 <= history[7]["worst-class"] <= history[7]["accuracy"]
    plugins = json.loads((run / "run.json").read_text())["plugins"]
    assert {p["name"]: p["version"] for p in plugins if p["package"] == "attentive"} == {
        "gated-attention": "1.0.0",
        "worst-class": "1.0.0",
    }
    assert "registered" in {p["name"] for p in plugins}


def own_package(processes: Processes) -> None:
    """Install the example package, and a module, for the processes that are started from now on."""
    site = processes.folder / "site"
    shutil.copytree(ROOT / "examples/own_package/attentive", site / "attentive")
    project = tomllib.loads((ROOT / "examples/own_package/pyproject.toml").read_text())["project"]
    describe(site, project["entry-points"], project["name"], project["version"])
    (site / "registered.py").write_text(
        "import torch\nfrom bmsfed_app.optimizers import OPTIMIZERS\n"
        "OPTIMIZERS.add('registered', torch.optim.AdamW)\n"
    )
    paths = [str(site), processes.env.get("PYTHONPATH", "")]
    processes.env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


def start_node(processes: Processes, number: int, name: str, held: str = "") -> None:
    data = processes.folder / "shards" / f"client-{number}"
    processes.start(
        "flower-supernode",
        "--insecure",
        "--superlink",
        f"127.0.0.1:{processes.port}",
        "--port",
        str(free_port()),
        "--node-config",
        f'client-id="{name}" data-dir="{data}" plugins="registered" {held}',
        log=f"{name}.log",
    )


def rounds(run: Path) -> list[dict[str, Any]]:
    return [r for r in rows(run) if r["kind"] == "round"]

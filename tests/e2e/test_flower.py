"""The app under Flower's own commands: `flwr run .`, and SuperLink with SuperNodes."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, SMALL, Processes, free_port, rows, wait_until

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
    processes.start(
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
        60,
        "the SuperLink",
    )


def run_config(**values: object) -> str:
    return " ".join(f'{k}="{v}"' if isinstance(v, str) else f"{k}={v}" for k, v in values.items())


def test_flwr_run_gives_the_history_of_bmsfed_run(processes: Processes, tmp_path: Path) -> None:
    one, other = tmp_path / "flwr-run", tmp_path / "bmsfed-run"
    superlink(processes, "--simulation")
    code, text = processes.run(
        "flwr",
        "run",
        ".",
        "--stream",
        "--federation-config",
        "num-supernodes=4 client-resources-num-cpus=1",
        "--run-config",
        run_config(rounds=2, out=str(one), set="per_round=3 data_fraction=0.2 clients=4"),
    )
    assert code == 0, text
    assert f"run folder: {one}" in text
    code, text = processes.run("bmsfed", "run", *SMALL, "--rounds", "2", "--out", str(other))
    assert code == 0, text
    assert rows(one) == rows(other)


def test_supernodes_with_their_own_data_and_one_that_comes_late(
    processes: Processes, tmp_path: Path
) -> None:
    shards, run = tmp_path / "shards", tmp_path / "run"
    code, text = processes.run(
        "bmsfed", "data", "split", "conf/cg-digits.yaml", "--clients", "6", "--out", str(shards)
    )
    assert code == 0, text
    superlink(processes)
    start_node(processes, shards / "client-0", "alice", "")
    start_node(processes, shards / "client-1", "bob", "gray")
    going = processes.start(
        "flwr",
        "run",
        ".",
        "--stream",
        "--run-config",
        run_config(rounds=4, out=str(run), set="per_round=3 local_epochs=1 min_clients=2"),
        log="flwr.log",
    )
    wait_until(lambda: len(rounds(run)) > 1, 150, "the first round")
    start_node(processes, shards / "client-2", "carol", "")
    assert going.wait(240) == 0, processes.text("flwr.log")
    wait_until(lambda: (run / "summary.json").exists(), 150, "the run's end")
    clients = json.loads((run / "clients.json").read_text())
    assert clients["bob"]["modalities"] == ["gray"]
    history = {r["round"]: r for r in rounds(run)}
    assert set(history) == {0, 1, 2, 3, 4}
    assert set(history[1]["assignments"]) == {"alice", "bob"}
    late = clients["carol"]["enrolled_round"]
    assert late > 1
    for number in range(late, 5):
        assert set(history[number]["assignments"]) == {"alice", "bob", "carol"}
        assert history[number]["assignments"]["bob"] == ["gray"]
    assert not any(r["failures"] for r in history.values())

    # Other methods on the same nodes: what FedPAC keeps of a client is not on the node.
    other = tmp_path / "fedpac"
    code, text = processes.run(
        "flwr",
        "run",
        ".",
        "--stream",
        "--run-config",
        run_config(
            rounds=2,
            method="fedpac",
            out=str(other),
            set="per_round=3 local_epochs=1 min_clients=3",
        ),
    )
    assert code == 0, text
    wait_until(lambda: (other / "summary.json").exists(), 60, "the run's end")
    assert json.loads((other / "summary.json").read_text())["complete"] is True
    assert not any(r["failures"] for r in rounds(other))
    code, text = processes.run(
        "flwr", "run", ".", "--stream", "--run-config", run_config(rounds=1, method="pow-d")
    )
    assert "client 'bob' lacks 'colored': pow-d compares losses" in text


def rounds(run: Path) -> list[dict[str, object]]:
    return [r for r in rows(run) if r["kind"] == "round"]


def start_node(processes: Processes, data: Path, name: str, modalities: str) -> None:
    held = f' modalities="{modalities}"' if modalities else ""
    processes.start(
        "flower-supernode",
        "--insecure",
        "--superlink",
        f"127.0.0.1:{processes.port}",
        "--port",
        str(free_port()),
        "--node-config",
        f'client-id="{name}" data-dir="{data}"{held}',
        log=f"{name}.log",
    )


def test_a_foreign_project_on_supernodes_by_the_classic_interface(
    processes: Processes, tmp_path: Path
) -> None:
    """The example's own model and ``NumPyClient`` on real nodes; one holds texts alone."""
    project = tmp_path / "two_towers"
    shutil.copytree(ROOT / "examples/two_towers", project)
    for file, old, new in (
        ("pyproject.toml", "message_bmsfed", "classic_bmsfed"),
        ("two_towers/classic_bmsfed.py", "available_clients=4", "available_clients=2"),
    ):
        text = (project / file).read_text()
        assert old in text
        (project / file).write_text(text.replace(old, new))
    superlink(processes)
    for number in (0, 2):
        processes.start(
            "flower-supernode",
            "--insecure",
            "--superlink",
            f"127.0.0.1:{processes.port}",
            "--port",
            str(free_port()),
            "--node-config",
            f"partition-id={number} num-partitions=3",
            log=f"node-{number}.log",
        )
    code, text = processes.run("flwr", "run", str(project), "--stream", "--run-config", "rounds=1")
    assert code == 0, text
    assert "left out" not in text
    assert "round 1 trains" in text
    assert re.search(r"client-0.*client-2|client-2.*client-0", text), text
    before, after = re.findall(r"^round +\d+ .*", text, re.M)
    assert before.split()[2:] != after.split()[2:]

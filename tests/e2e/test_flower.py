"""The app under Flower's own commands: `flwr run .`, and SuperLink with SuperNodes."""

import json
import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import PATIENCE, ROOT, Processes, free_port, rows, wait_until
from tests.plugins import describe

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


@pytest.fixture(scope="module")  # not longer: SuperLink and SuperNodes keep polling
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """A SuperLink and the SuperNodes of alice and bob, who holds gray alone, with their data.

    A foreign project finds its own settings in the same nodes' configuration. The example package
    of one's own is installed as pip would, and a module is there that registers an optimiser.
    """
    made = Processes(tmp_path_factory.mktemp("federation"))
    shards, site = str(made.folder / "shards"), made.folder / "site"
    shutil.copytree(ROOT / "examples/own_package/attentive", site / "attentive")
    project = tomllib.loads((ROOT / "examples/own_package/pyproject.toml").read_text())["project"]
    describe(site, project["entry-points"], project["name"], project["version"])
    (site / "registered.py").write_text(
        "import torch\nfrom bmsfed_app.optimizers import OPTIMIZERS\n"
        "OPTIMIZERS.add('registered', torch.optim.AdamW)\n"
    )
    paths = [str(site), made.env.get("PYTHONPATH", "")]
    made.env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    try:
        superlink(made)
        code, text = made.run(
            "bmsfed", "data", "split", "conf/cg-digits.yaml", "--clients", "6", "--out", shards
        )
        assert code == 0, text
        start_node(made, 0, "alice")
        start_node(made, 2, "bob", 'modalities="gray"')
        yield made
    finally:
        made.stop_all()


def start_node(federation: Processes, number: int, name: str, held: str = "") -> None:
    data = federation.folder / "shards" / f"client-{number}"
    federation.start(
        "flower-supernode",
        "--insecure",
        "--superlink",
        f"127.0.0.1:{federation.port}",
        "--port",
        str(free_port()),
        "--node-config",
        f'client-id="{name}" data-dir="{data}" {held} tower={number} towers=3',
        log=f"{name}.log",
    )


def test_flwr_run_gives_the_history_of_bmsfed_run(
    processes: Processes, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "flwr-run"
    superlink(processes, "--simulation")
    code, text = processes.run(
        "flwr",
        "run",
        ".",
        "--stream",
        "--federation-config",
        "num-supernodes=4 client-resources-num-cpus=1",
        "--run-config",
        run_config(rounds=4, out=str(run), set="per_round=3 data_fraction=0.2 clients=4"),
    )
    assert code == 0, text
    assert f"run folder: {run}" in text
    assert rows(run) == rows(whole)


def test_a_foreign_project_on_supernodes_by_the_classic_interface(
    federation: Processes, tmp_path: Path
) -> None:
    """The example's own model and ``NumPyClient`` on real nodes; one holds texts alone."""
    project = tmp_path / "two_towers"
    shutil.copytree(ROOT / "examples/two_towers", project)
    for file, old, new in (
        ("pyproject.toml", "message_bmsfed", "classic_bmsfed"),
        ("two_towers/classic_bmsfed.py", "available_clients=4", "available_clients=2"),
        ("two_towers/classic_bmsfed.py", "partition-id", "tower"),
        ("two_towers/classic_bmsfed.py", "num-partitions", "towers"),
    ):
        text = (project / file).read_text()
        assert old in text
        (project / file).write_text(text.replace(old, new))
    code, text = federation.run("flwr", "run", str(project), "--stream", "--run-config", "rounds=1")
    assert code == 0, text
    assert "left out" not in text
    assert "round 1 trains" in text
    assert re.search(r"client-0.*client-2|client-2.*client-0", text), text
    before, after = re.findall(r"^round +\d+ .*", text, re.M)
    assert before.split()[2:] != after.split()[2:]


def test_supernodes_with_their_own_data_and_one_that_comes_late(
    federation: Processes, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    going = federation.start(
        "flwr",
        "run",
        ".",
        "--stream",
        "--run-config",
        run_config(rounds=4, out=str(run), set="per_round=3 local_epochs=1 min_clients=2"),
        log="flwr.log",
    )
    wait_until(lambda: len(rounds(run)) > 1, "the first round", going)
    start_node(federation, 1, "carol")
    assert going.wait(PATIENCE) == 0, federation.text("flwr.log")
    wait_until((run / "summary.json").exists, "the run's end", federation.started[0])
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
    code, text = federation.run(
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
    wait_until((other / "summary.json").exists, "the run's end", federation.started[0])
    assert json.loads((other / "summary.json").read_text())["complete"] is True
    assert not any(r["failures"] for r in rounds(other))
    code, text = federation.run(
        "flwr", "run", ".", "--stream", "--run-config", run_config(rounds=1, method="pow-d")
    )
    assert "client 'bob' lacks 'colored': pow-d compares losses" in text


def test_a_package_of_ones_own_in_a_simulation_and_on_supernodes(
    federation: Processes, tmp_path: Path
) -> None:
    config = str(ROOT / "examples/own_package/digits.yaml")
    runs = [tmp_path / "simulated", tmp_path / "nodes"]
    small = ["data_fraction=0.1", "local_epochs=1"]
    options = ["--clients", "2", "--per-round", "2", "--rounds", "1", "--out", str(runs[0])]
    registered = ["plugins=[registered]", "optimizer=registered"]
    options += [word for pair in [*small, *registered] for word in ("--set", pair)]
    code, text = federation.run("bmsfed", "run", config, *options)
    assert code == 0, text
    assert "worst-class" in text
    pairs = " ".join([*small, "per_round=2", "min_clients=2"])
    code, text = federation.run(
        "flwr",
        "run",
        ".",
        "--stream",
        "--run-config",
        run_config(config=config, rounds=1, out=str(runs[1]), set=pairs),
    )
    assert code == 0, text
    wait_until((runs[1] / "summary.json").exists, "the run's end", federation.started[0])
    for run in runs:
        last = rounds(run)[-1]
        assert (len(last["assignments"]), last["failures"]) == (2, {})
        assert 0 <= last["worst-class"] <= last["accuracy"]
        plugins = json.loads((run / "run.json").read_text())["plugins"]
        packages = [p["package"] for p in plugins if p["version"] == "1.0.0"]
        assert packages == ["attentive"] * 4
        modules = {p["name"] for p in plugins if p["package"] == "registered"}
        assert modules == ({"registered"} if run == runs[0] else set())


def rounds(run: Path) -> list[dict[str, Any]]:
    return [r for r in rows(run) if r["kind"] == "round"]

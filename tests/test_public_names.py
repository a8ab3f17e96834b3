"""What other projects may rely on: names, typing, light imports, what wheel and bundle hold."""

import importlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import bmsfed_app
import client_app.local_task
import strategies
import strategies.classic
import strategies.client
import strategies.testing

ROOT = Path(__file__).resolve().parents[1]

METHODS = """AGM BMSFed BMSFedPlus DivFL FedAvg FedMSplit FedNH FedPAC GBlending LocalTraining
MFedMC ModalityDropout PmcmFL PowerOfChoice PrivateHead RandomModality""".split()


def test_the_public_names_are_these() -> None:
    core = """Arrays Assignment Callback ClientInfo ClientReport Deadline Decisions Paused Waiting
    EvaluationModel FederationError Fleet Metric ModalityStrategy Orders Parts
    Prototypes RoundReport ServerState SignatureOrders Task Update WithCallbacks aggregate_parts
    imbalance_ratios weighted_mean""".split()
    assert sorted(strategies.__all__) == sorted([*METHODS, *core])
    assert sorted(strategies.classic.__all__) == sorted(["ClassicStrategy", *METHODS])
    assert {"ModalityMod", "describe_node"} <= set(strategies.client.__all__)
    assert {"FakeGrid", "Handler"} <= set(vars(strategies.testing))
    assert hasattr(client_app.local_task, "LocalTask")
    assert set(bmsfed_app.__all__) == {*strategies.__all__, "__version__", "load_model"}
    assert bmsfed_app.BMSFed is strategies.BMSFed  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_there_on_both_interfaces(name: str) -> None:
    from flwr.server.strategy import Strategy as Classic
    from flwr.serverapp.strategy import Strategy as ByMessage

    method, classic = getattr(strategies, name), getattr(strategies.classic, name)
    assert issubclass(method, ByMessage)
    assert issubclass(classic, Classic)
    assert classic.core is method


@pytest.mark.parametrize(
    "module",
    """aggregation base bmsfed callbacks classic client divfl facility fedavg fleet foreign loop
    message parts pow_d protocol randomness signatures sketch state submodular testing transport
    validation""".split(),
)
def test_modules_are_found_where_they_were(module: str) -> None:
    assert importlib.import_module(f"strategies.{module}").__doc__


def test_importing_the_strategies_loads_neither_torch_nor_ray() -> None:
    names = "strategies, strategies.classic, strategies.client, strategies.testing, bmsfed_app"
    heavy = "{'torch', 'ray', 'torchvision', 'pydantic', 'sklearn', 'matplotlib'}"
    code = f"import sys, {names}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_wheel_holds_the_rooms_their_types_and_configurations(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "-qq"]
    subprocess.run([*command, "-w", str(tmp_path)], check=True)
    [wheel] = tmp_path.glob("bmsfed-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for room in ("strategies", "bmsfed_app", "client_app", "server_app"):
        assert f"{room}/py.typed" in names
    shipped = {f"bmsfed_app/{p.relative_to(ROOT)}" for p in (ROOT / "conf").rglob("*.yaml")}
    shipped |= {f"bmsfed_app/paper/{p.name}" for p in (ROOT / "results/paper").glob("*.csv")}
    assert shipped <= set(names)
    assert "bmsfed_app/report/page.html.j2" in names
    assert not [n for n in names if n.startswith(("tests", "examples", "benchmarks"))]


def test_flowers_bundle_holds_what_a_run_needs_and_can_be_published(tmp_path: Path) -> None:
    checkout = tmp_path / "bmsfed"
    skip = shutil.ignore_patterns(".*", "__pycache__", "runs", "build", "dist", "tests", "results")
    shutil.copytree(ROOT, checkout, ignore=skip)
    flwr = [str(Path(sys.executable).with_name("flwr")), "build", "--app", str(checkout)]
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    environment = os.environ | quiet | {"FLWR_HOME": str(tmp_path / "flwr")}
    done = subprocess.run(flwr, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "recommended" not in done.stdout
    [bundle] = tmp_path.glob("*.fab")
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(bundle).extractall(unpacked)

    rooms = ("strategies", "bmsfed_app", "client_app", "server_app")
    names = {str(p.relative_to(unpacked)) for p in unpacked.rglob("*") if p.is_file()}
    modules = {str(p.relative_to(ROOT)) for room in rooms for p in (ROOT / room).rglob("*.py")}
    presets = {str(p.relative_to(ROOT)) for p in (ROOT / "conf").rglob("*.yaml")}
    assert modules | presets | {"LICENSE", "README.md", "pyproject.toml"} <= names
    assert not [n for n in names if n.startswith(("tests", "examples", "benchmarks", "results"))]

    code = """
import client_app.app, server_app.app
from bmsfed_app.config import config_names, load_config
print(server_app.app.__file__, *(load_config(name).dataset for name in config_names()))
"""
    environment = os.environ | {"PYTHONPATH": str(unpacked)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    where, *datasets = done.stdout.split()
    assert Path(where).is_relative_to(unpacked)
    experiments = list((ROOT / "conf").glob("*.yaml"))
    assert len(datasets) == len(experiments) - 1  # the reference is no experiment

"""What other projects may rely on: names, typing, light imports, and what the wheel holds."""

import importlib
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
from strategies._flower import check_flower

ROOT = Path(__file__).resolve().parents[1]

METHODS = """AGM BMSFed DivFL FedAvg FedMSplit FedNH FedPAC GBlending LocalTraining ModalityDropout
PowerOfChoice RandomModality""".split()


def test_the_public_names_are_these() -> None:
    core = """Arrays Assignment Callback ClientInfo ClientReport Decisions
    EvaluationModel FederationError Fleet Metric ModalityStrategy Orders Parts
    Prototypes RoundReport ServerState SignatureOrders Task Update aggregate_parts
    imbalance_ratios weighted_mean""".split()
    assert sorted(strategies.__all__) == sorted([*METHODS, *core])
    assert sorted(strategies.classic.__all__) == sorted(["ClassicStrategy", *METHODS])
    assert {"ModalityMod", "describe_node"} <= set(strategies.client.__all__)
    assert {"FakeGrid", "Handler"} <= set(vars(strategies.testing))
    assert hasattr(client_app.local_task, "LocalTask")
    assert set(bmsfed_app.__all__) == {*strategies.__all__, "__version__"}
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
    """aggregation base bmsfed callbacks classic client divfl facility fedavg fleet loop parts pow_d
    protocol randomness signatures sketch state submodular testing transport validation""".split(),
)
def test_modules_are_found_where_they_were(module: str) -> None:
    assert importlib.import_module(f"strategies.{module}").__doc__


def test_importing_the_strategies_loads_neither_torch_nor_ray() -> None:
    names = "strategies, strategies.classic, strategies.client, strategies.testing, bmsfed_app"
    heavy = "{'torch', 'ray', 'torchvision', 'pydantic', 'sklearn', 'matplotlib'}"
    code = f"import sys, {names}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_old_flower_is_refused_with_the_remedy() -> None:
    check_flower("1.41.0")
    check_flower("2.0.0.dev1")
    with pytest.raises(ImportError, match=r"flwr 1\.20\.0 is installed: run pip install 'flwr"):
        check_flower("1.20.0")


def test_the_wheel_holds_the_rooms_their_types_and_configurations(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "-qq"]
    subprocess.run([*command, "-w", str(tmp_path)], check=True)
    [wheel] = tmp_path.glob("bmsfed-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for room in ("strategies", "bmsfed_app", "client_app", "server_app"):
        assert f"{room}/py.typed" in names
    presets = {f"bmsfed_app/conf/{p.name}" for p in (ROOT / "conf").glob("*.yaml")}
    assert presets <= set(names)
    assert "bmsfed_app/report/page.html.j2" in names
    assert not [n for n in names if n.startswith(("tests", "examples", "benchmarks"))]

"""The quickstart: the published project unaltered, the two steps as README shows them."""

import difflib
import hashlib
import importlib
import logging
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Message

import strategies
from bmsfed_app.engine import InlineGrid, run_apps
from strategies import ClientInfo

pytest.importorskip("flwr_datasets")

pytestmark = pytest.mark.xdist_group("quickstart")  # its data are written once

HERE = Path(__file__).resolve().parents[2] / "examples" / "quickstart"
PROJECTS = ("published", "with_strategy", "with_modalities")
#: Git's names of the files' contents, at the commit that README names.
PUBLISHED = {
    "pyproject.toml": "080a466637e0b50a976ad386c311bb8f71413d2a",
    "pytorchexample/__init__.py": "d29a98ebc6aec273fe8b3c9708c2a2592e75fe98",
    "pytorchexample/client_app.py": "95efa9b76ed44a82abe7a0dd2ac9ff2a392d69cd",
    "pytorchexample/server_app.py": "2a6129e5bb2101caea915c9ed707d0683064dc1f",
    "pytorchexample/task.py": "f701ceb889c514c96de15c3c2528dbf52f75ad15",
}
CLIENTS = 4
CONFIG = {
    "num-server-rounds": 2,
    "fraction-evaluate": 0.5,
    "local-epochs": 1,
    "learning-rate": 0.1,
    "batch-size": 32,
}
#: Imports ``<project>/<module>``.
Load = Callable[[str], Any]
#: Whose answer to a train message; the modalities assigned; arrays received and returned.
Reply = tuple[int, list[str], dict[str, Any], dict[str, Any]]


def files(project: str) -> dict[str, str]:
    """A project's files, without what Python leaves."""
    found = (p for p in (HERE / project).rglob("*") if p.is_file() and p.suffix != ".pyc")
    return {p.relative_to(HERE / project).as_posix(): p.read_text() for p in found}


def diff(before: str, after: str) -> str:
    """Return what ``diff -U1`` says of two projects of the same files."""
    old, new = files(before), files(after)
    assert set(old) == set(new)
    return "".join(
        line
        for name in sorted(old)
        for line in difflib.unified_diff(
            old[name].splitlines(True), new[name].splitlines(True), f"a/{name}", f"b/{name}", n=1
        )
    )


def shown() -> list[str]:
    """README's diffs."""
    return re.findall(r"^```diff\n(.*?)^```", (HERE / "README.md").read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart")
    sys.path.insert(0, str(HERE))
    try:
        importlib.import_module("offline_data").write(folder, copies=1)
    finally:
        sys.path.remove(str(HERE))
    return folder


@pytest.fixture
def load(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Import a module of one of the projects, whose packages all have the same name."""
    monkeypatch.chdir(data)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", data / "cache")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = list(sys.path)

    def of(where: str) -> Any:
        project, _, module = where.partition("/")
        if sys.path[0] != str(HERE / project):
            forget()
        monkeypatch.setattr(sys, "path", [str(HERE / project), *path])
        found = importlib.import_module(f"pytorchexample.{module}")
        assert Path(found.__file__).is_relative_to(HERE / project)
        return found

    yield of
    forget()


def forget() -> None:
    """Let a project's modules go, for the next one of the same names."""
    for name in [name for name in sys.modules if name.startswith("pytorchexample")]:
        del sys.modules[name]


def run(load: Load, project: str) -> tuple[dict[str, Any], list[Reply]]:
    """Run a project's apps in this process; return its final model and what clients answered.

    A client's draws depend on the client and the round only, however often it is called.
    """
    replies: list[Reply] = []
    client_app = load(f"{project}/client_app").app

    def answer(message: Message, context: Context) -> Message:
        config = next(iter(message.content.config_records.values()), {})
        partition = int(context.node_config["partition-id"])
        torch.manual_seed(100 * int(config.get("server-round", 0)) + partition)
        reply = client_app(message, context)
        if message.metadata.message_type == "train" and not reply.has_error():
            received = message.content["arrays"].to_torch_state_dict()
            trained = reply.content["arrays"].to_torch_state_dict()
            replies.append((partition, config.get("modalities"), received, trained))
        return reply

    torch.manual_seed(0)
    run_apps(
        load(f"{project}/server_app").app, InlineGrid(answer, CLIENTS, run_config=CONFIG), CONFIG
    )
    return torch.load("final_model.pt"), replies


def test_the_published_files_are_flowers_to_the_byte() -> None:
    found = {
        name: hashlib.sha1(b"blob %d\0" % len(text.encode()) + text.encode()).hexdigest()
        for name, text in files("published").items()
    }
    assert found == PUBLISHED


def test_readme_shows_the_steps_and_they_apply(tmp_path: Path) -> None:
    assert shown() == [diff(a, b) for a, b in pairwise(PROJECTS)]
    for name, text in files(PROJECTS[-1]).items():
        if text != files(PROJECTS[0])[name]:
            assert text.splitlines()[1].startswith("# Changed: ")
    if not shutil.which("patch"):
        pytest.skip("no `patch` here to apply the diffs with")
    project = tmp_path / "project"
    shutil.copytree(HERE / PROJECTS[0], project, ignore=shutil.ignore_patterns("__pycache__"))
    for text, result in zip(shown(), PROJECTS[1:], strict=True):
        subprocess.run(["patch", "-p1"], cwd=project, input=text, text=True, check=True)
        for name, content in files(result).items():
            assert (project / name).read_text() == content


def test_the_first_step_is_two_lines_of_code_on_the_server() -> None:
    changed = shown()[0].splitlines()
    assert [line for line in changed if line.startswith("+++")] == [
        "+++ b/pytorchexample/server_app.py"
    ]
    added = [line[1:].strip() for line in changed if line[0] == "+" and line[:3] != "+++"]
    assert len([line for line in added if not line.startswith("#")]) == 2


@pytest.mark.parametrize(("strategy", "measuring"), [("BMSFed", 1), ("FedAvg", 0)])
def test_another_strategy_over_untouched_clients_gives_flowers_result(
    strategy: str, measuring: int, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    want, _ = run(load, "published")
    load("with_strategy/server_app").BMSFed = getattr(strategies, strategy)
    with caplog.at_level(logging.WARNING, "flwr"):
        found, replies = run(load, "with_strategy")
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "does not say which modalities it holds" in warnings[0]
    assert len(replies) == CLIENTS * (measuring + CONFIG["num-server-rounds"])
    assert list(found) == list(want)
    for name, value in want.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)


def test_clients_train_and_return_the_modalities_assigned(load: Load) -> None:
    final, replies = run(load, "with_modalities")
    initial = {}
    for partition, modalities, received, trained in replies:
        held = {"gray"} if partition == 2 else {"color", "gray"}
        assert set(modalities) <= held
        own = {n for n in final if n.split(".")[1] in modalities}
        assert set(trained) == own
        assert all(not value.any() for n, value in received.items() if n not in own)
        assert all(not torch.equal(trained[n], received[n]) for n in own)
        initial = {n: received[n] for n in own} | initial
    assert {p for p, *_ in replies} == set(range(CLIENTS))
    assert all(not torch.equal(final[n], initial[n]) for n in final)


def test_a_modality_nobody_holds_stays_as_it_was(load: Load) -> None:
    load("with_modalities/client_app").mod.describe = lambda context: ClientInfo(
        str(context.node_config["partition-id"]), ("gray",)
    )
    torch.manual_seed(0)
    initial = load("with_modalities/task").Net().state_dict()
    final, _ = run(load, "with_modalities")
    for name, value in final.items():
        assert torch.equal(value, initial[name]) == name.startswith("towers.color.")


def test_towers_train_apart_from_those_not_assigned(load: Load) -> None:
    task = load("with_modalities/task")
    torch.manual_seed(0)
    net, batch = task.Net(), {"img": torch.rand(8, 3, 32, 32), "label": torch.arange(8)}
    both = net(batch["img"])
    torch.testing.assert_close(both, net(batch["img"], ["color"]) + net(batch["img"], ["gray"]))
    before = {n: v.clone() for n, v in net.state_dict().items()}
    alone = task.Tower(1)
    alone.load_state_dict(net.towers["gray"].state_dict())
    task.train(net, [batch], 1, 0.1, "cpu", ["gray"])
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1)
    gray = batch["img"].mean(1, keepdim=True)
    torch.nn.functional.cross_entropy(alone(gray), batch["label"]).backward()
    optimizer.step()
    for name, value in net.towers["gray"].state_dict().items():
        torch.testing.assert_close(value, alone.state_dict()[name])
    for name, value in net.towers["color"].state_dict().items():
        assert torch.equal(value, before[f"towers.color.{name}"])


@pytest.mark.usefixtures("load")
def test_one_command_runs_it_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setattr(sys, "path", [str(HERE), *sys.path])
    offline = importlib.import_module("offline_data")
    monkeypatch.setattr(offline, "write", partial(offline.write, copies=1))
    monkeypatch.setattr(sys, "argv", "run.py with_modalities --clients 2 --rounds 1".split())
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO, "flwr"):
        runpy.run_path(str(HERE / "run.py"), run_name="__main__")
    assert "round 1 trains " in caplog.text
    model = torch.load(tmp_path / "runs/quickstart/final_model.pt")
    assert {name.split(".")[1] for name in model} == {"color", "gray"}

"""``bmsfed run --on``: what is sent, what comes back, what is refused. Flower's commands are stubs;
real ones run in tests/e2e."""

import json
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from typer.testing import CliRunner

from bmsfed_app.cli import remote
from bmsfed_app.cli.app_folder import app_folder
from bmsfed_app.cli.main import cli
from bmsfed_app.engine import InlineGrid
from client_app.app import app as client_app
from server_app.app import app as server_app

ROOT = Path(__file__).resolve().parents[2]

#: Stands for flwr: keeps what it is given, and says what the files beside it hold.
STUB = """
import pathlib, shutil, sys
here = pathlib.Path(__file__).parent
if sys.argv[1] == "run":
    shutil.copy(sys.argv[5], here / "given.toml")
    print("Using SuperLink\\n" + (here / "started").read_text())
else:
    (here / "calls").open("a").write(" ".join(sys.argv[1:]) + "\\n")
    text = (here / "log").read_text()
    if (here / "calls").read_text().count("log ") == 1 and (here / "cut").exists():
        print(text[: len(text) // 2])
        sys.exit("connection lost")
    print(text, end="")
"""


@pytest.fixture
def flower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a stub in flwr's place."""
    folder = tmp_path / "flower"
    folder.mkdir()
    (folder / "stub.py").write_text(STUB)
    (folder / "started").write_text('{"success": true, "run-id": "17"}')
    (folder / "log").write_text("")
    monkeypatch.setattr(remote, "_flwr", lambda: [sys.executable, str(folder / "stub.py")])
    monkeypatch.setattr(remote, "_PAUSE", 0.0)
    monkeypatch.setenv("BMSFED_HOME", str(tmp_path / "home"))
    return folder


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["run", *arguments])
    fault = "" if isinstance(done.exception, SystemExit | None) else str(done.exception)
    return done.exit_code, done.output + fault


def served(given: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    """What the ServerApp prints, with three simulated clients and this run config."""
    server_app(InlineGrid(client_app, 3), Context(1, 1, {}, RecordDict(), given))
    return capsys.readouterr().out


SMALL = ["--set", "data_fraction=0.1", "--set", "clients=3", "--method", "fedavg", "--seed", "4"]


def test_the_experiment_travels_and_the_folder_comes_back(
    flower: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("extends: cg-digits\nrounds: 2\nlr: 0.02\nencoders: {gray: conv4}\n")
    arguments = [str(own), *SMALL, "--on", "clinic"]
    code, text = run(*arguments)
    assert code == 1  # nothing came back
    assert "FAILED: the run ended before it had a folder" in text
    given = tomllib.loads((flower / "given.toml").read_text())
    own.unlink()  # the server has no such file
    there = served(given, capsys)
    (flower / "log").write_text(there)
    folder = tmp_path / "here"
    own.write_text("extends: cg-digits\n")
    code, text = run(*arguments, "--out", str(folder))
    assert code == 0, text
    [server] = [line for line in there.splitlines() if line.startswith("run folder: ")]
    origin = Path(server.removeprefix("run folder: "))
    assert f"run folder: {folder} (there, with its checkpoint: {origin})" in text
    shown = [line for line in there.splitlines() if not line.startswith("bmsfed-folder ")]
    assert [line for line in shown if line != server] == text.splitlines()[1:-1]
    stays = ("checkpoint", "run.lock")
    files = {p.name for p in origin.iterdir() if not p.name.startswith(stays)}
    assert {p.name for p in folder.iterdir()} == files
    assert {"config.yaml", "history.jsonl", "summary.json", "model.safetensors"} <= files
    for name in files:
        assert (folder / name).read_bytes() == (origin / name).read_bytes()
    config = (folder / "config.yaml").read_text()
    assert "rounds: 2\n" in config
    assert "lr: 0.02\n" in config
    assert "seed: 4\n" in config
    # A connection that is lost half-way is taken up again; nothing is shown twice.
    (flower / "cut").touch()
    (flower / "calls").unlink()
    code, text = run(*arguments, "--out", str(tmp_path / "again"))
    assert code == 0, text
    assert (flower / "calls").read_text() == 2 * "log 17 clinic --stream\n"
    assert text.count("round   all") == 1
    assert (tmp_path / "again/model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()


def test_a_run_that_fails_there_fails_here(
    flower: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("cg-digits", *SMALL, "--rounds", "1", "--set", "lr=1e30", "--on", "clinic")
    given = tomllib.loads((flower / "given.toml").read_text())
    with pytest.raises(RuntimeError):
        served(given, capsys)
    (flower / "log").write_text(capsys.readouterr().out)
    code, text = run("cg-digits", *SMALL, "--on", "clinic", "--out", str(tmp_path / "here"))
    assert code == 1
    assert "bmsfed: FAILED: " in text
    assert json.loads((tmp_path / "here/summary.json").read_text())["failed"]


def test_what_has_no_meaning_there_is_refused(flower: Path, tmp_path: Path) -> None:
    for given, says in (
        (["cg-digits", "--engine", "ray"], "--on: engine is of simulated clients"),
        (["cg-digits", "--resume", "x"], "as it was: give neither"),
        (
            ["--resume", "x", "--from-round", "7"],
            "flwr run . clinic --run-config 'resume=\"x\" round=7'",
        ),
        ([], "name a configuration"),
        (["cg-digits", "--out", str(flower)], "is not empty: choose another --out"),
        (["nowhere.yaml"], "cannot read the configuration 'nowhere.yaml'"),
    ):
        code, text = run("--on", "clinic", *given)
        assert code != 0
        assert says in text
    assert not (flower / "given.toml").exists()
    run("--on", "clinic", "--resume", "/srv/runs/x")
    assert tomllib.loads((flower / "given.toml").read_text()) == {
        "send-folder": True,
        "resume": "/srv/runs/x",
    }
    (flower / "started").write_text('{"success": false, "error-message": "no such connection"}')
    code, text = run("cg-digits", "--on", "clinic")
    assert code != 0
    assert "SuperLink 'clinic' took no run: no such connection" in text


def bundled(folder: Path) -> dict[str, bytes]:
    """What Flower may take of a folder, by its fab-include."""
    app = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    found: dict[str, bytes] = {}
    for pattern in app["fab-include"]:
        matching = folder.glob(pattern.strip("/") + ("/*" if "*" in pattern else ""))
        files = [p for p in matching if p.is_file() and p.suffix != ".pyc"]
        assert files, pattern
        found |= {str(p.relative_to(folder)): p.read_bytes() for p in files}
    return found


def test_the_app_as_a_wheel_installs_it(tmp_path: Path) -> None:
    """Flower gets the same files of what was installed as of the checkout."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    for package in wheel["targets"]["wheel"]["packages"]:
        shutil.copytree(ROOT / package, tmp_path / package)
    for source, target in wheel["targets"]["wheel"]["force-include"].items():
        (tmp_path / target).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, tmp_path / target)
    with app_folder(ROOT) as checkout, app_folder(tmp_path) as installed:
        assert checkout == ROOT
        assert bundled(installed) == bundled(checkout)

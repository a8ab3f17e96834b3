"""Every code block of the READMEs runs.

Commands of ``bmsfed`` run as they stand, with three substitutions: the embedded digits stand in for
sets that are not at hand, capitals for folders, and rounds, clients and samples are cut down. What
needs processes of its own runs in the test that is named beside it.
"""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bmsfed_app.cli.main import cli
from server_app.app import folder_from_run_config

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "strategies/README.md")

#: Commands that need real processes or a network, and where they are run.
ELSEWHERE = {
    "&& pytest": "test_architecture.py::test_ci_runs_the_readmes_test_command",
    "&& flwr run . --stream": "e2e/test_flower.py::test_flwr_run_gives_the_history",
    "bmsfed data download cg-mnist": "bmsfed_app/test_datasets.py::test_download_checks_what_came",
    "pip install ./examples/own_data": "examples/test_own_data.py::test_the_data_are_written",
    "bmsfed run examples/own_data/tones.yaml": "examples/test_own_data.py::test_the_data_are",
    "python examples/two_towers/run.py": "examples/test_two_towers.py::test_the_message_version",
    "pip install -r deploy/client.txt": "test_light_client.py::test_a_client_needs_nothing_else",
    "bmsfed preflight node": "preflight/test_preflight.py::test_a_node",
    "flower-superlink": "e2e/test_flower.py::test_supernodes_with_their_own_data_packages",
    "flower-supernode": "e2e/test_flower.py::test_supernodes_with_their_own_data_packages",
    "bmsfed predict RUN": "test_prediction.py::test_the_test_split_is_predicted",
    "bmsfed tune": "sweeps/test_tune.py::test_methods_have_the_same_budget",
    "bmsfed sweep": "sweeps/test_running.py::test_a_sweep_goes_on_after_a_kill",
    "bmsfed report table2": "sweeps/test_sweep_report.py::test_the_command_reports",
    "--on my-federation": "e2e/test_flower.py::test_supernodes_with_their_own_data_packages",
    "flwr run . my-federation": "e2e/test_flower.py::test_supernodes_with_their_own_data_packages",
}
SMALL = "--rounds 1 --clients 12 --per-round 2 --set data_fraction=0.1 --set local_epochs=1".split()
SMALL += ["--engine", "inline"]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


def commands() -> list[str]:
    """All commands, on one line each and without comments."""
    text = "".join("".join(blocks(page, "bash")) for page in PAGES)
    lines = text.replace("\\\n", " ").splitlines()
    return [re.sub(r"\s+#.*", "", line).strip() for line in lines]


def elsewhere(command: str) -> str | None:
    return next((v for k, v in ELSEWHERE.items() if k in command), None)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The commands' folder; an experiment of this size has its clients in this process."""
    monkeypatch.setenv("BMSFED_HOME", str(tmp_path / "home"))
    for name in ("conf", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(arguments: list[str]) -> str:
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0, f"{arguments}: {done.output}"
    return done.output


def adapted(command: str, folder: Path) -> list[str]:
    """The same command on the digits, small."""
    runs = sorted((folder / "home/runs").glob("*"))
    words = {"DIR": ".", "METHOD": "fedavg", "NAME": "cg-digits", "mvsa": "cg-digits"}
    words |= {"cg-mnist-desk": "cg-digits"}
    words |= {"conf/cg-mnist.yaml": "conf/cg-digits.yaml", "7": "0"}
    if runs:
        words |= {"RUN": str(runs[0]), "[RUN": str(runs[-1])}
    parts = [words.get(w, w) for w in shlex.split(command)[1:] if w != "...]"]
    if parts[0] == "run" and "--resume" not in parts:
        parts += [*SMALL]
    return parts


def test_every_command_of_bmsfed_runs(in_process: Path) -> None:
    ran = []
    for command in commands():
        if command.startswith("bmsfed ") and not elsewhere(command):
            arguments = adapted(command, in_process)
            invoke(arguments)
            ran.append(arguments[0])
    assert ran.count("run") >= 8
    assert {"run", "report", "data"} <= set(ran)
    assert list(in_process.rglob("report/*.html"))
    assert (in_process / "shards/client-0").is_dir()


def test_every_other_command_is_run_by_the_test_beside_it(in_process: Path) -> None:
    for command in commands():
        where = elsewhere(command)
        if where is not None:
            file, name = where.split("::")
            assert f"def {name}" in (ROOT / "tests" / file).read_text(), where
        elif "--run-config" in command:
            pairs = shlex.split(command)[-1].split()
            config = dict(pair.split("=") for pair in pairs)
            values = {k: v.strip('"') if '"' in v else int(v) for k, v in config.items()}
            folder = folder_from_run_config(values)
            assert (folder.config.method, folder.config.rounds) == ("fedpac", 5)
        else:
            assert command.startswith("bmsfed "), command


@pytest.mark.parametrize("page", PAGES)
def test_every_python_block_runs(page: str) -> None:
    names: dict[str, Any] = {"__name__": "readme"}
    for block in blocks(page, "python"):
        exec(block, names)
    assert names["strategy"]


def test_links_lead_somewhere() -> None:
    examples = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("examples/*/README.md"))
    assert len(examples) >= 4
    for page in [*PAGES, "LIMITS.md", *examples]:
        prose = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.M | re.S)
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose):
            assert ((ROOT / page).parent / link).exists(), f"{page}: {link}"

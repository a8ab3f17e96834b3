"""The comparison of methods runs what it was asked for."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import compare


@pytest.mark.parametrize("options", [[], ["--rounds", "4"]])
def test_a_comparison_takes_the_rounds_of_its_configuration(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **rest: Any) -> Any:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "")

    monkeypatch.setattr(compare.subprocess, "run", run)
    given = ["--config", "av-digits", "--methods", "fedavg", "--seeds", "0", *options]
    monkeypatch.setattr("sys.argv", ["compare", *given, "--runs", str(tmp_path)])
    with pytest.raises(SystemExit, match="no run is complete"):
        compare.main()
    [command] = commands
    at = command.index("av-digits")
    assert [x for x in command[at:] if x in {"--rounds", "4"}] == options

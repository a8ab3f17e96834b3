"""The comparison of methods runs what it was asked for; that of engines compares like with like."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import compare, engine
from benchmarks.engines import columns
from benchmarks.engines.rows import LARGE, SMALL, TRAINING, Row


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


def test_the_bare_loop_and_an_engine_end_with_the_same_model() -> None:
    row = Row("tiny", "conv4", clients=5, per_round=3, samples=4, rounds=2)
    (bare, model), (inline, other) = columns.bare(row), columns.inline(row)
    assert len(bare) == len(inline) == row.rounds
    assert model == other
    encoders, head, batch_norms = 98_786 + 100_390, 10 * 1024 + 10, 2 * (4 * 4) + 2 * 8
    assert model["bytes"] == 4 * (encoders + head) + batch_norms


def test_goals_are_compared_with_the_bare_loop() -> None:
    def figures(seconds: float, mib: float = 0.0, model: str = "a") -> dict[str, Any]:
        return {"seconds": seconds, "start": 1, "peak_mib": mib, "model": model, "bytes": 2**20}

    found = {
        TRAINING: {"bare": figures(2), "ray 2": figures(1.5, model="b")},
        LARGE: {"bare": figures(2), "inline": figures(2), "ray 2": figures(2, 106)},
        SMALL: {"bare": figures(1), "inline": {"failed": "why"}, "ray 2": figures(2, 100)},
    }
    assert engine.judged(found) == [
        f"{LARGE}, inline: 1.00 of bare, goal 1.05",
        f"{TRAINING}, ray 2: 0.75 of bare, goal 0.6 MISSED",
        f"{LARGE}, ray 2: 1.00 of bare, goal 1.1",
        f"{LARGE}, ray 2: peak memory 6.0 models above the same with {SMALL}, goal 5 MISSED",
        f"{TRAINING}: OUR WAYS DO NOT END WITH THE SAME MODEL",
    ]
    assert "|  | inline | failed | | | |" in engine.table(found, engine.ROWS)

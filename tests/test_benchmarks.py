"""The comparison of methods and measurements run what they were asked for, like with like."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import engine, gpu
from benchmarks.engines import columns
from benchmarks.engines.rows import LARGE, SMALL, TRAINING, Row
from bmsfed_app.config import load_config
from tests.run_folders import make_run


def options(case: gpu.Case) -> dict[str, str]:
    """What a case sets, by option or by key."""
    pairs = list(zip(case.options[1::2], case.options[2::2], strict=True))
    keys = (value.split("=", 1) for option, value in pairs if option == "--set")
    return {o: v for o, v in pairs if o != "--set"} | dict(keys)


def test_on_a_gpu_the_whole_experiment_is_run_in_every_way() -> None:
    cases = gpu.cases("mnist", "cuda", tiny=False, cores=16)
    digits = {c.way: options(c) for c in cases if c.work == "CG-MNIST"}
    assert all(o["--rounds"] == "100" and o["--data-dir"] == "mnist" for o in digits.values())
    on_ray = [o for o in digits.values() if o["--engine"] == "ray"]
    shares = {o["--gpus-per-client"]: o["--cpus-per-client"] for o in on_ray}
    assert shares == {"1": "16", "0.25": "4", "0.125": "2"}
    assert {o.get("precision") for o in digits.values()} == {None, "tf32", "bf16"}
    assert [o["packed_clients"] for o in digits.values() if "packed_clients" in o] == ["6"]
    inline = [o for o in digits.values() if o["--engine"] == "inline"]
    assert {o["device"] for o in inline} == {"cuda"}


def test_the_made_up_pictures_are_two_resnets_at_their_size() -> None:
    config = load_config(str(gpu.ROOT / "benchmarks" / "resnet-pair.yaml"), {"samples": 20})
    assert config.network_spec().encoders == {"left": "resnet18", "right": "resnet18"}
    data = config.load_data("train", "test")
    assert (len(data.train), len(data.test)) == (20, 4)
    inputs = data.train.batch(torch.arange(3), ["left"])["left"]
    assert (inputs.shape, inputs.dtype) == ((3, 3, 224, 224), torch.float32)


def test_a_table_has_a_row_per_run_and_says_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], **rest: Any) -> Any:
        if "packed_clients=6" in command:
            return subprocess.CompletedProcess(command, 2, "", "note\nbmsfed: cannot be packed\n")
        if "--out" not in command:
            raise OSError("no git here")
        make_run(Path(command[command.index("--out") + 1]))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(gpu.subprocess, "run", run)
    out = tmp_path / "gpu"
    given = ["gpu", "--device", "cpu", "--tiny", "--out", str(out)]
    monkeypatch.setattr("sys.argv", given)
    gpu.main()
    lines = out.with_suffix(".md").read_text().splitlines()
    assert "| CG-MNIST | 6 packed | failed: bmsfed: cannot be packed ||||||| " in lines
    [row] = [line for line in lines if line.startswith("| CG-MNIST | bf16 |")]
    assert row.endswith("| 60.00 | 1.00 | 62.5 | – | – |")
    runs = json.loads(out.with_suffix(".json").read_text())["runs"]
    assert {len(ways) for ways in runs.values()} == {6, 7}
    assert capsys.readouterr().out.count("ResNet-18 pair") == 12


def test_without_a_gpu_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu"])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "no GPU is available; --device cpu --tiny tries this out\n"


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

"""`bmsfed tune`: ranges, the same budget for each method, on the validation part alone."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from bmsfed_app.cli.main import cli
from bmsfed_app.cli.sweep import tune as module
from bmsfed_app.record.run import read_run
from bmsfed_app.record.summary import summary
from bmsfed_app.sweeps import SweepError, load_sweep
from bmsfed_app.sweeps.space import Dimension, described, parse_space, space_of
from bmsfed_app.sweeps.sweep import parse_dirs

SMALL = "--set rounds=1 --set clients=3 --set per_round=2 --set local_epochs=1".split()


def test_ranges_are_read_and_the_learning_rate_is_always_there() -> None:
    texts = ["local_epochs=1:5", "fedprox/mu=1e-3:1:log", "momentum=0|0.9", "fedprox/lr=0.01:0.1"]
    found = parse_space(texts, ["fedavg", "fedprox"])
    assert space_of("fedavg", found) == {
        "lr": Dimension("lr", 0.001, 0.1, log=True),
        "local_epochs": Dimension("local_epochs", 1, 5),
        "momentum": Dimension("momentum", choices=(0, 0.9)),
    }
    own = space_of("fedprox", found)
    assert own["mu"] == Dimension("mu", 0.001, 1, log=True, method="fedprox")
    assert (own["lr"].low, own["lr"].log) == (0.01, False)
    assert own["local_epochs"].whole
    assert not own["mu"].whole
    assert described(space_of("fedavg", found))["lr"] == "0.001:0.1:log"
    assert described(space_of("fedavg", found))["momentum"] == "0|0.9"
    [rates] = parse_space(["lr=1e-3|1e-2"], ["fedavg"])  # texts, to YAML
    assert rates.choices == (0.001, 0.01)
    [_, names] = parse_space(["lr=1|2", "schedule=linear|cosine"], ["fedavg"])
    assert names.choices == ("linear", "cosine")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr", "'lr' is no range"),
        ("lr=0.1", "is no range"),
        ("lr=a:b", "is no range"),
        ("lr=1:2:3", "is no range"),
        ("lr=1:2:log:x", "is no range"),
        ("lr=0.1:0.01", "the lower end comes first"),
        ("lr=0:1:log", "is above 0 with log"),
        ("divfl/x=0:1", "is for 'divfl', which is not tuned .fedavg"),
        ("/x=0:1", "is no range"),
        ("schedule=linear|[", "is no range"),
    ],
)
def test_what_is_no_range_is_refused(text: str, said: str) -> None:
    with pytest.raises(SweepError, match=said):
        parse_space([text], ["fedavg"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--methods", "fedavgg"], "fedavgg"),
        (["--methods", "fedavg", "--space", "mu=0:1"], "unknown key 'mu'"),
        (["--methods", "fedavg", "--space", "lr=0.1|fast"], "lr: .* not 'fast'"),
        (["--methods", "fedavg", "--space", "momentum=0.5|0.9|2"], "momentum: .* not 2"),
        (["--methods", "fedavg", "--space", "momentum=0.5:2"], "momentum: .* not 2"),
        (["--methods", "fedavg", "--set", "validation=0"], "leaves nothing to tune on"),
        (["--methods", "fedavg", "--seeds", "a"], "--seeds: whole numbers"),
        (["--methods", "fedavg", "--data-dir", "cg-mnits=x"], "did you mean 'cg-mnist'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    asked = ["tune", "cg-digits", *arguments, "--runs", str(runs), "--out", str(out)]
    done = CliRunner().invoke(cli, asked)
    assert isinstance(done.exception, ValueError)
    assert re.search(said, str(done.exception))
    assert not runs.exists()
    assert not out.exists()


@pytest.mark.parametrize("given", ["{}", "cg-mnist={}", "cg-mnist-desk={}"])
def test_data_folders_may_be_given_by_name(
    tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[module.Plan] = []
    monkeypatch.setattr(module, "_tune_all", lambda plan, *others: taken.append(plan))
    asked = ["tune", "cg-mnist-desk", "--methods", "fedavg", "--data-dir", given.format(tmp_path)]
    done = CliRunner().invoke(cli, [*asked, "--data-dir", "avletters=elsewhere"])
    assert done.exception is None
    assert taken[0].config("fedavg", {}, 0).data_dir == str(tmp_path)


@pytest.mark.parametrize(
    ("file", "given", "share"),
    [
        ("", [], 0.1),
        ("validation: 0.25\n", [], 0.25),
        ("validation: 0.25\n", ["--set", "validation=0.2"], 0.2),
    ],
)
def test_a_tenth_is_for_validation_where_nobody_says(
    file: str, given: list[str], share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[module.Plan] = []
    monkeypatch.setattr(module, "_tune_all", lambda plan, *others: taken.append(plan))
    (tmp_path / "mine.yaml").write_text(f"extends: cg-digits\n{file}")
    asked = ["tune", str(tmp_path / "mine.yaml"), "--methods", "fedavg", *given]
    done = CliRunner().invoke(cli, asked)
    assert done.exception is None
    assert taken[0].config("fedavg", {"lr": 0.001}, 0).validation == share


def test_a_folder_that_is_given_as_nothing_is_not_the_name() -> None:
    assert parse_dirs(["a=x=y", "z", "b="]) == {"a": "x=y", "": "z", "b": ""}


def test_a_tuner_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.tune, "needs", ("no_such_tuner", "bmsfed[tune]"))
    done = CliRunner().invoke(cli, ["tune", "cg-digits", "--methods", "fedavg"])
    assert "no_such_tuner is not installed: pip install 'bmsfed[tune]'" in str(done.exception)


@pytest.mark.e2e
@pytest.mark.xdist_group("ray")
def test_methods_have_the_same_budget_and_what_is_complete_is_not_run_again(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BMSFED_HOME", str(tmp_path / "home"))
    runs, out = tmp_path / "runs", tmp_path / "tuned"
    asked = ["tune", "cg-digits", "--methods", "fedavg,fedprox", "--trials", "3", *SMALL]
    asked += ["--space", "fedprox/mu=0.01:1:log", "--runs", str(runs), "--out", str(out)]
    done = CliRunner().invoke(cli, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    folders = sorted(runs.iterdir())
    assert [f.name.split("-s0-")[0] for f in folders] == ["cg-digits-fedavg"] * 3 + [
        "cg-digits-fedprox"
    ] * 3
    values: dict[str, dict[float, Any]] = {"fedavg": {}, "fedprox": {}}
    for folder in folders:
        run = read_run(folder)
        metric = run.metric("validation_accuracy")
        assert metric is not None
        ended = summary(run.rounds, metric)
        assert ended is not None
        values[run.method][round(ended.mean_last, 4)] = run.config["lr"]
    for method, found in values.items():
        best = yaml.safe_load((out / f"cg-digits/{method}.yaml").read_text())
        assert best["value"] == max(found)
        assert best["trials"] == 3
        assert ("mu" in best["set"]) == (method == "fedprox")
    before = {f: (f / "summary.json").stat().st_mtime_ns for f in folders}
    again = CliRunner().invoke(cli, asked, catch_exceptions=False)
    assert again.output == done.output
    assert {f: (f / "summary.json").stat().st_mtime_ns for f in sorted(runs.iterdir())} == before

    # Nor does what is complete on other data count.
    about = folders[0] / "run.json"
    text = about.read_text()
    about.write_text(json.dumps(json.loads(text) | {"data": "0123456789abcdef"}))
    done = CliRunner().invoke(cli, asked)
    assert isinstance(done.exception, SweepError)
    assert f"'{folders[0]}': it is complete on other data" in str(done.exception)
    about.write_text(text)

    # A sweep takes what was found.
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump(
            {
                "methods": [
                    "fedavg",
                    {"name": "fedprox", "tuned": "tuned/cg-digits/fedprox.yaml"},
                ],
                "datasets": ["cg-digits"],
            }
        )
    )
    _, tuned = load_sweep(str(tmp_path / "mine.yaml")).runs
    best = yaml.safe_load((out / "cg-digits/fedprox.yaml").read_text())["set"]
    assert tuned.config.lr == best["lr"]
    assert tuned.config.method_settings().model_dump()["mu"] == best["mu"]
    (out / "cg-digits/fedprox.yaml").unlink()
    with pytest.raises(SweepError, match="'fedprox': tuned: cannot read"):
        load_sweep(str(tmp_path / "mine.yaml"))


def test_what_was_tuned_is_named_by_a_sweep_that_uses_it() -> None:
    folder = Path(__file__).resolve().parents[2] / "results" / "tuned"
    found = load_sweep(str(folder / "avletters.yaml"))
    rates = {run.method: (run.config.lr, run.config.lr_min) for run in found.runs}
    for method in ("fedavg", "bmsfed"):
        told = yaml.safe_load((folder / "avletters" / f"{method}.yaml").read_text())
        assert rates[f"{method}, tuned"] == (told["set"]["lr"], told["set"]["lr_min"])
        assert rates[method] == (0.05, 0.01)
        assert told["trials"] == 8
        assert told["metric"].startswith("validation_accuracy")

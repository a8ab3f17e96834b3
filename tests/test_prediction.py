"""A run's model predicts new samples as the run evaluated it, whatever they lack."""

import csv
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

import bmsfed_app
from bmsfed_app.cli.main import cli
from bmsfed_app.datasets import DataError
from bmsfed_app.record.files import RunFolderError
from bmsfed_app.record.run import read_run
from server_app.experiment import build_evaluator
from strategies import ServerState
from tests.own_table import SETTINGS, write_table
from tests.run_folders import rows

SMALL = "--rounds 2 --clients 3 --per-round 2 --engine inline --set local_epochs=1".split()
DIGITS = [*SMALL, "--set", "encoders={colored: mlp, gray: mlp}"]


pytestmark = pytest.mark.xdist_group("prediction")


@pytest.fixture(autouse=True, scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BMSFED_HOME", str(folder))
        yield folder


def invoke(*arguments: str) -> str:
    done = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    """A run on the digits."""
    invoke("run", "cg-digits", *DIGITS, "--out", str(home / "digits"))
    return home / "digits"


@pytest.fixture(scope="module")
def table(home: Path) -> Path:
    """A run on a table; the table lies in ``data`` beside it."""
    tmp_path = home / "table"
    write_table(tmp_path / "data", ["ann", "bob", "eve"])
    config = {"dataset": "table", "dataset_settings": SETTINGS, "local_epochs": 1}
    config |= {"encoders": {"face": "mlp", "voice": "mlp"}, "batch_size": 4}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    data = ["--data-dir", str(tmp_path / "data")]
    invoke("run", str(tmp_path / "mine.yaml"), *SMALL, *data, "--out", str(tmp_path / "run"))
    return tmp_path / "run"


def written(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))


def test_the_test_split_is_predicted_as_it_was_evaluated(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    text = invoke("predict", str(run), "--data", str(tmp_path), "--out", str(out))
    accuracy = [r["accuracy"] for r in rows(run) if r["kind"] == "round"][-1]
    assert f"accuracy {100 * accuracy:.2f}% of 360 samples" in text
    found = written(out)
    assert len(found) == 360
    probabilities = np.array([[float(r[str(k)]) for k in range(10)] for r in found])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert [r["prediction"] for r in found] == [str(k) for k in probabilities.argmax(axis=1)]
    assert {r["modalities"] for r in found} == {"colored gray"}


def test_an_earlier_round_is_that_of_its_checkpoint(run: Path) -> None:
    first, last = bmsfed_app.load_model(run, 1), bmsfed_app.load_model(run)
    assert (first.round, last.round) == (1, 2)
    state = ServerState.from_bytes((run / "checkpoints/round-0001.safetensors").read_bytes())
    for name, value in first.network.state_dict().items():
        assert np.array_equal(value.numpy(), state.arrays[name]), name
    with pytest.raises(RunFolderError, match="keeps no model of round 7: give one of 0, 1, 2 "):
        bmsfed_app.load_model(run, 7)
    with pytest.raises(RunFolderError, match="keeps no best model: run it with keep: best"):
        bmsfed_app.load_model(run, "best")


def test_the_best_round_by_validation_can_be_taken(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "p.csv"
    best = ["--set", "keep=best", "--set", "validation=0.1"]
    invoke("run", "cg-digits", *DIGITS, *best, "--out", str(run))
    accuracies = dict(read_run(run).values("validation_accuracy"))
    text = invoke("predict", str(run), "--data", ".", "--round", "best", "--out", str(out))
    found = int(text.split("after round ")[1].split(":")[0])
    assert accuracies[found] == max(accuracies[r] for r in accuracies if r)
    done = CliRunner().invoke(cli, ["predict", str(run), "--data", ".", "--round", "first"])
    assert "a number or best, not 'first'" in str(done.exception)


@pytest.mark.parametrize("method", ["bmsfed", "pmcmfl"])
def test_what_lacks_modalities_is_predicted_as_the_evaluator_does(
    run: Path, tmp_path: Path, method: str
) -> None:
    if method != "bmsfed":
        run = tmp_path / "run"
        invoke("run", "cg-digits", *DIGITS, "--method", method, "--out", str(run))
    model = bmsfed_app.load_model(run)
    test = model.config.load_data("test").test
    assert test is not None
    state = ServerState.from_bytes((run / "checkpoint.safetensors").read_bytes())
    strategy = model.config.method_settings().strategy(seed=0)
    strategy.state = state
    subsets = {"gray": ["gray"], "colored": ["colored"]}
    evaluator = build_evaluator(model.config)
    expected = evaluator.accuracies(state.arrays, subsets, strategy.absent_logits())
    inputs = test.batch(torch.arange(360), ["colored", "gray"])
    labels = test.labels.numpy()
    for m in subsets:
        alone = model.predict_proba({m: inputs[m].numpy()})
        assert (alone.argmax(axis=1) == labels).mean() == pytest.approx(expected[m])
        # Half of the samples lack the other one, the others are whole.
        other = next(n for n in subsets if n != m)
        mask = np.arange(360) % 2 == 0
        mixed = model.predict_proba(inputs, {other: mask})
        np.testing.assert_allclose(mixed[~mask], alone[~mask], rtol=1e-4, atol=1e-6)
        whole = model.predict_split(test)
        np.testing.assert_allclose(mixed[mask], whole[mask], rtol=1e-4, atol=1e-6)


def test_without_a_checkpoint_what_the_method_fills_in_is_not_guessed(
    run: Path, tmp_path: Path
) -> None:
    for method, known in (("bmsfed", True), ("pmcmfl", False)):
        folder = tmp_path / method
        if known:
            shutil.copytree(run, folder)
        else:
            invoke("run", "cg-digits", *DIGITS, "--method", method, "--out", str(folder))
        before = bmsfed_app.load_model(folder)
        test = before.config.load_data("test").test
        assert test is not None
        (folder / "checkpoint.safetensors").unlink()  # as of a run that was brought from elsewhere
        model = bmsfed_app.load_model(folder)
        assert model.round == before.round
        inputs = {m: x.numpy() for m, x in test.batch(torch.arange(20), model.modalities).items()}
        np.testing.assert_array_equal(model.predict_proba(inputs), before.predict_proba(inputs))
        gray, mask = {"gray": inputs["gray"]}, {"colored": np.arange(20) > 0}
        if known:
            np.testing.assert_array_equal(model.predict_proba(gray), before.predict_proba(gray))
            continue
        for lacking in ((gray, None), (inputs, mask)):
            with pytest.raises(DataError, match=r"'pmcmfl' takes in their place .*checkpoint"):
                model.predict_proba(*lacking)


def test_a_table_needs_no_label_and_empty_cells_are_missing(table: Path, tmp_path: Path) -> None:
    run, out = table, tmp_path / "p.csv"
    known = written(table.parent / "data/samples.csv")
    tested = [r for r in known if r["split"] == "test"]
    new = tmp_path / "new.csv"
    with new.open("w", newline="") as stream:
        names = ["id", "label", "f0", "f1", "f2", "v0", "v1"]
        writer = csv.DictWriter(stream, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(tested)
    text = invoke("predict", str(run), "--data", str(new), "--out", str(out))
    accuracy = [r["accuracy"] for r in rows(run) if r["kind"] == "round"][-1]
    assert f"accuracy {100 * accuracy:.2f}% of 20 samples" in text
    whole = written(out)
    assert [r["id"] for r in whole] == [r["id"] for r in tested]

    lines = [f"{r['id']},{r['f0']},{r['f1']},{r['f2']},," for r in tested[:3]]
    new.write_text("\n".join(["id,f0,f1,f2,v0,v1", *lines, f"x,,,,{tested[3]['v0']},0.5"]) + "\n")
    text = invoke("predict", str(run), "--data", str(new), "--out", str(out))
    assert "accuracy" not in text.replace("no accuracy", "")
    assert [r["modalities"] for r in written(out)] == ["face"] * 3 + ["voice"]
    gone = tmp_path / "face.csv"
    gone.write_text("\n".join(["id,f0,f1,f2", *[line.rstrip(",") for line in lines]]) + "\n")
    invoke("predict", str(run), "--data", str(gone), "--without", "voice", "--out", str(out))
    assert [r["modalities"] for r in written(out)] == ["face"] * 3


def test_arrays_of_a_file_are_taken_as_they_are(run: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "new.npz", tmp_path / "p.csv"
    model = bmsfed_app.load_model(run)
    test = model.config.load_data("test").test
    assert test is not None
    inputs = test.batch(torch.arange(5), ["colored", "gray"])
    mask = np.array([1, 1, 0, 1, 1], bool)
    arrays = {m: x.numpy() for m, x in inputs.items()} | {"present.gray": mask}
    np.savez(file, ids=np.array(list("abcde")), **arrays)
    invoke("predict", str(run), "--data", str(file), "--out", str(out))
    found = written(out)
    assert [r["id"] for r in found] == list("abcde")
    assert [r["modalities"] for r in found] == ["colored gray"] * 2 + ["colored"] + [
        "colored gray"
    ] * 2
    expected = model.predict_proba(inputs, {"gray": mask})
    assert float(found[2]["3"]) == pytest.approx(float(expected[2, 3]), abs=1e-6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,f0,f1,f2,v0\na,1,2,3,4\n", "v1"),
        ("id,f0,f1,f2,v0,v1\na,1,2,x,4,5\n", "new.csv line 2"),
        ("id,f0,f1,f2,v0,v1\na,,,,,\n", "new.csv line 2 has no modality at all"),
        ("id,label,f0,f1,f2,v0,v1\na,happy,1,2,3,4,5\n", "'happy' is none of the run's classes"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    table: Path, tmp_path: Path, text: str, said: str
) -> None:
    run, out = table, tmp_path / "p.csv"
    (tmp_path / "new.csv").write_text(text)
    asked = ["predict", str(run), "--data", str(tmp_path / "new.csv"), "--out", str(out)]
    done = CliRunner().invoke(cli, asked)
    assert isinstance(done.exception, DataError)
    assert said in str(done.exception)
    assert not out.exists()


@pytest.mark.parametrize(
    ("inputs", "present", "said"),
    [
        ({}, {}, "no inputs: give some of colored, gray"),
        ({"grey": (2, 1, 8, 8)}, {}, "no modality 'grey'; did you mean 'gray'"),
        ({"gray": (2, 3, 3)}, {}, "'gray' has shape .2, 3, 3., not .n, 1, "),
        ({"gray": (2,), "colored": (3,)}, {}, "different numbers of samples"),
        ({"gray": (2,)}, {"gray": [True]}, "present: gray has shape"),
        ({"gray": (2,)}, {"gray": [True, False]}, "no modality at all"),
        ({"gray": (2,)}, {"colored": [True, True]}, "no inputs of 'colored'"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    run: Path, inputs: dict[str, Any], present: dict[str, Any], said: str
) -> None:
    model = bmsfed_app.load_model(run)
    shapes = model.config.dataset_info().shapes
    arrays = {
        m: np.zeros(s if len(s) > 1 else (*s, *shapes[m]), np.float32) for m, s in inputs.items()
    }
    with pytest.raises(DataError, match=said):
        model.predict_proba(arrays, present)


GRAY = np.zeros((2, 1, 28, 28), np.float32)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"gray": np.full_like(GRAY, np.nan)}, "'gray' has values that are not finite"),
        ({"gray": np.full(GRAY.shape, "a")}, "'gray' is no array of numbers (can't"),
        ({"gray": GRAY[:0]}, "no samples"),
        ({"gray": GRAY, "labels": np.array(["0", "1"])}, "labels are whole numbers, 0 to 9"),
        ({"gray": GRAY, "labels": np.array([0, 10])}, "labels are whole numbers, 0 to 9"),
        ({"gray": GRAY, "labels": np.array([[0], [1]])}, "labels has shape (2, 1), not (2,)"),
        ({"gray": GRAY, "ids": np.array(["a"])}, "ids has shape (1,), not (2,)"),
        (b"", "cannot read"),
        (b"PK\3\4 cut off", "cannot read"),
        (GRAY, "one array without a name"),
    ],
)
def test_an_npz_that_does_not_fit_is_refused(
    run: Path, tmp_path: Path, arrays: Any, said: str
) -> None:
    file, out = tmp_path / "new.npz", tmp_path / "p.csv"
    with file.open("wb") as stream:
        if isinstance(arrays, bytes):
            stream.write(arrays)
        elif isinstance(arrays, dict):
            np.savez(stream, **arrays)
        else:
            np.save(stream, arrays)
    asked = ["predict", str(run), "--data", str(file), "--out", str(out)]
    done = CliRunner().invoke(cli, asked)
    assert isinstance(done.exception, DataError), done.output
    assert said in str(done.exception)
    assert not out.exists()


def test_lists_of_different_lengths_are_refused(run: Path) -> None:
    with pytest.raises(DataError, match="'gray' is no array of numbers"):
        bmsfed_app.load_model(run).predict_proba({"gray": [[1, 2], [3]]})


def test_missing_inputs_may_hold_anything(run: Path) -> None:
    model = bmsfed_app.load_model(run)
    colored = np.ones((2, 3, 28, 28), np.float32)
    colored[1] = np.nan
    found = model.predict_proba({"gray": GRAY, "colored": colored}, {"colored": [True, False]})
    assert np.isfinite(found).all()


def test_tokens_that_are_no_words_are_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bmsfed_app.load_model(run)
    info = dataclasses.replace(model.config.dataset_info(), vocabularies={"gray": 5})
    monkeypatch.setattr(type(model.config), "dataset_info", lambda self: info)
    for wrong in (GRAY, GRAY.astype(np.int64) - 1, GRAY.astype(np.int64) + 5):
        with pytest.raises(DataError, match="'gray' holds tokens: whole numbers from 0 to 4"):
            model.predict_proba({"gray": wrong})


def test_a_runs_own_test_split_and_modalities_left_out(run: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "p.csv", tmp_path / "new.npz"
    text = invoke("predict", str(run), "--out", str(out))
    assert text.splitlines()[-1].startswith("accuracy")
    assert len(written(out)) == 360
    np.savez(file, gray=GRAY, colored=np.ones((2, 3, 28, 28), np.float32))
    invoke("predict", str(run), "--data", str(file), "--without", "colored", "--out", str(out))
    assert [r["modalities"] for r in written(out)] == ["gray", "gray"]


def without_a_split(file: Path, count: int, lacking: dict[str, set[int]] | None = None) -> None:
    """A table that does not say what is to be tested on; rows lack what is said of a column."""
    rng, gaps = np.random.default_rng(0), lacking or {}
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "label", "face", "voice"])
        for i in range(count):
            face, voice = rng.normal(i % 2, 0.5, 2)
            cells = (
                "" if i in gaps.get(m, ()) else x for m, x in (("face", face), ("voice", voice))
            )
            writer.writerow([i, ("calm", "tense")[i % 2], *cells])


def run_on(folder: Path, **settings: Any) -> Path:
    """A run on ``folder/data/samples.csv``, one column a modality."""
    modalities = {m: {"type": "numbers", "columns": [m]} for m in ("face", "voice")}
    settings = {"classes": ["calm", "tense"], "modalities": modalities, **settings}
    config = {"dataset": "table", "data_dir": str(folder / "data"), "dataset_settings": settings}
    (folder / "mine.yaml").write_text(yaml.safe_dump(config | {"eval_batch_size": 4}))
    invoke("run", str(folder / "mine.yaml"), *SMALL, "--out", str(folder / "run"))
    return folder / "run"


def test_own_data_that_has_changed_is_not_taken_for_what_the_run_was_tested_on(
    tmp_path: Path,
) -> None:
    file, out = tmp_path / "data/samples.csv", tmp_path / "p.csv"
    file.parent.mkdir()
    without_a_split(file, 200)
    run = run_on(tmp_path)
    asked = ["predict", str(run), "--out", str(out)]
    invoke(*asked)
    before = [r["id"] for r in written(out)]
    out.unlink()
    without_a_split(file, 220)
    said = (
        r"run' is a run on other data: .*; bring the data back, or name what to predict by --data"
    )
    for prepared_anew in (False, True):
        if prepared_anew:
            bmsfed_app.load_model(run).config.check_data()
        with pytest.raises(RunFolderError, match=said):
            CliRunner().invoke(cli, asked, catch_exceptions=False)
        assert not out.exists()
    invoke(*asked, "--data", str(file.parent))
    assert len(written(out)) > len(before)
    without_a_split(file, 200)
    invoke(*asked)
    assert [r["id"] for r in written(out)] == before
    without_a_split(file, 220)
    told = json.loads((run / "run.json").read_text()) | {"data": ""}
    (run / "run.json").write_text(json.dumps(told))  # of an older version: nobody knows
    invoke(*asked)


def test_who_has_nothing_but_what_is_left_out_is_not_predicted(tmp_path: Path) -> None:
    file, out = tmp_path / "data/samples.csv", tmp_path / "p.csv"
    file.parent.mkdir()
    without_a_split(file, 100, {"voice": set(range(100)) - set(range(0, 100, 3))})
    run = run_on(tmp_path, gaps="keep")
    asked = ["predict", str(run), "--out", str(out)]
    invoke(*asked)
    whole = [r for r in written(out) if r["modalities"] == "face voice"]
    tested = len(written(out))
    text = invoke(*asked, "--without", "face")
    gone = tested - len(whole)
    assert f"{gone} of {tested} samples have no modality but face: left out\n" in text
    assert f"% of {len(whole)} samples with a label" in text
    assert [r["id"] for r in written(out)] == [r["id"] for r in whole]
    assert {r["modalities"] for r in written(out)} == {"voice"}
    assert "left out" not in invoke(*asked, "--without", "voice")
    with pytest.raises(DataError, match="--without: no sample has a modality but face, voice"):
        CliRunner().invoke(cli, [*asked, "--without", "face,voice"], catch_exceptions=False)

    model = bmsfed_app.load_model(run)
    test = model.config.load_data("test").test
    assert test is not None
    with pytest.raises(DataError, match="a sample has no modality at all: leave it out"):
        model.predict_split(test.only(["voice"]))


def test_what_is_no_run_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is not a run folder"):
        bmsfed_app.load_model(tmp_path)
    run = Path(shutil.copytree(run, tmp_path / "run"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    for file in ("checkpoint.safetensors", "model.safetensors"):
        (run / file).unlink()
    with pytest.raises(RunFolderError, match="holds no model: its run has not come to a round's"):
        bmsfed_app.load_model(run)
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"old": 1}))
    with pytest.raises(RunFolderError, match="unknown key 'old'"):
        bmsfed_app.load_model(run)
    (run / "checkpoint.safetensors").write_bytes(b"damaged")
    (run / "config.yaml").write_text(json.dumps(config))
    with pytest.raises(RunFolderError, match="cannot read"):
        bmsfed_app.load_model(run)

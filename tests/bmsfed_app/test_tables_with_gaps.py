"""Tables whose rows lack modalities: empty cells and files that are not there, end to end."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image as Picture
from typer.testing import CliRunner

from bmsfed_app.cli.main import cli
from bmsfed_app.config import load_config
from bmsfed_app.datasets import DataError, Dataset, ensure_prepared, load_dataset
from bmsfed_app.datasets.account import Account
from bmsfed_app.datasets.inspection import inspect
from bmsfed_app.datasets.shard import load_shard, save_shard
from bmsfed_app.datasets.table import Table
from bmsfed_app.partitions import experiment_data
from server_app.experiment import build_evaluator
from tests.federation import simulated

MODALITIES: dict[str, Any] = {
    "vitals": {"type": "numbers", "columns": ["pulse", "breath"], "standardise": "train"},
    "note": {"type": "text", "tokens": 4},
    "photo": {"type": "image", "side": 28},
}
LACKING = {"vitals": {3, 8}, "note": {4, 8, 10}, "photo": {6, 7, 8, 20}}  # 8 has nothing at all


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BMSFED_HOME", str(tmp_path / "home"))
    return tmp_path


def rows() -> list[dict[str, Any]]:
    """Forty samples, every fifth for the test; row 6 names a picture that is not there."""
    found = []
    for i in range(40):
        vitals, note, photo = (i not in LACKING[m] for m in ("vitals", "note", "photo"))
        found.append(
            {
                "id": f"s{i}",
                "split": "test" if i % 5 == 0 else "train",
                "label": ("calm", "tense")[i % 2],
                "pulse": 60.0 + i % 2 + i / 100 if vitals else None,
                "breath": 12.0 + i % 4 if vitals else None,
                "note": f"note {i % 2}" if note else None,
                "photo": f"{i}.png" if photo or i == 6 else None,
            }
        )
    return found


def folder_of(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / "data"
    folder.mkdir(exist_ok=True)
    made = rows()
    for i, one in enumerate(made):
        if i not in LACKING["photo"]:
            Picture.new("RGB", (28, 28), (i, 6 * i, 255 * (i % 2))).save(folder / one["photo"])
    if name.endswith(".csv"):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(made[0]))
            writer.writeheader()
            writer.writerows(made)
    elif name.endswith(".jsonl"):
        (folder / name).write_text("\n".join(map(json.dumps, made)))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(made), folder / name)
    return folder


def prepared(folder: Path, name: str = "samples.csv", **settings: Any) -> tuple[Account, Dataset]:
    given = {"modalities": MODALITIES, "table": name, "gaps": "keep", **settings}
    found = Table().resolve(Table().parse(given), folder)
    account = ensure_prepared("table", folder, found, max_bad=0)
    return account, load_dataset("table", folder, seed=0, settings=found)


def experiment(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "dataset": "table",
        "data_dir": str(folder),
        "dataset_settings": {"modalities": MODALITIES, "gaps": "keep"},
        "clients": 2,
        "per_round": 2,
        "rounds": 1,
        "method": "fedavg",
        "engine": "inline",
        "encoders": {"photo": "mlp", "vitals": "mlp"},
        **more,
    }


@pytest.mark.parametrize("name", ["samples.csv", "samples.jsonl", "samples.parquet"])
def test_rows_are_used_for_what_they_have(tmp_path: Path, name: str) -> None:
    account, data = prepared(folder_of(tmp_path, name), name)
    for split, loaded in (("train", data.train), ("test", data.test)):
        assert loaded is not None
        assert loaded.ids is not None
        numbers = [i for i in range(40) if (i % 5 == 0) == (split == "test") and i != 8]
        assert loaded.ids.tolist() == [f"s{i}" for i in numbers]
        for m in MODALITIES:
            there = [i not in LACKING[m] for i in numbers]
            found = loaded.present.get(m, torch.ones(len(numbers), dtype=torch.bool))
            assert found.tolist() == there
        batch = loaded.batch(torch.arange(len(loaded)), list(MODALITIES))
        for m, mask in batch.present.items():
            assert not batch[m][~mask].any()
            assert batch[m][mask].flatten(1).any(1).all()
    assert account.lacking["train"] == {"vitals": 1, "note": 1, "photo": 2}
    assert account.lacking["test"] == {"note": 1, "photo": 1}
    train, test = account.lines()
    assert train.startswith(
        "train: 32 listed, 31 used, 1 lack vitals, 1 lack note, 2 lack photo; left out: "
        "1 x has no modality"
    )
    assert test == "test: 8 listed, 8 used, 1 lack note, 1 lack photo"


def test_statistics_are_those_of_the_rows_that_have_it(tmp_path: Path) -> None:
    _, data = prepared(folder_of(tmp_path, "samples.csv"))
    train = [r for r in rows() if r["split"] == "train" and r["pulse"] is not None]
    raw = np.array([[r["pulse"], r["breath"]] for r in train])
    assert data.train is not None
    batch = data.train.batch(torch.arange(len(data.train)), ["vitals"])
    shown = batch["vitals"][batch.present["vitals"]].double().numpy()
    np.testing.assert_allclose(shown, (raw - raw.mean(0)) / raw.std(0), atol=1e-4)


def test_gaps_are_faults_unless_kept(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "samples.csv")
    with pytest.raises(DataError, match=r"samples.csv line 5: columns 'pulse', 'breath' are empty"):
        prepared(folder, gaps="refuse")


def test_what_is_wrong_is_no_gap(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "samples.csv")
    text = (folder / "samples.csv").read_text()
    (folder / "samples.csv").write_text(text.replace("61.01,13.0", "61.01,"))
    with pytest.raises(DataError, match=r"line 3: column 'breath' is empty"):
        prepared(folder)
    (folder / "samples.csv").write_text(text)
    (folder / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"line 3: .*1\.png is not a picture"):
        prepared(folder)


def test_a_modality_that_nobody_has_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "samples.csv")
    for file in folder.glob("*.png"):
        file.unlink()
    with pytest.raises(DataError, match="no sample has 'photo': leave it out"):
        prepared(folder)


def test_the_test_split_may_lack_a_modality_altogether(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "samples.csv")
    for i in range(0, 40, 5):
        (folder / f"{i}.png").unlink(missing_ok=True)
    _, data = prepared(folder)
    assert data.test is not None
    assert not data.test.present["photo"].any()
    assert data.test.batch(torch.arange(8), ["photo"])["photo"].shape == (8, 3, 28, 28)
    config = load_config(write(tmp_path, experiment(folder)))
    found = build_evaluator(config)(simulated(config, 2).arrays)
    assert set(found.by_head) == {"vitals", "note"}


def test_a_file_that_comes_or_goes_is_other_data(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "samples.csv")
    first, _ = prepared(folder)
    assert prepared(folder)[0].anew == ""
    (folder / "1.png").unlink()
    second, _ = prepared(folder)
    assert "other names, labels or values" in second.anew
    assert second.fingerprint != first.fingerprint
    assert second.lacking["train"]["photo"] == 3


def test_without_gaps_nothing_is_masked(tmp_path: Path) -> None:
    """The setting makes other data by name; what is in it is the same to the last bit."""
    folder = folder_of(tmp_path, "samples.csv")
    lines = (folder / "samples.csv").read_text().splitlines()
    gone = set.union(*LACKING.values())
    whole = [line for i, line in enumerate(lines) if i - 1 not in gone]
    (folder / "samples.csv").write_text("\n".join(whole))
    (_, kept), (_, plain) = prepared(folder), prepared(folder, gaps="refuse")
    for a, b in ((kept.train, plain.train), (kept.test, plain.test)):
        assert a is not None
        assert b is not None
        assert a.present == {}
        assert all(torch.equal(a.stores[name], b.stores[name]) for name in b.stores)


def test_check_counts_what_lacks(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "samples.csv")
    settings = Table().parse({"modalities": MODALITIES, "gaps": "keep"})
    found = inspect(Table(), folder, Table().resolve(settings, folder))
    assert found.sound
    assert found.account.lacking["train"] == {"vitals": 1, "note": 1, "photo": 2}


def write(folder: Path, values: dict[str, Any]) -> str:
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(values))
    return str(file)


def test_from_the_command_line_to_a_history(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "samples.csv")
    values = experiment(folder)
    del values["dataset_settings"]["gaps"]
    file, runner = write(tmp_path, values), CliRunner()
    checked = runner.invoke(cli, ["data", "check", file])
    assert checked.exit_code == 1
    shown = runner.invoke(cli, ["data", "prepare", file, "--missing", "keep"]).output
    assert "2 lack photo" in shown
    assert "runs on it need --missing keep too" in shown
    run = runner.invoke(cli, ["run", file, "--missing", "keep", "--out", str(tmp_path / "run")])
    assert run.exit_code == 0, run.output
    saved = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert saved["dataset_settings"]["gaps"] == "keep"


def test_shards_keep_the_gaps(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, experiment(folder_of(tmp_path, "samples.csv"))))
    config.check_data()
    train, info = config.load_data("train").train, config.dataset_info()
    assert train is not None
    masked, shares = experiment_data(train, config.division(), 2, seed=0)
    for share in shares:
        save_shard(masked, share.rows, info, tmp_path / share.name, share.modalities)
        found, held = load_shard(tmp_path / share.name, info)
        rows = torch.as_tensor(share.rows)
        ours = masked.only(held).subset(rows)
        assert {m: v.tolist() for m, v in found.present.items()} == {
            m: v.tolist() for m, v in ours.present.items()
        }

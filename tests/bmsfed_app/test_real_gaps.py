"""Tables with empty cells and files that are not there: refused by default, kept if one says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from bmsfed_app.config import load_config
from bmsfed_app.datasets import DataError, dataset_info
from bmsfed_app.datasets.shard import load_shard, save_shard
from bmsfed_app.record.run import read_run
from tests.bmsfed_app.test_cli import call
from tests.bmsfed_app.test_tables import MODALITIES, home, loaded, resolved, row, write

__all__ = ["home"]

PHOTO = {"photo": {"type": "image", "side": 32, "crop": False}}


def table(folder: Path, *, n: int = 60) -> Path:
    """Every fourth row has no vitals, every seventh no note; 28 and 56 have neither."""
    nothing = {"pulse": "", "breath": ""}
    rows = [
        row(i, **(nothing if i % 4 == 0 else {}), **({"note": ""} if i % 7 == 0 else {}))
        for i in range(n)
    ]
    return write(folder, rows)


def test_by_default_they_are_faults_that_say_how_they_are_kept(home: Path) -> None:
    given = {"modalities": MODALITIES}
    found = {"data_dir": str(table(home / "data")), "dataset_settings": given}
    with pytest.raises(DataError, match=r"samples.csv line 2: .* are empty.*\(--missing keep\)"):
        load_config("table", found).check_data()


def test_what_is_kept_is_what_each_sample_has(home: Path) -> None:
    folder = table(home / "data")
    data, settings = loaded(folder, gaps="keep"), resolved(folder, gaps="keep")
    train = data.train
    assert train is not None
    numbers = [i for i in range(60) if i % 5 and i % 28]
    assert train.present["vitals"].tolist() == [i % 4 > 0 for i in numbers]
    assert train.present["note"].tolist() == [i % 7 > 0 for i in numbers]
    own = np.array([[60 + i, 12 + i % 4] for i in numbers if i % 4], np.float64)
    vitals = settings.modalities["vitals"]
    np.testing.assert_allclose(vitals.offset, own.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(vitals.scale, own.std(axis=0), rtol=1e-6)
    batch = train.batch(torch.arange(len(train)), ("vitals", "note"))
    has = train.present["vitals"]
    expected = (own - own.mean(axis=0)) / own.std(axis=0)
    np.testing.assert_allclose(batch["vitals"][has], expected, rtol=1e-4, atol=1e-5)
    assert not batch["vitals"][~has].any()
    assert not batch["note"][~train.present["note"]].any()


def test_a_device_gets_the_gaps_with_its_share(home: Path) -> None:
    folder = table(home / "data")
    train, settings = loaded(folder, gaps="keep").train, resolved(folder, gaps="keep")
    assert train is not None
    info = dataset_info("table", settings)
    save_shard(train, torch.arange(20), info, home / "share")
    found, modalities = load_shard(home / "share", info)
    assert modalities == ("vitals", "note")
    for m in modalities:
        assert torch.equal(found.present[m], train.present[m][:20])
    assert torch.equal(
        found.batch(torch.arange(20), modalities)["vitals"],
        train.batch(torch.arange(20), modalities)["vitals"],
    )


def test_files_that_are_not_there(home: Path) -> None:
    folder = home / "data"
    rows = [row(i, photo=f"{i}.png") for i in range(40)]
    write(folder, rows)
    for i in range(40):
        if i % 3:
            colour = Picture.new("RGB", (40, 40), (6 * i, 0, 0))
            colour.save(folder / f"{i}.png")
    given = {"modalities": PHOTO | MODALITIES, "gaps": "keep"}
    train = loaded(folder, **given).train
    assert train is not None
    numbers = [i for i in range(40) if i % 5]
    assert train.present["photo"].tolist() == [i % 3 > 0 for i in numbers]
    assert list(train.present) == ["photo"]


def test_a_federation_from_the_command_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = table(home / "data", n=120)
    experiment = home / "wards.yaml"
    experiment.write_text(
        "dataset: table\nmethod: fedavg\nclients: 3\nper_round: 2\nrounds: 2\nbatch_size: 8\n"
        f"data_dir: {folder}\ndataset_settings:\n  modalities:\n"
        "    vitals: {type: numbers, columns: [pulse, breath], standardise: train}\n"
        "    note: {type: text, tokens: 4}\n"
    )
    monkeypatch.chdir(home)
    run = ("run", str(experiment), "--engine", "inline", "--out")
    assert call(monkeypatch, *run, "refused") == 2
    assert "--missing keep" in capsys.readouterr().err
    assert call(monkeypatch, *run, "kept", "--missing", "keep") == 0
    assert "lack vitals" in capsys.readouterr().out
    found = read_run(home / "kept")
    assert found.values("accuracy")[-1][0] == 2
    assert found.values("accuracy_masked") == []

"""Splits of samples that lack a modality: the masks stay with their rows."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bmsfed_app.datasets import DataError, Scan, ensure_prepared, load_dataset
from tests import readings, synthetic

MASK = torch.arange(60) % 4 > 0  # every fourth sample lacks sound


def test_masks_follow_the_rows() -> None:
    split = synthetic.split().lacking({"sound": MASK, "smell": torch.ones(60, dtype=torch.bool)})
    assert list(split.present) == ["sound"]  # nobody lacks smell
    rows = torch.tensor([0, 1, 8, 3])
    batch = split.batch(rows, ["touch", "sound"])
    assert list(batch.present) == ["sound"]
    assert batch.present["sound"].tolist() == [False, True, False, True]
    whole = synthetic.split().batch(rows, ["sound"])["sound"]
    assert torch.equal(batch["sound"], whole * batch.present["sound"][:, None])
    assert torch.equal(split.subset(rows).present["sound"], MASK[rows])
    assert split.subset(torch.tensor([1, 2])).present == {}
    assert list(split.only(["touch", "sound"]).present) == ["sound"]
    assert split.only(["touch"]).present == {}
    assert torch.equal(split.to("cpu").present["sound"], MASK)


def test_a_client_knows_its_own_gaps() -> None:
    split = synthetic.split().lacking({"sound": MASK})
    data = replace(synthetic.client(), split=split, index=torch.tensor([4, 5, 6]))
    found = data.present("sound")
    assert found is not None
    assert found.tolist() == [False, True, True]
    assert data.present("touch") is None
    assert replace(data, index=torch.tensor([5, 6])).present("sound") is None
    [(inputs, _)] = data.batches(10, ("touch", "sound"))
    assert inputs.present["sound"].tolist() == [False, True, True]


def test_files_that_are_gone_and_values_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any data set that decodes files; a chunk may have nobody with a modality."""

    class Deaf(readings.Readings):
        def scan(self, data_dir: Path, settings: readings.ReadingsSettings) -> Scan:
            scan = super().scan(data_dir, settings)
            scan.samples = [
                replace(s, values={**s.values, "note": None}) if s.id in ("7", "90") else s
                for s in scan.samples
            ]
            return scan

    monkeypatch.setenv("BMSFED_HOME", str(tmp_path / "home"))
    readings.register(monkeypatch, Deaf())
    folder = readings.write(tmp_path / "data", readings.rows(150))
    for i in range(64, 128):  # the second chunk
        (folder / f"{i}.npy").unlink()
    with pytest.raises(DataError, match=r"2 of 150 samples .*7 lacks note \(gaps: keep, or --mis"):
        ensure_prepared("readings", folder, {}, max_bad=0)
    account = ensure_prepared("readings", folder, {"gaps": "keep"}, max_bad=0)
    assert [(one.sample, one.cause) for one in account.bad] == [("90", "has no modality")]
    assert account.lacking["train"] == {"pair": 51, "note": 1}
    train = load_dataset("readings", folder, seed=0, settings={"gaps": "keep"}).train
    assert train is not None
    assert train.ids is not None
    numbers = [int(i) for i in train.ids]
    assert train.present["pair"].tolist() == [not 64 <= i < 128 for i in numbers]
    assert train.present["note"].tolist() == [i != 7 for i in numbers]
    own = train.batch(torch.arange(len(train)), ["pair"])["pair"]
    assert own[:, 0].tolist() == [0 if 64 <= i < 128 else i for i in numbers]

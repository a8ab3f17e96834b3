"""What a run sees of its data: nothing old is used, nothing left out is silent."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from bmsfed_app.config import ExperimentConfig, load_config
from bmsfed_app.datasets import Account, DataError, LeftOut, Scan, ensure_prepared, load_dataset
from bmsfed_app.datasets.inspection import inspect
from bmsfed_app.datasets.preparation import prepare
from client_app.data import _simulated, local_data
from tests.readings import Readings, ReadingsSettings, register, rows, write


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BMSFED_HOME", str(tmp_path / "home"))
    register(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "data", rows())


def prepared(folder: Path, **settings: Any) -> Account:
    return ensure_prepared("readings", folder, settings)


def first_numbers(folder: Path) -> list[float]:
    train = load_dataset("readings", folder, seed=0, splits=("train",)).train
    assert train is not None
    return [float(v) for v in train.stores["pair.values"][:, 0]]


def edit(file: Path, value: float) -> None:
    """Other bytes, as many as before."""
    size = file.stat().st_size
    np.save(file, np.array([value, 1], dtype=np.float32))
    assert file.stat().st_size == size


# --- the cache goes by the folder -----------------------------------------------------------------


def test_an_edited_list_is_prepared_anew_and_read_in_the_same_process(folder: Path) -> None:
    before = prepared(folder)
    assert (before.counts, before.anew) == ({"train": 16, "test": 4}, "")
    assert first_numbers(folder)[:2] == [1, 2]
    write(folder, [row for row in rows() if row[0] != "1"], files=False)
    after = prepared(folder)
    assert after.anew == "16 train samples were listed, 15 are now"
    assert next(after.lines()) == "prepared anew: 16 train samples were listed, 15 are now"
    assert first_numbers(folder)[:2] == [2, 3]
    assert after.fingerprint != before.fingerprint
    changed = rows()
    changed[1][2] = "tense"
    write(folder, changed, files=False)
    prepared(folder)
    changed[1][2] = "calm"
    write(folder, changed, files=False)
    again = prepared(folder)
    assert again.anew == "the samples listed have other names, labels or values"
    assert again.fingerprint == before.fingerprint


def test_an_edited_file_is_decoded_anew(folder: Path) -> None:
    before = prepared(folder)
    edit(folder / "1.npy", 77)
    after = prepared(folder)
    assert after.anew == "files have changed: 1.npy"
    assert first_numbers(folder)[0] == 77
    assert after.fingerprint != before.fingerprint
    assert prepared(folder).anew == ""


def test_a_file_whose_time_alone_changed_is_read_once_and_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = prepared(folder)
    decoded: list[int] = []
    os.utime(folder / "1.npy", ns=(0, 0))
    after = ensure_prepared("readings", folder, None, lambda done, total: decoded.append(done))
    assert (after.anew, decoded, after.fingerprint) == ("", [], before.fingerprint)

    def read(*_: Any) -> str:
        raise AssertionError("read again")

    monkeypatch.setattr("bmsfed_app.datasets.fingerprint._content", read)
    assert prepared(folder).fingerprint == before.fingerprint


def test_the_fingerprint_is_of_content_and_settings_alone(folder: Path, tmp_path: Path) -> None:
    there = tmp_path / "elsewhere"
    shutil.copytree(folder, there, copy_function=shutil.copyfile)
    here = prepared(folder).fingerprint
    assert len(here) == 16
    assert prepared(there).fingerprint == here
    assert prepared(folder, title="other").fingerprint != here
    edit(there / "3.npy", 9)
    assert prepared(there).fingerprint != here


class Globbed(Readings):
    """A loader that takes what is there, and does not mind if nothing is."""

    def scan(self, data_dir: Path, settings: ReadingsSettings) -> Scan:
        return super().scan(data_dir, settings) if (data_dir / "list.csv").exists() else Scan()


def test_what_was_prepared_is_used_unchecked_where_the_folder_is_gone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = prepared(folder)
    shutil.move(folder, folder.with_name("away"))
    after = prepared(folder)
    assert after.fingerprint == before.fingerprint
    assert after.notes == [
        f"the data folder {folder} is gone: what was prepared from it is used, unchecked"
    ]
    register(monkeypatch, Globbed())
    assert prepared(folder).notes == after.notes
    folder.mkdir()  # there, but not what it was
    with pytest.raises(DataError, match=r"no sample in .*'readings' needs list\.csv and <id>\.npy"):
        prepared(folder)


def test_a_loader_that_fails_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, rows(4))
    monkeypatch.setattr(Readings, "scan", lambda *of: ("robin", "wren").index("crow"))
    with pytest.raises(DataError, match=r"the loader of 'readings' failed on .*ValueError: tuple"):
        prepared(folder)


def test_chunks_of_an_interrupted_preparation_go_by_the_files_too(folder: Path) -> None:
    write(folder, rows(100))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_prepared("readings", folder, None, stop)
    edit(folder / "1.npy", 77)
    prepared(folder)
    assert first_numbers(folder)[0] == 77


def test_a_file_that_changes_while_it_is_decoded_is_noticed(folder: Path) -> None:
    with pytest.raises(DataError, match="changed while they were decoded: prepare again"):
        ensure_prepared("readings", folder, None, lambda *_: edit(folder / "1.npy", 77))
    prepared(folder)
    assert first_numbers(folder)[0] == 77


def test_simulated_clients_load_what_the_server_looked_at_and_nothing_else(folder: Path) -> None:
    seen = prepared(folder).fingerprint
    config = load_config("readings", {"data_dir": str(folder), "clients": 2})
    node = {"partition-id": 0, "num-partitions": 2}
    settings = config.client_settings()
    settings = type(settings).from_json(settings.to_json() | {"data": seen})
    loaded = local_data(node, settings).split
    edit(folder / "1.npy", 77)
    prepared(folder)
    assert local_data(node, settings).split is loaded  # a process that has it goes on with it
    from bmsfed_app.datasets import _cached_split

    _cached_split.cache_clear()
    _simulated.cache_clear()
    with pytest.raises(DataError, match=f"{seen} is wanted: the data was changed and prepared"):
        local_data(node, settings)


@pytest.mark.parametrize("name", ["cg-digits", "cg-mnist"])
def test_sets_that_are_read_as_they_are_have_a_fingerprint(name: str) -> None:
    config = load_config(name)
    plain = config.check_data()
    assert len(plain.fingerprint) == 16
    assert plain.counts == dict(zip(("train", "test"), plain.counts.values(), strict=True))
    assert load_config(name, {"seed": 1}).check_data().fingerprint == plain.fingerprint
    assert load_config(name, {"color_noise": 0.5}).check_data().fingerprint != plain.fingerprint


# --- what is left out, and what is lacking --------------------------------------------------------


def test_what_is_left_out_is_said_by_split_and_cause_from_the_cache_too(folder: Path) -> None:
    listed = rows(60)
    for row in listed[1:5]:
        row[4] = "film"
    listed[5][4] = "film"
    listed[6][2] = "clam"
    write(folder, listed)
    (folder / "7.npy").unlink()
    settings = Readings().parse({})
    made = prepare(Readings(), folder, settings, max_bad=0.05)
    again = prepare(Readings(), folder, settings, max_bad=0.05)
    expected = [
        "train: 48 listed, 42 used; left out: "
        "1 x unknown label (list.csv line 8 has label 'clam'), "
        "4 x shares its origin with a test sample (1; 2; 3; and 1 more), "
        f"1 x cannot be decoded (7: {folder / '7.npy'} is missing)",
        "test: 12 listed, 12 used",
    ]
    assert list(made.lines()) == expected
    assert list(again.lines()) == expected


def test_samples_of_neither_split_are_said() -> None:
    bad = [LeftOut("line 3", "line 3: split 'val'", "", "unknown split")]
    account = Account(None, {"train": 2, "test": 1}, bad, ["mind the gap"])
    assert list(account.lines()) == [
        "train: 2 listed, 2 used",
        "test: 1 listed, 1 used",
        "of no known split; left out: 1 x unknown split (line 3: split 'val')",
        "note: mind the gap",
    ]


def test_the_cache_does_not_depend_on_how_much_may_be_bad(folder: Path) -> None:
    (folder / "1.npy").unlink()
    given = {"data_dir": str(folder)}
    generous = load_config("readings", given | {"max_bad": "0.1"})
    seen = generous.check_data()
    assert seen.counts == {"train": 15, "test": 4}
    message = r"1 of 20 samples of readings .*more than the 1\.0% allowed .*--set max_bad=SHARE"
    with pytest.raises(DataError, match=message):
        load_config("readings", given).check_data()
    assert generous.check_data().fingerprint == seen.fingerprint


def test_a_class_that_cannot_be_learnt_is_an_error_before_decoding(folder: Path) -> None:
    with pytest.raises(DataError, match="no training sample is of class 'wild', which can never"):
        prepared(folder, classes=["calm", "tense", "wild"])
    assert not list((folder.parent / "home").rglob("chunk-*"))
    listed = rows()
    for row in listed:
        row[2] = "tense" if row[1] == "train" and row[0] != "7" else "calm"
    write(folder, listed)
    (folder / "7.npy").unlink()  # the last of its class
    with pytest.raises(DataError, match="no training sample is of class 'calm'"):
        prepare(Readings(), folder, Readings().parse({}), max_bad=0.5)


def test_a_class_without_test_samples_and_parts_of_published_sets_are_noted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = rows()
    for row in listed:
        row[2] = "calm" if row[1] == "test" else row[2]
    write(folder, listed)
    note = "no test sample is of 1 of the 2 classes (tense): the accuracy says nothing of them"
    assert prepared(folder).notes == [note]
    assert prepared(folder).notes == [note]

    class Published(Readings):
        official: ClassVar = {"train": 100}

    register(monkeypatch, Published())
    assert prepared(folder, classes=["calm", "tense", "wild"]).notes == [
        "no training sample is of 1 of the 3 classes (wild): they cannot be learnt",
        "no test sample is of 2 of the 3 classes (tense, wild): the accuracy says nothing of them",
    ]


def test_a_check_tells_natural_clients_and_what_is_out_of_date(folder: Path) -> None:
    listed = rows()
    listed[1][3] = listed[2][3] = ""
    write(folder, listed)
    source, settings = Readings(), ReadingsSettings()
    found = inspect(source, folder, settings)
    assert (found.cache, found.sound) == ("not prepared yet", True)
    assert list(found.natural_lines("wards")) == [
        "natural clients (wards): 2 with 7 to 7 training samples, median 7: a 7, b 7",
        "natural clients (wards): 2 training samples name none, which partition: natural does not "
        "take",
    ]
    prepare(source, folder, settings)
    edit(folder / "1.npy", 77)
    found = inspect(source, folder, settings)
    assert found.cache.startswith("out of date (1.npy changed)")
    found = inspect(source, folder, source.parse({"classes": ["calm", "tense", "wild"]}))
    assert not found.sound
    assert "no training sample is of class 'wild'" in found.faults[0]


def test_a_data_set_has_the_name_that_its_user_gave_it(folder: Path) -> None:
    config: ExperimentConfig = load_config("readings", {"data_dir": str(folder), "title": "night"})
    assert config.dataset_name == "night"
    cache = config.check_data().cache
    assert cache is not None
    assert cache.name.startswith("night-")

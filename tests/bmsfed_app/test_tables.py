"""Tables of one's own: what their cells, columns and settings may be, and what is refused."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from bmsfed_app.config import load_config
from bmsfed_app.datasets import DataError, dataset_info, ensure_prepared, load_dataset
from bmsfed_app.datasets.base import Dataset
from bmsfed_app.datasets.kinds import Array, Series
from bmsfed_app.datasets.media import BadSample
from bmsfed_app.datasets.prepared import Scan
from bmsfed_app.datasets.shard import load_shard, save_shard
from bmsfed_app.datasets.table import COLUMN_TYPES, Table, TableSettings
from tests.federation import simulated

ROOT = Path(__file__).resolve().parents[2]
MODALITIES: dict[str, Any] = {
    "vitals": {"type": "numbers", "columns": ["pulse", "breath"], "standardise": "train"},
    "note": {"type": "text", "tokens": 4},
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BMSFED_HOME", str(tmp_path / "home"))
    return tmp_path


def row(i: int, **changes: Any) -> dict[str, Any]:
    """A sample; every fifth is for the test, every second is tense."""
    made = {
        "id": i // 5 if i % 5 == 0 else i,  # ids restart in each split
        "split": "test" if i % 5 == 0 else "train",
        "label": ("calm", "tense")[i % 2],
        "client": f"ward-{i % 3}",
        "note": f"note {i}",
        "pulse": 60 + i,
        "breath": 12 + i % 4,
    }
    return made | changes


def write(folder: Path, rows: list[dict[str, Any]], name: str = "samples.csv") -> Path:
    folder.mkdir(exist_ok=True)
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def resolved(folder: Path, **settings: Any) -> TableSettings:
    source = Table()
    found = source.resolve(source.parse({"modalities": MODALITIES, **settings}), folder)
    assert isinstance(found, TableSettings)
    return found


def scanned(folder: Path, **settings: Any) -> Scan:
    return Table().scan(folder, resolved(folder, **settings))


def loaded(folder: Path, **settings: Any) -> Dataset:
    found = resolved(folder, **settings)
    ensure_prepared("table", folder, found, max_bad=1.0)
    return load_dataset("table", folder, seed=0, settings=found)


# --- splits, labels, keys -------------------------------------------------------------------------


def test_blanks_around_names_lose_no_rows(tmp_path: Path) -> None:
    rows = [row(i) for i in range(20)]
    rows[3] |= {"split": "train ", "label": " tense", "client": "ward-0\t"}
    rows[4] |= {"id": " 4"}
    scan = scanned(write(tmp_path / "data", rows))
    assert Counter(s.split for s in scan.samples) == {"train": 16, "test": 4}
    [sample] = [s for s in scan.samples if s.id == "3" and s.split == "train"]
    assert (sample.label, sample.client) == (1, "ward-0")
    assert [n for n in scan.notes if "'split'" in n] == [
        "blanks around 1 cells of column 'split' are ignored"
    ]


def test_a_split_that_nobody_explained_is_refused(tmp_path: Path) -> None:
    rows = [row(i) for i in range(20)]
    rows[7]["split"] = rows[9]["split"] = "val"
    folder = write(tmp_path / "data", rows)
    with pytest.raises(
        DataError,
        match=r"samples\.csv line 9: column 'split' is 'val', not train, test \(2 such rows\).*"
        r"`splits: \{val: train\}`, or `splits: \{val: \"\"\}` to leave such rows out",
    ):
        scanned(folder)
    taken = scanned(folder, splits={"val": "train"})
    assert Counter(s.split for s in taken.samples) == {"train": 16, "test": 4}
    left = scanned(folder, splits={"val": ""})
    assert [(b.sample, b.split, b.cause, b.by_rule) for b in left.bad] == [
        (f"samples.csv line {n}", "", "split 'val'", True) for n in (9, 11)
    ]
    rows[2]["split"] = "Train"
    with pytest.raises(DataError, match=r"'Train', not train, test, val; did you mean 'train'\?"):
        scanned(write(tmp_path / "data", rows), splits={"val": ""})


def test_ids_are_of_their_split_and_keys_of_both(tmp_path: Path) -> None:
    rows = [row(i, person=f"p{i % 10}") for i in range(20)]
    folder = write(tmp_path / "data", rows)
    ensure = loaded(folder)
    assert ensure.train is not None
    assert len(ensure.train) == 16  # ids 1, 2 and 3 are in both splits
    assert {s.key for s in scanned(folder).samples} == {""}
    found = resolved(folder, key="person")
    account = ensure_prepared("table", folder, found)
    assert account.counts == {"train": 16, "test": 4}  # p0 and p5 are in the test split alone
    rows[1]["person"] = "p0"
    write(folder, rows)
    account = ensure_prepared("table", folder, resolved(folder, key="person"))
    assert account.counts == {"train": 15, "test": 4}
    assert [b.cause for b in account.bad] == ["shares its origin with a test sample"]


def test_repeated_ids_are_named_with_their_lines(tmp_path: Path) -> None:
    rows = [row(i) for i in range(20)]
    rows[3]["id"] = rows[8]["id"] = "twin"
    folder = write(tmp_path / "data", rows)
    account = ensure_prepared("table", folder, resolved(folder))
    assert sum(account.counts.values()) == 20
    said = [note for note in account.notes if "twin" in note]
    assert said == [
        "1 ids stand for several samples of a split, all are kept: twin in train "
        "(samples.csv line 5, samples.csv line 10)"
    ]


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    rows = [row(i) for i in range(20)]
    rows[2]["note"] = "two\nlines"
    rows[3]["label"] = "wild"
    folder = write(tmp_path / "data", rows)
    file = folder / "samples.csv"
    file.write_bytes(file.read_bytes().replace(b"test,calm", b"test,calm", 1) + b"\r\n")
    scan = scanned(folder, classes=["calm", "tense"])
    at = next(i for i, line in enumerate(file.read_text().split("\n"), start=1) if "wild" in line)
    assert scan.bad[0].sample == f"samples.csv line {at}"
    assert scan.bad[0].cause == "unknown label"


@pytest.mark.parametrize("role", ["split", "client", "id", "key"])
def test_a_column_that_is_named_must_be_there(role: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "data", [row(i) for i in range(20)])
    with pytest.raises(DataError, match=r"has no column 'wards'"):
        scanned(folder, **{role: "wards"})


def test_the_drawn_test_split_has_every_class_and_shares_no_key(tmp_path: Path) -> None:
    rows = [row(i, person=f"p{i % 10}") for i in range(50)]
    for one in rows:
        del one["split"], one["client"]
    folder = write(tmp_path / "data", rows)
    scan = scanned(folder)
    assert Counter((s.split, s.label) for s in scan.samples)["test", 0] == 5
    assert (
        "no column 'split': 20% of every class, drawn once for all, is the test split" in scan.notes
    )
    assert not any("`key: client`" in note for note in scan.notes)
    with_clients = write(tmp_path / "people", [one | {"client": "ann"} for one in rows])
    assert any("`key: client`" in note for note in scanned(with_clients).notes)
    scan = scanned(folder, key="person")
    keys = {split: {s.key for s in scan.samples if s.split == split} for split in ("train", "test")}
    assert (len(keys["train"]), len(keys["test"])) == (8, 2)
    assert not keys["train"] & keys["test"]


# --- classes --------------------------------------------------------------------------------------


def test_classes_come_from_the_table_and_travel_with_the_settings(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", [row(i, label=(10, 9, 2)[i % 3]) for i in range(20)])
    file = tmp_path / "mine.yaml"
    file.write_text(
        json.dumps({"dataset": "table", "dataset_settings": {"modalities": MODALITIES}})
    )
    config = load_config(str(file), {"data_dir": str(folder)})
    assert config.dataset_settings["classes"] == ["2", "9", "10"]  # numbers in their order
    (folder / "samples.csv").unlink()
    sent = config.client_settings().dataset_settings
    assert dataset_info("table", sent).class_names == ("2", "9", "10")
    with pytest.raises(DataError, match="known from the table alone"):
        dataset_info("table", {"modalities": MODALITIES})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.25, 0.5, 1.75], r"holds numbers such as 0\.25: predicting numbers .* not supported"),
        (["happy;loud", "happy", "sad"], r"several labels in a cell \(happy;loud\)"),
        (["calm", "calm"], r"has 1 different values in 20 rows, which are no classes"),
        ([f"x{i}" for i in range(20)], r"has 20 different values in 20 rows, which are no"),
    ],
)
def test_what_is_no_class_is_refused(labels: list[Any], message: str, tmp_path: Path) -> None:
    rows = [row(i, label=labels[i % len(labels)]) for i in range(20)]
    with pytest.raises(DataError, match=message):
        resolved(write(tmp_path / "data", rows))


def test_a_nodes_own_table_may_lack_classes(tmp_path: Path) -> None:
    classes = ["calm", "tense", "wild"]
    whole = loaded(write(tmp_path / "all", [row(i, label=classes[i % 3]) for i in range(30)]))
    assert whole.info.class_names == tuple(classes)
    own = write(tmp_path / "own", [row(i) for i in range(20)])
    with pytest.raises(DataError, match="no training sample is of class 'wild'"):
        loaded(own, classes=classes)
    with pytest.raises(DataError, match="part: list all classes under 'classes'"):
        resolved(own, part=True)
    settings = resolved(own, classes=classes, part=True)
    account = ensure_prepared("table", own, settings)
    assert any("is of 1 of the 3 classes (wild)" in note for note in account.notes)
    part = load_dataset("table", own, seed=0, settings=settings)
    assert part.train is not None
    save_shard(part.train, np.arange(len(part.train)), part.info, tmp_path / "shard")
    split, _ = load_shard(tmp_path / "shard", whole.info)  # by what the server has
    assert torch.equal(split.labels, part.train.labels)
    with pytest.raises(DataError, match="no training sample is of class 'wild'"):
        loaded(own, classes=classes)  # also where it is prepared


def test_labels_that_are_not_listed_are_left_out_by_cause(tmp_path: Path) -> None:
    rows = [row(i) for i in range(20)]
    rows[1]["label"], rows[2]["label"], rows[3]["label"] = "wild", "", "calm; tense"
    scan = scanned(write(tmp_path / "data", rows), classes=["calm", "tense"])
    assert [(b.cause, b.split) for b in scan.bad] == [
        ("unknown label", "train"),
        ("no label", "train"),
        ("several labels", "train"),
    ]
    assert scan.bad[0].reason == "samples.csv line 3 has label 'wild', not calm, tense"


# --- cells ----------------------------------------------------------------------------------------


def test_cells_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    rows = [row(i) for i in range(20)]
    rows[1]["pulse"], rows[2]["breath"], rows[3]["breath"] = "fast", "nan", "inf"
    rows[4] |= {"pulse": "", "breath": ""}
    rows[6]["pulse"], rows[7]["note"], rows[8]["pulse"] = "", "  ", "1e60"
    scan = scanned(write(tmp_path / "data", rows))
    assert [(b.reason, b.cause) for b in scan.bad] == [
        (
            "samples.csv line 3: column 'pulse' is 'fast', not a finite number",
            "no number in vitals",
        ),
        (
            "samples.csv line 4: column 'breath' is 'nan', not a finite number",
            "no number in vitals",
        ),
        (
            "samples.csv line 5: column 'breath' is 'inf', not a finite number",
            "no number in vitals",
        ),
        ("samples.csv line 6: columns 'pulse', 'breath' are empty", "lacks vitals"),
        ("samples.csv line 8: column 'pulse' is empty", "no number in vitals"),
        ("samples.csv line 9: column 'note' is empty", "lacks note"),
        (
            "samples.csv line 10: column 'pulse' is '1e60', not a finite number",
            "no number in vitals",
        ),
    ]
    values = {s.id: s.values["vitals"].tolist() for s in scan.samples if s.split == "train"}
    assert values["9"] == [69.0, 13.0]


def test_patterns_and_ranges_name_columns_in_the_tables_order(tmp_path: Path) -> None:
    names = ["au_1", "au_10", "au_2", "mfcc[0]", "mfcc[1]", "age"]
    made = [row(i, **{n: i + k for k, n in enumerate(names)}) for i in range(20)]
    folder = write(tmp_path / "data", made)

    def columns(given: Any) -> tuple[str, ...]:
        own = {"x": {"type": "numbers", "columns": given}, "note": MODALITIES["note"]}
        return resolved(folder, modalities=own).modalities["x"].columns  # type: ignore[union-attr]

    assert columns("au_*") == ("au_1", "au_10", "au_2")
    assert columns(["age", "au_1..au_2", "mfcc[0]"]) == ("age", "au_1", "au_2", "mfcc[0]")
    assert columns("mfcc[0]..age") == ("mfcc[0]", "mfcc[1]", "age")
    assert columns("mfcc[*") == ("mfcc[0]", "mfcc[1]")
    for given, message in (
        (
            "ua_*",
            r"modalities\.x: no column of .*samples\.csv is like 'ua_\*'; did you mean 'au_\*'",
        ),
        (["au_*", "au_2"], r"modalities\.x: columns name 'au_2' twice"),
        ("au_1..au_3", r"has no column 'au_3' of the range 'au_1\.\.au_3'"),
        ("age..au_1", r"is like 'age\.\.au_1'"),
        ("agee", r"has no column 'agee'; did you mean 'age'\?"),
        ("*", r"columns take in 'id', the column of `id`, which is no input"),
        (["pulse", "label"], r"modalities\.x: 'label' is the column of `label`, which is no input"),
    ):
        with pytest.raises(DataError, match=message):
            columns(given)


def test_lists_in_cells(tmp_path: Path) -> None:
    vectors = [[float(i), i * 2.0, -1.5] for i in range(20)]
    own = {"face": {"type": "numbers"}, "note": MODALITIES["note"]}
    by_csv = write(tmp_path / "csv", [row(i, face=json.dumps(vectors[i])) for i in range(20)])
    by_json = tmp_path / "json"
    by_json.mkdir()
    lines = [json.dumps(row(i, face=vectors[i])) for i in range(20)]
    (by_json / "samples.jsonl").write_text("\n\n".join(lines))
    found = [
        (folder, resolved(folder, modalities=own, table=name))
        for folder, name in ((by_csv, "samples.csv"), (by_json, "samples.jsonl"))
    ]
    for folder, settings in found:
        samples = Table().scan(folder, settings).samples
        assert [s.values["face"].tolist() for s in samples] == vectors
        assert settings.modalities["face"].width() == 3  # type: ignore[union-attr]
    lines[1] = json.dumps(row(1, face=[1, 2]))
    lines[2] = json.dumps(row(2, face=[1, None, 3]))
    (by_json / "samples.jsonl").write_text("\n".join([*lines, json.dumps(row(21, face=None))]))
    bad = scanned(by_json, modalities=own, table="samples.jsonl").bad
    assert [(b.reason, b.cause) for b in bad] == [
        ("samples.jsonl line 2: column 'face' holds 2 numbers, not 3", "another size of face"),
        ("samples.jsonl line 3: column 'face', place 2, is empty", "no number in face"),
        ("samples.jsonl line 21: column 'face' is empty", "lacks face"),
    ]
    (by_json / "samples.jsonl").write_text("{}\n[1]")
    with pytest.raises(DataError, match=r"line 2 is no object"):
        scanned(by_json, modalities=own, table="samples.jsonl")


def test_parquet_gives_what_json_gives(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [row(i, face=[float(i), 1.0], label=float(i % 3)) for i in range(20)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "samples.parquet")
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = {"face": {"type": "numbers"}, **MODALITIES}
    found = []
    for name in ("samples.parquet", "samples.jsonl"):
        settings = resolved(tmp_path, modalities=own, table=name)
        assert settings.classes == ("0", "1", "2")
        samples = Table().scan(tmp_path, settings).samples
        found.append([(s.id, s.label, s.values["face"].tolist()) for s in samples])
    assert found[0] == found[1]


# --- standardising, ranges ------------------------------------------------------------------------


def test_standardise_goes_by_the_training_samples_alone(tmp_path: Path) -> None:
    rows = [row(i, same=7) for i in range(20)]
    for one in rows[::5]:  # the test samples are elsewhere
        one["pulse"] = 500
    columns = ["pulse", "breath", "same"]
    own = {**MODALITIES, "vitals": {**MODALITIES["vitals"], "columns": columns}}
    folder = write(tmp_path / "data", rows)
    data = loaded(folder, modalities=own)
    assert data.train is not None
    assert data.test is not None
    trained = np.array([[r[c] for c in columns] for i, r in enumerate(rows) if i % 5], float)
    mean, deviation = trained.mean(0), trained.std(0) + np.array([0, 0, 1])
    seen = data.train.batch(torch.arange(16), ("vitals",))["vitals"].numpy()
    assert seen == pytest.approx((trained - mean) / deviation, abs=1e-5)
    tested = data.test.batch(torch.arange(4), ("vitals",))["vitals"][:, 0].numpy()
    assert tested == pytest.approx((500 - mean[0]) / deviation[0], rel=1e-5)
    account = ensure_prepared("table", folder, resolved(folder, modalities=own))
    assert "column 'same' of 'vitals' is the same in all training samples" in account.notes


def test_the_same_statistics_at_devices_and_in_later_runs(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", [row(i) for i in range(20)])
    file = tmp_path / "mine.yaml"
    values = {"dataset": "table", "dataset_settings": {"modalities": MODALITIES}}
    file.write_text(json.dumps(values | {"data_dir": str(folder)}))
    config = load_config(str(file))
    ensure_prepared("table", folder, config.dataset_settings)
    train = config.load_data("train").train
    assert train is not None
    save_shard(train, np.arange(3), config.dataset_info(), tmp_path / "device")
    sent = json.loads(json.dumps(config.client_settings().to_json()))
    shard, _ = load_shard(tmp_path / "device", dataset_info("table", sent["dataset_settings"]))
    ours = train.batch(torch.arange(3), ("vitals",))["vitals"]
    assert torch.equal(shard.batch(torch.arange(3), ("vitals",))["vitals"], ours)
    # The same two columns, the other way round, are other data.
    turned = {**MODALITIES, "vitals": {**MODALITIES["vitals"], "columns": ["breath", "pulse"]}}
    other = load_config(str(file), {"modalities": turned}).dataset_info()
    with pytest.raises(DataError, match=r"keeps 'vitals' as .*'pulse', 'breath'.* the exp"):
        load_shard(tmp_path / "device", other)
    # A run's configuration is an experiment as well: of the same table, not of another.
    file.write_text(json.dumps(config.model_dump()))
    assert load_config(str(file)).dataset_settings == config.dataset_settings
    write(folder, [row(i, pulse=3 * i) for i in range(20)])
    with pytest.raises(DataError, match=r"finds another offset in this table than the one given"):
        load_config(str(file))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 0}, r"modalities\.vitals\.scale: numbers other than 0 only"),
        ({"scale": [1, 0]}, r"vitals.*scale.*numbers other than 0 only"),
        ({"scale": float("nan")}, r"vitals.*scale.*numbers other than 0 only"),
        ({"offset": [1, 2, 3]}, r"vitals.*offset has 3 values for 2 features"),
        ({"offset": float("inf")}, r"vitals.*offset.*finite numbers only"),
        ({"scal": 3}, r"vitals.*type numbers has no key 'scal'; did you mean 'scale'\?"),
        ({"rate": 8000}, r"vitals.*type numbers has no key 'rate'"),
        ({"type": "number"}, r"'vitals' has type 'number'; did you mean 'numbers'\?"),
        ({"column": "pulse"}, r"vitals.*either 'columns', of a number each, or 'column'"),
    ],
)
def test_settings_of_a_column_are_checked(change: dict[str, Any], message: str) -> None:
    own = {**MODALITIES, "vitals": {**MODALITIES["vitals"], **change}}
    with pytest.raises(DataError, match=message) as found:
        Table().parse({"classes": ["calm", "tense"], "modalities": own})
    assert "{" not in str(found.value)


def test_offsets_must_fit_the_columns_that_a_pattern_finds(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", [row(i, au_1=1, au_2=i) for i in range(20)])
    column = {"type": "numbers", "columns": "au_*", "offset": [1, 2, 3]}
    own = {"vitals": column, "note": MODALITIES["note"]}
    with pytest.raises(DataError, match=r"vitals.*offset has 3 values for 2 features"):
        load_config("table", {"modalities": own, "data_dir": str(folder)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": [True, False]}, "write them in quotes"),
        ({"classes": ["a", "a"]}, "classes: two or more, each once"),
        ({"name": "my data"}, "name"),
        ({"splits": {"val": "dev"}}, r"splits\.val"),
    ],
)
def test_settings_of_a_table_are_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Table().parse({"modalities": MODALITIES, **change})
    assert Table().parse({"modalities": MODALITIES, "classes": [0, 1]}).classes == ("0", "1")


def test_a_feature_far_from_one_is_found_before_training(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", [row(i, pulse=1e6 * i) for i in range(20)])
    raw = {**MODALITIES, "vitals": {"type": "numbers", "columns": ["breath", "pulse"]}}
    with pytest.raises(
        DataError,
        match=r"column 'pulse' of 'vitals': its values in the training samples run from 1e\+06 to "
        r"1\.9e\+07 with deviation .*`standardise: train`",
    ):
        loaded(folder, modalities=raw)
    loaded(folder)  # standardised


def test_test_samples_in_another_unit_are_found_as_well(tmp_path: Path) -> None:
    rows = [row(i, pulse=60 + i) for i in range(20)]
    for one in rows:
        one["pulse"] *= 1e6 if one["split"] == "test" else 1
    with pytest.raises(DataError, match="column 'pulse' of 'vitals': its values in the test samp"):
        loaded(write(tmp_path / "data", rows))


def test_numbers_too_fine_for_32_bits_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", [row(i, pulse=1.7e9 + 500 * i) for i in range(20)])
    with pytest.raises(DataError, match=r"column 'pulse' varies by .* around 17000\d+.*subtract"):
        resolved(folder)


# --- series and arrays ----------------------------------------------------------------------------


def series(fit: str, steps: int, array: Any) -> np.ndarray[Any, Any]:
    kind = Series(steps, 1, fit=fit, offset=1.0, scale=2.0)  # type: ignore[arg-type]
    rows = kind.decode(np.array(array, float)[:, None])
    return kind.render(*(torch.from_numpy(rows[p])[None] for p in kind.parts))[0, :, 0].numpy()


def test_series_of_any_length() -> None:
    long, short = [1, 3, 5, 7, 9, 11], [1, 3]
    assert series("cut", 4, long).tolist() == [0, 1, 2, 3]
    assert series("cut", 4, short).tolist() == [0, 1, 0, 0]  # zeros as the model sees them
    assert series("pool", 3, long).tolist() == [0.5, 2.5, 4.5]
    assert series("pool", 4, short).tolist() == [0, 0, 1, 1]
    assert series("stretch", 3, long).tolist() == [0, 2.5, 5]


def test_lengths_and_statistics_of_series_and_arrays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    rows, steps, grids = [], [], []
    for i in range(20):
        walk, grid = rng.normal(50, 9, (3 + i % 4, 2)), rng.normal(-4, 3, (2, 3))
        np.savetxt(folder / f"{i}.csv", walk, delimiter=",")
        np.save(folder / f"{i}.npy", grid)
        rows.append(row(i, walk=f"{i}.csv", grid=f"{i}.npy"))
        steps += [walk[:5]] if i % 5 else []
        grids += [grid] if i % 5 else []
    write(folder, rows)
    own = {
        "walk": {"type": "series", "steps": 5, "features": 2, "fit": "cut"},
        "grid": {"type": "array", "shape": [2, 3]},
    }
    settings = resolved(
        folder, modalities={m: {**c, "standardise": "train"} for m, c in own.items()}
    )
    walk, grid = (settings.modalities[m] for m in own)
    assert walk.offset == pytest.approx(np.concatenate(steps).mean(0), rel=1e-6)  # type: ignore[union-attr]
    assert walk.scale == pytest.approx(np.concatenate(steps).std(0), rel=1e-6)  # type: ignore[union-attr]
    assert grid.offset == pytest.approx(np.array(grids).mean(), rel=1e-6)  # type: ignore[union-attr]
    account = ensure_prepared("table", folder, settings)
    assert account.notes == [
        "4 of 16 training series of 'walk' are longer than 5 steps and are cut",
        "8 of 16 training series of 'walk' are shorter than 5 steps and are filled up with zeros",
    ]


def test_what_is_not_finite_in_a_file_is_named_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("1,2\n3,nan\n")
    with pytest.raises(BadSample, match=r"x\.csv is nan at row 2, column 2, not a finite number"):
        Series(4, 2).decode(tmp_path / "x.csv")
    np.save(tmp_path / "x.npy", np.array([1.0, 1e60]))
    with pytest.raises(BadSample, match=r"x\.npy is 1e\+60 at place \[1\], not a finite"):
        Array((2,)).decode(tmp_path / "x.npy")


# --- files and names ------------------------------------------------------------------------------


def test_a_head_that_cannot_be_right_is_refused(tmp_path: Path) -> None:
    (tmp_path / "samples.csv").write_text("id;label;note\n1;calm;x\n")
    with pytest.raises(DataError, match=r"are its values separated by commas\?"):
        resolved(tmp_path)
    (tmp_path / "samples.csv").write_text("label,note,note\ncalm,x,y\n")
    with pytest.raises(DataError, match=r"has two columns 'note'"):
        resolved(tmp_path)
    (tmp_path / "samples.csv").write_text("label,note\ncalm,x,y\n")
    with pytest.raises(DataError, match=r"line 2 has more values than the head"):
        resolved(tmp_path)


def test_a_table_has_a_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", [row(i) for i in range(20)])
    settings = resolved(folder, name="wards")
    assert Table().info(settings).name == "wards"
    assert Table().cache_dir(folder, settings).name.startswith("wards-")
    assert Table().info(resolved(folder)).name == "table"


def test_the_reference_page_names_every_type_and_key() -> None:
    page = (ROOT / "docs/tables.md").read_text()
    sections = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^#|\Z)", page, re.M | re.S))
    assert set(sections) == set(COLUMN_TYPES)
    shared = {"type", "column", "offset", "scale", "standardise"}
    for name, column in COLUMN_TYPES.items():
        own = set(column.model_fields) - shared
        assert set(re.findall(r"^\| `(\w+)` \|", sections[name], re.M)) == own, name
    keys = set(re.findall(r"^\| `(\w+)` \|", page.partition("### ")[0], re.M))
    assert keys == set(TableSettings.model_fields) | shared


def test_the_readmes_table_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (ROOT / "README.md").read_text()
    section = readme[readme.index("### Your own data") : readme.index("### Partitions")]
    table, experiment = (section.split(f"```{k}\n")[1].split("```")[0] for k in ("csv", "yaml"))
    (tmp_path / "my-data/photos").mkdir(parents=True)
    (tmp_path / "my-data/samples.csv").write_text(table)
    for number in range(1, 7):
        file = tmp_path / f"my-data/photos/{number}.png"
        Picture.new("L", (50, 40), 40 * number).save(file)
    (tmp_path / "mine.yaml").write_text(experiment)
    monkeypatch.chdir(tmp_path)
    config = load_config("mine.yaml")
    account = ensure_prepared("table", config.data_folder(), config.dataset_settings)
    assert (account.counts, account.bad) == ({"train": 4, "test": 2}, [])
    train = config.load_data("train").train
    assert train is not None
    vitals = train.batch(torch.arange(4), ("vitals",))["vitals"]
    assert vitals.mean(0).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert config.network_spec().encoders["note"] == "text-hash"
    state = simulated(config, 2)
    assert state.round == 2
    assert {(c.client_id, c.num_samples) for c in state.clients.values()} == {
        ("ward-a", 2),
        ("ward-b", 2),
    }

"""Prepared data sets: real files where they are at hand, interruption, bad samples, tables."""

from __future__ import annotations

import csv
import tomllib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image as Picture

from bmsfed_app.config import load_config
from bmsfed_app.datasets import DATASETS, DataError, ensure_prepared, find_source, load_dataset
from bmsfed_app.datasets.augment import crop_boxes, random_resized_crop
from bmsfed_app.datasets.checks import check_scan
from bmsfed_app.datasets.decoding import decode
from bmsfed_app.datasets.inspection import inspect
from bmsfed_app.datasets.kinds import Audio, Frames, Text
from bmsfed_app.datasets.media import BadSample, read_image, read_sound, read_text
from bmsfed_app.datasets.preparation import prepare
from bmsfed_app.datasets.prepared import PreparedSource, Sample, Scan
from tests.made_media import write_wav
from tests.plugins import install

REAL = Path(__file__).resolve().parents[3] / "shared/data"


def real(name: str) -> Path:
    folder = REAL / name
    if not folder.is_dir():
        pytest.skip(f"needs the files of {folder}")
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BMSFED_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def source_of(name: str) -> PreparedSource:
    source = find_source(name)
    assert isinstance(source, PreparedSource)
    return source


# --- real files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "folder", "train", "test", "owners"),
    [
        ("avletters", "avletters", 520, 260, 10),
        ("utd-mhad", "utd_mhad", 431, 430, 4),
        ("mvsa", "mvsa_single", 959, 241, 0),
    ],
)
def test_real_sets(name: str, folder: str, train: int, test: int, owners: int) -> None:
    ensure_prepared(name, real(folder))
    data = load_dataset(name, real(folder), seed=0)
    assert data.train is not None
    assert data.test is not None
    assert data.train.ids is not None
    assert (len(data.train), len(data.test)) == (train, test)
    assert (0 if data.train.owners is None else len(set(data.train.owners))) == owners
    source = source_of(name)
    scan = check_scan(source, source.scan(real(folder), source.parse({})), source.parse({}))
    kinds, samples = source.kinds(source.parse({})), {s.id: s for s in scan.samples}
    for row in (0, 1, 300):
        for store, value in decode(samples[str(data.train.ids[row])], kinds).items():
            assert np.array_equal(data.train.stores[store][row].numpy(), value)
    batch = data.train.batch(torch.arange(4), data.info.modalities)
    for modality, x in batch.items():
        assert x.shape == (4, *data.info.shapes[modality])
        assert torch.isfinite(x.float()).all()
    again = data.train.batch(torch.arange(4), data.info.modalities)
    assert all(torch.equal(batch[m], again[m]) for m in batch)


@pytest.mark.parametrize(
    ("task", "train", "test"), [("informative", 9601, 1534), ("humanitarian", 6126, 955)]
)
def test_crisismmd_lists(task: str, train: int, test: int, tmp_path: Path) -> None:
    for file in real("crisismmd").glob("*.tsv"):
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "data_image").mkdir()
    source = source_of("crisismmd")
    settings = source.parse({"task": task})
    scan = check_scan(source, source.scan(tmp_path, settings), settings)
    counts = [sum(s.split == split for s in scan.samples) for split in ("train", "test")]
    assert counts == [train, test]
    assert not scan.bad
    assert {s.label for s in scan.samples} == set(range(len(source.classes(settings))))


def test_ave_lists_without_the_leak(tmp_path: Path) -> None:
    for name in ("trainSet.txt", "testSet.txt", "valSet.txt"):
        (tmp_path / name).symlink_to(real("ave") / name)
    (tmp_path / "AVE").mkdir()
    source = source_of("ave")
    settings = source.parse({})
    listed = source.scan(tmp_path, settings)
    scan = check_scan(source, listed, settings)
    assert sum(s.split == "train" for s in listed.samples) == 3338
    assert sum(s.split == "train" for s in scan.samples) == 3329  # 8 videos, 9 rows
    assert sum(s.split == "test" for s in scan.samples) == 402
    assert scan.notes[0].startswith("27 videos come more than once")
    leaks = [b for b in scan.bad if b.cause == "shares its origin with a test sample"]
    assert len(leaks) == 9
    assert {(b.split, b.by_rule) for b in leaks} == {("train", True)}
    assert "valSet.txt is not used (evaluate_on: test)" in scan.notes
    lines = (real("ave") / "Annotations.txt").read_text().splitlines()
    assert source.classes(settings) == tuple(dict.fromkeys(x.split("&")[0] for x in lines))


def test_crema_d_lists(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").symlink_to(real("cremad") / f"bmsfed_{split}.csv")
    (tmp_path / "AudioWAV").mkdir()
    (tmp_path / "VideoFlash").mkdir()
    source = source_of("crema-d")
    scan = source.scan(tmp_path, source.parse({}))
    counts = [sum(s.split == split for s in scan.samples) for split in ("train", "test")]
    assert counts == [6698, 744]
    assert len({s.client for s in scan.samples}) == 91
    found = inspect(source, tmp_path, source.parse({}), decode_all=False)
    assert len(found.account.bad) == 7442
    with pytest.raises(DataError, match=r"of 7442 samples .*allow more with max_bad in the YAML"):
        prepare(source, tmp_path, source.parse({}))


def test_modelnet_views() -> None:
    folder = real("modelnet40_samples")
    source = source_of("modelnet40")
    for root, front, back in (
        ("loop", "_v0000.png", "_v0006.png"),
        ("mannix/data", "_001.jpg", "_007.jpg"),
    ):
        samples = source.scan(folder / root, source.parse({})).samples
        assert samples
        assert all(str(s.values["front"]).endswith(front) for s in samples)
        assert all(str(s.values["back"]).endswith(back) for s in samples)
        assert all(s.values["back"].is_file() for s in samples)


def test_fsdd_pairs_meet_only_their_own_split(tmp_path: Path) -> None:
    (tmp_path / "recordings").symlink_to(real("fsdd") / "recordings")
    (tmp_path / "mnist").symlink_to(real("mnist"))
    source = source_of("av-digits")
    scan = source.scan(tmp_path, source.parse({"pairs": 2}))
    counts = [sum(s.split == split for s in scan.samples) for split in ("train", "test")]
    assert counts == [1800, 600]
    assert all(s.split == "test" for s in scan.samples if s.id.split("_")[2][:2] in ("0-", "4-"))
    drawn = {(s.split, s.values["written"].tobytes()) for s in scan.samples}
    assert len(drawn) == len(scan.samples)


# --- sound --------------------------------------------------------------------------------------


def test_spectrogram_against_numpy(tmp_path: Path) -> None:
    rate, tone = 16_000, np.sin(2 * np.pi * 440 * np.arange(20_000) / 16_000) * 0.5
    write_wav(tmp_path / "tone.wav", tone, rate)
    kept = Audio().decode(tmp_path / "tone.wav")["values"]
    assert kept.shape == (257, 299)
    assert kept.dtype == np.float16
    signal = np.resize((tone * 32767).astype("<i2") / 32768, 48_000)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    frames = np.lib.stride_tricks.sliding_window_view(signal, 512)[::159] * window
    log = np.log(np.abs(np.fft.rfft(frames)).T ** 2 + 1e-7)
    expected = (log - log.mean()) / log.std()
    assert np.abs(kept.astype(float) - expected).mean() < 0.02


def test_another_rate_is_resampled_and_silence_is_zero(tmp_path: Path) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(44_100) / 44_100) * 0.5
    write_wav(tmp_path / "tone.wav", tone, 44_100)
    kept = Audio(16_000, 1.0).decode(tmp_path / "tone.wav")["values"]
    assert int(kept.astype(float).mean(1).argmax()) == round(1000 / (16_000 / 512))
    write_wav(tmp_path / "silent.wav", np.zeros(800), 16_000)
    assert not Audio(16_000, 1.0).decode(tmp_path / "silent.wav")["values"].any()


def test_files_that_are_no_media_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_text("no sound")
    (tmp_path / "x.jpg").write_text("no picture")
    (tmp_path / "x.txt").write_bytes("gr\xfc\xdfe".encode("latin-1"))
    write_wav(tmp_path / "empty.wav", np.zeros(0), 16_000)
    with pytest.raises(BadSample, match=r"x\.wav cannot be decoded"):
        read_sound(tmp_path / "x.wav")
    with pytest.raises(BadSample, match=r"empty\.wav has no sound"):
        read_sound(tmp_path / "empty.wav")
    with pytest.raises(BadSample, match=r"x\.jpg is not a picture"):
        read_image(tmp_path / "x.jpg", (8, 8))
    with pytest.raises(BadSample, match=r"x\.txt is not text in UTF-8 \(byte 2\)"):
        read_text(tmp_path / "x.txt")
    with pytest.raises(BadSample, match=r"y\.jpg is missing"):
        read_image(tmp_path / "y.jpg", (8, 8))


# --- tables, interruption, bad samples ----------------------------------------------------------

SETTINGS: dict[str, Any] = {
    "classes": ["calm", "tense"],
    "modalities": {
        "photo": {"type": "image", "side": 32, "crop": False},
        "note": {"type": "text", "tokens": 4},
        "vitals": {"type": "numbers", "columns": ["pulse"], "offset": [75], "scale": [15]},
    },
}


def table(folder: Path, rows: int = 200) -> Path:
    folder.mkdir()
    with (folder / "samples.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "split", "label", "client", "photo", "note", "pulse"])
        for i in range(rows):
            Picture.new("RGB", (40, 30), (i % 256, 0, 0)).save(folder / f"{i}.png")
            label, split = ("calm", "tense")[i % 2], "test" if i % 5 == 0 else "train"
            writer.writerow([f"r{i}", split, label, f"w{i % 3}", f"{i}.png", f"Note {i}!", 60 + i])
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_a_table_is_read_as_its_settings_say(tmp_path: Path) -> None:
    folder = table(tmp_path / "data")
    ensure_prepared("table", folder, SETTINGS)
    train = load_dataset("table", folder, seed=0, settings=SETTINGS).train
    assert train is not None
    assert train.owners is not None
    assert train.ids is not None
    assert (len(train), train.ids[0], train.owners[0]) == (160, "r1", "w1")
    batch = train.batch(torch.tensor([0]), ("photo", "note", "vitals"))
    assert batch["photo"][0, 0].unique().tolist() == pytest.approx([(1 / 255 - 0.485) / 0.229])
    assert batch["note"].tolist()[0][3] == 0
    assert (batch["note"] != 0).sum() == 3  # note, 1, !
    assert batch["vitals"].item() == pytest.approx((61 - 75) / 15)


def test_an_interrupted_preparation_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    folder, source = table(tmp_path / "data"), source_of("table")
    settings = source.parse(SETTINGS)
    cache = source.cache_dir(folder, settings)

    def stop(done: int, total: int) -> None:
        if done >= 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(source, folder, settings, progress=stop)
    assert not cache.exists()
    steps: list[int] = []
    prepare(source, folder, settings, progress=lambda done, total: steps.append(done))
    resumed = contents(cache)
    assert steps == [64, 128, 192, 200]
    for file in sorted(cache.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    cache.rmdir()
    prepare(source, folder, settings)
    assert contents(cache) == resumed


def test_bad_samples_are_left_out_up_to_the_limit(tmp_path: Path) -> None:
    folder, source = table(tmp_path / "data"), source_of("table")
    settings = source.parse(SETTINGS)
    (folder / "7.png").write_bytes((folder / "7.png").read_bytes()[:50])
    (folder / "8.png").unlink()
    done = prepare(source, folder, settings)
    assert [b.sample for b in done.bad] == ["r7", "r8"]
    assert done.counts == {"train": 158, "test": 40}
    assert "8.png is missing" in done.bad[1].reason
    found = inspect(source, folder, settings)
    assert sum(found.per_class["train"]) == 158
    assert (found.faults, found.sound) == ([], False)
    assert found.account.causes("train")["cannot be decoded"] == found.account.bad[:2]
    other = source.parse({**SETTINGS, "test_share": 0.3})
    with pytest.raises(DataError, match=r"of 200 samples .* cannot be used.*allow more with"):
        prepare(source, folder, other, max_bad=0)


def test_a_damaged_cache_is_named_with_the_remedy(tmp_path: Path) -> None:
    folder, source = table(tmp_path / "data"), source_of("table")
    settings = source.parse(SETTINGS)
    with pytest.raises(DataError, match=r"has not been prepared from .*bmsfed data prepare table"):
        source.load_split("train", folder, 0, settings)
    cache = prepare(source, folder, settings).cache
    file = cache / "train" / "vitals.values.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 255
    file.write_bytes(data)
    assert "is damaged" in inspect(source, folder, settings).faults[0]
    for left in (40, 0):
        file.write_bytes(data[:left])
        assert "is damaged" in inspect(source, folder, settings).faults[0]
        with pytest.raises(DataError, match=r"cannot read .*values\.npy .*prepare the data"):
            source.load_split("train", folder, 0, settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "kind"}, "no column 'kind'"),
        ({"table": "other.csv"}, r"no file .*other\.csv"),
        ({"classes": ["calm", "wild"]}, "cannot be used"),
    ],
)
def test_tables_that_do_not_fit(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder, source = table(tmp_path / "data", rows=20), source_of("table")
    with pytest.raises(DataError, match=message):
        prepare(source, folder, source.parse({**SETTINGS, **change}))


def test_settings_are_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"dataset_settings of 'mvsa': side: .*not 3"):
        source_of("mvsa").parse({"side": 3})
    with pytest.raises(DataError, match="type series needs the key 'steps'"):
        source_of("table").parse(
            {"classes": ["a", "b"], "modalities": {"x": {"type": "series"}, "y": {"type": "text"}}}
        )


def test_parquet_gives_what_csv_gives(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder, source = table(tmp_path / "data", rows=20), source_of("table")
    with (folder / "samples.csv").open() as file:
        found = list(csv.DictReader(file))
    columns = {k: [row[k] for row in found] for k in found[0]}
    columns["pulse"] = [int(v) for v in columns["pulse"]]
    parquet.write_table(pyarrow.table(columns), folder / "samples.parquet")
    by_csv = source.scan(folder, source.parse(SETTINGS)).samples
    by_parquet = source.scan(folder, source.parse({**SETTINGS, "table": "samples.parquet"})).samples
    assert [(s.id, s.split, s.label, s.client) for s in by_csv] == [
        (s.id, s.split, s.label, s.client) for s in by_parquet
    ]
    assert [float(s.values["vitals"][0]) for s in by_parquet] == list(range(60, 80))


def test_what_is_listed_wrongly_is_taken_out_and_said() -> None:
    source = source_of("mvsa")
    samples = [
        Sample("a", "train", 0, {}, key="v1"),
        Sample("b", "test", 0, {}, key="v1"),
        Sample("c", "train", 3, {}),
        Sample("d", "train", 2, {}),
    ]
    scan = check_scan(source, Scan(samples), source.parse({}))
    assert [s.id for s in scan.samples] == ["b", "d"]
    assert [(b.sample, b.split, b.cause, b.by_rule) for b in scan.bad] == [
        ("c", "train", "unknown label", False),
        ("a", "train", "shares its origin with a test sample", True),
    ]
    assert scan.notes == []


def test_ids_that_start_anew_in_each_split_are_no_leak() -> None:
    source = source_of("mvsa")
    samples = [Sample(str(i), split, i % 3, {}) for split in ("train", "test") for i in range(1, 7)]
    scan = check_scan(source, Scan(samples), source.parse({}))
    assert scan.samples == samples
    assert not scan.bad


def test_nothing_of_a_folder_is_dropped_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "train.txt").write_text("guid,tag\n1,positive\nx,negative\n2,happy\n")
    for number in (1, 2, 9):
        (tmp_path / "data" / f"{number}.jpg").touch()
    posts = source_of("mvsa").scan(tmp_path, source_of("mvsa").parse({}))
    assert [s.id for s in posts.samples] == ["1"]
    assert [(b.sample, b.cause) for b in posts.bad] == [
        ("train.txt line 3", "cannot be used"),
        ("2", "unknown label"),
    ]
    assert posts.notes == ["not in train.txt, so not used: 9 (1 in all)"]

    (tmp_path / "bathtub" / "train").mkdir(parents=True)
    (tmp_path / "bathtub" / "train" / "tub_1_007.jpg").touch()  # from behind; no front
    shapes = source_of("modelnet40").scan(tmp_path, source_of("modelnet40").parse({}))
    assert [(s.id, s.values["front"].name) for s in shapes.samples] == [("tub_1", "tub_1_001.jpg")]
    assert shapes.notes == ["1 folders are no class with classes: 40 (data)"]

    for folder in ("Inertial", "Skeleton", "visual"):
        (tmp_path / folder).mkdir()
    (tmp_path / "Skeleton" / "a2_s1_t1_skeleton.mat").touch()
    clips = source_of("utd-mhad").scan(tmp_path, source_of("utd-mhad").parse({}))
    assert [(s.id, s.label) for s in clips.samples] == [("a2_s1_t1", 1)]


def test_one_preparation_at_a_time(tmp_path: Path) -> None:
    folder, source = table(tmp_path / "data", rows=20), source_of("table")
    settings = source.parse(SETTINGS)
    partial = source.cache_dir(folder, settings)
    partial = partial.with_name(partial.name + ".partial")
    partial.mkdir(parents=True)
    with (
        FileLock(partial.with_suffix(".lock")),
        pytest.raises(DataError, match="another process is preparing 'table'"),
    ):
        prepare(source, folder, settings)
    assert prepare(source, folder, settings).counts == {"train": 16, "test": 4}


def test_batches_are_read_from_the_mapped_file(tmp_path: Path) -> None:
    folder, source = table(tmp_path / "data", rows=20), source_of("table")
    settings = source.parse(SETTINGS)
    cache = prepare(source, folder, settings).cache
    train = source.load_split("train", folder, 0, settings)
    file = cache / "train" / "vitals.values.npy"
    with file.open("r+b") as stream:  # the last of the values, seen only if nothing was copied
        stream.seek(-4, 2)
        stream.write(np.float32(90).tobytes())
    last = train.batch(torch.tensor([len(train) - 1]), ("vitals",))["vitals"]
    assert last.item() == pytest.approx(1.0)


def test_large_stores_stay_on_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, source = table(tmp_path / "data", rows=20), source_of("table")
    settings = source.parse(SETTINGS)
    prepare(source, folder, settings)
    train = source.load_split("train", folder, 0, settings)
    monkeypatch.setattr("bmsfed_app.datasets.base.RESIDENT_BYTES", 1000)
    moved = train.to("meta")  # any device that is not the host
    assert moved.stores["photo.pixels"].device.type == "cpu"
    assert moved.stores["vitals.values"].device.type == "meta"
    index = torch.zeros(2, dtype=torch.int64)
    assert train.batch(index, ("photo",))["photo"].shape == (2, 3, 32, 32)


# --- golden values of real samples --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "folder", "modality", "crc"),
    [
        ("avletters", "avletters", "lips", 900242899),
        ("mvsa", "mvsa_single", "text", 297508831),
    ],
)
def test_first_real_samples_are_kept_as_ever(
    name: str, folder: str, modality: str, crc: int
) -> None:
    source = source_of(name)
    samples = source.scan(real(folder), source.parse({})).samples[:8]
    kind = source.kinds(source.parse({}))[modality]
    [part] = kind.parts
    kept = np.stack([kind.decode(s.values[modality])[part] for s in samples])
    assert zlib.crc32(kept.tobytes()) == crc


# --- augmentation and language models -----------------------------------------------------------


def test_crops_are_torchvisions() -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    boxes = crop_boxes(torch.full((4000,), 4 / 3), torch.Generator().manual_seed(0))
    assert (boxes >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 1 + 1e-9).all()
    torch.manual_seed(0)
    picture = torch.zeros(3, 300, 400)
    drawn = [
        transforms.RandomResizedCrop.get_params(picture, [0.08, 1.0], [3 / 4, 4 / 3])
        for _ in range(4000)
    ]
    top, left, height, width = (torch.tensor(drawn) / torch.tensor([300, 400, 300, 400])).T
    theirs = torch.stack([left, top, width, height], 1).double()
    assert (boxes.mean(0) - theirs.mean(0)).abs().max() < 0.015
    assert (boxes.std(0) - theirs.std(0)).abs().max() < 0.015


def test_a_crop_of_everything_is_the_picture_or_its_mirror(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(16, 1).double()
    monkeypatch.setattr("bmsfed_app.datasets.augment.crop_boxes", lambda aspect, rng: whole)
    pictures = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    seen = random_resized_crop(pictures, torch.ones(16), 8, torch.Generator().manual_seed(1))
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(seen, pictures, strict=True)]
    mirrored = [
        torch.allclose(a, b.flip(2), atol=1e-5) for a, b in zip(seen, pictures, strict=True)
    ]
    assert all(s != m for s, m in zip(same, mirrored, strict=True))
    assert 0 < sum(same) < 16


def test_training_draws_frames_in_order_and_only_real_ones() -> None:
    kind = Frames(3, 8, channels=1, most=5, crop=False)
    pixels = (torch.arange(5, dtype=torch.uint8) * 10)[None, :, None, None, None]
    pixels = pixels.expand(200, 5, 1, 8, 8).contiguous()
    number = torch.full((200,), 4, dtype=torch.int16)
    rng = torch.Generator().manual_seed(0)
    seen = kind.augment(pixels, number, torch.ones(200), rng)[:, :, 0, 0, 0]
    levels = ((seen * 0.226 + 0.449) * 25.5).round().long()
    assert (levels.diff(dim=1) > 0).all()
    assert levels.max() == 3
    assert len(levels.unique(dim=0)) == 4  # every three of four
    even = kind.render(pixels, number, torch.ones(200))[0, :, 0, 0, 0]
    assert ((even * 0.226 + 0.449) * 25.5).round().tolist() == [0, 2, 3]


def test_a_language_models_tokens_are_kept_one_higher(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "water", "rises"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))
    tokenizer.save_pretrained(tmp_path)
    kind = Text(6, f"hf:{tmp_path}")
    assert kind.decode("RT Water rises https://t.co/x")["ids"].tolist() == [3, 6, 7, 4, 0, 0]
    assert kind.vocabulary == len(tokenizer) + 1


# --- README's examples --------------------------------------------------------------------------


def examples(kind: str) -> list[str]:
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    own = text[text.index("### Your own data") : text.index("### Partitions")]
    return [part.split("```")[0] for part in own.split(f"```{kind}\n")[1:]]


def test_the_readmes_loader_is_found_through_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "my_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "birds.py").write_text(examples("python")[0])
    points = tomllib.loads(examples("toml")[0])["project"]["entry-points"]
    install(tmp_path / "site", monkeypatch, points, DATASETS)
    assert "birds" in DATASETS.names()
    for i, (split, bird) in enumerate((s, b) for s in ("train", "test") for b in ("robin", "wren")):
        folder = tmp_path / "birds" / split / bird
        folder.mkdir(parents=True)
        write_wav(folder / "a1.wav", np.sin(np.arange(16_000) * (i + 1) / 9) * 0.5, 16_000)
        Picture.new("RGB", (70, 70), (0, 50 * i, 0)).save(folder / "a1.jpg")
    ensure_prepared("birds", tmp_path / "birds")
    train = load_dataset("birds", tmp_path / "birds", seed=0).train
    assert train is not None
    assert train.labels.tolist() == [0, 1]
    assert train.batch(torch.arange(2), ("song",))["song"].shape == (2, 1, 257, 98)
    assert load_config("birds").dataset == "birds"

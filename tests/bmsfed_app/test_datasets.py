"""Data sets: what is loaded, how digits are coloured, broken files, shards."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch.nn import functional as F

from bmsfed_app.datasets import DataError, Split, cg_mnist, dataset_info, load_dataset
from bmsfed_app.datasets.cg_digits import enlarge, read_digits
from bmsfed_app.datasets.colored import PALETTE, ColorSettings, colors, pair_info, pair_split
from bmsfed_app.datasets.shard import FILE_NAME, load_shard, save_shard

MNIST = Path(__file__).resolve().parents[3] / "shared/data/mnist"
needs_mnist = pytest.mark.skipif(not MNIST.is_dir(), reason=f"needs MNIST's files in {MNIST}")
MEANS = torch.tensor(PALETTE) / 255


def digits_data(**settings: object) -> tuple[Split, Split]:
    data = load_dataset("cg-digits", None, seed=0, settings=settings)
    assert data.train is not None
    assert data.test is not None
    return data.train, data.test


def every_class(n: int) -> torch.Tensor:
    return torch.arange(n) % 10


# --- the registry -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cg-digits", "cg-mnist"])
def test_info_names_strong_modality_first(name: str) -> None:
    info = dataset_info(name)
    assert info.name == name
    assert info.modalities == ("colored", "gray")
    assert info.shapes == {"colored": (3, 28, 28), "gray": (1, 28, 28)}
    assert info.class_names == tuple("0123456789")
    assert info.num_classes == 10


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(DataError, match="'cg-mnits'; did you mean 'cg-mnist'"):
        dataset_info("cg-mnits")
    with pytest.raises(DataError, match="unknown split 'val' of 'cg-digits'"):
        load_dataset("cg-digits", None, seed=0, splits=("val",))
    with pytest.raises(DataError, match="dataset_settings of 'cg-digits': unknown key 'noise'"):
        load_dataset("cg-digits", None, seed=0, settings={"noise": 1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"color_noise": -0.1}, "color_noise: .*greater than or equal to 0, not -0.1"),
        ({"color_noise": float("nan")}, "color_noise"),
        ({"color_noise": "much"}, "color_noise"),
        (
            {"test_color_correlation": 1.5},
            "test_color_correlation: .*less than or equal to 1, not 1.5",
        ),
        ({"test_color_correlation": True}, "test_color_correlation"),
        ({"palette": [[0, 0, 0]] * 9}, "palette: .* at least 10 items .*, not 9$"),
        ({"palette": [[0, 0, 0]] * 9 + [[0, 0, 256]]}, "palette.9.2: .*, not 256"),
        ({"palette": [[0, 0, 0]] * 9 + [[0, 0]]}, "palette.9.2: Field required"),
        ({"palette": 7}, "palette: .*valid tuple, not 7"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset("cg-digits", None, seed=0, settings=settings)


def test_only_asked_splits_load_and_they_load_once() -> None:
    first = load_dataset("cg-digits", None, seed=0, settings={"palette": [[1, 2, 3]] * 10})
    alone = load_dataset(
        "cg-digits", None, seed=0, settings={"palette": [[1, 2, 3]] * 10}, splits=("train",)
    )
    assert alone.test is None
    assert alone.train is first.train


# --- splits -------------------------------------------------------------------------------------


def test_batch_shapes_types_and_ranges() -> None:
    for split in digits_data():
        batch = split.batch(torch.tensor([3, 1, 3]), ("gray", "colored"))
        assert batch["gray"].shape == (3, 1, 28, 28)
        assert batch["colored"].shape == (3, 3, 28, 28)
        assert all(x.dtype == torch.float32 for x in batch.values())
        assert torch.equal(batch["colored"][0], batch["colored"][2])
        everything = split.batch(torch.arange(len(split)), ("colored", "gray"))
        assert everything["colored"].min() == 0
        assert everything["colored"].max() <= 1
        assert everything["gray"].min() == pytest.approx(-0.1307 / 0.3081)
        assert everything["gray"].max() == pytest.approx((1 - 0.1307) / 0.3081)
        assert split.labels.dtype == torch.int64
        assert split.stores["digits"].dtype == torch.uint8
        assert split.stores["colors"].dtype == torch.float32


def test_batch_computes_only_what_is_asked() -> None:
    train, _ = digits_data()
    assert set(train.batch(torch.tensor([0]), ("gray",))) == {"gray"}
    gray_only = train.only(("gray",))
    assert set(gray_only.stores) == {"digits"}
    with pytest.raises(DataError, match="no modality 'colored', only gray"):
        gray_only.batch(torch.tensor([0]), ("gray", "colored"))


def test_hand_computed_pixel() -> None:
    digits = torch.zeros(10, 28, 28, dtype=torch.uint8)
    digits[3, 5, 7] = 102  # 102/255 = 0.4
    info = pair_info("test")
    split = pair_split(
        info, digits, torch.arange(10), "train", seed=0, settings=ColorSettings(color_noise=0)
    )
    batch = split.batch(torch.tensor([3]), info.modalities)
    # Class 3 is (245, 130, 48): 0.4 * 245/255 = 0.384314, ... ; gray (0.4 - 0.1307)/0.3081.
    expected = torch.tensor([0.384314, 0.203922, 0.075294])
    torch.testing.assert_close(batch["colored"][0, :, 5, 7], expected, atol=1e-6, rtol=0)
    assert float(batch["gray"][0, 0, 5, 7]) == pytest.approx(0.874067, abs=1e-6)
    assert batch["colored"].count_nonzero() == 3
    assert float(batch["gray"][0, 0, 0, 0]) == pytest.approx(-0.424213, abs=1e-6)


def test_subset_renders_the_same_rows() -> None:
    train, _ = digits_data()
    rows = torch.tensor([9, 2, 700])
    part = train.subset(rows)
    assert len(part) == 3
    assert torch.equal(part.labels, train.labels[rows])
    ours = part.batch(torch.tensor([2, 0]), part.modalities)
    theirs = train.batch(rows[[2, 0]], train.modalities)
    assert all(torch.equal(ours[m], theirs[m]) for m in train.modalities)


def test_to_the_same_device_copies_nothing() -> None:
    train, _ = digits_data()
    assert train.to("cpu").stores["digits"].data_ptr() == train.stores["digits"].data_ptr()


# --- colours ------------------------------------------------------------------------------------


def test_train_colors_are_near_their_class_mean() -> None:
    labels = every_class(20_000)
    drawn = colors(labels, "train", 0, ColorSettings(color_noise=0.0001))
    assert float((drawn - MEANS[labels]).abs().max()) < 0.06  # six standard deviations
    exact = colors(labels, "train", 0, ColorSettings(color_noise=0))
    torch.testing.assert_close(exact, MEANS[labels])


def test_noise_variance_on_a_mid_range_channel() -> None:
    middle = ColorSettings(palette=((127.5, 127.5, 127.5),) * 10)
    for split in ("train", "test"):
        drawn = colors(torch.zeros(100_000, dtype=torch.int64), split, 0, middle).double()
        assert drawn.mean(dim=0).tolist() == pytest.approx([0.5] * 3, abs=0.003)
        # Clipping at 2.9 standard deviations takes 0.4 % of the variance.
        assert drawn.var(dim=0).tolist() == pytest.approx([0.030] * 3, rel=0.02)
        correlation = np.corrcoef(drawn.T.numpy())
        assert np.abs(correlation - np.eye(3)).max() < 0.015


def test_test_colors_are_independent_of_the_class_by_default() -> None:
    labels = every_class(50_000)
    drawn = colors(labels, "test", 0, ColorSettings(color_noise=0))
    source = torch.cdist(drawn, MEANS).argmin(dim=1)
    table = torch.zeros(10, 10).index_put_((labels, source), torch.ones(1), accumulate=True)
    chi2 = float(((table - 500) ** 2 / 500).sum())
    assert chi2 < 144  # the 99.9 % point of chi-square at 90 degrees of freedom is 137.2


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_test_color_correlation(share: float) -> None:
    labels = every_class(20_000)
    drawn = colors(labels, "test", 0, ColorSettings(color_noise=0.0, test_color_correlation=share))
    own = (drawn - MEANS[labels]).abs().amax(dim=1) < 1e-6
    assert float(own.float().mean()) == pytest.approx(share + (1 - share) / 10, abs=0.01)


def test_colors_depend_on_seed_and_split_only() -> None:
    labels, settings = every_class(50), ColorSettings()
    drawn = colors(labels, "test", 4, settings)
    assert torch.equal(drawn, colors(labels, "test", 4, settings))
    assert not torch.equal(drawn, colors(labels, "test", 5, settings))
    assert not torch.equal(
        colors(labels, "train", 4, settings),
        colors(labels, "test", 4, ColorSettings(test_color_correlation=1.0)),
    )
    # The correlation changes which samples take their own colour, not the others' draws.
    weaker = colors(labels, "test", 4, ColorSettings(test_color_correlation=0.3))
    assert 20 < int((weaker == drawn).all(dim=1).sum()) < 50


# --- cg-digits ----------------------------------------------------------------------------------


def test_digits_split_is_complete_and_stratified() -> None:
    from sklearn.datasets import load_digits

    train, test = digits_data()
    assert (len(train), len(test)) == (1437, 360)
    official = np.bincount(load_digits().target)
    counts = train.class_counts(10) + test.class_counts(10)
    assert counts.tolist() == official.tolist()
    assert np.abs(test.class_counts(10).numpy() - official / 5).max() < 1
    both = torch.cat([train.stores["digits"], test.stores["digits"]]).flatten(1)
    assert len(both.unique(dim=0)) == len(np.unique(load_digits().data, axis=0))


def test_digits_are_read_as_scikit_learn_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.datasets import load_digits

    for ours, theirs in zip(read_digits(), load_digits(return_X_y=True), strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)
    read_digits.cache_clear()
    monkeypatch.setattr("bmsfed_app.datasets.cg_digits.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"digits cannot be read .*: pip install scikit-learn"):
        read_digits()


def test_digits_pixels_are_the_same_everywhere() -> None:
    train, test = digits_data()
    assert zlib.crc32(train.stores["digits"].numpy().tobytes()) == 997928599
    assert zlib.crc32(test.stores["digits"].numpy().tobytes()) == 2435188121


def test_enlarge_is_bilinear_over_the_full_range() -> None:
    images = torch.arange(17).repeat(16)[:256].reshape(4, 8, 8)
    scaled = (images.double() * 255 / 16)[:, None]
    expected = F.interpolate(scaled, size=(28, 28), mode="bilinear", align_corners=False)[:, 0]
    assert float((enlarge(images) - expected).abs().max()) <= 0.5 + 1e-9
    assert enlarge(torch.full((1, 8, 8), 16)).unique().tolist() == [255]


# --- cg-mnist -----------------------------------------------------------------------------------


def idx_bytes(values: NDArray[np.uint8], magic: bytes = b"") -> bytes:
    header = magic or bytes((0, 0, 8, values.ndim))
    return header + b"".join(n.to_bytes(4, "big") for n in values.shape) + values.tobytes()


@pytest.fixture
def small_mnist(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Four tiny files by name, which pass as the official ones."""
    rng, files = np.random.default_rng(0), {}
    contents: dict[str, bytes] = {}
    for split, prefix, n in (("train", "train", 7), ("test", "t10k", 3)):
        images = rng.integers(256, size=(n, 28, 28), dtype=np.uint8)
        labels = rng.integers(10, size=n, dtype=np.uint8)
        pair = ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels))
        contents |= {name: idx_bytes(values) for name, values in pair}
        files[split] = tuple(
            cg_mnist.IdxFile(name, values.shape, zlib.crc32(idx_bytes(values)))
            for name, values in pair
        )
    monkeypatch.setattr(cg_mnist, "FILES", files)
    return contents


def write(folder: Path, contents: dict[str, bytes], packed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(data) if packed else data)


def load_small(folder: Path, *splits: str) -> tuple[Split | None, Split | None]:
    data = load_dataset("cg-mnist", folder, seed=0, splits=splits or ("train", "test"))
    return data.train, data.test


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("where", ["", "raw", "MNIST/raw"])
def test_files_are_found_in_the_usual_places(
    small_mnist: dict[str, bytes], tmp_path: Path, where: str, packed: bool
) -> None:
    write(tmp_path / where, small_mnist, packed)
    train, test = load_small(tmp_path)
    assert train is not None
    assert test is not None
    assert (len(train), len(test)) == (7, 3)
    raw = small_mnist["train-images-idx3-ubyte"][16:]
    assert train.stores["digits"].numpy().tobytes() == raw
    assert bytes(train.labels.tolist()) == small_mnist["train-labels-idx1-ubyte"][8:]


def test_a_worker_needs_no_test_files(small_mnist: dict[str, bytes], tmp_path: Path) -> None:
    write(tmp_path, {n: d for n, d in small_mnist.items() if n.startswith("train")})
    train, test = load_small(tmp_path, "train")
    assert train is not None
    assert test is None


def test_missing_file_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load_small(tmp_path)
    message = str(error.value)
    assert "no file train-images-idx3-ubyte or train-images-idx3-ubyte.gz" in message
    assert f"`bmsfed data download cg-mnist --data-dir {tmp_path}`" in message
    assert "\n" not in message


def _fault(name: str, data: bytes) -> bytes:
    values = np.zeros(7, dtype=np.uint8)
    match name:
        case "empty":
            return b""
        case "header only in part":
            return data[:10]
        case "truncated":
            return data[:-5]
        case "too long":
            return data + b"x"
        case "wrong magic":
            return b"\x00\x00\x0d\x03" + data[4:]
        case "labels for images":
            return idx_bytes(values) + bytes(99)
        case "wrong count":
            return idx_bytes(np.zeros((9, 28, 28), dtype=np.uint8))
        case _:
            return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("empty", "is 0 bytes long, expected 5,504"),
        ("header only in part", "is 10 bytes long, expected 5,504"),
        ("truncated", "is 5,499 bytes long, expected 5,504"),
        ("too long", "is 5,505 bytes long, expected 5,504"),
        ("wrong magic", "in 3 dimensions .it begins with 0x00000d03, expected 0x00000803"),
        ("labels for images", "it begins with 0x00000801, expected 0x00000803"),
        ("wrong count", "holds 9 x 28 x 28 values, expected 7 x 28 x 28"),
        ("another file", "differs from MNIST's official file"),
    ],
)
def test_broken_files_are_named(
    small_mnist: dict[str, bytes], tmp_path: Path, fault: str, message: str, packed: bool
) -> None:
    name = "train-images-idx3-ubyte"
    write(tmp_path, small_mnist | {name: _fault(fault, small_mnist[name])}, packed)
    with pytest.raises(DataError, match=message) as error:
        load_small(tmp_path)
    assert str(tmp_path / name) in str(error.value)
    assert "delete it and run `bmsfed data download cg-mnist" in str(error.value)


@pytest.mark.parametrize("damage", ["garbage", "truncated", "flipped"])
def test_broken_gz_is_named(small_mnist: dict[str, bytes], tmp_path: Path, damage: str) -> None:
    write(tmp_path, small_mnist, packed=True)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    good = path.read_bytes()
    flipped = good[:12] + bytes(b ^ 255 for b in good[12:16]) + good[16:]
    bad = {"garbage": b"not gzip at all", "truncated": good[:-9], "flipped": flipped}
    path.write_bytes(bad[damage])
    with pytest.raises(DataError, match=r"cannot read .*train-labels-idx1-ubyte\.gz"):
        load_small(tmp_path)


def test_download_checks_what_came(
    small_mnist: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(root: Path, download: bool) -> None:
        assert download
        write(root / "MNIST" / "raw", small_mnist)

    stub = types.SimpleNamespace(MNIST=fake)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", stub)
    cg_mnist.download(tmp_path)
    train, _ = load_small(tmp_path)
    assert train is not None
    small_mnist["t10k-labels-idx1-ubyte"] = b"short"
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte is 5 bytes long"):
        cg_mnist.download(tmp_path)


def test_failed_download_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(root: Path, download: bool) -> None:
        raise RuntimeError("Error downloading x:\nTried y, got:\nno route")

    monkeypatch.setitem(sys.modules, "torchvision.datasets", types.SimpleNamespace(MNIST=fail))
    with pytest.raises(DataError, match=r"could not be downloaded into .* no route") as error:
        cg_mnist.download(tmp_path)
    assert "\n" not in str(error.value)


@needs_mnist
def test_official_mnist() -> None:
    data = load_dataset("cg-mnist", MNIST, seed=0)
    assert data.train is not None
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (60_000, 10_000)
    assert data.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.train.class_counts(10).tolist() == counts
    digits = data.train.stores["digits"]
    # MNIST's well-known statistics, which the gray modality is normalised by.
    assert float(digits.float().mean()) / 255 == pytest.approx(0.1307, abs=5e-5)
    assert float(digits.float().std()) / 255 == pytest.approx(0.3081, abs=5e-5)


@needs_mnist
def test_first_real_samples_are_golden() -> None:
    train = load_dataset("cg-mnist", MNIST, seed=0, splits=("train",)).train
    assert train is not None
    batch = train.batch(torch.arange(8), ("colored", "gray"))
    levels = (batch["colored"] * 255).round().to(torch.uint8)
    # The first: of the file's bytes 16 to 6,288. The second: the same digits painted in numpy,
    # clip(palette[label]/255 + sqrt(0.03) * standard_normal((60000, 3)), 0, 1) * digit.
    assert zlib.crc32(train.stores["digits"][:8].numpy().tobytes()) == 1113242010
    assert zlib.crc32(levels.numpy().tobytes()) == 710574636


@needs_mnist
def test_torchvision_reads_the_same_digits(tmp_path: Path) -> None:
    from torchvision.datasets import MNIST as Oracle

    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for path in MNIST.glob("t10k-*.gz"):
        with gzip.open(path) as source, open(folder / path.stem, "wb") as target:
            shutil.copyfileobj(source, target)
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (folder / name).touch()
    oracle = Oracle(tmp_path, train=False)
    test = load_dataset("cg-mnist", tmp_path, seed=0, splits=("test",)).test
    assert test is not None
    assert torch.equal(test.stores["digits"], oracle.data)
    assert torch.equal(test.labels, oracle.targets)


# --- shards -------------------------------------------------------------------------------------


INFO = dataset_info("cg-digits")


@pytest.mark.parametrize("held", [("colored", "gray"), ("gray",), ("colored",)])
def test_shard_renders_what_the_split_does(tmp_path: Path, held: tuple[str, ...]) -> None:
    train, _ = digits_data()
    index = np.array([1400, 3, 77, 78], dtype=np.int64)
    save_shard(train, index, INFO, tmp_path / "client-0", held)
    shard, found = load_shard(tmp_path / "client-0", INFO)
    assert found == held == shard.modalities
    assert torch.equal(shard.labels, train.labels[torch.from_numpy(index)])
    ours = shard.batch(torch.arange(4), held)
    theirs = train.batch(torch.from_numpy(index), held)
    assert all(torch.equal(ours[m], theirs[m]) for m in held)


def test_shard_holds_only_the_stores_it_needs(tmp_path: Path) -> None:
    train, _ = digits_data()
    save_shard(train, torch.arange(5), INFO, tmp_path, ("gray",))
    shard, _ = load_shard(tmp_path, INFO)
    assert set(shard.stores) == {"digits"}
    assert [p.name for p in tmp_path.iterdir()] == [FILE_NAME]
    with pytest.raises(DataError, match="no modality 'colored', only gray"):
        shard.batch(torch.arange(1), ("colored",))
    with pytest.raises(DataError, match="no modality 'sound'"):
        save_shard(train, torch.arange(5), INFO, tmp_path, ("sound",))
    save_shard(train, torch.arange(6), INFO, tmp_path)
    shard, found = load_shard(tmp_path, INFO)
    assert (len(shard), found) == (6, INFO.modalities)


def test_unreadable_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"no {FILE_NAME} in .*`bmsfed data split`"):
        load_shard(tmp_path, INFO)
    save_shard(digits_data()[0], torch.arange(5), INFO, tmp_path)
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=f"cannot read .*{FILE_NAME}"):
        load_shard(tmp_path, INFO)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write"):
        save_shard(digits_data()[0], torch.arange(5), INFO, tmp_path / "file")


GOOD = {"version": 2, "dataset": "cg-digits", "held_modalities": ["gray"], "num_samples": 3}
GOOD |= {"classes": list(INFO.class_names), "kept": {}}
DIGITS = torch.zeros(3, 28, 28, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("header", "tensors", "message"),
    [
        ({"version": 1}, {}, r"no shard of format 2 \(it says 1\)"),
        ({"classes": list("1023456789")}, {}, "has the classes 1, 0, 2.* the experiment 0, 1, 2"),
        ({"kept": {"gray": "inverted"}}, {}, "keeps 'gray' as inverted"),
        ({"dataset": "cg-mnist"}, {}, "holds data of 'cg-mnist', the .* is 'cg-digits'"),
        ({"held_modalities": ["sound"]}, {}, "modality 'sound', 'cg-digits' has colored, gray"),
        ({"held_modalities": ["colored"]}, {}, "lacks the tensor 'colors'"),
        ({"num_samples": 4}, {}, "has 3 rows in 'labels', 4 by its header"),
        ({}, {"digits": DIGITS[:2]}, "has 2 rows in 'digits', 3 by its header"),
        ({}, {"labels": torch.tensor([0, 10, 1])}, "has label 10, 'cg-digits' has 0 to 9"),
        ({}, {"labels": torch.tensor([0, -1, 1])}, "has label -1"),
        (
            {"num_samples": 0},
            {"labels": torch.zeros(0, dtype=torch.int64), "digits": DIGITS[:0]},
            "holds no samples",
        ),
    ],
)
def test_wrong_shards_are_refused(
    tmp_path: Path, header: dict[str, object], tensors: dict[str, torch.Tensor], message: str
) -> None:
    content = {"labels": torch.tensor([0, 1, 9]), "digits": DIGITS} | tensors
    meta = {"bmsfed_shard": json.dumps(GOOD | header)}
    save_file(content, tmp_path / FILE_NAME, metadata=meta)
    with pytest.raises(DataError, match=message) as error:
        load_shard(tmp_path, INFO)
    assert str(tmp_path / FILE_NAME) in str(error.value)


def test_a_foreign_safetensors_file_is_no_shard(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / FILE_NAME)
    with pytest.raises(DataError, match="is no shard of format 2"):
        load_shard(tmp_path, INFO)

"""The command line: one clear message and exit code 2, before anything is started or written."""

import gzip
import re
import struct
import sys
from pathlib import Path

import pytest
import torch

from bmsfed_app.cli.main import main
from bmsfed_app.config import load_config
from bmsfed_app.datasets import dataset_info, load_dataset
from bmsfed_app.datasets.shard import load_shard
from bmsfed_app.methods import METHODS
from bmsfed_app.partitions import experiment_shares, read_partition
from bmsfed_app.schedules import SCHEDULES
from server_app.run_folder import RunFolder
from tests.plugins import only_here

MNIST = Path(__file__).resolve().parents[3] / "shared/data/mnist"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BMSFED_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bmsfed", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def idx(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)


RUN = ("run", "cg-digits")
BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "no such file": (("run", "conf/cg-digit.yaml"), "cannot read the configuration"),
    "no such name": (("run", "cg-digit"), "did you mean 'cg-digits'"),
    "nothing": (("run",), "name a configuration"),
    "method": ((*RUN, "--method", "fedavgg"), "did you mean 'fedavg'"),
    "key": ((*RUN, "--set", "local_epoch=2"), "did you mean 'local_epochs'"),
    "dotted key": ((*RUN, "--set", "encoders.grey=mlp"), "did you mean 'gray'"),
    "pair": ((*RUN, "--set", "local_epochs"), "expected key=value"),
    "value": ((*RUN, "--rounds", "0"), "rounds"),
    "alpha": ((*RUN, "--partition", "dirichlet", "--alpha", "0"), "alpha"),
    "partition": ((*RUN, "--partition", "iidd"), "partition"),
    "per round": ((*RUN, "--clients", "4", "--per-round", "5"), "5 clients a round of 4"),
    "too many clients": ((*RUN, "--clients", "5000", "--per-round", "5"), r"1437|samples"),
    "natural": ((*RUN, "--partition", "natural"), "this data set does not"),
    "sites": ((*RUN, "--partition", "file", "--set", "partition_file=no.csv"), "cannot read .*no"),
    "shares": (
        (*RUN, "--method", "pow-d", "--set", "whole_share=0.5"),
        "'pow-d': whole_share: 0.5",
    ),
    "cores": ((*RUN, "--cpus-per-client", "4096"), "cpus_per_client: 4096 of"),
    "gpus": ((*RUN, "--gpus-per-client", "64"), "no GPU|GPUs"),
    "encoder": ((*RUN, "--set", "encoders={colored: conv5}"), "did you mean 'conv4'"),
    "freeze": ((*RUN, "--set", "freeze={gray: layer.*}"), r"freeze.gray: no parameter .*'layer"),
    "one sample": (
        (*RUN, "--set", "samples_per_client=1"),
        "'client-0' has 1 sample to train on, but encoder conv4 of 'colored'",
    ),
    "modality": ((*RUN, "--set", "encoders={grey: conv4}"), "did you mean 'gray'"),
    "resume nothing": (("run", "--resume", "nowhere"), "not a run folder"),
    "resume otherwise": (
        ("run", "--resume", "nowhere", "--seed", "1"),
        "give no settings but",
    ),
    "data": (("run", "cg-mnist", "--data-dir", "nowhere"), "nowhere.*bmsfed data"),
    "describe": (("methods", "--describe", "fedavgg"), "did you mean 'fedavg'"),
    "report": (("report", "nowhere"), "nowhere"),
    "download": (("data", "download", "cg-digits"), "cannot be downloaded"),
    "split": (("data", "split", "cg-digits", "--out", "x"), "--clients N"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message(
    case: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments, message = BAD[case]
    assert call(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert re.search(message, captured.err, re.S), captured.err
    assert captured.err.count("\n") <= 2
    assert "Traceback" not in captured.err
    # What the data is like may have been said before.
    assert captured.out == "" or case in ("one sample", "split")
    assert not home.exists()


def test_a_truncated_idx_file_is_named_with_what_was_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        idx(folder, name, struct.pack(">IIII", 2051, 60_000, 28, 28) + bytes(100))
    for name in ("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"):
        idx(folder, f"{name}.gz", gzip.compress(struct.pack(">II", 2049, 60_000) + bytes(60_000)))
    assert call(monkeypatch, "run", "cg-mnist", "--data-dir", str(folder)) == 2
    error = capsys.readouterr().err
    assert "train-images-idx3-ubyte" in error
    assert "47,040,000" in error.replace("47040000", "47,040,000") or "47,040,016" in error


def test_plug_ins_may_lie_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only_here(monkeypatch, SCHEDULES)
    (tmp_path / "lying_here.py").write_text(
        "from bmsfed_app.schedules import SCHEDULES\nSCHEDULES.add('staying', lambda *rates: 1.0)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [p for p in sys.path if p])
    given = ("--set", "plugins=[lying_here]", "--set", "schedule=stayin")
    assert call(monkeypatch, *RUN, *given) == 2
    assert "did you mean 'staying'" in capsys.readouterr().err


def test_an_out_folder_with_a_run_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "history.jsonl").write_text("precious")
    assert call(monkeypatch, *RUN, "--out", str(tmp_path / "run")) == 2
    assert "--resume" in capsys.readouterr().err
    assert (tmp_path / "run" / "history.jsonl").read_text() == "precious"


def test_a_run_of_flowers_own_number_of_clients_goes_on_with_flower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder.create(tmp_path / "run", load_config("cg-digits"), "flwr run")
    assert call(monkeypatch, "run", "--resume", str(folder.path)) == 2
    assert (
        f"go on with flwr run . --run-config 'resume=\"{folder.path}\"'" in capsys.readouterr().err
    )


def test_methods_are_listed_and_described(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "methods") == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in METHODS.names())
    assert call(monkeypatch, "methods", "--describe", "bmsfed-release") == 0
    described = capsys.readouterr().out
    assert re.search(r"pick +single +pair\|single", described)
    assert "sets prototypes: test" in described
    assert call(monkeypatch, "methods", "--describe", "fedavg-0.3-fix") == 0
    assert re.search(r"drop +0\.3 +>= 0, <= 1", capsys.readouterr().out)
    assert call(monkeypatch, "methods", "--describe", "fedavv") == 2
    assert "did you mean 'fedavg'" in capsys.readouterr().err


@pytest.mark.parametrize("name", METHODS.names())
def test_every_method_says_what_it_does(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "methods", "--describe", name) == 0
    text, method = capsys.readouterr().out, METHODS.find(name)
    for key, field in method.model_fields.items():
        assert re.search(rf"^{key} ", text, re.M)
        assert field.description
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert field.metadata, f"{key} has no range"
    for part in (method.equations, method.travels, method.source):
        assert part
        assert part.splitlines()[0] in text


def test_data_split_writes_a_folder_per_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shards"
    arguments = ("data", "split", "cg-digits", "--clients", "3", "--out", str(out))
    assert call(monkeypatch, *arguments) == 0
    assert capsys.readouterr().out.count("samples") == 3
    assert sorted(p.name for p in out.iterdir()) == ["client-0", "client-1", "client-2"]
    before = (out / "client-0/train.safetensors").read_bytes()
    assert call(monkeypatch, *arguments[:4], "2", *arguments[5:]) == 2
    error = capsys.readouterr().err
    assert f"'{out / 'client-2'}': of an earlier split" in error
    assert "choose another --out" in error
    assert (out / "client-0/train.safetensors").read_bytes() == before


def test_data_split_writes_what_each_client_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shards"
    arguments = ("data", "split", "cg-digits", "--clients", "4", "--out", str(out))
    assert call(monkeypatch, *arguments, "--set", "whole_share=0.5", "--set", "seed=3") == 0
    train = load_dataset("cg-digits", None, seed=3).train
    assert train is not None
    settings = read_partition({"whole_share": 0.5})
    shares = experiment_shares(train, settings, 4, seed=3)
    assert len({s.modalities for s in shares}) == 3
    for share in shares:
        split, held = load_shard(out / share.name, dataset_info("cg-digits"))
        assert held == share.modalities
        assert ("colors" in split.stores) == ("colored" in held)
        assert torch.equal(split.labels, train.labels[torch.from_numpy(share.rows)])
    assert "client-0: 360 samples of" in capsys.readouterr().out


def test_data_show_draws_the_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("data", "show", "cg-digits", "--clients", "3", "--samples", "1")
    assert call(monkeypatch, *arguments, "--out", str(tmp_path)) == 0
    picture = tmp_path / "cg-digits-clients.png"
    assert str(picture) in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(not MNIST.is_dir(), reason="needs the real MNIST files beside the checkout")
def test_data_check_counts_the_real_mnist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "data", "check", "cg-mnist", "--data-dir", str(MNIST)) == 0
    assert "train: 60,000 samples of 60,000 officially; per class: 5923" in capsys.readouterr().out

"""Run folders: nothing existing is overwritten, a checkpoint is whole or not there."""

import json
from pathlib import Path

import numpy as np
import pytest

from bmsfed_app import devices
from bmsfed_app.config import load_config
from bmsfed_app.record.files import RunFolderError, append_rows, read_rows
from bmsfed_app.record.rows import ClientRow, RoundRow
from server_app.app import folder_from_run_config
from server_app.run_folder import RunFolder
from strategies import ServerState


def folder(path: Path, **overrides: object) -> RunFolder:
    return RunFolder.create(path, load_config("cg-digits", {"clients": 4} | overrides))


def state(server_round: int) -> ServerState:
    return ServerState(round=server_round, arrays={"head.bias": np.full(2, server_round, "f4")})


def test_a_new_folder_describes_its_run(tmp_path: Path) -> None:
    made = folder(tmp_path / "run", seed=3)
    described = json.loads((made.path / "run.json").read_text())
    assert (described["seed"], described["dataset"]) == (3, "cg-digits")
    assert described["modalities"] == ["colored", "gray"]
    assert described["versions"]["torch"].startswith("2.11")
    assert described["precision"] == "float32"
    assert described["frozen"] == []
    assert RunFolder.reopen(made.path).config == made.config


@pytest.mark.parametrize(("half", "named"), [(True, "bf16"), (False, "float32")])
def test_a_new_folder_says_what_precision_auto_is_there(
    half: bool, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda device: half)
    made = folder(tmp_path / "run", precision="auto")
    assert json.loads((made.path / "run.json").read_text())["precision"] == named
    assert made.config.precision == "auto"


def test_a_run_names_what_is_frozen_and_goes_on_with_nothing_else(tmp_path: Path) -> None:
    first = {"freeze": {"gray": ["layers.1.*"]}}
    made = folder(tmp_path / "run", **first)
    described = json.loads((made.path / "run.json").read_text())
    assert described["frozen"] == ["encoders.gray.layers.1.bias", "encoders.gray.layers.1.weight"]
    assert RunFolder.reopen(made.path, load_config("cg-digits", {"clients": 4} | first))
    with pytest.raises(RunFolderError, match="freeze is"):
        RunFolder.reopen(made.path, load_config("cg-digits", {"clients": 4}))


def test_a_folder_that_holds_anything_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match=r"already holds a run .*--resume"):
        folder(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RunFolderError, match=r"cannot write|already holds"):
        folder(tmp_path / "thesis.tex" / "below")


def test_going_on_drops_what_came_after_the_last_complete_round(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    for server_round in (0, 1, 2):
        append_rows(run.history, [RoundRow(kind="round", round=server_round)])
    run.save_checkpoint(state(2))
    append_rows(run.history, [ClientRow(kind="client", round=3, client="a")])
    with run.history.open("a") as stream:
        stream.write('{"kind": "round", "rou')  # killed while writing
    again = RunFolder.reopen(run.path)
    restored = again.load_checkpoint()
    assert restored is not None
    assert restored.round == 2
    assert [r.round for r in read_rows(run.history)[0]] == [0, 1, 2]


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    run.save_checkpoint(state(1))
    data = run.checkpoint_file.read_bytes()
    run.checkpoint_file.write_bytes(data[:-3])
    with pytest.raises(RunFolderError, match=r"checkpoint\.safetensors' cannot be read"):
        run.load_checkpoint()


def test_a_checkpoint_or_run_of_another_configuration_is_refused(tmp_path: Path) -> None:
    run, other = folder(tmp_path / "a", lr=0.1), folder(tmp_path / "b", lr=0.2)
    run.save_checkpoint(state(1))
    other.checkpoint_file.write_bytes(run.checkpoint_file.read_bytes())
    with pytest.raises(RunFolderError, match=r"of another configuration \(lr differ\)"):
        other.load_checkpoint()
    with pytest.raises(RunFolderError, match=r"lr is 0\.1 there, 0\.2 here"):
        RunFolder.reopen(run.path, other.config)
    with pytest.raises(RunFolderError, match="not a run folder"):
        RunFolder.reopen(tmp_path)


def test_no_half_written_checkpoint_is_ever_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = folder(tmp_path / "run")
    run.save_checkpoint(state(1))

    def crash(descriptor: int) -> None:
        raise OSError("power cut")

    monkeypatch.setattr("os.fsync", crash)
    with pytest.raises(RunFolderError, match=r"checkpoint.safetensors' \(power cut\)"):
        run.save_checkpoint(state(2))
    restored = RunFolder.reopen(run.path).load_checkpoint()
    assert restored is not None
    assert restored.round == 1


def test_a_checkpoint_from_before_a_key_was_there_goes_on_with_its_default(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    values = {k: v for k, v in run.config.model_dump().items() if k != "whole_share"}
    run.checkpoint_file.write_bytes(state(1).to_bytes({"config": values}))
    restored = run.load_checkpoint()
    assert restored is not None
    assert restored.round == 1


def test_flwr_run_takes_values_with_spaces_and_dotted_keys(tmp_path: Path) -> None:
    pairs = """rounds=3 "subsets=[[gray], [colored]]" methods.bmsfed.chi=1.5"""
    config = folder_from_run_config({"set": pairs, "out": str(tmp_path / "run")}).config
    assert (config.rounds, config.subsets) == (3, [["gray"], ["colored"]])
    assert config.methods["bmsfed"]["chi"] == 1.5

"""A run folder that travels in lines of a log."""

import filecmp
import json
from pathlib import Path

import numpy as np
import pytest

from bmsfed_app.record import sent
from bmsfed_app.record.sent import MARK, Packer, Unpacker


def fill(folder: Path) -> None:
    folder.mkdir()
    (folder / "history.jsonl").write_text('{"round": 0}\n')
    (folder / "config.yaml").write_text("dataset: cg-digits\n")


def unpacked(lines: list[str], parent: Path) -> Unpacker:
    came = Unpacker(None, parent)
    for line in lines:
        assert came.take(line) is None
    return came


def test_a_folder_that_grows(tmp_path: Path) -> None:
    there = tmp_path / "there"
    fill(there)
    packer = Packer(there)
    lines = [packer.first(), *packer.rest()]
    with (there / "history.jsonl").open("a") as history:
        history.write('{"round": 1}\n')
    grown = list(packer.rows())
    assert len(grown) == 2  # what is new, and the checksum
    assert json.loads(grown[0].removeprefix(MARK))["at"] == len('{"round": 0}\n')
    (there / "model.safetensors").write_bytes(np.random.default_rng(0).bytes(sent.PIECE * 2 + 7))
    (there / "deeper").mkdir()
    (there / "deeper" / "events").write_bytes(b"")
    (there / "config.yaml").write_text("short\n")
    for left in ("checkpoint.safetensors", "checkpoint-3.safetensors", "run.lock", "x.tmp"):
        (there / left).write_text("stays")
    came = unpacked([*lines, *grown, *packer.rest()], tmp_path / "here")
    assert (came.faults, came.stays, came.origin) == ({}, {}, str(there))
    assert came.folder == tmp_path / "here/there"
    sent_files = ["history.jsonl", "config.yaml", "model.safetensors", "deeper/events"]
    assert {str(p.relative_to(came.folder)) for p in came.folder.rglob("*") if p.is_file()} == {
        *sent_files
    }
    assert filecmp.cmpfiles(there, came.folder, sent_files, shallow=False)[0] == sent_files
    assert list(packer.rest()) == []
    assert unpacked(lines, tmp_path / "here").folder == tmp_path / "here/there-2"


def test_what_is_too_long_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sent, "LONGEST", 10)
    fill(tmp_path / "there")
    packer = Packer(tmp_path / "there")
    came = unpacked([packer.first(), *packer.rest()], tmp_path / "here")
    assert came.stays == {"history.jsonl": 13, "config.yaml": 19}


def test_lines_that_are_lost_or_damaged_are_noticed(tmp_path: Path) -> None:
    fill(tmp_path / "there")
    packer = Packer(tmp_path / "there")
    lines = [packer.first(), *packer.rest()]
    config = next(i for i, line in enumerate(lines) if '"data"' in line)
    came = unpacked(lines[:config] + lines[config + 1 :], tmp_path / "a")
    assert came.faults == {"config.yaml": "differs from the server's"}
    cut = lines[config][:-20]
    came = unpacked([*lines[:config], cut, *lines[config + 1 :]], tmp_path / "b")
    assert set(came.faults) == {"a line", "config.yaml"}
    # The same lines once more, after a lost connection, mend it.
    for line in lines:
        came.take(line)
    assert "config.yaml" not in came.faults


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "", "..\\evil"])
def test_no_line_writes_outside_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    came = Unpacker(tmp_path / "here", tmp_path)
    piece = {"file": name, "at": 0, "data": "eJwDAAAAAAE="}
    assert came.take(MARK + json.dumps(piece)) is None
    assert "is no file of the folder" in came.faults["a line"]
    assert [p.name for p in tmp_path.rglob("*")] == ["here"]
    other = Unpacker(None, tmp_path)
    other.take(MARK + json.dumps({"name": "../../evil", "path": "/x"}))
    assert other.folder == tmp_path / "evil"


def test_what_other_threads_write_into_the_line_is_shown(tmp_path: Path) -> None:
    fill(tmp_path / "there")
    came = Unpacker(None, tmp_path / "here")
    assert came.take("a line of the run") == "a line of the run"
    assert came.take("WARNING: half" + Packer(tmp_path / "there").first() + " the rest") == (
        "WARNING: half the rest"
    )
    assert came.folder is not None

"""Going on with a run: one at a time, from a whole checkpoint, and nothing is ever erased."""

import json
import logging
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmsfed_app.cli.main import main
from bmsfed_app.config import ConfigError, load_config
from bmsfed_app.record.files import RunFolderError, append_rows, read_rows, write_json
from bmsfed_app.record.rows import ClientRow, Member, PickRow, RoundRow
from server_app.app import folder_from_run_config
from server_app.run_folder import RunFolder
from strategies import ServerState
from tests.run_folders import limited

ROOT = Path(__file__).resolve().parents[2]


def folder(path: Path, **overrides: object) -> RunFolder:
    return RunFolder.create(path, load_config("cg-digits", {"clients": 4} | overrides))


def state(server_round: int) -> ServerState:
    return ServerState(round=server_round, arrays={"head.bias": np.full(2, server_round, "f4")})


def recorded(run: RunFolder, rounds: range) -> None:
    """Write rounds as :class:`RecordCallback` does."""
    members = {}
    for number in rounds:
        client = ClientRow(kind="client", round=number, client="a")
        append_rows(run.history, [client, RoundRow(kind="round", round=number)])
        append_rows(run.selection, [PickRow(round=number, client="a")])
        members[f"of {number}"] = Member(modalities=["gray"], enrolled_round=number)
        write_json(run.clients, members)
        run.save_checkpoint(state(number))


def rounds_of(file: Path) -> list[int]:
    return sorted({row.round for row in read_rows(file)[0]})


def everything(run: RunFolder) -> set[int]:
    """Rounds of which a row is anywhere in the folder."""
    return {r for file in run.path.rglob("history*.jsonl") for r in rounds_of(file)}


# --- one at a time --------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from server_app.run_folder import RunFolder
with RunFolder.reopen(Path(sys.argv[1])).writing():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[Path, "subprocess.Popen[str]"]]:
    """A run folder, and another process that writes in it."""
    path = folder(tmp_path / "run").path
    command = [sys.executable, "-c", HOLD, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield path, process
        process.kill()


def test_a_folder_is_written_by_one_run_at_a_time(
    holder: tuple[Path, "subprocess.Popen[str]"],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, process = holder
    before = {f: f.read_bytes() for f in path.rglob("*") if f.is_file()}
    monkeypatch.setattr("sys.argv", ["bmsfed", "run", "--resume", str(path), "--from-round", "0"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"bmsfed: '{path}' is being written by another run (process ")
    assert f"process {process.pid} on {os.uname().nodename} since 20" in line
    assert line.endswith("wait until it has ended, or stop it")
    assert {f: f.read_bytes() for f in path.rglob("*") if f.is_file()} == before
    # Whatever ends it gives the lock up.
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = RunFolder.reopen(path)
    with run.writing(), run.writing():
        assert run.load_checkpoint() is None


# --- the last checkpoints -------------------------------------------------------------------------


def test_so_many_checkpoints_are_kept(tmp_path: Path) -> None:
    run = folder(tmp_path / "run", keep_checkpoints=3)
    recorded(run, range(6))
    assert run.checkpoints.before() == [3, 4]
    run = RunFolder.reopen(run.path, overrides={"keep_checkpoints": 1})
    run.load_checkpoint()
    recorded(run, range(6, 7))
    assert run.checkpoints.before() == []
    restored = RunFolder.reopen(run.path).load_checkpoint()
    assert restored is not None
    assert restored.round == 6


def test_a_run_goes_back_and_keeps_what_came_after(tmp_path: Path) -> None:
    run = folder(tmp_path / "run", keep_checkpoints=4)
    recorded(run, range(6))
    run.save_model(state(5).arrays)
    run.summary.write_text("{}")
    run = RunFolder.reopen(run.path)
    with pytest.raises(RunFolderError, match=r"no checkpoint of round 1 .* 2, 3, 4\): give one"):
        run.go_back(1)
    run.go_back(3)
    restored = run.load_checkpoint()
    assert restored is not None
    assert restored.round == 3
    assert restored.arrays["head.bias"][0] == 3
    assert rounds_of(run.history) == rounds_of(run.selection) == [0, 1, 2, 3]
    assert run.checkpoints.before() == [2, 3]
    assert not run.model.exists()
    assert not run.summary.exists()
    assert set(json.loads(run.clients.read_text())) == {"of 0", "of 1", "of 2", "of 3"}
    [aside] = (run.path / "cut").iterdir()
    assert sorted(p.name for p in aside.iterdir()) == [
        *("checkpoint.safetensors", "clients.json", "history.jsonl", "model.safetensors"),
        *("round-0004.safetensors", "selection.jsonl", "summary.json"),
    ]
    assert ServerState.from_bytes((aside / "checkpoint.safetensors").read_bytes()).round == 5
    assert rounds_of(aside / "history.jsonl") == [4, 5]
    recorded(run, range(4, 6))
    assert rounds_of(run.history) == [0, 1, 2, 3, 4, 5]
    assert run.checkpoints.before() == [2, 3, 4]
    assert ServerState.from_bytes((aside / "checkpoint.safetensors").read_bytes()).round == 5


def test_a_run_begins_anew_and_keeps_what_there_was(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    recorded(run, range(5))
    run.go_back(0)
    assert run.load_checkpoint() is None
    assert not run.history.exists()  # so what data it sees is noted anew
    [aside] = (run.path / "cut").iterdir()
    assert rounds_of(aside / "history.jsonl") == [0, 1, 2, 3, 4]
    found = sorted(p.name for p in aside.glob("*.safetensors"))
    assert found == ["checkpoint.safetensors", "round-0002.safetensors", "round-0003.safetensors"]


class Killed(BaseException):
    """As SIGKILL: nobody catches it."""


def killed_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill whoever touches files for so many-th time, before or after a name has changed."""
    left = [number]

    def counted(change: Any) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            found = change(*given, **named)
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return found

        return call

    for name in ("replace", "unlink", "mkdir"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
    monkeypatch.setattr("os.link", counted(os.link))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is forced to the disk: a killed process loses nothing that it has written."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("links", [True, False])
def test_killed_while_a_round_is_saved(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for moment in range(1, 100):
        run = folder(tmp_path / f"run {moment}", keep_checkpoints=2)
        recorded(run, range(3))
        with monkeypatch.context() as patched:
            killed_at(moment, patched)
            if not links:
                patched.setattr("os.link", no_links)
            try:
                recorded(run, range(3, 4))
            except Killed:
                ended = False
            else:
                ended = True
        run = RunFolder.reopen(run.path)
        restored = run.load_checkpoint()
        assert restored is not None
        assert restored.round in (2, 3)
        assert rounds_of(run.history) == list(range(restored.round + 1))
        recorded(run, range(restored.round + 1, 5))
        assert run.checkpoints.before() == [3]
        if ended:
            assert moment > 8
            return
    pytest.fail("it never ended")


def no_links(*_: object) -> None:
    raise OSError("no links here")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("target", [0, 2])
def test_killed_while_it_goes_back(
    target: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for moment in range(1, 100):
        run = folder(tmp_path / f"run {moment}", keep_checkpoints=4)
        recorded(run, range(5))
        with monkeypatch.context() as patched:
            killed_at(moment, patched)
            try:
                run.go_back(target)
            except Killed:
                ended = False
            else:
                ended = True
        assert everything(run) == {0, 1, 2, 3, 4}
        run = RunFolder.reopen(run.path)
        way_out = ""
        try:
            restored = run.load_checkpoint()
        except RunFolderError as error:
            way_out = str(error)
        if way_out:
            assert target == 0
            assert "go back to the one before" in way_out or "begin anew" in way_out
        elif restored is None:
            assert target == 0
        else:
            assert restored.round in (target, 4)
            assert rounds_of(run.history) == list(range(restored.round + 1))
        run.go_back(target)
        restored = run.load_checkpoint()
        assert (restored.round if restored else 0) == target
        assert everything(run) == {0, 1, 2, 3, 4}
        if ended:
            assert moment > 20
            return
    pytest.fail("it never ended")


# --- damage ---------------------------------------------------------------------------------------


def test_a_flipped_bit_is_refused_and_the_one_before_offered(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    recorded(run, range(3))
    whole = run.checkpoint_file.read_bytes()
    for place in np.random.default_rng(0).choice(8 * len(whole), 400, replace=False):
        data = bytearray(whole)
        data[place // 8] ^= 1 << int(place) % 8
        run.checkpoint_file.write_bytes(data)
        with pytest.raises(RunFolderError) as refused:
            run.load_checkpoint()
        assert str(refused.value).startswith(
            f"the checkpoint '{run.checkpoint_file}' cannot be read ("
        )
        assert str(refused.value).endswith(
            f"go back to the one before, of round 1: bmsfed run --resume {run.path} --from-round 1 "
            "(flwr run: round=1)"
        )
    run.go_back(1)
    restored = run.load_checkpoint()
    assert restored is not None
    assert restored.round == 1


def test_only_a_checkpoint_that_is_whole_is_offered(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    recorded(run, range(3))
    run.checkpoint_file.write_bytes(b"nothing of the kind")
    run.checkpoints.of(1).write_bytes(b"neither")
    with pytest.raises(RunFolderError, match=r"of round 0: .* --from-round 0"):
        run.load_checkpoint()
    run.checkpoints.of(0).unlink()
    with pytest.raises(RunFolderError, match="begin anew with --from-round 0"):
        run.load_checkpoint()
    with pytest.raises(RunFolderError, match=r"round-0001\.safetensors' cannot be read"):
        run.go_back(1)


def test_a_missing_checkpoint_beside_rounds_is_no_new_run(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    recorded(run, range(9))
    run.checkpoint_file.unlink()
    before = run.history.read_bytes()
    with pytest.raises(RunFolderError, match=r"no checkpoint beside 8 .* of round 7: ") as refused:
        RunFolder.reopen(run.path).load_checkpoint()
    assert str(run.path) in str(refused.value)
    assert run.history.read_bytes() == before
    run = RunFolder.reopen(run.path)
    run.go_back(7)
    assert run.load_checkpoint() is not None
    assert rounds_of(run.history) == list(range(8))


def test_damaged_lines_are_left_out_by_number_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = folder(tmp_path / "run")
    recorded(run, range(4))
    lines = run.history.read_bytes().splitlines(keepends=True)
    lines[2], lines[5] = lines[2][:9] + b"\n", b"\xff" + lines[5]
    run.history.write_bytes(b"".join(lines))
    logger = logging.getLogger("flwr")
    logger.addHandler(caplog.handler)
    try:
        run.load_checkpoint()
    finally:
        logger.removeHandler(caplog.handler)
    assert f"'{run.history}': lines 3, 6 cannot be read and are left out" in caplog.text
    assert run.history.read_bytes() == b"".join(lines[:2] + lines[3:5] + lines[6:])
    [aside] = (run.path / "cut").iterdir()
    assert (aside / "history.damaged.jsonl").read_bytes() == b"".join(lines)
    assert f"is kept in '{aside}'" in caplog.text


@pytest.mark.parametrize("text", ["rounds: [", "- 3", "", "rounds: 3\ndataset: nowhere", "\x00"])
def test_a_broken_configuration_is_one_error(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = folder(tmp_path / "run")
    (run.path / "config.yaml").write_text(text)
    monkeypatch.setattr("sys.argv", ["bmsfed", "run", "--resume", str(run.path)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"bmsfed: '{run.path / 'config.yaml'}'")
    assert line.endswith("restore it from its run") or line.endswith(
        "restore the file from its run"
    )


# --- a full disk ----------------------------------------------------------------------------------


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    recorded(run, range(3))
    large = state(3)
    large.arrays["head.weight"] = np.zeros(10**6, "f4")
    raised, message = limited(10**6, lambda: run.save_checkpoint(large))
    assert raised == "RunFolderError"
    assert message.startswith(f"cannot write '{run.checkpoint_file}' (")
    assert "File too large" in message
    assert "make room there" in message
    raised, message = limited(10**6, lambda: run.save_model(large.arrays))
    assert message.startswith(f"cannot write '{run.model}' (")
    restored = RunFolder.reopen(run.path).load_checkpoint()
    assert restored is not None
    assert restored.round == 2
    assert not list(run.path.rglob("*.tmp"))


# --- flwr run -------------------------------------------------------------------------------------


def test_flwr_run_resumes_by_the_folders_own_configuration(tmp_path: Path) -> None:
    """The run config has a value for every key of ``pyproject.toml``, given or not."""
    run = folder(tmp_path / "run", rounds=7, lr=0.3, seed=5)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    given = project["config"] | {"resume": str(run.path)}
    assert folder_from_run_config(given).config == run.config
    # What is given besides must be as it is there, or say where and how fast.
    assert folder_from_run_config(given | {"rounds": 7, "set": "lr=0.3"}).config == run.config
    config = folder_from_run_config(given | {"set": "timeout=9 callbacks.tensorboard={}"}).config
    assert (config.timeout, config.callbacks, config.lr) == (9, {"tensorboard": {}}, 0.3)
    for other, culprit in (
        ({"rounds": 8}, "rounds is 7 there, 8 here"),
        ({"set": "lr=0.1"}, r"lr is 0\.3 there, 0\.1 here"),
        ({"config": "cg-digits"}, "is a run of another configuration"),
    ):
        with pytest.raises(RunFolderError, match=culprit):
            folder_from_run_config(given | other)
    with pytest.raises(ConfigError, match="unknown key 'timout'"):
        folder_from_run_config(given | {"set": "timout=9"})

"""``bmsfed nodes forget``: a client id is released from the key that it belongs to."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bmsfed_app.cli.main import cli
from bmsfed_app.config import load_config
from bmsfed_app.record.files import RunFolderError
from server_app.forgetting import forget
from server_app.run_folder import RunFolder
from strategies import ServerState


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run of two rounds with three clients that belong to keys."""
    folder = RunFolder.create(tmp_path / "run", load_config("cg-digits"))
    state = ServerState(bindings={"a": "1f" * 16, "b": "2f" * 16})
    for state.round in (1, 2):
        folder.save_checkpoint(state)
    return folder


def bindings(folder: RunFolder) -> list[dict[str, str]]:
    kept = folder.checkpoints
    files = [kept.newest, *map(kept.of, kept.before())]
    return [ServerState.from_bytes(file.read_bytes()).bindings for file in files]


def test_it_is_released_in_every_checkpoint_that_is_kept(folder: RunFolder) -> None:
    assert len(bindings(folder)) == 2
    done = CliRunner().invoke(cli, ["nodes", "forget", str(folder.path), "a"])
    assert done.exit_code == 0, done.output
    assert "client id 'a' belongs to key 1f1f1f1f1f1f no more" in done.output
    assert bindings(folder) == [{"b": "2f" * 16}] * 2
    resumed = RunFolder.reopen(folder.path).load_checkpoint()
    assert resumed is not None
    assert resumed.round == 2


def test_an_id_that_belongs_to_nobody_is_told_with_those_that_do(folder: RunFolder) -> None:
    with pytest.raises(RunFolderError, match=r"'c' belongs to no node's key .*: a, b"):
        forget(folder.path, "c")


def test_a_run_that_goes_on_is_not_meddled_with(folder: RunFolder) -> None:
    with folder.writing(), pytest.raises(RunFolderError, match="is being written by another run"):
        forget(folder.path, "a")
    assert len(bindings(folder)[0]) == 2

"""Running what is missing of a sweep."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from bmsfed_app.cli.progress import prepare_if_needed
from bmsfed_app.cli.sweep.grid import Board, Watch
from bmsfed_app.cli.sweep.pool import Pool
from bmsfed_app.cli.sweep.work import Outcome
from bmsfed_app.config import ExperimentConfig, precision_note
from bmsfed_app.datasets import Account, DataError
from bmsfed_app.devices import find_device
from bmsfed_app.engine.early import early_cluster
from bmsfed_app.record.files import RunFolderError, read_json
from bmsfed_app.record.rows import RunInfo
from bmsfed_app.sweeps import SweepRun
from server_app.run_data import difference, seen


def run_all(
    board: Board,
    waiting: Sequence[SweepRun],
    needs: tuple[float, float],
    address: str,
    console: Console,
) -> bool:
    """Run some of a sweep's runs; return whether the user stopped it.

    Parameters
    ----------
    board : Board
        Takes note of how they end.
    waiting : sequence of SweepRun
    needs : (float, float)
        Cores and GPUs of a run.
    address : str
        Of a Ray cluster to join; empty to take this machine.
    console : Console

    Raises
    ------
    EngineError
        If the cluster does not answer, or a run fits no machine.
    RunFolderError
        If there is no writing in the folder of run folders.
    """
    try:
        board.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"cannot write '{board.root}' ({error.strerror}): choose another --runs"
        ) from None
    if idle := idle_gpu(needs[1], address):
        console.print(idle, soft_wrap=True)
    for note in [] if address else precision_notes(waiting, needs[1]):
        console.print(note, soft_wrap=True)
    with early_cluster(True, address) as cluster, Watch(board, console) as watch:
        assert cluster is not None
        runs = list(waiting) if address else _with_data(board, waiting, watch)
        pool = Pool(cluster(), board.root, *needs, command=" ".join(sys.argv))

        def on_end(run: SweepRun, outcome: Outcome) -> None:
            board.end(run, outcome)
            watch.ended(run, pool.at_once)

        def on_look() -> None:
            board.start(pool.going.values())
            watch.look(pool.at_once)

        try:
            pool.work(runs, on_end, on_look)
        except KeyboardInterrupt:
            return True
        watch.look(pool.at_once)
        return False


def idle_gpu(gpus: float, address: str) -> str:
    """Say what makes runs use a GPU of this machine; empty where they do, or there is none."""
    if gpus or address or not torch.cuda.is_available():
        return ""
    return "runs train on CPUs: --gpus-per-run 0.25, say, lets four share a GPU of this machine"


def precision_notes(runs: Sequence[SweepRun], gpus: float) -> list[str]:
    """Say, once each, what of the runs' precisions does nothing for their speed here."""
    found = (
        precision_note(run.config, find_device(run.config.device if gpus else "cpu"))
        for run in runs
    )
    return [text for text in dict.fromkeys(found) if text]


def check_complete(board: Board) -> None:
    """Take runs that are complete on other data than there is now as failed, and say why.

    Data that cannot be had here is not compared.
    """
    accounts: dict[object, Account | None] = {}
    for run in board.of("complete"):
        data = _data(config := run.config)
        if data not in accounts:
            try:
                accounts[data] = prepare_if_needed(config)
            except DataError:
                accounts[data] = None
        if (account := accounts[data]) is None:
            continue
        if why := other_data(config, run.folder(board.root), account):
            board.end(run, Outcome("failed", why))


def other_data(config: ExperimentConfig, folder: Path, account: Account) -> str:
    """Say that a complete run is on other data than there is now; empty if it is not.

    A partition file that is gone cannot be compared.
    """
    then = read_json(folder / "run.json", RunInfo)
    try:
        changed = then.partition_file not in ("", seen(account, config)["partition_file"])
    except OSError:
        changed = False
    fault = "its partition file" if changed else difference(then, account)
    if not fault:
        return ""
    return (
        f"it is complete on other data ({fault}): move its folder away, or take another by --runs"
    )


def _data(config: ExperimentConfig) -> object:
    return config.dataset, config.data_dir, repr(config.dataset_settings), config.max_bad


def _with_data(board: Board, runs: Sequence[SweepRun], watch: Watch) -> list[SweepRun]:
    """Prepare each data set once, before runs do so beside each other; leave out what has none."""
    faults: dict[object, str] = {}
    for run in runs:
        config = run.config
        data = _data(config)
        if data not in faults:
            try:
                prepare_if_needed(config)
                faults[data] = ""
            except DataError as error:
                faults[data] = f"{error}" + (f"; needs {run.needs}" if run.needs else "")
        if faults[data]:
            board.end(run, Outcome("failed", faults[data]))
    watch.failed(runs)
    return [run for run in runs if board.states[run.key] == "waiting"]

"""``bmsfed run --on``: a run on a SuperLink, whose progress and folder come back.

All goes through Flower's own commands, ``flwr run`` and ``flwr log``. The experiment travels in the
run's configuration, the folder in the run's log (:mod:`bmsfed_app.record.sent`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bmsfed_app.cli.app_folder import app_folder
from bmsfed_app.config import ConfigError, read_values
from bmsfed_app.paths import home
from bmsfed_app.record.files import read_json
from bmsfed_app.record.rows import RunSummary
from bmsfed_app.record.sent import Unpacker

#: Keys of simulated clients: those of a SuperLink are its SuperNodes.
_OF_ENGINES = ("engine", "ray_address", "cpus_per_client", "gpus_per_client")

#: How often a connection that was lost is taken up again, and seconds between.
_ATTEMPTS, _PAUSE = 20, 15.0

#: Flower's own news, which say nothing of the run.
_NEWS = re.compile(r"(\x1b\[\d+m)?INFO\b|Successfully installed |Using SuperLink: ")


def run_on(
    connection: str,
    source: str,
    overrides: Mapping[str, Any],
    out: Path | None = None,
    resume: Path | None = None,
    track: Sequence[str] = (),
) -> int:
    """Start a run, show its progress, bring its folder here, and return the exit code.

    Parameters
    ----------
    connection : str
        A SuperLink by its name in Flower's ``config.toml``.
    source : str
        The experiment: a YAML file on this machine, or a shipped one's name.
    overrides : mapping
        Keys that win over it.
    out : Path, optional
        Where the folder is to be; by default with this user's other runs, by its own name.
    resume : Path, optional
        A run folder on the ServerApp's machine to go on with.
    track : sequence of str, optional
        Trackers that the ServerApp tells, too.

    Raises
    ------
    ConfigError
        If something given has no meaning there, or the SuperLink takes no run.
    """
    settings = _run_config(source, overrides, resume)
    if track:
        settings["track"] = " ".join(track)
    if out is not None:
        out = out.expanduser()
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(f"the output folder '{out}' is not empty: choose another --out")
        out.mkdir(parents=True, exist_ok=True)
    run_id = _start(connection, settings)
    came = Unpacker(out, home() / "runs")
    print(f"run {run_id} on '{connection}'", flush=True)
    try:
        _follow(run_id, connection, came)
    except KeyboardInterrupt:
        print(
            f"bmsfed: the run goes on there; see it: flwr log {run_id} {connection}; end it: "
            f"flwr stop {run_id} {connection}; its folder there: {came.origin or 'not known yet'}",
            file=sys.stderr,
        )
        return 130
    return _outcome(run_id, connection, came)


def _run_config(source: str, overrides: Mapping[str, Any], resume: Path | None) -> dict[str, Any]:
    """Return the run's configuration by Flower's keys."""
    if foreign := [key for key in _OF_ENGINES if key in overrides]:
        raise ConfigError(
            f"--on: {foreign[0]} is of simulated clients, those of a SuperLink are its SuperNodes: "
            "leave it out"
        )
    settings: dict[str, Any] = {"send-folder": True}
    if resume is not None:
        if source or overrides:
            raise ConfigError(
                "--on with --resume goes on with a folder of the ServerApp's machine as it was: "
                "give neither a configuration nor settings"
            )
        return settings | {"resume": str(resume)}
    if not source:
        raise ConfigError("name a configuration, e.g. bmsfed run --on my-federation cg-digits")
    told = {"values": read_values(source), "overrides": dict(overrides)}
    try:
        return settings | {"experiment": json.dumps(told)}
    except TypeError as error:  # such as a date, which YAML has and JSON has not
        raise ConfigError(f"'{source}' holds a value that cannot travel: {error}") from None


def _start(connection: str, settings: Mapping[str, Any]) -> str:
    """Submit the run, and return its id."""
    with app_folder() as app, tempfile.TemporaryDirectory(prefix="bmsfed-") as made:
        file = Path(made) / "run.toml"
        # A JSON text without characters beyond ASCII is a TOML text.
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in settings.items()]
        file.write_text("".join(lines), encoding="utf-8")
        command = ["run", str(app), connection, "--run-config", str(file), "--format", "json"]
        done = subprocess.run(
            [*_flwr(), *command], env=_environment(), capture_output=True, text=True
        )
    said = done.stdout[done.stdout.find("{") :] if "{" in done.stdout else ""
    try:
        answer = json.loads(said)
    except ValueError:
        answer = {"error-message": (done.stderr or done.stdout).strip() or "no answer"}
    if done.returncode or not answer.get("run-id"):
        raise ConfigError(
            f"--on: SuperLink '{connection}' took no run: "
            f"{' '.join(str(answer.get('error-message', answer)).split())}"
        )
    return str(answer["run-id"])


def _follow(run_id: str, connection: str, came: Unpacker) -> None:
    """Show a run's log until it ends; take up again a connection that was lost."""
    shown, said = 0, ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            print(f"bmsfed: no connection to '{connection}', trying again", file=sys.stderr)
            time.sleep(_PAUSE)
            came.faults.clear()  # it all comes once more
        with subprocess.Popen(
            [*_flwr(), "log", run_id, connection, "--stream"],
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        ) as log:
            assert log.stdout is not None
            assert log.stderr is not None
            count = 0
            for line in log.stdout:  # from the run's beginning, each time
                text = came.take(line.rstrip("\n"))
                if text is None or _NEWS.match(text):
                    continue
                count += 1
                if count > shown and text != f"run folder: {came.origin}":
                    print(text, flush=True)
            shown, said = max(shown, count), log.stderr.read()
        if log.returncode == 0:
            return
    raise ConfigError(
        f"--on: the connection to '{connection}' is lost ({' '.join(said.split())}); the run may "
        f"go on there: flwr log {run_id} {connection}; its folder there: {came.origin or 'unknown'}"
    )


def _outcome(run_id: str, connection: str, came: Unpacker) -> int:
    """Say where the folder is and what of it is not there, and return the run's exit code."""
    if came.folder is None:
        print(
            f"bmsfed: FAILED: the run ended before it had a folder, see above (or flwr log "
            f"{run_id} {connection})",
            file=sys.stderr,
        )
        return 1
    for name, fault in came.faults.items():
        print(f"bmsfed: {name} {fault}: copy it from '{came.origin}' there", file=sys.stderr)
    for name, size in came.stays.items():
        print(f"{name} ({size / 2**20:.0f} MiB) stays there")
    print(f"run folder: {came.folder} (there, with its checkpoint: {came.origin})")
    if not (came.folder / "summary.json").is_file():
        print("bmsfed: FAILED: the run was ended before its summary", file=sys.stderr)
        return 1
    summary = read_json(came.folder / "summary.json", RunSummary)
    if summary.paused:
        print(f"bmsfed: PAUSED: {summary.paused}", file=sys.stderr)
        return 3
    if summary.failed or not summary.complete:
        print(f"bmsfed: FAILED: {summary.failed or 'not complete'}", file=sys.stderr)
        return 1
    return 1 if came.faults else 0


def _flwr() -> list[str]:
    """Return Flower's command: this environment's, else the first one there is."""
    found = shutil.which("flwr", path=str(Path(sys.executable).parent)) or shutil.which("flwr")
    if found is None:
        raise ConfigError("--on needs Flower's command flwr: pip install flwr")
    return [found]


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONUNBUFFERED": "1", "FLWR_DISABLE_UPDATE_CHECK": "1"}

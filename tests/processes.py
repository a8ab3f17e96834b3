"""Real processes with folders, ports and a Flower home of their own, all stopped by their id."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bmsfed_app.cli.main import cli

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
#: Seconds after which something hangs; never a measure of speed.
PATIENCE = 1200


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Processes:
    """Starts programs of this environment and ends them, and all they started, by process group."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.started: list[subprocess.Popen[str]] = []
        self.env = os.environ | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "BMSFED_HOME": str(folder / "bmsfed"),
            "FLWR_HOME": str(folder / "flwr"),
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(self.port),
            "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.3",
            "RAY_TMPDIR": "/tmp",
            # Flower's simulation would join what Ray it finds, and give it up where it is slow.
            "RAY_ADDRESS": "local",
            "RAY_health_check_failure_threshold": "200",
        }

    def start(
        self, program: str, *arguments: str, log: str = "", **environment: str
    ) -> subprocess.Popen[str]:
        """Start a program in a session of its own; what it says is added to its log."""
        output = (self.folder / (log or f"{program}.log")).open("a")
        process = subprocess.Popen(
            [str(BIN / program), *arguments],
            cwd=ROOT,
            env=self.env | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, program: str, *arguments: str) -> tuple[int, str]:
        """Run to the end; return the exit code and all output."""
        log = f"{program}-{len(self.started)}.log"
        process = self.start(program, *arguments, log=log)
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{program} took over {PATIENCE} s:\n" + self.text(log)[-3000:])
        return code, self.text(log)

    def text(self, log: str) -> str:
        return (self.folder / log).read_text()

    def alive(self, **environment: str) -> list[int]:
        """Ids of all processes that were started here, by themselves or by others of them.

        Of these, where variables are named, those alone that have them.
        """
        wanted = {"BMSFED_HOME": self.env["BMSFED_HOME"]} | environment
        marks = {f"{name}={value}".encode() for name, value in wanted.items()}
        found = []
        for file in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if marks <= set(file.read_bytes().split(b"\0")):
                    found.append(int(file.parent.name))
        return found

    def stop_all(self, *signs: signal.Signals) -> None:
        """End everything, gently at first unless told by what."""
        for sign in signs or (signal.SIGTERM, signal.SIGKILL):
            for process in self.started:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, sign)
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and any(p.poll() is None for p in self.started):
                time.sleep(0.1)


def wait_until(
    true: Callable[[], bool],
    what: str,
    process: subprocess.Popen[str],
    said: Callable[[], str] = lambda: "",
) -> None:
    """Wait for something that a process does; fail if the process ends without it."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE} s for {what}\n{said()[-3000:]}")
        if process.poll() is not None and not true():
            ended = f"{process.args} ended with {process.returncode} before {what}"
            pytest.fail(f"{ended}\n{said()[-3000:]}")
        time.sleep(0.1)


def bmsfed(*arguments: str) -> str:
    """Call the command line in this process, and return what it printed."""
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output

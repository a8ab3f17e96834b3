"""The stock app by ``flwr run``, on a SuperLink that is started for it and ended."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.engines.rows import Row
from benchmarks.memory import end_tree

_APP = Path(__file__).parent / "stock_app"
_BIN = Path(sys.executable).parent


def flwr_run(row: Row) -> list[float]:
    """Return when every round was done."""
    with tempfile.TemporaryDirectory() as name:
        folder, ports = Path(name), [_free_port() for _ in range(2)]
        (folder / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\n'
            f'address = "127.0.0.1:{ports[0]}"\ninsecure = true\n'
        )
        env = os.environ | {
            "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}",
            "FLWR_HOME": name,
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(ports[0]),
            "FLWR_LOCAL_CONTROL_API_PORT": str(ports[1]),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "BENCHMARK_ROW": row.name,
            "BENCHMARK_ENDS": str(folder / "ends.json"),
        }
        server = [str(_BIN / "flower-superlink"), "--insecure", "--simulation"]
        server += ["--disable-runtime-dependency-installation", "--port", str(ports[0])]
        log = (folder / "superlink.log").open("w")
        link = subprocess.Popen(server, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_for(ports[0])
            federation = f"num-supernodes={row.clients} client-resources-num-cpus=1"
            command = [str(_BIN / "flwr"), "run", str(_APP), "--stream"]
            command += ["--federation-config", federation]
            done = subprocess.run(command, env=env, capture_output=True, text=True)
            if not (folder / "ends.json").exists():
                said = (folder / "superlink.log").read_text()
                raise SystemExit(f"flwr run failed:\n{said[-2000:]}\n{done.stdout[-2000:]}")
            ends: list[float] = json.loads((folder / "ends.json").read_text())
            return ends
        finally:
            end_tree(link.pid)
            link.wait()


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("the SuperLink does not start")

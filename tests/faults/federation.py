"""A federation of real processes over TLS, with authenticated nodes, and faults by name.

::

    with Federation(folder, ["a", "b", "c"]) as federation:
        run = federation.run("first", rounds=100)
        run.wait_for(lambda rows: len(rows) > 2, "two rounds")
        federation.kill("b")

The SuperLink keeps its database in a file and is reached by the nodes through a TCP proxy, so that
the network can be cut; each node has a key, made and registered as docs and scripts of ``deploy/``
say, a folder with data, and a ``client-id``. What a node answers is spoiled by a plug-in.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from strategies import ServerState
from tests.processes import PATIENCE, ROOT, Processes, bmsfed, free_port, wait_until
from tests.run_folders import rows

DEPLOY = ROOT / "deploy"

#: What keeps a round short: the digits in as many shares as there are, one epoch.
SMALL = {"local_epochs": 1, "plugins": "[spoiling]", "method": "fedavg"}
#: Settings of a run that goes on until a test ends it; every node trains in every round.
LONG = {"rounds": 1000, "per_round": 4, "clients": 0, "min_clients": 3, "max_failures": 1}


class Federation:
    """SuperLink, SuperNodes and runs of a test.

    Parameters
    ----------
    folder : Path
        Where everything lies: keys, logs, data, runs.
    clients : list of str
        Nodes to start, by client id, each with a share of the digits.
    shards : Path, optional
        Data folders of another federation; 24 are made if there are none.
    """

    def __init__(self, folder: Path, clients: list[str], *, shards: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.clients = folder, clients
        self.processes = Processes(folder)
        plugin = str(ROOT / "tests/faults/plugin")
        paths = [plugin, str(ROOT), self.processes.env.get("PYTHONPATH", "")]
        self.processes.env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self.network = Proxy(self.processes.port)
        self.parties: dict[str, subprocess.Popen[str]] = {}
        where = shards or folder / "shards"
        if shards is None:
            # Of so many that each share is small, and a round short.
            bmsfed("data", "split", "cg-digits", "--clients", "24", "--out", str(where))
        self._shards = sorted(where.iterdir())

    def __enter__(self) -> Federation:
        call("certificates.sh", str(self.folder / "tls"))
        home = Path(self.processes.env["FLWR_HOME"])
        home.mkdir(parents=True)
        (home / "config.toml").write_text(
            '[superlink]\ndefault = "test"\n\n[superlink.test]\n'
            f'address = "127.0.0.1:{self.processes.port}"\n'
            f'root-certificates = "{self.folder / "tls/ca.crt"}"\n'
        )
        self.start_superlink()
        for number, name in enumerate(self.clients):
            self.register(name)
            self.start_node(name, shard=number)
        return self

    def __exit__(self, *error: object) -> None:
        for name in self.parties:
            self._send(name, signal.SIGKILL)
        self.processes.stop_all(signal.SIGKILL)
        self.network.close()

    # --- the parties ------------------------------------------------------------------------------

    def start_superlink(self) -> None:
        """Start the SuperLink, or start it again with its database, and wait until it serves."""
        tls = self.folder / "tls"
        already = self.said("superlink").count("startup complete")
        self.parties["superlink"] = self.processes.start(
            "flower-superlink",
            *("--ssl-ca-certfile", str(tls / "ca.crt")),
            *("--ssl-certfile", str(tls / "server.crt"), "--ssl-keyfile", str(tls / "server.key")),
            "--enable-supernode-auth",
            "--disable-runtime-dependency-installation",
            *("--database", str(self.folder / "state.db")),
            *("--port", str(self.processes.port)),
            log="superlink.log",
            PARTY="superlink",
        )
        wait_until(
            lambda: self.said("superlink").count("startup complete") > already,
            "the SuperLink",
            self.parties["superlink"],
        )

    def register(self, key: str) -> None:
        """Make a node's key and let the SuperLink accept it."""
        call("node-key.sh", str(self.folder / "keys"), key)
        code, text = self.processes.run(
            "flwr", "supernode", "register", str(self.folder / f"keys/{key}.pub")
        )
        assert code == 0, text

    def start_node(
        self, name: str, *, shard: int, key: str = "", client_id: str = "", spoiled: str = ""
    ) -> None:
        """Start a SuperNode of a name, which has its own key and client id unless told.

        What it answers is ``spoiled`` from the start, or as :meth:`spoil` says later.
        """
        self._spoils(name).with_suffix(".hangs").unlink(missing_ok=True)
        self.spoil(name, spoiled)
        config = f'client-id="{client_id or name}" data-dir="{self.shard(shard)}" '
        config += 'plugins="spoiling"'
        self.parties[name] = self.processes.start(
            "flower-supernode",
            *("--root-certificates", str(self.folder / "tls/ca.crt")),
            *("--superlink", f"127.0.0.1:{self.network.port}"),
            *("--auth-supernode-private-key", str(self.folder / f"keys/{key or name}.key")),
            *("--port", str(free_port())),
            *("--node-config", config),
            log=f"{name}.log",
            SPOILED=str(self._spoils(name)),
            PARTY=name,
        )

    def said(self, log: str) -> str:
        """All that a party wrote: "superlink", a node's name, a run's."""
        file = self.folder / f"{log}.log"
        return file.read_text() if file.exists() else ""

    def run(self, name: str, *, resume: str = "", **settings: object) -> Run:
        """Start a run with these settings of the experiment, or resume another one's folder."""
        folder = self.folder / "runs" / (resume or name)
        rounds = settings.pop("rounds", 3)
        pairs = " ".join(f"{k}={v}" for k, v in (SMALL | settings).items())
        values = {"rounds": rounds, "resume" if resume else "out": str(folder), "set": pairs}
        given = " ".join(
            f'{k}="{v}"' if isinstance(v, str) else f"{k}={v}" for k, v in values.items()
        )
        process = self.processes.start(
            "flwr", "run", ".", "--stream", "--run-config", given, log=f"{name}.log"
        )
        return Run(self, name, folder, process)

    # --- faults -----------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """Kill a node, or the SuperLink and its ServerApps, and all their processes, with -9."""
        self._send(name, signal.SIGKILL)
        self.parties[name].wait(PATIENCE)

    def end(self, name: str) -> None:
        """End a node as its service would: Flower takes the same key again at once."""
        self.parties[name].terminate()
        self.parties[name].wait(PATIENCE)
        self._send(name, signal.SIGKILL)  # a ClientApp that hangs

    def hold(self, name: str) -> None:
        """Stop a node and all its processes, as a laptop that sleeps."""
        self._send(name, signal.SIGSTOP)

    def let_go(self, name: str) -> None:
        """Let a stopped node go on."""
        self._send(name, signal.SIGCONT)

    def apps(self, name: str, program: str) -> list[int]:
        """Ids of a party's processes of "flwr-serverapp" or "flwr-clientapp"."""
        found = []
        for process in self.processes.alive(PARTY=name):
            with contextlib.suppress(OSError):
                if program in Path(f"/proc/{process}/cmdline").read_text():
                    found.append(process)
        return found

    def kill_apps(self, name: str, program: str) -> None:
        """Kill -9 these processes."""
        for process in self.apps(name, program):
            os.kill(process, signal.SIGKILL)

    def _send(self, name: str, sign: signal.Signals) -> None:
        """Send a signal to all of a party's processes, until there is none without it."""
        told: set[int] = set()
        while left := set(self.processes.alive(PARTY=name)) - told:
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, sign)
            told |= left

    def spoil(self, name: str, how: str) -> None:
        """Spoil what a node answers from now on: a function of the plug-in; "" for no more."""
        self._spoils(name).parent.mkdir(exist_ok=True)
        self._spoils(name).write_text(how)

    def hangs(self, name: str) -> bool:
        """Whether a node told by ``spoil(name, "never")`` is in the midst of its training."""
        return self._spoils(name).with_suffix(".hangs").exists()

    def lose_data(self, shard: int) -> None:
        """Remove a node's data folder."""
        shutil.rmtree(self.shard(shard))

    def shard(self, number: int) -> Path:
        """The folder with a share of the data."""
        return self._shards[number]

    def _spoils(self, name: str) -> Path:
        return self.folder / "spoils" / f"{name}.txt"


class Run:
    """One `flwr run` of a federation, and the run folder that it writes."""

    def __init__(
        self, federation: Federation, name: str, folder: Path, process: subprocess.Popen[str]
    ) -> None:
        self.federation, self.name, self.folder = federation, name, folder
        self.process = process

    def rounds(self) -> list[dict[str, Any]]:
        """The rounds written so far, without what a clock says."""
        return [r for r in rows(self.folder) if r["kind"] == "round"]

    def complete_rounds(self) -> list[dict[str, Any]]:
        """Those of them whose checkpoint is there, which comes last."""
        state = ServerState.from_bytes((self.folder / "checkpoint.safetensors").read_bytes())
        return [r for r in self.rounds() if r["round"] <= state.round]

    def statuses(self, server_round: int) -> dict[str, str]:
        """What became of each client's answer to training in a round."""
        return {
            r["client"]: r["status"]
            for r in rows(self.folder)
            if r["kind"] == "client" and r["round"] == server_round and r["phase"] == "train"
        }

    def wait_for(self, true: Callable[[list[dict[str, Any]]], object], what: str) -> dict[str, Any]:
        """Wait until the rounds are so; return the last of them then."""
        wait_until(lambda: bool(true(self.rounds())), what, self.process, self.said)
        return self.rounds()[-1]

    def next_round(self, true: Callable[[dict[str, Any]], object], what: str) -> dict[str, Any]:
        """Wait for a round like this among those that are not yet written; return it."""
        seen = len(self.rounds())
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = [r for r in self.rounds()[seen:] if true(r)]
            return bool(found)

        wait_until(is_there, what, self.process, self.said)
        return found[0]

    def failed_with(self, client: str) -> str:
        """Wait until an answer of a client is left out, and return the reason."""
        told = self.next_round(lambda r: client in r["failures"], f"{client} left out")
        return str(told["failures"][client])

    def trains(self, *clients: str) -> dict[str, Any]:
        """Wait for a round in which these clients train and no answer is left out."""
        return self.next_round(
            lambda r: (
                set(clients) <= set(r["assignments"])
                and not any(r["failures"].get(c) for c in r["assignments"])
            ),
            f"a round of {', '.join(clients)}",
        )

    def said(self) -> str:
        """All that `flwr run --stream` showed."""
        return self.federation.said(self.name)

    @property
    def id(self) -> str:
        """Flower's number of the run."""
        found = re.search(r"run (\d{6,})", self.said())
        assert found, self.said()
        return found[1]

    def end(self) -> dict[str, Any]:
        """Wait until it has ended, and return its summary."""
        wait_until(
            (self.folder / "summary.json").exists,
            "the run's end",
            self.federation.parties["superlink"],
        )
        self.process.wait(PATIENCE)
        summary: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return summary

    def stop(self) -> None:
        """`flwr stop`, and wait until the ServerApp is gone."""
        code, text = self.federation.processes.run("flwr", "stop", self.id)
        assert code == 0, text
        self.process.wait(PATIENCE)


class Proxy:
    """Passes TCP connections on to a port of this machine; a cut network holds back what is sent.

    A connection to a server that is gone is kept until it is back: Flower's SuperNode takes one
    that ends in the midst of the TLS handshake for a wrong certificate, and gives up.
    """

    def __init__(self, target: int) -> None:
        self.target, self.closed = target, False
        self.whole = threading.Event()
        self.whole.set()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self.listening.accept()
                threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        while not self.closed:
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                time.sleep(0.2)
                continue
            threading.Thread(target=self._pass_on, args=(near, far), daemon=True).start()
            self._pass_on(far, near)
            return
        near.close()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.whole.wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self, seconds: float) -> None:
        """Pass nothing on for so long."""
        self.whole.clear()
        time.sleep(seconds)
        self.whole.set()

    def close(self) -> None:
        """Pass nothing on any more."""
        self.closed = True
        self.listening.close()


def call(script: str, *arguments: str) -> None:
    """Call a script of ``deploy/``."""
    subprocess.run([str(DEPLOY / script), *arguments], check=True, capture_output=True, text=True)

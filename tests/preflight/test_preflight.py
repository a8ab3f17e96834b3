"""``bmsfed preflight`` as a whole: against a server that answers, or not, and a node's data."""

import shutil
import socket
import ssl
import threading
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from time import time

import pytest
import torch
from typer.testing import CliRunner

from bmsfed_app.cli.main import cli
from bmsfed_app.cli.preflight import machine, network
from bmsfed_app.cli.preflight.findings import Finding
from bmsfed_app.config import load_config
from bmsfed_app.datasets.shard import save_shard
from tests.e2e.conftest import free_port
from tests.preflight.authorities import Authority, ssh_key


@contextmanager
def server(
    tls: tuple[Path, Path] | None = None, *, late: float = 0, status: int = 200
) -> Iterator[int]:
    """A SuperLink's /health on some port; its clock is ``late`` seconds behind."""

    class Health(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(status)
            self.send_header("Date", formatdate(time() - late, usegmt=True))
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    class Quiet(HTTPServer):
        def handle_error(self, *args: object) -> None: ...

    with Quiet(("127.0.0.1", 0), Health) as http:
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            http.socket = context.wrap_socket(http.socket, server_side=True)
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield http.server_port
        finally:
            http.shutdown()
            thread.join()


def reach(port: int, ca: Path | None, host: str = "127.0.0.1") -> list[str]:
    found = network.superlink(f"{host}:{port}", ca)
    return [f"{f.level} {f.what}: {f.found}" for f in found]


def test_a_server_that_is_reached(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    with server(ca.server("127.0.0.1")) as port:
        assert reach(port, ca.file) == [
            f"ok SuperLink: 127.0.0.1:{port} answers (TLS)",
            "ok clock: as the server's",
        ]
    with server() as port:
        assert reach(port, None)[0].startswith("warning SuperLink: ")


def test_certificates_that_a_node_would_refuse(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    ca, other = Authority(tmp_path), Authority(tmp_path / "other", "another")
    with server(ca.server("127.0.0.1")) as port:
        (line,) = reach(port, other.file)
        assert "is not signed by" in line
        assert "bring the server's CA" in line
        (line,) = reach(port, ca.file, "localhost")
        assert "does not name 'localhost': " in line
    with server(ca.server("127.0.0.1", days=(-9, -1))) as port:
        (line,) = reach(port, ca.file)
        assert "certificate has expired: replace it" in line


def test_what_else_can_lie_between(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    (line,) = reach(free_port(), None)
    assert "cannot be reached (Connection refused): is it running there?" in line
    (line,) = reach(free_port(), None, "nowhere.invalid")
    assert "nobody knows the name 'nowhere.invalid'" in line
    with server() as port:
        (line,) = reach(port, ca.file)
        assert "speaks no TLS" in line
    with server(ca.server("127.0.0.1")) as port:
        (line,) = reach(port, None)
        assert "it may speak TLS: give --root-certificates" in line
    with server(status=404) as port:
        (line,) = reach(port, None)
        assert "is no SuperLink (/health: 404" in line


@pytest.mark.parametrize(
    ("late", "says"),
    [
        (60, "FAILED clock: 60 s ahead of the server's: it refuses the node's signatures"),
        (-600, "FAILED clock: 600 s behind the server's"),
        (-100, "warning clock: -100 s from the server's"),
    ],
)
def test_clocks_that_differ(late: float, says: str) -> None:
    with server(late=late) as port:
        line = reach(port, None)[1]
    number = next(w for w in says.split() if w.lstrip("-").isdigit())
    assert any(line.startswith(says.replace(number, str(int(number) + k))) for k in (-1, 0, 1))


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = network.port_free("127.0.0.1", port, "the SuperLink")
    assert found.level == "FAILED"
    assert f"'sport = :{port}'" in found.found
    assert network.port_free("127.0.0.1", port, "the SuperLink").level == "ok"


def test_disk_and_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")

    def levels(free: int, model: int = 0) -> list[str]:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, free))
        return [f.level for f in machine.disk({"runs": tmp_path / "not/yet"}, model)]

    assert levels(100 * 2**30) == ["ok", "ok"]
    assert levels(2**30) == ["warning", "warning"]
    assert levels(2**20) == ["FAILED", "FAILED"]
    assert levels(4 * 2**30, 2**30) == ["FAILED", "FAILED"]  # a model of 1 GiB, several times over
    assert machine.versions()[0].level == "ok"
    found = {"flwr": "1.20.0"}
    monkeypatch.setattr(machine.metadata, "version", lambda name: found.get(name, "1.0"))
    assert "strategies needs flwr 1.42 or newer" in machine.versions()[0].found
    found["flwr"] = "1.99.0"
    assert machine.versions()[0].level == "warning"


def preflight(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["preflight", *arguments], catch_exceptions=False)
    return done.exit_code, done.output


def test_a_node(tmp_path: Path) -> None:
    config, ca = load_config("cg-digits"), Authority(tmp_path)
    train = config.load_data("train").train
    assert train is not None
    save_shard(train, torch.arange(40), config.dataset_info(), tmp_path / "shard")
    key = ssh_key(tmp_path / "node_key", "-t", "ecdsa", "-b", "384")
    with server(ca.server("127.0.0.1")) as port:
        given = ["node", "--superlink", f"127.0.0.1:{port}", "--root-certificates", str(ca.file)]
        given += ["--key", str(key), "--port", str(free_port()), "--config", "cg-digits"]
        given += ["--client-id", "a", "--data-dir", str(tmp_path / "shard")]
        code, text = preflight(*given, "--node-config", 'modalities="gray"')
        assert code == 0, text
        assert "client 'a' has 40 samples of gray, of 1 of 10 classes" in text
        code, text = preflight(*given, "--node-config", 'modalities="grey" treads=2')
        assert code == 1
        assert "nothing reads treads (known: client-id, data-dir" in text
        assert "names modality 'grey', the data set has colored, gray" in text
        assert "checks: 1 failed, " in text
        code, text = preflight(*given, "--set", "dataset=cg-mnist")
        assert "holds data of 'cg-digits', the experiment's data set is 'cg-mnist'" in text


def test_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "clock", lambda: [Finding("ok", "clock", "right")])
    ca = Authority(tmp_path)
    certificate, key = ca.server("fl.example.org")
    given = ["server", "--certificate", str(certificate), "--key", str(key), "--ca", str(ca.file)]
    given += ["--address", f"127.0.0.1:{free_port()}", "--config", "cg-digits"]
    code, text = preflight(*given, "--host", "fl.example.org")
    assert code == 0, text
    assert "test: 360 listed, 360 used" in text
    code, text = preflight(*given, "--host", "fl.example.com")
    assert code == 1
    assert "does not name 'fl.example.com' but fl.example.org" in text
    code, text = preflight("server", "--address", f"127.0.0.1:{free_port()}")
    assert code == 1
    assert "give --certificate, --key and --ca, or --insecure" in text

"""Certificates and keys that nodes and servers would stumble over, each named with its remedy."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from bmsfed_app.cli.preflight.certificates import authority, node_key, server_certificate
from bmsfed_app.cli.preflight.findings import Finding
from tests.preflight.authorities import Authority, ssh_key, write_key


def bad(findings: list[Finding]) -> list[str]:
    return [f"{f.level} {f.what}: {f.found}" for f in findings if f.level != "ok"]


def test_all_is_well(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    files = ca.server("localhost", "127.0.0.1", "fl.example.org")
    hosts = ["fl.example.org", "127.0.0.1"]
    assert bad(server_certificate(*files, ca.file, hosts)) == []
    assert bad(node_key(ssh_key(tmp_path / "node_key", "-t", "ecdsa", "-b", "384"))) == []


@pytest.mark.parametrize(
    ("days", "says"),
    [
        ((-9, -1), "FAILED server certificate: .*server.pem' ended on .*: make a trial one"),
        ((1, 9), "FAILED server certificate: .*not good before .*: set this machine's clock"),
        ((-9, 9), "warning server certificate: .*ends on .*: replace it before"),
    ],
)
def test_dates(days: tuple[int, int], says: str, tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    (line,) = bad(server_certificate(*ca.server("a", days=days), ca.file, ["a"]))
    assert re.match(says, line)


def test_a_name_that_the_certificate_lacks(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    (line,) = bad(server_certificate(*ca.server("a", "10.0.0.1"), ca.file, ["a", "10.0.0.2"]))
    assert "does not name '10.0.0.2' but a, 10.0.0.1: " in line
    assert "certificates.sh DIR 10.0.0.2" in line


def test_a_certificate_of_another_ca_and_another_key(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    ca, other = Authority(tmp_path), Authority(tmp_path / "other")
    certificate, key = ca.server("a")
    (line,) = bad(server_certificate(certificate, key, other.file, ["a"]))
    assert "is not signed by" in line
    assert "another key signed it" in line
    (line,) = bad(server_certificate(certificate, other.server("a")[1], ca.file, ["a"]))
    assert "is another certificate's key" in line


def test_the_servers_certificate_in_the_cas_place(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    (line,) = bad(authority(ca.server("a")[0]))
    assert "is no CA's: give the CA's own (ca.crt)" in line
    (line,) = bad(authority(tmp_path / "none.crt"))
    assert "none.crt' is not there: make a trial one with deploy/certificates.sh" in line
    (tmp_path / "no.crt").write_text("hello")
    assert "is no certificate in PEM" in bad(authority(tmp_path / "no.crt"))[0]


@pytest.mark.parametrize(("mode", "says"), [(0o644, "FAILED"), (0o640, "warning")])
def test_keys_that_others_may_read(mode: int, says: str, tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    certificate, key = ca.server("a")
    mine = ssh_key(tmp_path / "node_key", "-t", "ecdsa", "-b", "384")
    for file in (key, mine):
        file.chmod(mode)
    for found in (server_certificate(certificate, key, ca.file, ["a"]), node_key(mine)):
        (line,) = bad(found)
        assert line.startswith(says)
        assert f"(mode {mode:o}): chmod 600" in line


def openssl(file: Path) -> Path:
    return write_key(file, ec.generate_private_key(ec.SECP384R1()))


def public(file: Path) -> Path:
    return ssh_key(file, "-t", "ecdsa", "-b", "384").with_name(file.name + ".pub")


def locked(file: Path) -> Path:
    return ssh_key(file, "-t", "ecdsa", "-b", "384", words="open sesame")


def swapped(file: Path) -> Path:
    ssh_key(file, "-t", "ecdsa", "-b", "384")
    other = ssh_key(file.with_name("other"), "-t", "ecdsa", "-b", "384")
    other.with_name("other.pub").replace(file.with_name(file.name + ".pub"))
    return file


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (openssl, "is no private key in OpenSSH's form: make one .*ssh-keygen -t ecdsa -b 384"),
        (public, "is a public key, the private one is asked for"),
        (locked, "asks for a passphrase"),
        (lambda f: ssh_key(f, "-t", "ed25519"), "is of the kind Ed25519, Flower takes ECDSA"),
        (lambda f: ssh_key(f, "-t", "rsa", "-b", "2048"), "is of the kind RSA, Flower takes ECDSA"),
        (swapped, "node_key.pub' is not its public key: ssh-keygen -y"),
        (lambda f: f, "is not there: make one on this machine"),
    ],
)
def test_keys_that_flower_does_not_take(
    make: Callable[[Path], Path], says: str, tmp_path: Path
) -> None:
    (line,) = bad(node_key(make(tmp_path / "node_key")))
    assert line.startswith("FAILED node key")
    assert re.search(says, line), line

"""deploy/certificates.sh and deploy/node-key.sh: what they make, checked by openssl and Flower."""

import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from strategies._flower import private

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"


def call(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(DEPLOY / script), *arguments], capture_output=True, text=True)


def mode(file: Path) -> int:
    return file.stat().st_mode & 0o777


def test_the_certificate_is_signed_by_the_ca_and_names_the_hosts(tmp_path: Path) -> None:
    out = tmp_path / "certificates"
    done = call("certificates.sh", str(out), "fl.example.org", "10.0.0.3")
    assert done.returncode == 0, done.stderr
    context = ssl.create_default_context(cafile=str(out / "ca.crt"))
    context.load_cert_chain(out / "server.crt", out / "server.key")  # they belong together
    found = x509.load_pem_x509_certificate((out / "server.crt").read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "fl.example.org"]
    addresses = [str(a) for a in names.get_values_for_type(x509.IPAddress)]
    assert addresses == ["127.0.0.1", "10.0.0.3"]
    verify = ["openssl", "verify", "-x509_strict", "-CAfile", str(out / "ca.crt")]
    subprocess.run([*verify, str(out / "server.crt")], check=True, capture_output=True)
    assert mode(out / "ca.key") == mode(out / "server.key") == 0o600


def test_a_second_certificate_is_signed_by_the_same_ca(tmp_path: Path) -> None:
    call("certificates.sh", str(tmp_path))
    before = (tmp_path / "ca.crt").read_bytes(), (tmp_path / "server.crt").read_bytes()
    assert call("certificates.sh", str(tmp_path), "new.example.org").returncode == 0
    assert (tmp_path / "ca.crt").read_bytes() == before[0]
    assert (tmp_path / "server.crt").read_bytes() != before[1]


@pytest.mark.parametrize("arguments", [[], ["a host", "no host"]])
def test_a_wrong_call_says_what_is_right(arguments: list[str], tmp_path: Path) -> None:
    done = call("certificates.sh", *([str(tmp_path)] if arguments else []), *arguments)
    assert done.returncode == 2
    assert "certificates.sh" in done.stderr


def test_flower_takes_a_node_key_which_is_never_overwritten(tmp_path: Path) -> None:
    assert call("node-key.sh", str(tmp_path), "alice").returncode == 0
    key = load_ssh_private_key((tmp_path / "alice.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    public = private("flwr.cli.supernode.register:try_load_public_key")(
        tmp_path / "alice.pub"
    )  # as `flwr supernode register` reads it
    assert public == private("flwr.supercore.primitives.asymmetric:public_key_to_bytes")(
        key.public_key()
    )
    assert mode(tmp_path / "alice.key") == 0o600
    before = (tmp_path / "alice.key").read_bytes()
    again = call("node-key.sh", str(tmp_path), "alice")
    assert again.returncode == 1
    assert "is there already" in again.stderr
    assert (tmp_path / "alice.key").read_bytes() == before

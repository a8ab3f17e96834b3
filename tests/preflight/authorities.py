"""Certificates and keys for tests, made in a moment."""

import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def write_key(file: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    form = serialization.PrivateFormat.PKCS8
    nothing = serialization.NoEncryption()
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, nothing))
    file.chmod(0o600)
    return file


def ssh_key(file: Path, *options: str, words: str = "") -> Path:
    """A node's key as people make it."""
    subprocess.run(
        ["ssh-keygen", "-q", *options, "-N", words, "-C", "", "-f", str(file)], check=True
    )
    return file


class Authority:
    """A CA in a folder: ``ca.crt``, and certificates that it signs."""

    def __init__(self, folder: Path, name: str = "trial", *, days: tuple[int, int] = (-1, 90)):
        self.folder, self.key = folder, ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        own = self._builder(self.name, self.key, days).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.file = self._write("ca.crt", own.sign(self.key, hashes.SHA256()))

    def server(self, *hosts: str, days: tuple[int, int] = (-1, 90)) -> tuple[Path, Path]:
        """Certificate and key of a server of these names, good from and to days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [_general(host) for host in hosts]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        builder = self._builder(subject, key, days)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signed = builder.sign(self.key, hashes.SHA256())
        return self._write("server.pem", signed), write_key(self.folder / "server.key", key)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: tuple[int, int]
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
        )

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        file = self.folder / name
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return file


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)

"""Certificates and keys as files: their form, dates, rights, and whether they fit each other."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

from bmsfed_app.cli.preflight.findings import Finding, failed, ok, warning

#: A certificate that ends sooner should be replaced by now.
_SOON = timedelta(days=30)
_MAKE_KEY = 'make one on this machine: ssh-keygen -t ecdsa -b 384 -N "" -f node_key -C ""'
_MAKE_CERTIFICATES = "make a trial one with deploy/certificates.sh, or ask your CA"


def authority(file: Path) -> list[Finding]:
    """Look at the certificate of a CA by which a node knows the server."""
    what = "CA certificate"
    certificate = _certificate(what, file)
    if isinstance(certificate, Finding):
        return [certificate]
    if not _is_authority(certificate):
        return [failed(what, f"'{file}' is no CA's: give the CA's own (ca.crt), not the server's")]
    return [_dates(what, file, certificate)]


def server_certificate(file: Path, key: Path, ca: Path, hosts: Iterable[str]) -> list[Finding]:
    """Look at a server's certificate and key, against the CA and the names that nodes use.

    Parameters
    ----------
    file, key, ca : Path
        The server's certificate and private key, and the CA's certificate, all PEM.
    hosts : iterable of str
        Names and addresses under which the server is reached.
    """
    what = "server certificate"
    certificate, issuer = _certificate(what, file), _certificate("CA certificate", ca)
    findings = authority(ca) + server_key(key)
    if isinstance(certificate, Finding):
        return [*findings, certificate]
    findings.append(_dates(what, file, certificate))
    if not isinstance(issuer, Finding) and (fault := _issue_fault(certificate, issuer)):
        findings.append(failed(what, f"'{file}' is not signed by '{ca}' ({fault}): use its own CA"))
    named = _names(certificate)
    for host in hosts:
        if host in named:
            findings.append(ok(what, f"names '{host}'"))
        else:
            findings.append(
                failed(
                    what,
                    f"'{file}' does not name '{host}' but {', '.join(named) or 'nothing'}: who "
                    f"uses that name refuses it; make it anew: deploy/certificates.sh DIR {host}",
                )
            )
    private = _private(key, load_pem_private_key)
    if not isinstance(private, str) and _public(private) != _public(certificate):
        findings.append(failed(what, f"'{key}' is another certificate's key: use its own"))
    return findings


def server_key(file: Path) -> list[Finding]:
    """Look at a server's private key: PEM, readable by its owner alone."""
    what = "server key"
    loaded = _private(file, load_pem_private_key)
    if isinstance(loaded, str):
        return [failed(what, f"'{file}' {loaded}: {_MAKE_CERTIFICATES}")]
    return [_rights(what, file)]


def node_key(file: Path) -> list[Finding]:
    """Look at a node's private key: OpenSSH's form, ECDSA, readable by its owner alone."""
    what = "node key"
    loaded = _private(file, load_ssh_private_key)
    if isinstance(loaded, str):
        return [failed(what, f"'{file}' {loaded}: {_MAKE_KEY}")]
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        kind = type(loaded).__name__.removesuffix("PrivateKey").lstrip("_")
        return [failed(what, f"'{file}' is of the kind {kind}, Flower takes ECDSA: {_MAKE_KEY}")]
    if not isinstance(loaded.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1):
        return [failed(what, f"'{file}' is on the curve {loaded.curve.name}: {_MAKE_KEY}")]
    findings = [_rights(what, file)]
    public = file.with_name(file.name + ".pub")
    if public.is_file() and not _fits(public, loaded):
        findings.append(
            failed(what, f"'{public}' is not its public key: ssh-keygen -y -f {file} > {public}")
        )
    return findings


# --- parts of it ----------------------------------------------------------------------------------


def _read(file: Path) -> bytes | str:
    """Return a file's bytes, or say why there are none."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return "is not there"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _certificate(what: str, file: Path) -> x509.Certificate | Finding:
    data = _read(file)
    if isinstance(data, str):
        return failed(what, f"'{file}' {data}: {_MAKE_CERTIFICATES}")
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError:
        return failed(what, f"'{file}' is no certificate in PEM: {_MAKE_CERTIFICATES}")


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _dates(what: str, file: Path, certificate: x509.Certificate) -> Finding:
    now = datetime.now(UTC)
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < first:
        return failed(
            what,
            f"'{file}' is not good before {first:%Y-%m-%d %H:%M} UTC: set this machine's clock",
        )
    if now > last:
        return failed(what, f"'{file}' ended on {last:%Y-%m-%d}: {_MAKE_CERTIFICATES}")
    if last - now < _SOON:
        return warning(what, f"'{file}' ends on {last:%Y-%m-%d}: replace it before")
    return ok(what, f"'{file}' is good until {last:%Y-%m-%d}")


def _issue_fault(certificate: x509.Certificate, issuer: x509.Certificate) -> str:
    """Say why a certificate is not an issuer's; empty if it is."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return "another key signed it"
    except (ValueError, TypeError) as error:
        return str(error).rstrip(".")
    return ""


def _names(certificate: x509.Certificate) -> list[str]:
    """Return the names and addresses that a certificate is good for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(a) for a in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def _private(file: Path, load: Any) -> Any:
    """Return a private key, or say why there is none."""
    data = _read(file)
    if isinstance(data, str):
        return data
    if data.startswith((b"ecdsa-", b"ssh-")):
        return "is a public key, the private one is asked for"
    try:
        return load(data, None)
    except TypeError:
        return "asks for a passphrase, which nobody is there to type"
    except (ValueError, UnsupportedAlgorithm):
        form = "OpenSSH's" if load is load_ssh_private_key else "PEM's"
        return f"is no private key in {form} form"


def _rights(what: str, file: Path) -> Finding:
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        whose = "everybody" if mode & 0o007 else "its group"
        finding = failed if mode & 0o007 else warning
        return finding(what, f"'{file}' is open to {whose} (mode {mode:o}): chmod 600 {file}")
    return ok(what, f"'{file}' is its owner's alone (mode {mode:o})")


def _public(holder: Any) -> bytes:
    der, info = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    found: bytes = holder.public_key().public_bytes(der, info)
    return found


def _fits(public: Path, private: Any) -> bool:
    try:
        loaded = serialization.load_ssh_public_key(public.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm):
        return False
    der, info = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return loaded.public_bytes(der, info) == _public(private)

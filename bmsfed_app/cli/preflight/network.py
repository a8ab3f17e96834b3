"""What lies between a node and its server: names, ports, TLS, and two clocks that must agree."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path

from bmsfed_app.cli.preflight.findings import Finding, failed, ok, warning

_SECONDS = 20.0  # to wait for the server
#: A node's signature is refused if its time is so many seconds after, or before, the server's.
_AHEAD, _BEHIND = 5, 300


def split_address(address: str) -> tuple[str, int]:
    """Split HOST:PORT, as in "[::1]:8000".

    Raises
    ------
    ValueError
        If it is none.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"'{address}' is no address: give HOST:PORT, as in 10.0.0.1:8000")
    return host.strip("[]"), int(port)


def superlink(address: str, ca: Path | None) -> list[Finding]:
    """Reach a SuperLink as a node does, and compare its clock with this machine's.

    Parameters
    ----------
    address : str
        HOST:PORT.
    ca : Path, optional
        The CA's certificate; without it the connection is not encrypted.
    """
    host, port = split_address(address)
    what = "SuperLink"
    try:
        socket.create_connection((host, port), _SECONDS).close()
    except socket.gaierror:
        return [failed(what, f"nobody knows the name '{host}': mend it, or the DNS")]
    except TimeoutError:
        return [failed(what, f"{address} does not answer: a firewall may drop port {port}")]
    except OSError as error:
        return [
            failed(what, f"{address} cannot be reached ({error.strerror}): is it running there?")
        ]
    try:
        answer = _health(host, port, ca)
    except ssl.SSLCertVerificationError as error:
        return [failed(what, _explained(address, host, ca, error))]
    except ssl.SSLError as error:
        return [
            failed(
                what,
                f"{address} speaks no TLS ({error.reason}): start it with certificates, or, for a "
                "trial, everything with --insecure",
            )
        ]
    except (OSError, HTTPException) as error:
        remedy = (
            "it may speak TLS: give --root-certificates" if ca is None else "is it a SuperLink?"
        )
        return [failed(what, f"{address} closes the connection ({error}): {remedy}")]
    if answer.status != 200:
        return [
            failed(what, f"{address} is no SuperLink (/health: {answer.status} {answer.reason})")
        ]
    how = "TLS" if ca else "no TLS: for trials on one machine only"
    return [(ok if ca else warning)(what, f"{address} answers ({how})"), _clock(answer)]


def port_free(host: str, port: int, whose: str) -> Finding:
    """Say whether a program may listen on a port."""
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(info[0], socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(info[4])
    except socket.gaierror:
        return failed("port", f"'{host}' is no address of this machine: give one, or 0.0.0.0")
    except OSError as error:
        return failed(
            "port",
            f"{host}:{port}, {whose}'s, cannot be used ({error.strerror}): end what listens there "
            f"(ss -ltnp 'sport = :{port}'), or give another",
        )
    return ok("port", f"{host}:{port} is free for {whose}")


def _health(host: str, port: int, ca: Path | None) -> HTTPResponse:
    connection: HTTPConnection
    if ca is None:
        connection = HTTPConnection(host, port, timeout=_SECONDS)
    else:
        context = ssl.create_default_context(cafile=str(ca))
        connection = HTTPSConnection(host, port, timeout=_SECONDS, context=context)
    try:
        connection.request("HEAD", "/health")
        answer = connection.getresponse()
        answer.read()
        return answer
    finally:
        connection.close()


def _explained(
    address: str, host: str, ca: Path | None, error: ssl.SSLCertVerificationError
) -> str:
    said = error.verify_message.rstrip(".")
    if "ostname mismatch" in said or "IP address mismatch" in said:
        return (
            f"the certificate of {address} does not name '{host}': use a name that it has, or make "
            f"it anew: deploy/certificates.sh DIR {host}"
        )
    if "expired" in said or "not yet valid" in said:
        return f"the certificate of {address}: {said}: replace it, or set this machine's clock"
    return f"the certificate of {address} is not signed by '{ca}' ({said}): bring the server's CA"


def _clock(answer: HTTPResponse) -> Finding:
    told = answer.headers.get("Date")
    if not told:
        return warning("clock", "the server does not say what time it is")
    seconds = (datetime.now(UTC) - parsedate_to_datetime(told)).total_seconds()
    # Its time is in whole seconds, cut off.
    if seconds > _AHEAD + 1 or seconds < -_BEHIND:
        where = "ahead of" if seconds > 0 else "behind"
        return failed(
            "clock",
            f"{abs(seconds):.0f} s {where} the server's: it refuses the node's signatures; set "
            "both by NTP (timedatectl set-ntp true)",
        )
    if abs(seconds) > 3:
        return warning("clock", f"{seconds:+.0f} s from the server's: set both by NTP")
    return ok("clock", "as the server's")

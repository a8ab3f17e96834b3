"""A file's own checksum, within it: a bit that has changed anywhere is noticed.

The file is written with zeros where its SHA-256 will stand, hashed as it is then, and the digest is
put in their place. So it stays one file, and a valid one of its kind.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

#: What the writer puts under the header's key ``checksum`` first.
UNKNOWN = "0" * 64

#: How the key looks in the JSON text that safetensors keeps as a text of its own JSON header.
_KEY = rb"\"checksum\": \""


def sealed(data: bytes) -> bytes:
    """Return a file's content with its checksum in place of the zeros."""
    digest = hashlib.sha256(data).hexdigest().encode()
    at = data.index(_KEY) + len(_KEY)
    return b"".join((data[:at], digest, data[at + len(digest) :]))


def seal(file: Path) -> None:
    """Put a file's checksum in place of the zeros, without reading all of it into memory."""
    with file.open("rb+") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest().encode()
        stream.seek(0)
        length = int.from_bytes(stream.read(8), "little")
        at = stream.read(length).index(_KEY) + len(_KEY)
        stream.seek(8 + at)
        stream.write(digest)


def check(data: bytes) -> None:
    """Refuse what is not as it was written.

    Raises
    ------
    ValueError
        If there is no checksum, or it is of another content.
    """
    at = data.find(_KEY) + len(_KEY)
    view, end = memoryview(data), at + len(UNKNOWN)
    if at < len(_KEY):
        raise ValueError("not a complete server state: its checksum is missing")
    found = hashlib.sha256(view[:at])
    found.update(UNKNOWN.encode())
    found.update(view[end:])
    if found.hexdigest().encode() != view[at:end]:
        raise ValueError("not the server state that was written: its checksum does not fit")

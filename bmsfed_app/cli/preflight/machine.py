"""A machine by itself: versions, disk, clock."""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from bmsfed_app.cli.preflight.findings import Finding, failed, ok, warning
from strategies._flower import check_flower

#: Bytes that a run needs beside its models, and below which it is tight.
_LEAST, _ROOM = 200 * 2**20, 2 * 2**30


def versions() -> list[Finding]:
    """Say which versions are installed, and whether they can be expected to work."""
    found = {"Python": platform.python_version()}
    for name in ("bmsfed", "flwr", "torch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            return [failed("versions", f"{name} is not installed: install the app, see README.md")]
    told = ", ".join(f"{name} {version}" for name, version in found.items())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_flower(found["flwr"])
        except ImportError as error:
            return [failed("versions", f"{told}: {error}")]
    if caught:
        return [warning("versions", f"{told}: {caught[0].message}")]
    return [ok("versions", f"{told}; server and nodes must run the same bmsfed")]


def disk(folders: Mapping[str, Path], model_bytes: int = 0) -> list[Finding]:
    """Say how much room there is where files are written.

    Parameters
    ----------
    folders : mapping
        Folders by what they are for; one that is not there yet is looked for above.
    model_bytes : int, optional
        Size of the model, which is kept several times over.
    """
    findings = []
    for name, folder in {**folders, "temporary files": Path(tempfile.gettempdir())}.items():
        there = next(p for p in (folder, *folder.parents) if p.exists())
        free, least = shutil.disk_usage(there).free, _LEAST + 8 * model_bytes
        told = f"{free / 2**30:.1f} GiB free in '{there}' for {name}"
        if free < least:
            remedy = f"{told}, {least / 2**30:.1f} are needed: make room, or name another folder"
            findings.append(failed("disk", remedy))
        elif free < max(_ROOM, 2 * least):
            findings.append(warning("disk", f"{told}: writing may fail in the course of a run"))
        else:
            findings.append(ok("disk", told))
    return findings


def clock() -> list[Finding]:
    """Say whether this machine's clock is kept right by the network."""
    try:
        said = subprocess.run(
            ["timedatectl", "show", "--property=NTPSynchronized", "--value"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return [warning("clock", "nothing here says whether it is kept right: run an NTP service")]
    if said == "yes":
        return [ok("clock", "kept right by the network (timedatectl)")]
    return [
        warning(
            "clock",
            "not kept right by the network, on which certificates and nodes' signatures depend: "
            "timedatectl set-ntp true",
        )
    ]

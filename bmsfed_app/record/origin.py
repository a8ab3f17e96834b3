"""Where a run comes from: the code that ran, its libraries and the machine."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from bmsfed_app.devices import find_device

#: The folder that holds the app's packages: a checkout, site-packages, or a bundle of Flower's.
_ROOT = Path(__file__).resolve().parents[2]

_PACKAGES = ("strategies", "bmsfed_app", "client_app", "server_app")


def versions() -> dict[str, str]:
    """Return the versions of Python and of what computes."""
    names = ("bmsfed", "flwr", "torch", "torchvision", "numpy", "ray")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware(device: str = "cpu") -> str:
    """Return the kind of machine, its cores and its system, and the GPU that a device means.

    ``platform`` alone does not tell CPUs apart that round otherwise.
    """
    name = torch.cpu.get_capabilities().get("cpu_name") or "unknown CPU"
    found = f"{platform.machine()}, {name}, {os.cpu_count()} cores, {platform.system()}"
    if find_device(device).type == "cuda":
        found += f", {torch.cuda.get_device_name()}"
    return found


def commit(root: Path = _ROOT) -> str | None:
    """Return the app's git commit, with "+" where files differ from it; None outside a checkout.

    Files that lie below some other checkout, as an environment or Flower's bundles may, are not
    part of it.
    """
    try:
        _git(root, "ls-files", "--error-unmatch", "bmsfed_app/record/origin.py")
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        dirty = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if dirty else "")


def source_hash(root: Path = _ROOT) -> str:
    """Return a hash of the app's code, 12 hexadecimal digits.

    It is the same in a checkout, an installed package and a bundle of Flower's, so that a run can
    be traced where there is no git.
    """
    found = hashlib.sha256()
    files = [f for package in _PACKAGES for f in (root / package).rglob("*.py")]
    for file in sorted(files, key=lambda f: f.relative_to(root).as_posix()):
        found.update(f"{file.relative_to(root).as_posix()}\n".encode())
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:12]


def file_hash(file: Path) -> str:
    """Return a hash of a file's bytes, 16 hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def bundle(root: Path = _ROOT) -> str | None:
    """Return the name under which Flower unpacked the app: publisher, app, version, hash."""
    return root.name if re.fullmatch(r"[^.]+\.[^.]+\..+\.[0-9a-f]{8}", root.name) else None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()

"""The folder of this app that Flower makes its bundle of: the checkout, or what was installed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

_ROOMS = ("strategies", "bmsfed_app", "client_app", "server_app")


@contextmanager
def app_folder(site: Path | None = None) -> Iterator[Path]:
    """Give the app's folder, with its ``pyproject.toml`` and ``conf``.

    Parameters
    ----------
    site : Path, optional
        Where the packages lie, a checkout or site-packages; by default where this one does.
    """
    site = site or Path(str(resources.files("bmsfed_app"))).parent
    about = site / "bmsfed_app" / "bundle"
    if not about.is_dir():
        yield site
        return
    with tempfile.TemporaryDirectory(prefix="bmsfed-") as made:
        folder = Path(made) / "bmsfed"
        for room in _ROOMS:
            skipped = shutil.ignore_patterns("__pycache__", "bundle", "conf", "paper")
            shutil.copytree(site / room, folder / room, ignore=skipped)
        shutil.copytree(site / "bmsfed_app" / "conf", folder / "conf")
        shutil.copytree(about, folder, dirs_exist_ok=True)
        yield folder

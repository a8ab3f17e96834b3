"""Another package as pip would leave it: entry points, and registries that see them."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from bmsfed_app.registry import Registry


def install(
    site: Path,
    monkeypatch: pytest.MonkeyPatch,
    points: Mapping[str, Mapping[str, str]],
    *registries: Registry,
) -> None:
    """Put entry points by group into a folder of packages, for as long as a test takes."""
    info = site / "theirs-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    lines = [f"[{g}]\n" + "".join(f"{k} = {v}\n" for k, v in p.items()) for g, p in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(site))
    for registry in registries:
        found = {point.name: point for point in entry_points(group=registry.group)}
        monkeypatch.setitem(vars(registry), "_points", found)
        monkeypatch.setattr(registry, "_loaded", {})

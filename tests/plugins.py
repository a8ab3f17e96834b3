"""Another package as pip would leave it: entry points, and registries that see them."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from bmsfed_app.registry import Registry


def install(
    site: Path,
    monkeypatch: pytest.MonkeyPatch,
    points: Mapping[str, Mapping[str, str]],
    *registries: Registry,
    name: str = "theirs",
    version: str = "1.0",
) -> None:
    """Put entry points by group into a folder of packages, for as long as a test takes."""
    describe(site, points, name, version)
    monkeypatch.syspath_prepend(str(site))
    for registry in registries:
        monkeypatch.delitem(vars(registry), "_points", raising=False)  # looked for anew
        for kept in ("_loaded", "_reported"):
            monkeypatch.setattr(registry, kept, type(getattr(registry, kept))())
        found = vars(Registry)["_points"].func(registry)
        monkeypatch.setitem(vars(registry), "_points", found)


def describe(site: Path, points: Mapping[str, Mapping[str, str]], name: str, version: str) -> None:
    """Write what pip writes of a package into a folder of packages."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"[{g}]\n" + "".join(f"{k} = {v}\n" for k, v in p.items()) for g, p in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))


def only_here(monkeypatch: pytest.MonkeyPatch, *registries: Registry) -> None:
    """Forget at the end of a test what it registers in code."""
    for registry in registries:
        monkeypatch.setattr(registry, "_own", dict(registry.own))
        monkeypatch.setattr(registry, "_by", dict(registry._by))

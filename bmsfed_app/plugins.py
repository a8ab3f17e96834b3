"""What an experiment uses of other packages and modules: imported, named, and compared.

The server notes by name and version what an experiment takes from elsewhere; every client compares
that with what it has itself before it does anything.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from bmsfed_app.registry import Registry

#: Where each kind of thing is registered. By name: this room imports neither clients nor server.
REGISTRIES = {
    "method": "bmsfed_app.methods:METHODS",
    "data set": "bmsfed_app.datasets:DATASETS",
    "encoder": "bmsfed_app.models:ENCODERS",
    "head": "bmsfed_app.models:HEADS",
    "objective": "client_app.objectives:OBJECTIVES",
    "optimizer": "bmsfed_app.optimizers:OPTIMIZERS",
    "schedule": "bmsfed_app.schedules:SCHEDULES",
    "partition": "bmsfed_app.partitions:PARTITIONS",
    "metric": "server_app.metrics:METRICS",
    "callback": "server_app.callbacks:CALLBACKS",
}

#: What a client needs as well; simulated ones, which divide the data, share the server's packages.
AT_CLIENTS = ("module", "data set", "encoder", "head", "objective", "optimizer")

_OURS = ("strategies", "bmsfed_app", "client_app", "server_app")


@dataclass(frozen=True)
class PlugIn:
    """Something of another package or module, by name and version.

    Attributes
    ----------
    kind : str
        One of :data:`REGISTRIES`, or "module" for one that is imported for what it registers.
    name : str
        As in the experiment.
    package : str
        The installed package whose entry point it is, or the module that registered it.
    version : str
        The package's, or a hash of the module's source, 12 hexadecimal digits after "source ".
    """

    kind: str
    name: str
    package: str
    version: str

    def __str__(self) -> str:
        if self.kind == "module":
            return f"module '{self.name}' ({self.version})"
        return f"{self.kind} '{self.name}' of {self.package} {self.version}"

    def remedy(self) -> str:
        """Return how a node gets it."""
        if not self.version.startswith("source "):
            return f"install {self.package} {self.version} on this node"
        if self.package == "__main__":
            return (
                "what a script registers is known to its own process alone; move it to a module "
                "and name that under 'plugins'"
            )
        return f"give this node the server's '{self.package}', and name it under 'plugins'"

    def to_json(self) -> dict[str, str]:
        """Return plain values, of which ``PlugIn(**values)`` makes it again."""
        return asdict(self)


def registry(kind: str) -> Registry[Any]:
    """Return the registry of a kind of things."""
    module, _, name = REGISTRIES[kind].partition(":")
    found: Registry[Any] = getattr(import_module(module), name)
    return found


def import_plugins(modules: Iterable[str]) -> None:
    """Import modules for what they register.

    Raises
    ------
    ValueError
        Naming the one that cannot be imported.
    """
    for name in modules:
        _import(name)


def plug_ins(used: Iterable[tuple[str, str]], modules: Iterable[str]) -> list[PlugIn]:
    """Return what comes from elsewhere: modules, and of things in use those that are not ours.

    Parameters
    ----------
    used : iterable of (kind, name)
    modules : iterable of str
    """
    found = [PlugIn("module", name, name, _source(name)) for name in modules]
    for kind, name in dict.fromkeys(used):
        if plug_in := _find(kind, name):
            found.append(plug_in)
    return found


def check_plug_ins(
    wanted: Iterable[Mapping[str, str]], importable: Collection[str] | None = None
) -> None:
    """Compare what the server uses of other packages with what is here; import the modules.

    Parameters
    ----------
    wanted : iterable of mapping
        :meth:`PlugIn.to_json` of each, by the server.
    importable : collection of str, optional
        Modules that may be imported because the server names them; by default any. A package's
        entry points need no leave: whoever installed it gave it.

    Raises
    ------
    ValueError
        Naming the first that is lacking, broken or of another version, with the remedy.
    """
    for one in [PlugIn(**values) for values in wanted]:
        if one.kind == "module" and importable is not None and one.name not in importable:
            raise ValueError(
                f"the server asks for the import of module '{one.name}', which this node does not "
                f'allow: look at what it does, then add plugins="{one.name}" to the SuperNode\'s '
                "--node-config (several separated by commas)"
            )
        try:
            if one.kind == "module":
                _import(one.name)
                here: PlugIn | None = PlugIn("module", one.name, one.name, _source(one.name))
            else:
                registry(one.kind).find(one.name)
                here = _find(one.kind, one.name)
        except ValueError as error:
            raise ValueError(f"no {one} here ({error}): {one.remedy()}") from None
        if here != one:
            other = "the app's own" if here is None else str(here)
            raise ValueError(f"{other} is here, the server uses {one}: {one.remedy()}")


def _find(kind: str, name: str) -> PlugIn | None:
    """Say where a thing comes from; None for what is ours, or known to no registry."""
    things = registry(kind)
    if point := things.point(name):
        if point.dist is not None:
            return PlugIn(kind, name, point.dist.name, point.dist.version)
        return PlugIn(kind, name, point.module, _source(point.module))
    module = things.registered_by(name)
    if not module or module.partition(".")[0] in _OURS:
        return None
    return PlugIn(kind, name, module, _source(module))


def _import(name: str) -> None:
    if name.endswith(".py") or "/" in name:
        raise ValueError(f"plugins: '{name}' is a file; name the module, as after 'import'")
    try:
        import_module(name)
    except (Exception, SystemExit) as error:  # whatever somebody's module raises
        raise ValueError(
            f"plugins: module '{name}' cannot be imported ({str(error) or type(error).__name__}); "
            "install it, or start in the folder where it is"
        ) from None


def _source(module: str) -> str:
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or not Path(file).is_file():  # a notebook's cells
        return "source unknown"
    return f"source {hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12]}"

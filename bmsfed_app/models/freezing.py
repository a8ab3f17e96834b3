"""What of a network is not trained: by an encoder's own constructor, or by patterns."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from bmsfed_app.registry import nearest

#: Names that a message shows of an encoder's parameters.
_SHOWN = 4


def freeze(encoder: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze the parameters whose names fit a pattern (``fnmatch``: ``*`` also spans dots).

    Raises
    ------
    ValueError
        Naming a pattern that fits none.
    """
    names = [name for name, _ in encoder.named_parameters(remove_duplicate=False)]
    for pattern in patterns:
        fitting = [name for name in names if fnmatchcase(name, pattern)]
        if not fitting:
            shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
            raise ValueError(
                f"no parameter of the encoder fits '{pattern}'{nearest(pattern, names)} "
                f"(it has {shown or 'none'})"
            )
        for name in fitting:
            encoder.get_parameter(name).requires_grad_(False)


def still_modules(module: nn.Module) -> set[nn.Module]:
    """Return the modules that have parameters, all of them frozen, and all that is within them."""
    parameters = list(module.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        return set(module.modules())
    return {still for child in module.children() for still in still_modules(child)}


def frozen_arrays(module: nn.Module) -> frozenset[str]:
    """Return the names in a module's state dict that training leaves alone.

    Frozen parameters, and the buffers (such as running statistics) of modules that are still.
    """
    still = still_modules(module)
    names = [
        name
        for name, parameter in module.named_parameters(remove_duplicate=False)
        if not parameter.requires_grad
    ]
    for path, owner in module.named_modules(remove_duplicate=False):
        if owner in still:
            own = owner.named_buffers(path, recurse=False, remove_duplicate=False)
            names += [name for name, _ in own]
    return frozenset(names) & frozenset(module.state_dict())

"""Optimisers of local training by name: torch's own, and whatever is registered besides.

Each takes the parameters and, by name, ``lr`` and settings of its own. Of the experiment's keys,
``lr`` (by the schedule) is always the rate, ``weight_decay`` is given to all that take it, and
``momentum`` to ``sgd``; settings of one's own win over the last two. Every round starts afresh:
clients keep nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from bmsfed_app.choice import settings_fault, settings_of
from bmsfed_app.registry import Registry, not_callable

#: Builds an optimiser from parameters, ``lr`` and settings.
OptimizerBuilder = Callable[..., Optimizer]

OPTIMIZERS: Registry[OptimizerBuilder] = Registry(
    "optimizer",
    "bmsfed.optimizers",
    check=not_callable,
)


def _uncompiled(kind: type[Optimizer]) -> type[Optimizer]:
    """Return an optimiser of torch's that computes the same without torch's compiler.

    torch wraps these methods so that its compiler treats them well, and loads it at their first
    call: most of a second of every process that trains, where nothing of them is compiled.
    """
    step = torch.no_grad()(inspect.unwrap(kind.step))
    others = {n: inspect.unwrap(getattr(kind, n)) for n in ("zero_grad", "add_param_group")}
    return type(kind.__name__, (kind,), {"step": step, "__doc__": kind.__doc__, **others})


# Those of torch's that take a step per batch on any parameters: not LBFGS, which evaluates the loss
# anew, SparseAdam, which takes sparse gradients, nor Muon, which takes matrices alone.
for _one in (
    *(torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop),
    *(torch.optim.Adagrad, torch.optim.NAdam, torch.optim.RAdam, torch.optim.Adamax),
    *(torch.optim.Adadelta, torch.optim.Adafactor, torch.optim.ASGD, torch.optim.Rprop),
):
    OPTIMIZERS.add(_one.__name__.lower(), _uncompiled(_one))

#: Adafactor alone looks at rows, columns and whole tensors.
_BY_ENTRY = frozenset(OPTIMIZERS.own.values()) - {OPTIMIZERS.own["adafactor"]}


def steps_by_entry(choice: Mapping[str, Any]) -> bool:
    """Whether each entry of a parameter is known to step by its own gradient alone."""
    return OPTIMIZERS.find(str(choice["name"])) in _BY_ENTRY


def build_optimizer(
    choice: Mapping[str, Any],
    parameters: Iterable[nn.Parameter],
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
) -> Optimizer:
    """Build an optimiser without a past.

    Parameters
    ----------
    choice : mapping
        ``name``, and settings of its own.
    parameters : iterable of Parameter
        To train.
    lr, momentum, weight_decay : float
        The experiment's; see the module for which of them count.

    Raises
    ------
    ValueError
        If there is no such optimiser, or it does not take a setting.
    """
    builder = OPTIMIZERS.find(str(choice["name"]))
    values: dict[str, Any] = {"lr": lr}
    if "weight_decay" in inspect.signature(builder).parameters:
        values["weight_decay"] = weight_decay
    if builder is OPTIMIZERS.own["sgd"]:
        values["momentum"] = momentum
    return builder(parameters, **values | settings_of(choice))


def optimizer_fault(choice: Mapping[str, Any]) -> str | None:
    """Say why an optimiser cannot be used, or return None: one is built, and takes a step."""
    name, settings = str(choice.get("name", "")), settings_of(choice)
    try:
        builder = OPTIMIZERS.find(name)
    except ValueError as error:
        return str(error)
    if "lr" in settings:
        return "its learning rate is the experiment's key 'lr', which has a schedule"
    if fault := settings_fault(builder, settings, leading=1, given=["lr"]):
        return fault
    parameter = nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.ones(2, 2)
    try:
        built = build_optimizer(choice, [parameter], lr=0.01, momentum=0.0, weight_decay=0.0)
        if not isinstance(built, Optimizer):
            return f"what '{name}' builds is no torch.optim.Optimizer"
        built.step()
    except Exception as error:  # whatever somebody's class raises
        return f"{name}: {error}"
    return None

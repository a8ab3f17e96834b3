"""The method registry: a method is a strategy, a local objective, and settings for both.

Adding one takes a strategy or an objective (a file each, where the existing ones do not serve)
and one entry in ``METHODS``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from strategies import BMSFed, FedAvg, ModalityStrategy


class MethodSettings(BaseModel):
    """Settings that every method has."""

    model_config = ConfigDict(extra="forbid")

    head_columns: Literal["own", "all"] = Field(
        "own", description="average the head's columns of a modality over its trainers, or over all"
    )


class BMSFedSettings(MethodSettings):
    """Settings of BMSFed, by the paper's symbols where it has them."""

    chi: float = Field(1.2, ge=0, le=100, description="χ of Eq. 13: uni-modal above this ratio")
    coefficient: Literal["clipped", "constant"] = Field(
        "clipped", description="weight of the enhancement loss: clip(ρ-1, 0, 1) (Eq. 19), constant"
    )
    coefficient_value: float = Field(1.0, ge=0, le=100, description="the constant weight")
    uni_enhancement: Literal["weak", "always"] = Field(
        "weak", description="uni-modal clients are enhanced in the weak modality only, or always"
    )
    head_weight: float = Field(
        0.0, ge=0, le=100, description="weight of a cross-entropy through the weak head columns"
    )
    ratio: Literal["score", "accuracy"] = Field(
        "score", description="imbalance from prototype scores (Eq. 16) or nearest-prototype hits"
    )
    gradient: Literal["decoupled", "update"] = Field(
        "decoupled", description="signatures: CE and ME gradients apart, or the model's change"
    )
    sketch_dim: int = Field(4096, ge=0, le=10_000_000, description="sketch size; 0 = exact")
    probe_batches: int = Field(1, ge=1, le=100_000, description="mini-batches behind a signature")
    pick: Literal["pair", "single"] = Field("pair", description="clients per greedy step")
    uni_cover: Literal["shared", "uni"] = Field(
        "shared", description="who covers the second function: all picks, or uni-modal ones"
    )
    uni_ratio: Literal["keep", "refresh"] = Field(
        "keep", description="ratio of a client that trained alone: its last, or from latest scores"
    )
    prototype_scope: Literal["all", "selected"] = Field(
        "all", description="global prototypes from all clients' latest, or this round's"
    )
    cover_sample: int = Field(5000, ge=1, description="clients the functions sum over at most")


@dataclass(frozen=True)
class Method:
    """One entry of the registry.

    Attributes
    ----------
    summary : str
        One line for ``bmsfed methods``.
    settings : type
        Names, ranges and defaults of the hyper-parameters.
    strategy : callable
        Builds the server's strategy from (settings, keyword arguments of every strategy).
    objective : callable
        Returns the local objective's name and its settings.
    presets : dict
        Settings of this method that differ from the defaults.
    config : dict
        Keys of the experiment that the method sets.
    """

    summary: str
    settings: type[MethodSettings]
    strategy: Callable[[Any, dict[str, Any]], ModalityStrategy]
    objective: Callable[[Any], tuple[str, dict[str, Any]]]
    presets: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


def _fedavg(settings: MethodSettings, common: dict[str, Any]) -> ModalityStrategy:
    return FedAvg(head_columns=settings.head_columns, **common)


def _cross_entropy(settings: MethodSettings) -> tuple[str, dict[str, Any]]:
    return "cross_entropy", {}


def _bmsfed(settings: BMSFedSettings, common: dict[str, Any]) -> ModalityStrategy:
    return BMSFed(
        threshold=settings.chi,
        gradient=settings.gradient,
        sketch_dim=settings.sketch_dim,
        probe_batches=settings.probe_batches,
        pick=settings.pick,
        uni_cover=settings.uni_cover,
        uni_ratio=settings.uni_ratio,
        prototype_scope=settings.prototype_scope,
        cover_sample=settings.cover_sample,
        head_columns=settings.head_columns,
        **common,
    )


def _modal_enhancement(settings: BMSFedSettings) -> tuple[str, dict[str, Any]]:
    keys = {"coefficient", "coefficient_value", "uni_enhancement", "head_weight"}
    return "modal_enhancement", settings.model_dump(include=keys)


METHODS: dict[str, Method] = {
    "fedavg": Method(
        "random clients train all they hold, averages by sample counts",
        MethodSettings,
        _fedavg,
        _cross_entropy,
    ),
    "bmsfed": Method(
        "balanced modality selection with modal enhancement, as the paper has it",
        BMSFedSettings,
        _bmsfed,
        _modal_enhancement,
    ),
    "bmsfed-release": Method(
        "BMSFed by the rules of the authors' published code",
        BMSFedSettings,
        _bmsfed,
        _modal_enhancement,
        presets={
            "coefficient": "constant",
            "uni_enhancement": "always",
            "ratio": "accuracy",
            "gradient": "update",
            "pick": "single",
            "uni_cover": "uni",
            "uni_ratio": "refresh",
            "prototype_scope": "selected",
            "head_columns": "all",
        },
        config={"prototypes": "test"},
    ),
}


def nearest(name: str, known: Mapping[str, Any] | list[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean '{near[0]}'?" if near else ""

"""The experiment's differential privacy: its keys, and which experiments can have it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from strategies.privacy import QUANTITIES, Budget

if TYPE_CHECKING:
    from bmsfed_app.methods import MethodSettings


class DpSettings(BaseModel):
    """``dp`` of an experiment; ``docs/privacy.md`` says what it guarantees and what it costs."""

    model_config = ConfigDict(extra="forbid")

    clip: float = Field(1.0, gt=0, allow_inf_nan=False)
    noise: float = Field(1.0, ge=0, allow_inf_nan=False)
    delta: float = Field(1e-5, gt=0, lt=1)
    level: Literal["client"] = "client"
    prototypes_clip: float = Field(10.0, gt=0, allow_inf_nan=False)
    signatures_clip: float = Field(1.0, gt=0, allow_inf_nan=False)
    shares: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_shares(self) -> DpSettings:
        for name, share in self.shares.items():
            if name not in QUANTITIES or not 0 < share < float("inf"):
                raise ValueError(
                    f"shares: '{name}: {share:g}' is no share above 0 of {', '.join(QUANTITIES)}"
                )
        return self

    def budget(self) -> Budget:
        """Return what the strategy clips and noises by; what has no share given has 1."""
        return Budget(
            self.clip,
            self.noise,
            self.prototypes_clip,
            self.signatures_clip,
            {**dict.fromkeys(QUANTITIES, 1.0), **self.shares},
        )


def dp_fault(settings: DpSettings, method: MethodSettings, prototypes: str) -> str | None:
    """Say why an experiment cannot have differential privacy, or return None.

    Parameters
    ----------
    settings : DpSettings
    method : MethodSettings
    prototypes : str
        The experiment's key.
    """
    if settings.noise and find_spec("opacus") is None:
        return "Opacus, which accounts for what is spent, is not installed: install bmsfed[privacy]"
    strategy = method.strategy()
    try:
        strategy.protect(settings.budget())
    except ValueError as error:
        return str(error)
    assert strategy.privacy is not None
    if not strategy.privacy.measuring and prototypes == "train":
        return (
            "clients' prototypes, by which each modality alone is evaluated, would leave them "
            "without noise: set prototypes: test"
        )
    return None

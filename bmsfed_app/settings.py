"""What a client must know of the experiment; travels as JSON with every message.

A client process may be as short-lived as one message (on a SuperNode), so nothing but these
settings, the node's own configuration and the data on its disk tells it what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bmsfed_app.models import NetworkSpec


@dataclass(frozen=True)
class SignatureSettings:
    """What a client measures for selection; see :class:`strategies.BMSFed`.

    Attributes
    ----------
    kind : {"none", "decoupled", "update"}
    dim : int
        Numbers of a sketch; 0 sends the exact vector.
    seed : int
        Shared by all clients, so that sketches can be compared.
    batches : int
        Mini-batches behind a decoupled signature.
    enhancing : bool
        Whether to measure enhancing gradients besides the multi-modal one.
    """

    kind: str = "none"
    dim: int = 4096
    seed: int = 0
    batches: int = 1
    enhancing: bool = True


@dataclass(frozen=True)
class ClientSettings:
    """One client's view of the experiment.

    The first block is the experiment's and the same for all; the second is set per message, with
    ``progress`` (the share of the rounds that are complete), ``probe_kind`` (what a probe measures:
    "signature" or "loss") and ``method_state`` (what the strategy tells the local objective).
    """

    dataset: str
    network: NetworkSpec
    dataset_settings: dict[str, Any] = field(default_factory=dict)
    data_dir: str = ""
    partition: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    batch_size: int = 64
    local_epochs: int = 1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip_norm: float = 0.0
    objective: str = "cross_entropy"
    objective_settings: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    threads: int = 1

    round: int = 0
    client_id: str = ""
    lr: float = 0.01
    progress: float = 0.0
    weak: str | None = None
    ratio: float = 1.0
    prototypes: bool = False
    ratio_kind: str = "score"
    signature: SignatureSettings = SignatureSettings()
    probe_kind: str = "signature"
    method_state: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; :meth:`from_json` turns them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ClientSettings:
        """Build the settings from a message's values."""
        known = dict(values)
        spec = dict(known["network"])
        spec["shapes"] = {m: tuple(s) for m, s in spec["shapes"].items()}
        known["network"] = NetworkSpec(**spec)
        known["signature"] = SignatureSettings(**known.get("signature", {}))
        return cls(**known)

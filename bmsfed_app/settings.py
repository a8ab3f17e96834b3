"""What the experiment tells every client; travels as JSON beside a task's orders.

A client process may be as short-lived as one message (on a SuperNode), so nothing but these
settings, the orders, the node's own configuration and the data on its disk tells it what to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from bmsfed_app.devices import Precision
from bmsfed_app.models import NetworkSpec


@dataclass(frozen=True)
class ClientSettings:
    """What the experiment fixes for all clients alike.

    ``data`` is the fingerprint of what the server looked at: simulated clients load no other data.
    ``uni_weight`` is that of the uni-modal losses, whatever the objective, ``sample_dropout`` the
    chance that a sample loses a modality in a mini-batch (:mod:`client_app.sample_dropout`);
    ``packed_clients`` is how many may be trained at once (:mod:`client_app.packed`).
    ``prototypes`` says whether it wants clients' prototypes even where the method needs none,
    ``ratio_kind`` what imbalance ratios are made of ("score" or "accuracy"), ``plugins`` what the
    client must have of other packages (:class:`bmsfed_app.plugins.PlugIn`). Of a class with fewer
    samples than ``min_class_count`` a client sends neither prototype nor count; ``holdout`` is the
    share of its samples that it keeps for tests (:mod:`client_app.counting`). The last two are
    the round's: its learning rate, and ``progress``, the share of the rounds that are complete.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    dataset: str
    network: NetworkSpec
    dataset_settings: dict[str, Any] = field(default_factory=dict)
    data_dir: str = ""
    data: str = ""
    partition: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    batch_size: int = 64
    local_epochs: int = 1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip_norm: float = 0.0
    optimizer: dict[str, Any] = field(default_factory=lambda: {"name": "sgd"})
    objective: str = "cross_entropy"
    objective_settings: dict[str, Any] = field(default_factory=dict)
    uni_weight: float = 0.0
    sample_dropout: float = 0.0
    device: str = "auto"
    precision: Precision = "float32"
    compile: bool = False
    threads: int = 1
    packed_clients: int = 1
    prototypes: bool = False
    ratio_kind: str = "score"
    min_class_count: int = 2
    holdout: float = 0.0
    plugins: list[dict[str, str]] = field(default_factory=list)

    lr: float = 0.01
    progress: float = 0.0

    def __hash__(self) -> int:  # dictionaries have none; processes keep what settings name
        return hash((self.dataset, self.data, self.network, self.seed, self.lr, self.progress))

    def to_json(self) -> dict[str, Any]:
        """Return plain values; :meth:`from_json` turns them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ClientSettings:
        """Build the settings from a message's values.

        Raises
        ------
        ValueError
            Naming the first key that is missing, unknown or of another type.
        """
        try:
            return _ADAPTER.validate_python(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise ValueError(
                f"the server's settings, '{key}': {first['msg']}; do server and client run the "
                "same version of this app?"
            ) from None


_ADAPTER = TypeAdapter(ClientSettings)


@lru_cache(maxsize=8)
def read_settings(text: str) -> ClientSettings:
    """Read settings from a message's JSON, once for all clients of a process and round.

    Raises
    ------
    ValueError
        As :meth:`ClientSettings.from_json`.
    """
    return ClientSettings.from_json(json.loads(text))

"""The federations that are measured; loads nothing heavy until a configuration is asked for."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bmsfed_app.config import ExperimentConfig


@dataclass(frozen=True)
class Row:
    """One federation: FedAvg without evaluation, every client with as many samples.

    Attributes
    ----------
    name : str
    encoder : str
        Of both modalities.
    clients, per_round, samples : int
    local_epochs, batch_size, rounds : int
    """

    name: str
    encoder: str
    clients: int
    per_round: int
    samples: int
    local_epochs: int = 1
    batch_size: int = 32
    rounds: int = 4

    @property
    def about(self) -> str:
        """Say in a line what it is."""
        work = f"{self.samples} samples" + (
            f" x {self.local_epochs} epochs" if self.local_epochs > 1 else ""
        )
        return f"{self.name}: {self.per_round} of {self.clients:,} clients, {work}"

    def config(self) -> ExperimentConfig:
        """Return it as an experiment of ours."""
        from bmsfed_app.config import check_config
        from bmsfed_app.plugins import import_plugins

        import_plugins(["benchmarks.made_up"])
        own = asdict(self)
        del own["name"], own["encoder"], own["samples"]
        return check_config(
            {
                **own,
                "dataset": "made-up-digits",
                "dataset_settings": {"train": self.clients * self.samples},
                "plugins": ["benchmarks.made_up"],
                "method": "fedavg",
                "prototypes": "test",  # as stock clients, which make none
                "partition": "iid",
                "encoders": {"colored": self.encoder, "gray": self.encoder},
                "device": "cpu",
            }
        )


LARGE, SMALL = "88 MB", "0.8 MB"
FEW, TRAINING = "0.8 MB, hardly any training", "0.8 MB, training dominates"
MANY = "0.8 MB, 10,000 clients"

ROWS = {
    row.name: row
    for row in (
        Row(LARGE, "resnet18", 20, 5, 4),
        Row(SMALL, "conv4", 20, 5, 4, rounds=6),
        Row(FEW, "conv4", 300, 50, 6, rounds=6),
        Row(TRAINING, "conv4", 300, 50, 64, rounds=3),
        Row(MANY, "conv4", 10_000, 1_000, 6, rounds=2),
    )
}

QUICK = {FEW: Row(FEW, "conv4", 40, 10, 6, rounds=4)}


def chosen(name: str) -> Row:
    """Return a row by name; of the quick ones where ``BENCHMARK_QUICK`` is set."""
    return (QUICK if os.environ.get("BENCHMARK_QUICK") else ROWS)[name]

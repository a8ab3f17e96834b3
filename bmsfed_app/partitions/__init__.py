"""Which simulated client has which samples and modalities: the same on every machine by seed."""

from bmsfed_app.partitions.base import (
    SCHEMES,
    Indices,
    PartitionError,
    PartitionSettings,
    Scheme,
    Share,
    class_counts,
    client_name,
)
from bmsfed_app.partitions.schemes import subsample
from bmsfed_app.partitions.sharing import experiment_shares, share_out, subsets_fault

__all__ = [
    "SCHEMES",
    "Indices",
    "PartitionError",
    "PartitionSettings",
    "Scheme",
    "Share",
    "class_counts",
    "client_name",
    "experiment_shares",
    "share_out",
    "subsample",
    "subsets_fault",
]

"""Which simulated client has which samples and modalities: the same on every machine by seed.

A scheme is a class of :class:`Partition`, registered by name: here, in a module of this folder; in
another package, by an entry point in the group ``bmsfed.partitions``.
"""

from bmsfed_app.partitions.base import (
    PARTITIONS,
    Division,
    Indices,
    Partition,
    PartitionError,
    Samples,
    Share,
    class_counts,
    client_name,
    read_partition,
)
from bmsfed_app.partitions.gaps import experiment_data, masked_as_training
from bmsfed_app.partitions.missing import Missing
from bmsfed_app.partitions.sharing import (
    experiment_shares,
    held_out_rows,
    own_clients,
    share_out,
    subsample,
    subsets_fault,
    validation_rows,
)

__all__ = [
    "PARTITIONS",
    "Division",
    "Indices",
    "Missing",
    "Partition",
    "PartitionError",
    "Samples",
    "Share",
    "class_counts",
    "client_name",
    "experiment_data",
    "experiment_shares",
    "held_out_rows",
    "masked_as_training",
    "own_clients",
    "read_partition",
    "share_out",
    "subsample",
    "subsets_fault",
    "validation_rows",
]

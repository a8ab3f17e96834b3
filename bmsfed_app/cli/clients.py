"""The simulated clients of an experiment: how many there are, and what each has."""

from __future__ import annotations

import numpy as np

from bmsfed_app.config import ConfigError, ExperimentConfig
from bmsfed_app.datasets import Split
from bmsfed_app.datasets.account import some
from bmsfed_app.partitions import Share, experiment_data, own_clients

#: Clients of a simulation where neither configuration nor data says how many there are.
DEFAULT_CLIENTS = 10


def with_clients(
    config: ExperimentConfig, train: Split, *, default: int = DEFAULT_CLIENTS
) -> ExperimentConfig:
    """Return an experiment with its number of clients.

    Parameters
    ----------
    config : ExperimentConfig
        Where it leaves the number open, all clients that the data, or a file, has are taken.
    train : Split
        Its training data.
    default : int, default 10
        Taken where these do not say either; 0 refuses.

    Raises
    ------
    ConfigError, PartitionError
        If the number is not known, or the data names no natural clients where these are wanted.
    """
    if config.clients:
        return config
    found = own_clients(train, config.division(), seed=config.seed)
    if not (found or default):
        raise ConfigError("say how many clients to split the data for: --clients N")
    return config.model_copy(update={"clients": found or default})


def share_out_aloud(config: ExperimentConfig, train: Split) -> tuple[Split, list[Share]]:
    """Divide an experiment's training data, and print what of it a user might not expect.

    Returns
    -------
    split : Split
        The training data with what its samples lack.
    shares : list of Share

    Raises
    ------
    PartitionError
        If it cannot be divided as the configuration says.
    """
    train, shares = experiment_data(train, config.division(), config.clients, seed=config.seed)
    own = own_clients(train, config.division(), seed=config.seed)
    if config.partition == "natural" and own > config.clients:
        print(f"{own} natural clients in {config.clients} groups (clients: {config.clients})")
    labels = train.labels.cpu().numpy()
    rows = np.concatenate([share.rows for share in shares])
    complete_only = config.missing is not None and config.missing.complete_only
    asked_for = config.data_fraction < 1 or config.samples_per_client > 0 or complete_only
    if len(rows) < len(labels) and not asked_for:
        print(f"{len(labels) - len(rows):,} of {len(labels):,} training samples are no client's")
    names = config.dataset_info().class_names
    if absent := [f"'{names[label]}'" for label in np.setdiff1d(labels, labels[rows])]:
        print(f"no client has a sample of class {some(absent)}")
    return train, shares

"""How many simulated clients an experiment has."""

from __future__ import annotations

from bmsfed_app.config import ConfigError, ExperimentConfig
from bmsfed_app.datasets import Split
from bmsfed_app.partitions import own_clients

#: Clients of a simulation where neither configuration nor data says how many there are.
DEFAULT_CLIENTS = 10


def with_clients(
    config: ExperimentConfig, train: Split, *, default: int = DEFAULT_CLIENTS
) -> ExperimentConfig:
    """Return an experiment with its number of clients; where natural clients are grouped, say so.

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
    found = own_clients(train, config.division(), seed=config.seed)
    if config.clients:
        if found > config.clients and config.partition == "natural":
            print(f"{found} natural clients in {config.clients} groups (clients: {config.clients})")
        return config
    if not (found or default):
        raise ConfigError("say how many clients to split the data for: --clients N")
    return config.model_copy(update={"clients": found or default})

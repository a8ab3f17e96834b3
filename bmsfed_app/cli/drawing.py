"""Pictures of a data set: samples of every modality, and each client's class counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bmsfed_app.cli.clients import share_out_aloud, with_clients
from bmsfed_app.config import ExperimentConfig
from bmsfed_app.datasets import PreparedSource, find_source
from bmsfed_app.datasets.base import Split
from bmsfed_app.datasets.prepared import read_samples
from bmsfed_app.partitions import class_counts
from bmsfed_app.report.partition_figure import draw_partition
from bmsfed_app.report.samples_figure import draw_samples


def show_samples(config: ExperimentConfig, number: int, out: Path) -> Path:
    """Draw training samples of as many classes as there are columns, into a PNG.

    Returns
    -------
    Path
        The PNG.
    """
    train = _train(config)
    info = config.dataset_info()
    rows = _one_of_each_class(train, number)
    inputs = train.batch(torch.from_numpy(rows), info.modalities)
    source = find_source(config.dataset)
    captions = {}
    if isinstance(source, PreparedSource):
        cache = source.cache_dir(config.data_folder(), source.parse(config.dataset_settings))
        known = read_samples(cache, "train")
        captions = {m: [known[r][m] for r in rows] for m in info.vocabularies}
    titles = [info.class_names[int(train.labels[r])] for r in rows]
    path = out / f"{config.dataset_name}-samples.png"
    draw_samples(
        inputs, titles, path, captions=captions, heading=f"{config.dataset_name}: training"
    )
    return path


def show_clients(config: ExperimentConfig, out: Path) -> Path:
    """Draw each client's class counts and modalities, into a PNG.

    Returns
    -------
    Path
        The PNG.

    Raises
    ------
    PartitionError
        If the training data cannot be divided as the configuration says.
    """
    train, info = _train(config), config.dataset_info()
    config = with_clients(config, train)
    _, shares = share_out_aloud(config, train)
    path = out / f"{config.dataset_name}-clients.png"
    draw_partition(
        class_counts(train.labels.numpy(), shares, info.num_classes),
        [share.name for share in shares],
        [share.modalities for share in shares],
        info.class_names,
        path,
        heading=f"{config.dataset_name}: {config.division().describe()}",
    )
    return path


def _train(config: ExperimentConfig) -> Split:
    train = config.load_data("train").train
    assert train is not None
    return train


def _one_of_each_class(train: Split, number: int) -> np.ndarray:
    """Rows of the first samples of the first classes, going round if there are few."""
    labels = train.labels.numpy()
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    turn, place = np.divmod(np.arange(number), len(starts))
    return np.asarray(order[starts[place] + turn % counts[place]])

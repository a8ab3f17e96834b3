"""``bmsfed data``: fetch a data set, check it, cut it into folders for devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bmsfed_app.config import ConfigError, load_config

cli = typer.Typer(help=__doc__, no_args_is_help=True)


@cli.command()
def download(
    name: Annotated[str, typer.Argument(help="Data set, e.g. cg-mnist.")],
    data_dir: Annotated[Path | None, typer.Option(help="Folder to download into.")] = None,
) -> None:
    """Download a data set that can be had without a licence click."""
    from bmsfed_app.datasets import DATASETS
    from bmsfed_app.paths import default_data_dir

    entry = DATASETS.get(name)
    if entry is None or entry.download is None:
        able = [n for n, e in DATASETS.items() if e.download is not None]
        raise ConfigError(f"'{name}' cannot be downloaded (these can: {', '.join(able)})")
    folder = data_dir or default_data_dir(name)
    entry.download(folder)
    print(f"{name} is in {folder}")


@cli.command()
def check(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped one.")],
    data_dir: Annotated[str | None, typer.Option(help="Folder with the data.")] = None,
) -> None:
    """Say what a configuration's data set holds, or what is wrong with it."""
    from bmsfed_app.datasets import dataset_info, load_dataset

    wanted = load_config(config, {} if data_dir is None else {"data_dir": data_dir})
    info = dataset_info(wanted.dataset)
    folder = Path(wanted.data_dir) if wanted.data_dir else None
    found = load_dataset(wanted.dataset, folder, seed=wanted.seed, settings=wanted.dataset_settings)
    for name, split in (("train", found.train), ("test", found.test)):
        if split is not None:
            counts = " ".join(str(int(c)) for c in split.class_counts(info.num_classes))
            print(f"{wanted.dataset} {name}: {len(split)} samples; per class: {counts}")
    shapes = ", ".join(f"{m} {'x'.join(map(str, s))}" for m, s in info.shapes.items())
    print(f"modalities: {shapes}")


@cli.command()
def split(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped one.")],
    out: Annotated[Path, typer.Option(help="Folder to fill with one folder per client.")],
    clients: Annotated[int | None, typer.Option(help="Clients, if not the file's.")] = None,
    data_dir: Annotated[str | None, typer.Option(help="Folder with the data.")] = None,
) -> None:
    """Write each client's share of the training data into its own folder, for real SuperNodes."""
    from bmsfed_app.datasets import dataset_info, load_dataset
    from bmsfed_app.datasets.shard import save_shard
    from bmsfed_app.partitions import client_name, divide

    wanted = load_config(config, {} if data_dir is None else {"data_dir": data_dir})
    number = wanted.clients if clients is None else clients
    if not number:
        raise ConfigError("say how many clients to split the data for: --clients N")
    folder = Path(wanted.data_dir) if wanted.data_dir else None
    data = load_dataset(
        wanted.dataset,
        folder,
        seed=wanted.seed,
        settings=wanted.dataset_settings,
        splits=("train",),
    )
    assert data.train is not None
    parts = divide(
        data.train.labels.numpy(),
        number,
        wanted.partition,
        fraction=wanted.data_fraction,
        alpha=wanted.alpha,
        seed=wanted.seed,
        min_samples=wanted.min_samples,
    )
    info = dataset_info(wanted.dataset)
    for i, part in enumerate(parts):
        path = out / client_name(i, number)
        save_shard(data.train, part, info, path)
        print(f"{path}: {len(part)} samples")

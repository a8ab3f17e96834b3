"""``bmsfed data``: list, fetch, check, prepare, draw and split data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bmsfed_app.cli.progress import counting_bar, prepare_if_needed, say
from bmsfed_app.config import ExperimentConfig, idle_notes, load_config, parse_pairs
from bmsfed_app.datasets.prepared import LeftOut

cli = typer.Typer(help=__doc__, no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A data set's name, or a YAML file.")]
DataDir = Annotated[str | None, typer.Option(help="Folder with the data.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any other key=value, or KEY.NAME=value; repeatable."),
]


Missing = Annotated[
    str | None,
    typer.Option(
        metavar="refuse|keep",
        help="Samples that lack a modality: refused as faults, or kept for what they have.",
    ),
]


@cli.command("list")
def list_() -> None:
    """List the data sets: modalities, classes, official sizes, and what each is."""
    from bmsfed_app.datasets import DATASETS, DataError, dataset_info, find_source

    table = Table("name", "modalities", box=None, pad_edge=False)
    for heading in ("classes", "train", "test"):
        table.add_column(heading, justify="right")
    table.add_column("natural clients")
    table.add_column("what")
    for name in sorted(DATASETS.usable()):
        source = find_source(name)
        try:
            info = dataset_info(name)
        except DataError:  # what it holds depends on settings that only its user knows
            table.add_row(name, "yours", "yours", "", "", source.natural, source.summary)
            continue
        counts = source.official_counts(source.parse({}))
        sizes = [f"{counts[s]:,}" if s in counts else "" for s in ("train", "test")]
        held = " ".join(info.modalities)
        table.add_row(name, held, str(info.num_classes), *sizes, info.natural, source.summary)
    console = Console()
    if not console.is_terminal:  # whoever reads a pipe wants a line each
        console.width = console.measure(
            table, options=console.options.update(max_width=1000)
        ).maximum
    console.print(table)


@cli.command()
def download(
    name: Annotated[str, typer.Argument(help="Data set, e.g. cg-mnist.")],
    data_dir: Annotated[Path | None, typer.Option(help="Folder to download into.")] = None,
) -> None:
    """Download a data set that can be had without a licence click."""
    from bmsfed_app.datasets import find_source
    from bmsfed_app.paths import default_data_dir

    folder = data_dir or default_data_dir(name)
    find_source(name).download(folder)
    print(f"{name} is in {folder}")


@cli.command()
def check(
    name: Name,
    data_dir: DataDir = None,
    set_: Settings = None,
    missing: Missing = None,
    quick: Annotated[
        bool, typer.Option(help="Only look whether the files are there; decode nothing.")
    ] = False,
) -> None:
    """Say what is in a data folder, what is missing and what is broken."""
    from bmsfed_app.datasets import find_source
    from bmsfed_app.datasets.inspection import inspect

    config = _wanted(name, data_dir, set_, {"gaps": missing})
    folder = config.data_folder()
    source = find_source(config.dataset)
    settings = source.parse(config.dataset_settings)
    with counting_bar("checking") as progress:
        found = inspect(
            source, folder, settings, seed=config.seed, decode_all=not quick, progress=progress
        )
    info = config.dataset_info()
    print(f"{info.name} in {folder}")
    for split, counts in found.per_class.items():
        expected = found.official.get(split)
        official = "" if expected is None else f" of {expected:,} officially"
        print(f"  {split}: {sum(counts):,} samples{official}; per class: {_join(counts)}")
    shapes = ", ".join(f"{m} {'x'.join(map(str, s))}" for m, s in info.shapes.items())
    print(f"  modalities: {shapes}")
    for line in found.natural_lines(info.natural):
        print(f"  {line}")
    if found.cache:
        print(f"  prepared: {found.cache}")
    say(found.account)
    _print_bad(found.account.bad)
    for fault in found.faults:
        print(f"  {fault}")
    if not found.sound:
        raise typer.Exit(1)


@cli.command()
def prepare(
    name: Name,
    data_dir: DataDir = None,
    set_: Settings = None,
    missing: Missing = None,
    max_bad: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the samples that may be left out for faults."),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Threads; 0: one per core.")] = 0,
) -> None:
    """Decode a data set's media once into a cache that training reads fast."""
    config = _wanted(name, data_dir, set_, {"max_bad": max_bad, "gaps": missing})
    account = prepare_if_needed(config, workers)
    if account.cache is None:
        print(f"{config.dataset_name} is read as it is: nothing to prepare")
        return
    counts = ", ".join(f"{n:,} {split}" for split, n in account.counts.items())
    print(f"{config.dataset_name}: {counts} samples in {account.cache}")
    say(account)
    _print_bad(account.bad)
    if max_bad and any(not one.by_rule for one in account.bad):
        print(f"  runs on it need max_bad: {max_bad:g} too: in the YAML file, or --set")
    if missing:
        print(f"  runs on it need --missing {missing} too, or gaps: {missing} in dataset_settings")


def _print_bad(bad: list[LeftOut]) -> None:
    faulty = [one for one in bad if not one.by_rule]
    if faulty:
        print(f"  {len(faulty)} samples cannot be used:")
    for one in faulty[:20]:
        print(f"    {one.reason}")
    if len(faulty) > 20:
        print(f"    ... and {len(faulty) - 20} more")


@cli.command()
def show(
    name: Name,
    data_dir: DataDir = None,
    set_: Settings = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path(),
    samples: Annotated[int, typer.Option(min=1, max=20, help="Samples to draw.")] = 8,
    clients: Annotated[int | None, typer.Option(min=1, help="Clients to divide among.")] = None,
    partition: Annotated[str | None, typer.Option(help="See `bmsfed run --help`.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Dirichlet concentration.")] = None,
) -> None:
    """Draw samples of every modality, and each client's class counts, as PNGs."""
    from bmsfed_app.cli.drawing import show_clients, show_samples

    given = {"partition": partition, "alpha": alpha}
    config = _among(_wanted(name, data_dir, set_, given), clients)
    say(prepare_if_needed(config))
    out.mkdir(parents=True, exist_ok=True)
    print(show_samples(config, samples, out))
    print(show_clients(config, out))


@cli.command()
def split(
    name: Name,
    out: Annotated[Path, typer.Option(help="Folder to fill with one folder per client.")],
    clients: Annotated[int | None, typer.Option(help="Clients, if not the file's.")] = None,
    data_dir: DataDir = None,
    set_: Settings = None,
) -> None:
    """Write each client's share of the training data into its own folder, for real SuperNodes."""
    from bmsfed_app.cli.clients import share_out_aloud, with_clients
    from bmsfed_app.datasets.shard import save_shard

    config = _among(_wanted(name, data_dir, set_), clients)
    say(prepare_if_needed(config))
    train = config.load_data("train").train
    assert train is not None
    config = with_clients(config, train, default=0)
    train, shares = share_out_aloud(config, train)
    _refuse_others(out, {share.name for share in shares})
    drawn: dict[str, Any] = {"seed": config.seed, "validation": config.validation}
    for share in shares:
        path = out / share.name
        save_shard(train, share.rows, config.dataset_info(), path, share.modalities, **drawn)
        print(f"{path}: {len(share.rows)} samples of {' + '.join(share.modalities)}")


def _refuse_others(out: Path, names: set[str]) -> None:
    """Refuse a folder with shares of an earlier split that this one would leave beside its own."""
    from bmsfed_app.datasets import DataError
    from bmsfed_app.datasets.shard import FILE_NAME

    others = sorted(f.parent for f in out.glob(f"*/{FILE_NAME}") if f.parent.name not in names)
    if others:
        raise DataError(
            f"'{others[0]}'{f' and {len(others) - 1} more' if len(others) > 1 else ''}: of an "
            "earlier split, with samples that are others' now: delete it, or choose another --out"
        )


def _wanted(
    name: str, data_dir: str | None, pairs: list[str] | None, more: dict[str, Any] | None = None
) -> ExperimentConfig:
    """The configuration that a name stands for."""
    given = {"data_dir": data_dir, **(more or {})}
    overrides = parse_pairs(pairs or []) | {k: v for k, v in given.items() if v is not None}
    config = load_config(name, overrides)
    for note in idle_notes(config, name, overrides):
        print(note)
    return config


def _among(config: ExperimentConfig, clients: int | None) -> ExperimentConfig:
    """The same among other clients; they need not be as many as would train in a round."""
    return config if clients is None else config.model_copy(update={"clients": clients})


def _join(counts: list[int]) -> str:
    return " ".join(str(c) for c in counts)

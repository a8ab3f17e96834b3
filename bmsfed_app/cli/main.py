"""``bmsfed``: run experiments, report on them, look after data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from bmsfed_app.cli import data, nodes, preflight
from bmsfed_app.cli.prediction import predict
from bmsfed_app.cli.sweep import DataDirs, On, Pairs, Runs, Scale, sweep, wanted_sweep
from bmsfed_app.cli.sweep.tune import tune
from bmsfed_app.config import (
    MACHINE_KEYS,
    ConfigError,
    ExperimentConfig,
    idle_notes,
    load_config,
    parse_pairs,
)
from bmsfed_app.partitions import PARTITIONS
from bmsfed_app.paths import default_run_dir
from bmsfed_app.sweeps import is_sweep

if TYPE_CHECKING:
    from server_app.run_folder import RunFolder

cli = typer.Typer(
    help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False
)
cli.add_typer(data.cli, name="data")
cli.add_typer(nodes.cli, name="nodes")
cli.add_typer(preflight.cli, name="preflight")
cli.command()(sweep)
cli.command()(tune)
cli.command()(predict)


def main() -> None:
    """Run the command line; every expected fault is one message and exit code 2.

    An experiment's plug-ins may lie in the current folder, as for ``python -m``, but last: no file
    there takes the place of an installed package.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        cli()
    except (ValueError, OSError) as error:  # ConfigError, DataError, RunFolderError, ...
        print(f"bmsfed: {error}", file=sys.stderr)
        sys.exit(2)


@cli.command()
def run(
    config: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a shipped one (cg-mnist).")
    ] = "",
    method: Annotated[str | None, typer.Option(help="See `bmsfed methods`.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Federated rounds.")] = None,
    clients: Annotated[int | None, typer.Option(help="Simulated clients.")] = None,
    per_round: Annotated[
        float | None, typer.Option(help="Clients per round: a number, or a share below 1.")
    ] = None,
    partition: Annotated[str | None, typer.Option(help=", ".join(PARTITIONS.names()) + ".")] = None,
    alpha: Annotated[float | None, typer.Option(help="Dirichlet concentration.")] = None,
    seed: Annotated[int | None, typer.Option(help="Every draw follows from it.")] = None,
    data_dir: Annotated[str | None, typer.Option(help="Folder with the data.")] = None,
    missing: data.Missing = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to make.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="Where clients work: inline, ray, or auto.")
    ] = None,
    ray_address: Annotated[str | None, typer.Option(help="Ray cluster to join.")] = None,
    cpus_per_client: Annotated[float | None, typer.Option(help="CPU cores per client.")] = None,
    gpus_per_client: Annotated[float | None, typer.Option(help="GPU share per client.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other key=value, or KEY.NAME=value; repeatable."),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(help="Tell a tracker, too: tensorboard, mlflow, wandb; repeatable."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Run folder to go on with, from its last complete round.")
    ] = None,
    from_round: Annotated[
        int | None,
        typer.Option(min=0, help="With --resume: go back to this round; 0 begins anew."),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(help="SuperLink to run on, by its name in Flower's config.toml."),
    ] = None,
) -> None:
    """Run one experiment as a simulated federation, or on a SuperLink."""
    given = {
        "method": method,
        "rounds": rounds,
        "clients": clients,
        "per_round": per_round,
        "partition": partition,
        "alpha": alpha,
        "seed": seed,
        "data_dir": data_dir,
        "gaps": missing,
        "engine": engine,
        "ray_address": ray_address,
        "cpus_per_client": cpus_per_client,
        "gpus_per_client": gpus_per_client,
    }
    overrides = parse_pairs(set_ or []) | {k: v for k, v in given.items() if v is not None}
    if on is not None:
        if from_round is not None:
            raise ConfigError(
                "--on takes no --from-round: go back there by "
                f"flwr run . {on} --run-config 'resume=\"{resume or 'FOLDER'}\" round={from_round}'"
            )
        from bmsfed_app.cli.remote import run_on

        raise typer.Exit(run_on(on, config, overrides, out, resume, track or ()))
    wanted = _wanted(config, overrides, resume)
    if from_round is not None and resume is None:
        raise ConfigError("--from-round goes back in the run that --resume names: give both")
    raise typer.Exit(_run(wanted, out, resume, overrides, from_round, track or ()))


def _wanted(source: str, overrides: dict[str, Any], resume: Path | None) -> ExperimentConfig | None:
    """The configuration asked for; None means the run folder's own."""
    if not source:
        if resume is None:
            raise ConfigError("name a configuration, e.g. bmsfed run conf/cg-mnist.yaml")
        if {key.split(".")[0] for key in overrides} - MACHINE_KEYS:
            raise ConfigError(
                "--resume goes on with the run as it was: give no settings but where and how fast "
                "(--engine, --cpus-per-client, ...)"
            )
        return None
    wanted = load_config(source, overrides)
    for note in idle_notes(wanted, source, overrides):
        print(note)
    return wanted


def _run(
    wanted: ExperimentConfig | None,
    out: Path | None,
    resume: Path | None,
    overrides: dict[str, Any],
    from_round: int | None,
    track: Sequence[str],
) -> int:
    if resume is None:
        assert wanted is not None
        return _run_on_engine(_tracked(wanted, track), lambda config: _new_folder(config, out))
    if out is not None:
        raise ConfigError("--out and --resume exclude each other: a resumed run keeps its folder")
    from server_app.run_folder import RunFolder

    folder = RunFolder.reopen(resume.expanduser(), wanted, overrides)
    folder.config = _tracked(folder.config, track)
    if not folder.config.clients:
        raise ConfigError(
            f"'{resume}' leaves the number of clients to Flower: go on with flwr run . "
            f"--run-config 'resume=\"{resume}\"'"
        )
    with folder.writing():
        if from_round is not None:
            folder.go_back(from_round)
        folder.check_unchanged()
        return _run_on_engine(folder.config, lambda config: folder)


def _tracked(config: ExperimentConfig, track: Sequence[str]) -> ExperimentConfig:
    if not track:
        return config
    from server_app.tracking import with_trackers

    return with_trackers(config, track)


def _new_folder(config: ExperimentConfig, out: Path | None) -> RunFolder:
    from server_app.run_folder import RunFolder

    path = out or default_run_dir(config.dataset_name, config.method, config.seed)
    return RunFolder.create(path.expanduser(), config)


def _run_on_engine(
    config: ExperimentConfig, folder_of: Callable[[ExperimentConfig], RunFolder]
) -> int:
    """Check an experiment and its data, run it, and return the exit code."""
    # Not before the options are known to be right: all this takes seconds to load.
    from bmsfed_app.cli.engines import check_machine
    from bmsfed_app.engine.early import early_cluster

    check_machine(config)
    wants_ray = config.engine == "ray" or bool(config.ray_address)
    with early_cluster(wants_ray, config.ray_address) as cluster:
        from bmsfed_app.cli.progress import prepare_if_needed
        from bmsfed_app.cli.simulate import check_experiment, simulate

        account = prepare_if_needed(config)
        config, shares = check_experiment(config)
        if cluster is not None:  # before there is a folder of a run that cannot begin
            cluster().slots(config.cpus_per_client, config.gpus_per_client)
        folder = folder_of(config)
        with folder.writing():
            for line in folder.record_data(account):
                print(line, flush=True)
                folder.log.note(line)
            error = simulate(folder, Console(), shares, cluster)
            return _ended(error, folder)


def _ended(error: BaseException | None, folder: RunFolder) -> int:
    """Say how a run ended, and return the exit code."""
    from server_app.best import ended_early
    from server_app.failures import ending

    ended = "" if error else ended_early(folder)
    line = ending(error, f"bmsfed run --resume {folder.path}", ended)
    print(f"bmsfed: {line}", file=sys.stderr if error else sys.stdout, flush=True)
    folder.log.note(line)
    if error is None:
        return 0
    if isinstance(error, KeyboardInterrupt):
        return 130

    from strategies import Paused

    if isinstance(error, Paused):
        return 3
    return 2 if isinstance(error, ValueError) else 1


@cli.command()
def report(
    what: Annotated[
        list[str],
        typer.Argument(help="Run folders, laid over each other; or sweeps (a YAML file, table2)."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the page and figures; by default the first run's, or results/SWEEP."
        ),
    ] = None,
    scale: Scale = "desk",
    on: On = "",
    runs: Runs = None,
    data_dir: DataDirs = None,
    set_: Pairs = None,
    leaderboard: Annotated[
        Path | None, typer.Option(help="With sweeps: a Markdown file that sums them up.")
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(
            help="With sweeps: runs.csv of earlier reports, or a folder of such reports, for runs "
            "whose folders are not here; repeatable."
        ),
    ] = None,
) -> None:
    """Make a page, tables and figures from run folders, or from sweeps."""
    if any(is_sweep(name) for name in what):
        from bmsfed_app.cli.sweep.reporting import report_sweeps

        sweeps = [wanted_sweep(name, scale, on, data_dir, set_) for name in what]
        options = ["--on", on] if on else []
        options += [part for pair in set_ or () for part in ("--set", pair)]
        for line in report_sweeps(sweeps, runs, out, leaderboard, options, also or ()):
            print(line)
        return
    from bmsfed_app.report import write_report

    folders = [Path(name) for name in what]
    print(write_report(folders, out or folders[0] / "report"))


@cli.command()
def methods(
    describe: Annotated[str | None, typer.Option(help="Explain one method.")] = None,
) -> None:
    """List the methods, or explain one."""
    from bmsfed_app.cli.described import show_method, show_methods

    # Piped, lines are not cut to a terminal's width.
    width = None if sys.stdout.isatty() else 200
    console = Console(markup=False, highlight=False, width=width)
    if describe is None:
        show_methods(console)
    else:
        show_method(describe, console)


if __name__ == "__main__":
    main()

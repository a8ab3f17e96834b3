"""``bmsfed tune``: settings by the validation part, with the same budget for each method."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from bmsfed_app.choice import package_fault
from bmsfed_app.cli.sweep import DataDirs, Pairs, Runs
from bmsfed_app.config import ConfigError, ExperimentConfig, config_of, parse_pairs, read_values
from bmsfed_app.paths import home
from bmsfed_app.record.files import is_complete
from bmsfed_app.record.origin import commit
from bmsfed_app.record.run import read_run
from bmsfed_app.record.summary import summary
from bmsfed_app.sweeps import SweepError, SweepRun, run_key
from bmsfed_app.sweeps.space import Dimension, described, parse_space, space_of
from bmsfed_app.sweeps.sweep import check_dirs, data_dir_of, parse_dirs

if TYPE_CHECKING:
    from optuna import Trial

    from bmsfed_app.cli.sweep.pool import Pool
    from bmsfed_app.datasets import Account

#: What is tuned on.
METRIC = "validation_accuracy"


def tune(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped one.")],
    methods: Annotated[str, typer.Option(help="Methods to tune: a,b,c.")],
    trials: Annotated[int, typer.Option(min=1, help="Settings tried of each method.")] = 20,
    space: Annotated[
        list[str] | None,
        typer.Option(
            help="KEY=LOW:HIGH, KEY=LOW:HIGH:log, KEY=A|B|C, or of one method METHOD/KEY=...; "
            "repeatable. The learning rate, 0.001:0.1:log, is tuned always."
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds that a setting's value is the mean of.")] = "0",
    out: Annotated[Path, typer.Option(help="Folder for the settings found.")] = Path(
        "results/tuned"
    ),
    runs: Runs = None,
    data_dir: DataDirs = None,
    set_: Pairs = None,
    cpus_per_run: Annotated[float, typer.Option(min=0.1, help="CPU cores of a run.")] = 1.0,
    gpus_per_run: Annotated[float, typer.Option(min=0, help="GPU share of a run.")] = 0.0,
    ray_address: Annotated[str, typer.Option(help="Ray cluster to run on.")] = "",
) -> None:
    """Tune methods by Optuna (TPE), each with the same budget, on the validation part alone.

    A setting's value is the mean of the validation accuracies of the last ten rounds.

    The validation part is a tenth of the training data unless the configuration says another.

    Whatever ends it, the same command goes on: runs that are complete are not run again.
    """
    names = [m.strip() for m in methods.split(",") if m.strip()]
    if fault := package_fault(tune):
        raise SweepError(fault)
    wanted = parse_space(space or [], names)
    numbers = _numbers(seeds)
    values = read_values(config)
    overrides = {"validation": values.get("validation", 0.1)} | parse_pairs(set_ or [])
    dirs, own = parse_dirs(data_dir or ()), [Path(config).stem, str(values.get("dataset", ""))]
    check_dirs(dirs, own)
    plan = Plan(config, values, overrides | data_dir_of(dirs, own), numbers, trials)
    for name in names:  # refuse all that cannot be before anything starts
        ends = {k: _ends(d) for k, d in space_of(name, wanted).items()}
        first = {k: found[0] for k, found in ends.items()}
        for key, found in ends.items():
            for value in found:
                plan.config(name, {**first, key: value}, numbers[0])
    root = (runs or home() / "sweeps").expanduser().absolute()
    needs = cpus_per_run, gpus_per_run
    try:
        _tune_all(plan, names, wanted, root, needs, ray_address, out)
    except KeyboardInterrupt:
        print("stopped: the same command goes on", file=sys.stderr)
        raise typer.Exit(130) from None


tune.needs = ("optuna", "bmsfed[tune]")  # type: ignore[attr-defined]


@dataclass
class Plan:
    """What is tuned.

    Attributes
    ----------
    source : str
        The configuration, as given.
    values : dict
        What stands in it.
    overrides : dict
        Over these, of all methods.
    seeds : list of int
    trials : int
        Of each method.
    """

    source: str
    values: Mapping[str, Any]
    overrides: Mapping[str, Any]
    seeds: list[int]
    trials: int

    @cached_property
    def _rates(self) -> tuple[float, float]:
        """The configuration's learning rate, and that of the last round."""
        whole = config_of(self.values, self.overrides)
        return whole.lr, whole.lr_min

    def settings(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a choice sets: with the learning rate, the last round's in proportion."""
        rate = chosen.get("lr")
        if not isinstance(rate, float | int) or "lr_min" in {**chosen, **self.overrides}:
            return dict(chosen)
        lr, last = self._rates
        return {**chosen, "lr_min": last * rate / lr}

    def config(self, method: str, chosen: Mapping[str, Any], seed: int) -> ExperimentConfig:
        """Return the experiment of a choice.

        Raises
        ------
        SweepError
            If it cannot be, or has no validation part.
        """
        try:
            found = config_of(
                self.values,
                {**self.overrides, **self.settings(chosen), "method": method, "seed": seed},
            )
        except ConfigError as error:
            raise SweepError(f"method '{method}': {error}") from None
        if not found.validation:
            raise SweepError("validation: 0 leaves nothing to tune on: set it to 0.1, say")
        return found

    def runs(self, method: str, chosen: Mapping[str, Any], trial: int) -> list[SweepRun]:
        """Return the runs of a choice, one for each seed."""
        found = []
        for seed in self.seeds:
            config = self.config(method, chosen, seed)
            label = f"trial {trial}"
            dataset = config.dataset_name
            found.append(SweepRun(method, dataset, "", label, seed, config, run_key(config)))
        return found


def _tune_all(
    plan: Plan,
    names: Sequence[str],
    space: Sequence[Dimension],
    root: Path,
    needs: tuple[float, float],
    address: str,
    out: Path,
) -> None:
    # Not before the options are known to be right: all this takes seconds to load.
    from bmsfed_app.cli.progress import prepare_if_needed
    from bmsfed_app.cli.sweep.pool import Pool
    from bmsfed_app.engine.early import early_cluster

    with early_cluster(True, address) as cluster:
        assert cluster is not None
        account = None
        if not address:
            first = {k: _ends(d)[0] for k, d in space_of(names[0], space).items()}
            account = prepare_if_needed(plan.config(names[0], first, plan.seeds[0]))
        pool = Pool(cluster(), root, *needs, command=" ".join(sys.argv))
        for name in names:
            found = _tuned(plan, name, space_of(name, space), pool, root, account)
            file = out / Path(plan.source).stem / f"{name}.yaml"
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(yaml.safe_dump(found, sort_keys=False), encoding="utf-8")
            except OSError as error:
                raise SweepError(
                    f"cannot write '{file}' ({error.strerror}): choose --out"
                ) from None
            print(f"{name}: {100 * found['value']:.1f}% on the validation part by {found['set']}")
            print(f"  {file}", flush=True)


def _tuned(
    plan: Plan,
    method: str,
    space: Mapping[str, Dimension],
    pool: Pool,
    root: Path,
    account: Account | None,
) -> dict[str, Any]:
    """Try settings, as many at a time as there is room for, and return the best."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=plan.seeds[0], constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    at_once = max(pool.at_once // len(plan.seeds), 1)
    reasons: list[str] = []
    while len(study.trials) < plan.trials:
        asked = []
        for _ in range(min(at_once, plan.trials - len(study.trials))):
            trial = study.ask()
            chosen = {key: _suggest(trial, key, d) for key, d in space.items()}
            asked.append((trial, chosen, plan.runs(method, chosen, trial.number)))
        wanted = [run for *_, runs in asked for run in runs]
        if account is not None:
            _check_complete(wanted, root, account)
        reasons += _run(wanted, pool, root)
        for trial, chosen, runs in asked:
            value = _value(runs, root)
            state = optuna.trial.TrialState.FAIL if value is None else None
            study.tell(trial, value, state)
            said = "failed" if value is None else f"{100 * value:.1f}%"
            print(
                f"{method}, trial {trial.number + 1} of {plan.trials}: {said} by {chosen}",
                flush=True,
            )
    if not study.get_trials(states=[optuna.trial.TrialState.COMPLETE]):
        raise SweepError(f"no trial of '{method}' was complete: {reasons[0] if reasons else ''}")
    return {
        "method": method,
        "set": plan.settings(study.best_params),
        "value": round(float(study.best_value), 4),
        "metric": f"{METRIC}, mean of the last ten rounds",
        "trials": plan.trials,
        "seeds": plan.seeds,
        "space": described(space),
        "config": plan.source,
        "over": {k: v for k, v in plan.overrides.items() if k != "data_dir"},
        "commit": commit(),
    }


def _check_complete(runs: Sequence[SweepRun], root: Path, account: Account) -> None:
    """Refuse complete runs on other data than there is now."""
    from bmsfed_app.cli.sweep.runs import other_data

    for run in runs:
        folder = run.folder(root)
        if is_complete(folder) and (why := other_data(run.config, folder, account)):
            raise SweepError(f"'{folder}': {why}")


def _run(runs: Sequence[SweepRun], pool: Pool, root: Path) -> list[str]:
    """Run what is not complete; return why some failed."""
    waiting = {r.key: r for r in runs if not is_complete(r.folder(root))}
    reasons: list[str] = []

    def on_end(run: SweepRun, outcome: Any) -> None:
        if outcome.state != "complete":
            reasons.append(outcome.why)
            print(f"bmsfed: {run.label}: {outcome.state}: {outcome.why}", file=sys.stderr)

    pool.work(list(waiting.values()), on_end, lambda: None)
    return reasons


def _value(runs: Sequence[SweepRun], root: Path) -> float | None:
    """Return the mean over seeds of what is tuned on; None if a run is not complete."""
    found = []
    for run in runs:
        folder = run.folder(root)
        if not is_complete(folder):
            return None
        read = read_run(folder)
        metric = read.metric(METRIC)
        ended = summary(read.rounds, metric) if metric else None
        if ended is None:
            return None
        found.append(ended.mean_last)
    return mean(found)


def _suggest(trial: Trial, key: str, one: Dimension) -> Any:
    if one.choices:
        return trial.suggest_categorical(key, one.choices)
    if one.whole:
        return trial.suggest_int(key, int(one.low), int(one.high), log=one.log)
    return trial.suggest_float(key, one.low, one.high, log=one.log)


def _ends(one: Dimension) -> Sequence[Any]:
    """Return all choices, or the two ends of a range, the lower one first."""
    return one.choices or (one.low, one.high)


def _numbers(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise SweepError(f"--seeds: whole numbers, such as 0,1,2, not '{text}'") from None
    return found

"""One experiment from configuration to run folder, over any grid."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from flwr.serverapp import Grid

from bmsfed_app import __version__
from bmsfed_app.aggregations import build_aggregation
from bmsfed_app.config import ExperimentConfig
from bmsfed_app.datasets import Split
from bmsfed_app.devices import check_compiler, find_device
from bmsfed_app.engine.base import SimulationGrid
from bmsfed_app.models import build_network, load_weights
from bmsfed_app.partitions import masked_as_training
from server_app.best import EarlyStopping, KeepBest, ended_early
from server_app.callbacks import Watched, build_callbacks
from server_app.client_tests import ClientTestsCallback
from server_app.closing import ClosingCallback
from server_app.evaluation import Evaluator
from server_app.failures import FailureLimit
from server_app.history import EvaluateCallback, RecordCallback
from server_app.metrics import with_standard
from server_app.other_splits import MaskedCallback, ValidationCallback
from server_app.overlap import Overlapped
from server_app.privacy import PrivacyCallback
from server_app.run_folder import RunFolder
from server_app.status import StatusCallback
from server_app.told import ToldCallback
from strategies import Arrays, Callback, ModalityStrategy, ServerState
from strategies.randomness import integer_seed


def run_experiment(
    grid: Grid,
    folder: RunFolder,
    *,
    callbacks: Sequence[Callback] = (),
    stop: threading.Event | None = None,
    overlap: bool = True,
) -> ServerState:
    """Run a folder's experiment, from its checkpoint if it has one.

    Parameters
    ----------
    grid : Grid
        Flower's grid.
    folder : RunFolder
        Has the configuration; receives everything written.
    callbacks : sequence of Callback, optional
        Besides those of the configuration. Those that declare metrics run between evaluation and
        recording, the others after it.
    stop : threading.Event, optional
        Ends the run after the last complete round.
    overlap : bool, default True
        Evaluate and record a round while the next one runs, unless a callback must see it first
        (``before_next_round``). False where clients train in this process: they would share its
        cores, and torch's settings.

    Raises
    ------
    DataError, WeightsError, ValueError
        If the data or initial weights cannot be read, or a callback is not known.
    RunFolderError
        If the run began on other data, another process writes in its folder, or the folder cannot
        be written.
    FederationError
        If the federation cannot go on, or more answers were left out than ``max_failures`` allows;
        ``Paused`` if it waited for clients for as long as ``patience`` allows.
    """
    with folder.writing():
        return _run(grid, folder, callbacks, stop, overlap)


def _run(
    grid: Grid,
    folder: RunFolder,
    callbacks: Sequence[Callback],
    stop: threading.Event | None,
    overlap: bool,
) -> ServerState:
    config = folder.config
    if folder.account is None:
        folder.check_unchanged()
        folder.record_data(config.check_data())
    assert folder.account is not None
    settings = replace(config.client_settings(), data=folder.account.fingerprint)
    strategy = build_strategy(config)
    state = folder.load_checkpoint()
    return strategy.run(
        grid,
        state or initial_model(config),
        num_rounds=state.round if state and ended_early(folder) else config.rounds,
        settings=settings.to_json(),
        round_settings=lambda r: {
            "lr": config.learning_rate(r),
            "progress": (r - 1) / config.rounds,
        },
        callbacks=[Overlapped(_watching(folder, callbacks), overlap)],
        min_clients=config.clients or config.min_clients,
        connect_timeout=config.connect_timeout,
        timeout=config.timeout,
        waiting=config.waiting(simulated=isinstance(grid, SimulationGrid)),
        stop=stop,
        frozen=settings.network.frozen(),
        authenticated=None if config.authenticated == "auto" else config.authenticated,
        test_every=config.eval_every if config.holdout else 0,
    )


def _watching(folder: RunFolder, callbacks: Sequence[Callback]) -> list[Callback]:
    """Return all that sees a round, in its order."""
    config = folder.config
    evaluator = build_evaluator(config)
    evaluate = EvaluateCallback(evaluator, config)
    named = build_callbacks(config.callbacks, Watched(folder.path, evaluator))
    privacy = [PrivacyCallback(config.dp.delta)] if config.dp else []
    told = [ToldCallback(metrics)] if (metrics := config.method_settings().metrics) else []
    kept: list[Callback] = []
    evaluators = {"test": evaluator}
    if config.validation:
        held = evaluators["validation"] = build_evaluator(config, config.load_validation())
        kept.append(ValidationCallback(held, config.eval_every))
    if config.holdout:
        kept.append(ClientTestsCallback())
    if config.stop_after:
        kept.append(EarlyStopping(folder))
    if config.missing and config.missing.rate:
        split = masked_as_training(evaluator.test, config.missing, seed=config.seed)
        masked = evaluators["masked"] = build_evaluator(config, split)
        kept.append(MaskedCallback(masked, config.eval_every))
    adding = [*kept, *privacy, *told, *(c for c in (*named, *callbacks) if c.metrics)]
    showing = [c for c in (*named, *callbacks) if not c.metrics]
    record = RecordCallback(folder, evaluate, adding)
    best = [KeepBest(folder)] if config.keep == "best" else []
    # A run is complete by what the record writes of its end: when the closing tests are there.
    writing = [ClosingCallback(folder, evaluators), record, *best, StatusCallback(folder)]
    # The last one may end the run, whose round all others have seen by then.
    return [evaluate, *adding, *writing, *showing, FailureLimit(folder)]


def build_strategy(config: ExperimentConfig) -> ModalityStrategy:
    """Build the method's strategy."""
    common = {
        "clients_per_round": config.per_round,
        "seed": config.seed,
        "app_version": __version__,
        "aggregation": build_aggregation(config.aggregation),
        "outlier_factor": config.outlier_factor,
    }
    strategy = config.method_settings().strategy(**common)
    if config.dp:
        strategy.protect(config.dp.budget())
    return strategy


def build_evaluator(config: ExperimentConfig, split: Split | None = None) -> Evaluator:
    """Build the evaluator of a split, on the GPU if there is one and may be used.

    The data must be prepared; see :meth:`ExperimentConfig.check_data`.

    Parameters
    ----------
    config : ExperimentConfig
    split : Split, optional
        By default, the test split is loaded.

    Raises
    ------
    ValueError
        If networks are to be compiled, and this machine cannot.
    """
    test = config.load_data("test").test if split is None else split
    assert test is not None
    device = find_device(config.device)
    if config.compile:
        check_compiler(device)
    return Evaluator(
        config.network_spec(),
        test,
        device,
        config.eval_batch_size,
        with_standard(config.metrics),
        precision=config.precision,
        compiled=config.compile,
    )


def initial_model(config: ExperimentConfig) -> Arrays:
    """Return the initial global model by state-dict name, of the seed and ``initial_weights``.

    Raises
    ------
    WeightsError
        If ``initial_weights`` cannot be read, or do not fit.
    """
    network = build_network(config.network_spec(), integer_seed(config.seed, "init"))
    load_weights(network, config.initial_weights)
    return {
        name: np.array(value.numpy(), order="C") for name, value in network.state_dict().items()
    }

"""Trackers: what the real ones hold of a run, on going on, going back, and when they fail."""

import io
import json
import logging
import multiprocessing
import os
import signal
import struct
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg as StockFedAvg
from PIL import Image

from bmsfed_app.choice import package_fault
from bmsfed_app.cli.main import main
from bmsfed_app.config import ExperimentConfig, load_config
from bmsfed_app.engine import InlineGrid
from bmsfed_app.record.run import read_run
from client_app.app import app
from server_app.app import folder_from_run_config
from server_app.callbacks import CALLBACKS, Watched
from server_app.checkpoints import differing
from server_app.experiment import run_experiment
from server_app.run_folder import RunFolder
from server_app.tracking import Tracker, with_trackers
from strategies import Callback, Decisions, RoundReport, WithCallbacks
from strategies.testing import FakeGrid
from tests.e2e.conftest import free_port

SMALL: dict[str, Any] = {"clients": 3, "per_round": 2, "data_fraction": 0.1, "method": "fedavg"}
SMALL |= {"connect_timeout": 5, "local_epochs": 1, "encoders": {"colored": "mlp", "gray": "mlp"}}
NAMES = ("tensorboard", "mlflow", "wandb")


class Held(NamedTuple):
    """What a tracker holds of one run."""

    points: dict[str, list[tuple[int, float]]]
    params: dict[str, Any]
    tags: dict[str, str]
    figures: dict[str, bytes]
    ending: str = ""


def in_tensorboard(folder: Path, home: Path) -> list[Held]:
    """Read the events, as TensorBoard does."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(folder / "tensorboard"), {"scalars": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    points = {t: [(e.step, e.value) for e in events.Scalars(t)] for t in tags["scalars"]}
    written = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    found = HParamsPluginData.FromString(written).session_start_info.hparams
    params = {k: getattr(v, str(v.WhichOneof("kind"))) for k, v in found.items()}
    figures = {
        t.removeprefix("figures/"): events.Images(t)[-1].encoded_image_string
        for t in tags["images"]
    }
    return [Held(points, params, {k: str(v) for k, v in params.items()}, figures)]


def in_mlflow(folder: Path, home: Path) -> list[Held]:
    """Read the store, as MLflow does: the oldest run first."""
    from mlflow import MlflowClient

    client, found = MlflowClient(store(home)), []
    experiment = client.get_experiment_by_name("bmsfed")
    assert experiment is not None
    for run in reversed(client.search_runs([experiment.experiment_id])):
        history = {k: client.get_metric_history(run.info.run_id, k) for k in run.data.metrics}
        points = {k: [(m.step, m.value) for m in own] for k, own in history.items()}
        folder = Path(run.info.artifact_uri.removeprefix("file://")) / "figures"
        figures = {p.stem: p.read_bytes() for p in folder.glob("*.png")}
        found.append(
            Held(points, run.data.params, dict(run.data.tags), figures, run.info.status.lower())
        )
    return found


def in_wandb(folder: Path, home: Path) -> list[Held]:
    """Read the files that `wandb sync` sends: those of one id are one run."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # its process has then written all
    runs: dict[str, Held] = {}
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        held = runs.setdefault(file.stem, Held(defaultdict(list), {}, {}, {}))
        for data in _leveldb(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            values = {
                i.key or "/".join(i.nested_key): json.loads(i.value_json)
                for i in record.history.item
            }
            for name, value in values.items():
                if name.startswith("figures/") and name.endswith("/path"):
                    image = (file.parent / "files" / value).read_bytes()
                    held.figures[name.split("/")[1]] = image
                elif isinstance(value, int | float) and not name.startswith(("_", "figures/")):
                    held.points[name].append((values["round"], value))
            if record.HasField("run"):
                for item in record.run.config.update:
                    held.params[item.key] = json.loads(item.value_json)
                held.tags.update(tag.split(":", 1) for tag in record.run.tags)
    return list(runs.values())


def _leveldb(data: bytes) -> Iterator[bytes]:
    """Yield the records of a log in LevelDB's format, behind W&B's header of seven bytes."""
    at, block, whole = 7, 2**15, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield whole
            whole = b""


READERS: dict[str, Callable[[Path, Path], list[Held]]] = {
    "tensorboard": in_tensorboard,
    "mlflow": in_mlflow,
    "wandb": in_wandb,
}


def store(home: Path) -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without settings of trackers but a plain store of files, which is there at once."""
    for name in [n for n in os.environ if n.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("BMSFED_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(CALLBACKS.find(request.param).needs[0])  # type: ignore[attr-defined]
    return str(request.param)


def experiment(rounds: int, *trackers: str, **more: Any) -> ExperimentConfig:
    return with_trackers(load_config("cg-digits", SMALL | {"rounds": rounds} | more), trackers)


class Fails(Callback):
    """Ends the run, when all others have seen a round."""

    def __init__(self, server_round: int) -> None:
        self.round = server_round

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        if report.round == self.round:
            raise RuntimeError("the power went")


def run(folder: RunFolder, *callbacks: Callback) -> None:
    run_experiment(InlineGrid(app, 3), folder, callbacks=callbacks, overlap=False)


def rounds_of(held: Held) -> list[int]:
    return [step for step, _ in sorted(held.points["accuracy"])]


def test_a_tracker_is_told_all_of_a_run(
    name: str, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BMSFED_SWEEP", "table2")
    config = experiment(2, name, seed=4)
    run(RunFolder.create(tmp_path / "run", config))
    found = read_run(tmp_path / "run")
    [held] = READERS[name](tmp_path / "run", home)
    for metric, modality in (("accuracy", None), ("accuracy_by_modality", "gray"), ("loss", None)):
        key = f"{metric}/{modality}" if modality else metric
        expected = dict(found.values(metric, modality))
        assert [step for step, _ in sorted(held.points[key])] == list(expected)
        assert dict(held.points[key]) == pytest.approx(expected, rel=1e-6)  # TensorBoard's: float32
    assert rounds_of(held) == [0, 1, 2]
    bytes_up = [(r.round, r.bytes_up) for r in found.rounds]
    assert sorted(held.points["bytes_up"]) == bytes_up
    assert dict(held.points["ratio/gray"])[2] == pytest.approx(found.rounds[2].ratio["gray"])
    assert str(held.params["optimizer.name"]) == "sgd"
    assert float(held.params["data_fraction"]) == 0.1
    for key, value in (("method", "fedavg"), ("dataset", "cg-digits"), ("seed", "4")):
        assert held.tags[key].removesuffix(".0") == value
    assert held.tags["sweep"] == "table2"
    assert held.tags["commit"] == (found.info.commit or found.info.source)
    assert {"accuracy", "ratio", "selection", "classes", "traffic"} <= set(held.figures)
    assert Image.open(io.BytesIO(held.figures["accuracy"])).width > 300
    assert held.ending in ("", "finished")


def test_a_resumed_run_goes_on_in_the_same_place(name: str, tmp_path: Path, home: Path) -> None:
    config = experiment(3, name)
    folder = RunFolder.create(tmp_path / "run", config)
    with pytest.raises(RuntimeError, match="the power went"):
        run(folder, Fails(2))
    [held] = READERS[name](folder.path, home)
    assert rounds_of(held) == [0, 1, 2]
    assert held.ending in ("", "failed")
    assert not held.figures  # there is more to come
    run(RunFolder.reopen(folder.path))
    [held] = READERS[name](folder.path, home)
    assert rounds_of(held) == [0, 1, 2, 3]
    assert held.figures
    assert held.ending in ("", "finished")
    # A run that is complete is told nothing twice.
    run(RunFolder.reopen(folder.path))
    [held] = READERS[name](folder.path, home)
    assert rounds_of(held) == [0, 1, 2, 3]


class Dies(Callback):
    """Ends its process and all that this has started."""

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        if report.round == 2:
            os.killpg(0, signal.SIGKILL)


def dying(path: Path, name: str) -> None:
    os.setpgrp()
    run(RunFolder.create(path, experiment(3, name)), Dies())


def test_a_run_that_was_killed_goes_on_without_a_gap(name: str, tmp_path: Path, home: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=dying, args=(tmp_path / "run", name)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    run(RunFolder.reopen(tmp_path / "run"))
    [held] = READERS[name](tmp_path / "run", home)
    assert rounds_of(held) == [0, 1, 2, 3]
    # Files of one second are read in no particular order.
    seconds = [p.name.split(".")[3] for p in (tmp_path / "run/tensorboard").glob("*")]
    assert len(seconds) == len(set(seconds))


def test_a_run_that_went_back_is_told_anew(name: str, tmp_path: Path, home: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", experiment(2, name))
    run(folder)
    again = RunFolder.reopen(folder.path)
    again.go_back(1)
    run(again)
    runs = READERS[name](folder.path, home)
    assert len(runs) == (1 if name == "tensorboard" else 2)
    assert all(rounds_of(held) == [0, 1, 2] for held in runs)


def test_a_run_can_be_tracked_when_it_is_complete(
    name: str, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(RunFolder.create(tmp_path / "run", experiment(1)))
    monkeypatch.setattr(
        sys, "argv", ["bmsfed", "run", "--resume", str(tmp_path / "run"), "--track", name]
    )
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    [held] = READERS[name](tmp_path / "run", home)
    assert rounds_of(held) == [0, 1]
    assert held.figures


def test_trackers_change_nothing_of_a_run(tmp_path: Path) -> None:
    for one in NAMES:
        pytest.importorskip(CALLBACKS.find(one).needs[0])  # type: ignore[attr-defined]
    configs = experiment(2), experiment(2, *NAMES)
    assert differing(*configs) == []
    told = []
    for number, config in enumerate(configs):
        folder = RunFolder.create(tmp_path / str(number), config)
        run(folder)
        rows = read_run(folder.path).rounds
        told.append([{k: v for k, v in r.metrics.items() if "seconds" not in k} for r in rows])
        told[-1] += [folder.model.read_bytes()]
    assert told[0] == told[1]


def test_mlflow_keeps_the_runs_of_a_user_in_one_store(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    for seed in (0, 1):
        run(RunFolder.create(tmp_path / str(seed), experiment(1, "mlflow", seed=seed)))
    runs = in_mlflow(tmp_path, home)
    assert [held.tags["seed"] for held in runs] == ["0", "1"]
    assert all(rounds_of(held) == [0, 1] and held.figures for held in runs)
    assert (home / "mlflow.db").is_file()


def test_a_tracker_that_fails_warns_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("mlflow")
    settings = {"mlflow": {"uri": f"http://127.0.0.1:{free_port()}"}}
    folder = RunFolder.create(tmp_path / "run", experiment(2, callbacks=settings))
    with caplog.at_level(logging.WARNING, "flwr"):
        run(folder)
    assert read_run(folder.path).complete
    [warning] = [r.getMessage() for r in caplog.records if "tracker" in r.getMessage()]
    assert "tracker mlflow failed" in warning
    assert f"bmsfed run --resume {folder.path} --track mlflow" in warning


def test_what_a_tracker_lacked_is_told_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorboard")
    folder = RunFolder.create(tmp_path / "run", experiment(2, "tensorboard"))
    (folder.path / "tensorboard").write_text("in the way")

    class Clears(Callback):
        def after_round(self, strategy: Decisions, report: RoundReport) -> None:
            if report.round == 2:
                (folder.path / "tensorboard").unlink()

    run(folder, Clears())
    assert caplog.text.count("tracker tensorboard failed") == 1
    [held] = in_tensorboard(folder.path, tmp_path)
    assert rounds_of(held) == [0, 1, 2]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"wandb": {"mode": "ofline"}}, "callback wandb: mode: 'ofline' is neither online nor off"),
        ({"mlflow": {"uri": "bla://there"}}, "callback mlflow: uri: MLflow cannot use 'bla://th"),
        ({"mlflow": {"url": "x"}}, r"callbacks.mlflow: unknown setting 'url'; did you mean 'uri'"),
    ],
)
def test_settings_that_cannot_be_are_named(
    settings: dict[str, Any], says: str, tmp_path: Path
) -> None:
    pytest.importorskip(next(iter(settings)))
    with pytest.raises(ValueError, match=says):
        run(RunFolder.create(tmp_path / "run", experiment(1, callbacks=settings)))


def test_a_tracker_that_is_not_installed_is_named_before_anything_starts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tracked = RunFolder.create(tmp_path / "tracked", experiment(1, name))
    monkeypatch.setitem(sys.modules, CALLBACKS.find(name).needs[0], None)  # type: ignore
    out = tmp_path / "run"
    for arguments in (
        ["cg-digits", "--out", str(out), "--track", name],
        ["cg-digits", "--out", str(out), "--set", f"callbacks.{name}={{}}"],
        ["--resume", str(tracked.path)],
    ):
        monkeypatch.setattr(sys, "argv", ["bmsfed", "run", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        said = capsys.readouterr().err.splitlines()
        assert said == [
            f"bmsfed: callbacks.{name}: the package {name} is not installed: "
            f"pip install 'bmsfed[{name}]'"
        ]
    assert not out.exists()
    # A run that was tracked can be gone on with where the tracker is not.
    assert RunFolder.reopen(tracked.path, None, {"callbacks": {}}).config.callbacks == {}


def test_a_folder_of_its_name_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_by_it").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))

    class Needy:
        needs = ("made_by_it", "x")

    assert package_fault(Needy) == "the package made_by_it is not installed: pip install 'x'"


def test_flwr_run_and_methods_of_callbacks_take_trackers_besides(tmp_path: Path) -> None:
    for one in ("tensorboard", "mlflow"):
        pytest.importorskip(one)
    given = {"method": "private-head", "out": str(tmp_path / "run")}
    pairs = 'set="callbacks.mlflow={experiment: mine}"'
    folder = folder_from_run_config(given | {"track": "tensorboard"})
    assert folder.config.callbacks == {"personal": {}, "tensorboard": {}}
    tracked = {"track": "tensorboard mlflow", "set": pairs.removeprefix("set=")}
    folder = folder_from_run_config({"out": str(tmp_path / "other")} | tracked)
    assert folder.config.callbacks == {"mlflow": {"experiment": "mine"}, "tensorboard": {}}
    again = folder_from_run_config({"resume": str(folder.path)})
    assert again.config.callbacks == folder.config.callbacks


# --- other people's strategies -------------------------------------------------------------------


def client(message: Message) -> RecordDict:
    """A client of Flower's own kind: adds 1, and says how it went."""
    arrays = message.content.array_records.get("arrays")
    metrics = MetricRecord({"num-examples": 10, "train_loss": 0.5})
    if message.metadata.message_type.startswith("evaluate") or arrays is None:
        return RecordDict({"metrics": MetricRecord({"num-examples": 10, "eval_loss": 0.25})})
    changed = [a + 1 for a in arrays.to_numpy_ndarrays()]
    return RecordDict({"arrays": ArrayRecord(changed), "metrics": metrics})


@pytest.mark.parametrize("central", [False, True])
def test_a_strategy_of_flowers_own_is_tracked(
    name: str, central: bool, tmp_path: Path, home: Path
) -> None:
    made: Any = CALLBACKS.find(name)
    tracker = made(tmp_path / "mine", config={"lr": 0.1}, tags={"seed": 3})
    strategy = WithCallbacks(StockFedAvg(), [tracker])
    initial = ArrayRecord([np.zeros(2, np.float32)])
    evaluate = (lambda r, arrays: MetricRecord({"accuracy": r / 10})) if central else None
    grid = FakeGrid({"a": client, "b": client})
    result = strategy.start(grid, initial, num_rounds=2, evaluate_fn=evaluate)
    assert result.arrays.to_numpy_ndarrays()[0].tolist() == [2.0, 2.0]
    [held] = READERS[name](tmp_path / "mine", home)
    assert held.points["train/train_loss"] == [(1, 0.5), (2, 0.5)]
    assert held.points["evaluate/eval_loss"] == [(1, 0.25), (2, 0.25)]
    if central:
        assert held.points["server/accuracy"] == [
            (1, pytest.approx(0.1)),
            (2, pytest.approx(0.2)),
        ]
    assert float(held.params["lr"]) == 0.1
    assert held.tags["seed"] == "3"
    assert held.ending in ("", "finished")


def test_callbacks_hear_of_an_error_in_anybodys_loop() -> None:
    heard: list[object] = []

    class Hears(Callback):
        def on_start(self, strategy: Decisions, num_rounds: int) -> None:
            heard.append(num_rounds)

        def on_end(self, strategy: Decisions, error: BaseException | None) -> None:
            heard.append(str(error))

    def broken(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        raise RuntimeError("no test data")

    strategy = WithCallbacks(StockFedAvg(), [Hears()])
    with pytest.raises(RuntimeError, match="no test data"):
        strategy.start(FakeGrid({"a": client}), ArrayRecord(), num_rounds=1, evaluate_fn=broken)
    assert heard == [1, "no test data"]


def test_every_tracker_says_what_it_needs() -> None:
    for one in NAMES:
        made = CALLBACKS.find(one)
        assert isinstance(made, type)
        assert issubclass(made, Tracker)
        assert (made.name, made.needs[1]) == (one, f"bmsfed[{one}]")
    assert Watched.__doc__

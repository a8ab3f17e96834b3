"""Workers that die, hang, do not fit; arrays that travel once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import ray
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from bmsfed_app.engine import EngineError, RayGrid, cluster
from strategies.federation.lazy_array import LazyArray, record_of
from strategies.federation.transport import GridTransport, Interrupted
from tests.engine.apps import app

pytestmark = pytest.mark.xdist_group("ray")

CLIENTS = 5


@pytest.fixture
def grid(ray_cluster: None) -> Iterator[RayGrid]:
    with RayGrid(app, CLIENTS) as made:
        yield made


def contents(size: int = 200, **orders: Any) -> RecordDict:
    arrays = record_of({"w": LazyArray(np.zeros((size, size), np.float32))})
    return RecordDict({"arrays": arrays, "config": ConfigRecord(orders)})


def exchanged(grid: RayGrid, timeout: float = 600, **orders: Any) -> dict[int, Any]:
    content = contents(**orders)
    outgoing = dict.fromkeys(grid.get_node_ids(), ("train", content))
    return GridTransport(grid).exchange(outgoing, group="1", timeout=timeout)


def processes(answers: dict[int, Any]) -> set[int]:
    said = [a.content for a in answers.values() if a.content is not None]
    return {c.metric_records["metrics"]["process"] for c in said}


def test_a_worker_that_dies_costs_its_client_one_answer(grid: RayGrid) -> None:
    before = processes(exchanged(grid))
    answers = exchanged(grid, die=2)
    assert {node - 1 for node, a in answers.items() if a.error} == {2}
    assert "its worker process ended: " in answers[3].error
    after = exchanged(grid)
    assert not any(a.error for a in after.values())
    assert grid.workers == 2
    assert len(processes(after) - before) <= 1
    # What the other clients' contexts keep is not lost with a worker.
    assert after[1].content.metric_records["metrics"]["messages"] == 3


def test_a_client_that_hangs_is_left_out_and_its_worker_replaced(grid: RayGrid) -> None:
    exchanged(grid)
    answers = exchanged(grid, timeout=5, hang=1)
    assert answers[2].error == "no answer within 5 s"
    assert not any(a.error for a in exchanged(grid).values())
    assert grid.workers == 2


def test_stopping_drops_what_is_under_way(grid: RayGrid) -> None:
    exchanged(grid)
    outgoing = {node: ("train", contents(hang=node - 1)) for node in (1, 2, 3)}
    with pytest.raises(Interrupted):
        GridTransport(grid).exchange(
            outgoing, group="1", timeout=600, should_stop=lambda: len(grid._busy) == 2
        )
    assert not grid._busy
    assert not any(a.error for a in exchanged(grid).values())


def test_arrays_go_into_shared_memory_once(grid: RayGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    exchanged(grid)
    put: list[int] = []
    real = ray.put

    def counted(value: Any) -> Any:
        put.append(sum(array.nbytes for array in value))
        return real(value)

    monkeypatch.setattr(ray, "put", counted)
    answers = exchanged(grid, size=1000)
    assert put == [4_000_000]
    for node, answer in answers.items():
        view = answer.content.array_records["arrays"]["w"]
        assert (view.numpy() == node - 1).all()


def test_more_answers_than_shared_memory_holds(grid: RayGrid) -> None:
    """Five answers of 64 MB where half of 256 MB is for answers: the rest is copied out."""
    answers = exchanged(grid, size=4000)
    assert 0 < grid._held <= grid._room < 2**28
    for node, answer in answers.items():
        assert answer.error == ""
        assert (answer.content.array_records["arrays"]["w"].numpy() == node - 1).all()
    del answers
    assert not any(a.error for a in exchanged(grid, size=4000).values())


def test_an_app_without_a_module_runs(ray_cluster: None) -> None:
    made = ClientApp()

    @made.query()
    def query(message: Message, context: Any) -> Message:
        return Message(RecordDict(), reply_to=message)

    with RayGrid(made, 2) as grid:
        replies = list(grid.send_and_receive([Message(RecordDict(), 1, "query")]))
    assert not replies[0].has_error()


class Unloadable(ClientApp):
    """An app that falls apart where it arrives."""

    def __reduce__(self) -> Any:
        return _fall_apart, ()


def _fall_apart() -> None:
    raise RuntimeError("no such library here")


def test_an_app_that_workers_cannot_load(ray_cluster: None) -> None:
    with (
        RayGrid(Unloadable(), 2) as grid,
        pytest.raises(EngineError, match="cannot load the app: no such library here"),
    ):
        grid.send_and_receive([Message(RecordDict(), 1, "train")])


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"cpus": 3}, r"needs 3 cores and 0 GPUs, the largest machine has 2 and 0: lower cpus"),
        ({"gpus": 0.5}, r"needs 1 cores and 0.5 GPUs, the largest machine has 2 and 0"),
    ],
)
def test_what_does_not_fit_is_refused(
    ray_cluster: None, options: dict[str, Any], fault: str
) -> None:
    with pytest.raises(EngineError, match=fault):
        RayGrid(app, CLIENTS, **options)


def test_too_little_shared_memory_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_users", 0)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(EngineError, match=r"MiB free.*needs \d+ MiB: enlarge it .*--engine inline"):
        RayGrid(app, CLIENTS, object_store=2**50)


def test_messages_larger_than_the_store_are_refused(ray_cluster: None) -> None:
    with pytest.raises(EngineError, match=r"has 256 MiB, models of 100 MiB for 2 workers need 500"):
        RayGrid(app, CLIENTS, payload=100 * 2**20)


def test_an_address_where_nobody_answers() -> None:
    """In a process of its own: Ray allows one connection."""
    script = (
        "from bmsfed_app.engine import EngineError, RayGrid\n"
        "from tests.engine.apps import app\n"
        "try: RayGrid(app, 2, address='127.0.0.1:1')\n"
        "except EngineError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "no Ray cluster answers at '127.0.0.1:1'" in result.stdout, result.stderr[-2000:]
    assert "ray start --head" in result.stdout


@pytest.mark.e2e
def test_a_machine_that_does_not_answer_for_a_while_is_not_given_up() -> None:
    """As when it is overloaded: Ray's own process stands still, longer than Ray waits by itself."""
    script = (
        "import os, signal, time, ray\n"
        "from tests.engine.test_ray_grid import RayGrid, app, exchanged\n"
        "with RayGrid(app, 1) as grid:\n"
        "    [raylet] = ray._private.worker._global_node.all_processes['raylet']\n"
        "    os.kill(raylet.process.pid, signal.SIGSTOP)\n"
        "    time.sleep(8)\n"
        "    os.kill(raylet.process.pid, signal.SIGCONT)\n"
        "    time.sleep(2)\n"
        "    print([a.error for a in exchanged(grid).values()], ray.nodes()[0]['Alive'])\n"
    )
    checks = {"period_ms": "300", "timeout_ms": "500", "initial_delay_ms": "0"}
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {f"RAY_health_check_{name}": value for name, value in checks.items()},
        capture_output=True,
        text=True,
    )
    assert result.stdout.splitlines()[-1:] == ["[''] True"], result.stderr[-3000:]


@pytest.mark.e2e
def test_a_machine_that_is_lost_costs_the_clients_it_worked_for() -> None:
    """Two Ray nodes here, one of which is ended while clients work on it.

    Their folder is their own: whatever else looks for a Ray on this machine does not find them.
    """
    script = Path(__file__).with_name("two_machines.py")
    # In /tmp: the names of sockets must be short.
    with TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        result = subprocess.run(
            [sys.executable, str(script)],
            env=os.environ | {"RAY_TMPDIR": folder},
            capture_output=True,
            text=True,
        )
    assert result.returncode == 0, result.stderr[-3000:]
    told = json.loads(result.stdout.splitlines()[-1])
    assert told["alone"]  # who names no address is not drawn into a cluster that is there
    rounds = told["rounds"]
    everybody = [0, 1, 2, 3]
    assert [r["answered"] for r in rounds] == [everybody, rounds[1]["answered"], everybody]
    assert len(rounds[1]["lost"]) == 1
    assert rounds[2]["workers"] == 1


ASKS = """
import os, ray
from bmsfed_app.engine.cluster import Cluster

found = Cluster()
visible = lambda: os.environ["CUDA_VISIBLE_DEVICES"]
print("visible:", repr(ray.get(ray.remote(num_gpus=0)(visible).remote())))
found.leave()
"""


@pytest.mark.e2e
def test_workers_without_a_share_of_a_gpu_see_none(tmp_path: Path) -> None:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "0"}
    done = subprocess.run(
        [sys.executable, "-c", ASKS], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.endswith("visible: ''\n"), done.stdout + done.stderr

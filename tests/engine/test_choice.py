"""Which engine `bmsfed run` takes, and what it refuses before anything starts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message

from bmsfed_app.cli import engines
from bmsfed_app.cli.engines import check_machine, choose_engine, work_of
from bmsfed_app.cli.main import cli
from bmsfed_app.config import ConfigError, load_config
from bmsfed_app.engine import EngineError
from bmsfed_app.models import build_network
from bmsfed_app.models.cost import forward_flops, model_bytes
from bmsfed_app.partitions import Share
from strategies import Orders, Task
from strategies.protocol import pack_task
from strategies.testing import FakeGrid


def shares(clients: int, samples: int) -> list[Share]:
    rows = [np.arange(samples) for _ in range(clients)]
    return [Share(str(n), r, ("colored", "gray")) for n, r in enumerate(rows)]


def chosen(samples: int = 100, **keys: Any) -> str:
    config = load_config("cg-digits", {"clients": 10, **keys})
    return choose_engine(config, shares(10, samples))[0]


def test_little_work_stays_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert chosen() == "inline"
    assert chosen(samples=100_000) == "ray"
    assert chosen(rounds=1000) == "ray"


def test_one_client_at_a_time_stays_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert chosen(samples=100_000, cpus_per_client=3) == "inline"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert chosen(samples=100_000, gpus_per_client=1) == "inline"
    assert chosen(samples=100_000, gpus_per_client=0.25) == "ray"


def test_what_is_set_is_taken() -> None:
    assert chosen(engine="ray") == "ray"
    assert chosen(samples=10**6, engine="inline") == "inline"
    assert chosen(ray_address="auto") == "ray"


def test_an_address_and_this_process_exclude_each_other() -> None:
    config = load_config("cg-digits", {"engine": "inline", "ray_address": "auto"})
    with pytest.raises(ConfigError, match="set one of them"):
        check_machine(config)


def test_a_run_whose_cluster_does_not_answer_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tests beside this one may have begun with a Ray of their own, which would be taken.
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    out = tmp_path / "run"
    options = ["--clients", "2", "--ray-address", "127.0.0.1:1", "--out", str(out)]
    with pytest.raises(EngineError, match=r"no Ray cluster answers at '127\.0\.0\.1:1'"):
        cli(["run", "cg-digits", *options], standalone_mode=False)
    assert not out.exists()


def test_a_gpu_of_this_process_needs_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check_machine(load_config("cg-digits", {"device": "cuda", "engine": "inline"}))
    check_machine(load_config("cg-digits", {"device": "cuda"}))
    with pytest.raises(ConfigError, match="set gpus_per_client"):
        check_machine(load_config("cg-digits", {"device": "cuda", "engine": "ray"}))


def test_a_gpu_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert chosen(samples=100_000) == "inline"
    assert chosen(samples=100_000, device="cpu") == "ray"
    assert chosen(samples=100_000, gpus_per_client=0.25) == "ray"
    assert chosen(samples=100_000, ray_address="auto") == "ray"


def test_the_cost_of_a_network_is_counted_without_it() -> None:
    spec = load_config("cg-digits").network_spec()
    arrays = build_network(spec, 0).state_dict().values()
    assert model_bytes(spec) == sum(v.numpy().nbytes for v in arrays)
    alone = [forward_flops(spec, [m]) for m in spec.encoders]
    assert all(f > 1e5 for f in alone)
    assert forward_flops(spec) == pytest.approx(sum(alone), rel=0.01)


def test_work_is_told_by_samples_and_assignment() -> None:
    FakeGrid({})
    describe = work_of([7, 3])
    task = Task(Orders("train", ("gray",), client_id="1"))
    work = describe(Message(pack_task(task), 2, "train"))
    assert (work.kind, work.size) == (("train", "train", "gray"), 3)
    measure = Task(Orders("measure", ("colored", "gray"), client_id="0"))
    work = describe(Message(pack_task(measure), 1, "query.measure"))
    assert (work.kind, work.size) == (("query.measure", "measure", "colored", "gray"), 7)


def test_every_shipped_configuration_has_a_cost() -> None:
    """Nothing that is shipped falls back to "unknown", which always starts processes."""
    assert np.isfinite(forward_flops(load_config("mvsa").network_spec()))
    assert engines._WORTHWHILE > 0
    json.dumps(choose_engine(load_config("utd-mhad", {"clients": 4}), shares(4, 100)))

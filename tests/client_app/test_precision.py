"""Encoders in bfloat16 and by compiled code: what changes, what must not, who says it cannot be."""

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bmsfed_app import devices
from bmsfed_app.config import ConfigError, load_config
from bmsfed_app.models import NetworkSpec, build_network
from client_app.training import run_task
from server_app.evaluation import Evaluator
from server_app.experiment import build_evaluator
from strategies import Orders, SignatureOrders, Task, Update
from strategies.protocol import select_parts
from tests import synthetic

ALL = tuple(synthetic.WIDTHS)


def trained(*modalities: str, told: Mapping[str, Any] | None = None, **changes: Any) -> Update:
    """A client's answer to the first round, in which it is told so."""
    state = build_network(synthetic.spec("mlp"), 0).state_dict()
    parts = select_parts({n: v.numpy().copy() for n, v in state.items()}, modalities or ALL)
    values = {"network": synthetic.spec("mlp"), "batch_size": 30} | synthetic.ENHANCING | changes
    task = Task(Orders("train", modalities or ALL, **told or {}), parts)
    return run_task(task, synthetic.client(), synthetic.settings(**values))


def test_bf16_trains_near_float32_and_parameters_stay_float32() -> None:
    exact, half = trained(), trained(precision="bf16", prototypes=True)
    assert {v.dtype for v in half.arrays.values()} == {np.dtype(np.float32)}
    assert {p.means.dtype for p in half.prototypes.values()} == {np.dtype(np.float32)}
    assert half.metrics["loss"] == pytest.approx(exact.metrics["loss"], rel=0.05)
    for name, value in exact.arrays.items():
        np.testing.assert_allclose(half.arrays[name], value, atol=0.02)
    assert any((half.arrays[n] != v).any() for n, v in exact.arrays.items())


def test_nothing_of_bf16_is_left_for_a_task_in_float32() -> None:
    before = trained()
    trained(precision="bf16")
    after = trained()
    assert all(after.arrays[n].tobytes() == v.tobytes() for n, v in before.arrays.items())


INSTRUCTIONS = [
    ({"architecture": "x86_64", "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
    ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, True),  # Zen 4, say
    ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": True}, True),
    ({"architecture": "arm64", "neon": True, "bf16": True}, True),  # Graviton 3, say
    ({"architecture": "arm64", "neon": True, "bf16": False}, False),
    ({}, False),
]


@pytest.mark.parametrize(("able", "half"), INSTRUCTIONS)
def test_auto_is_bf16_where_a_cpu_has_instructions_for_it(
    able: dict[str, Any], half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    cpu = torch.device("cpu")
    named: devices.Precision = "bf16" if half else "float32"
    assert devices.find_precision("auto", cpu) == named
    found, other = trained(precision="auto", device="cpu"), trained(precision=named, device="cpu")
    assert all(found.arrays[n].tobytes() == v.tobytes() for n, v in other.arrays.items())
    evaluator = Evaluator(synthetic.spec("mlp"), synthetic.split(), cpu, precision="auto")
    assert evaluator.precision == named
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)  # macOS
    assert devices.find_precision("auto", cpu) == "float32"


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_what_is_named_is_taken(precision: Any) -> None:
    assert devices.find_precision(precision, torch.device("cpu")) == precision


@pytest.mark.parametrize(("major", "half"), [(7, False), (8, True)])
def test_auto_is_bf16_on_gpus_from_ampere_on(
    major: int, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = SimpleNamespace(major=major)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: about)
    found = devices.find_precision("auto", torch.device("cuda"))
    assert found == ("bf16" if half else "float32")


def test_tf32_changes_nothing_on_a_cpu() -> None:
    exact, found = trained(), trained(precision="tf32")
    assert all(found.arrays[n].tobytes() == v.tobytes() for n, v in exact.arrays.items())


@pytest.mark.parametrize(
    ("encoder", "shape", "vocabulary"),
    [
        ("conv4", (3, 28, 28), 0),
        ("resnet18", (3, 32, 32), 0),
        ("gru", (9, 5), 0),
        ("tiny-transformer", (9, 5), 0),
        ("tiny-transformer", (6,), 50),
        ("text-hash", (6,), 50),
        ("identity", (4,), 0),
    ],
)
def test_encoders_learn_in_bf16(encoder: str, shape: tuple[int, ...], vocabulary: int) -> None:
    spec = NetworkSpec({"m": encoder}, {"m": shape}, 3, vocabularies={"m": vocabulary})
    network = build_network(spec, 0).compute("bf16", compiled=False).train()
    inputs = torch.randint(50, (4, *shape)) if vocabulary else torch.randn(4, *shape)
    output = network({"m": inputs})
    assert {output.features["m"].dtype, output.logits.dtype} == {torch.float32}
    output.logits.square().sum().backward()
    assert {p.grad.dtype for p in network.parameters() if p.grad is not None} == {torch.float32}
    assert all(p.grad is not None for p in network.parameters())


def test_the_server_evaluates_as_clients_compute() -> None:
    spec, test = synthetic.spec("mlp"), synthetic.split()
    arrays = trained().arrays
    found = {}
    for precision in ("float32", "bf16"):
        evaluator = Evaluator(spec, test, torch.device("cpu"), precision=precision)
        found[precision] = evaluator(arrays).loss
    network = build_network(spec, 0).restart(arrays).compute("bf16", compiled=False)
    logits = network(test.batch(torch.arange(60), ALL)).logits.detach()
    expected = float(torch.nn.functional.cross_entropy(logits, test.labels))
    assert found["bf16"] == pytest.approx(expected, rel=1e-5)
    assert found["bf16"] != found["float32"]


def test_compiled_encoders_compute_the_same_under_the_same_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With torch's own operations in place of C++, whose making takes a minute."""
    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module: compile_(module, backend="aot_eager")
    )
    signed = {"signature": SignatureOrders(sketch_dim=0), "weak": "touch"}
    exact, compiled = (trained("touch", told=signed, compile=on) for on in (False, True))
    assert list(compiled.arrays) == list(exact.arrays)
    for name, value in exact.arrays.items():
        np.testing.assert_allclose(compiled.arrays[name], value, atol=1e-5)
    np.testing.assert_allclose(
        compiled.signatures["enhance.touch"], exact.signatures["enhance.touch"], atol=1e-5
    )


@pytest.fixture
def gpu_settings() -> Iterator[None]:
    """Give back what this process computes with on a GPU."""
    flags = [(torch.backends.cuda.matmul, "allow_tf32"), (torch.backends.cudnn, "allow_tf32")]
    flags += [(torch.utils.deterministic, "fill_uninitialized_memory")]
    before = [getattr(owner, name) for owner, name in flags]
    deterministic = torch.are_deterministic_algorithms_enabled()  # as tests on a GPU leave it
    torch.use_deterministic_algorithms(False)
    yield
    for (owner, name), value in zip(flags, before, strict=True):
        setattr(owner, name, value)
    torch.use_deterministic_algorithms(deterministic, warn_only=True)


@pytest.mark.parametrize(("precision", "tf32"), [("float32", False), ("tf32", True)])
def test_on_a_gpu_float32_is_exact_and_algorithms_are_deterministic(
    precision: Any, tf32: bool, gpu_settings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices.os, "environ", {})
    devices.prepare_device(torch.device("cpu"), precision)
    assert not torch.are_deterministic_algorithms_enabled()
    devices.prepare_device(torch.device("cuda"), precision)
    found = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    assert found == (tf32, tf32)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert set(devices.os.environ) == {"CUBLAS_WORKSPACE_CONFIG"}


# --- what is refused, and said ------------------------------------------------------------------


def test_a_machine_without_a_compiler_says_what_to_do_before_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def compile_(function: Any) -> Any:
        raise RuntimeError("No working C++ compiler found\nand pages of how it was looked for")

    devices.check_compiler.cache_clear()
    monkeypatch.setattr(torch, "compile", compile_)
    says = (
        r"^compile: torch.compile does not work on this machine \(No working C\+\+ compiler "
        r"found\): install g\+\+, or set compile to false$"
    )
    with pytest.raises(ValueError, match=says):
        build_evaluator(load_config("cg-digits", {"compile": True, "device": "cpu"}))


def test_a_precision_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"precision.*'float32', 'tf32', 'bf16' or 'auto'"):
        load_config("cg-digits", {"precision": "fp16"})

"""Rounds on a GPU, held against the same on a CPU; elsewhere nothing here runs."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bmsfed_app.config import load_config
from server_app.run_folder import RunFolder
from tests.run_folders import rows
from tests.test_methods_on_digits import SMALL, run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def rounds(path: Path, **settings: Any) -> list[dict[str, Any]]:
    folder = RunFolder.create(path, load_config("cg-digits", SMALL | settings))
    run(folder)
    return [r for r in rows(path) if r["kind"] == "round"]


@pytest.mark.parametrize("method", ["fedavg", "bmsfed", "bmsfed-plus", "divfl", "mfedmc"])
def test_a_gpu_computes_what_a_cpu_does_but_for_rounding(method: str, tmp_path: Path) -> None:
    there, here = (
        rounds(tmp_path / device, method=method, device=device) for device in ("cuda", "cpu")
    )
    assert [r["assignments"] for r in there] == [r["assignments"] for r in here]
    for one, other in zip(there, here, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.02)


@pytest.mark.parametrize("given", [{"precision": "tf32"}, {"precision": "bf16"}, {"compile": True}])
def test_other_numbers_train_alike(given: dict[str, Any], tmp_path: Path) -> None:
    there, here = rounds(tmp_path / "one", **given), rounds(tmp_path / "other")
    assert there[-1]["loss"] == pytest.approx(here[-1]["loss"], rel=0.05)


def test_a_run_names_the_gpu(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", load_config("cg-digits", SMALL))
    assert torch.cuda.get_device_name() in folder.info_file.read_text()

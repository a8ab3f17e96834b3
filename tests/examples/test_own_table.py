"""The example of a table: from its CSV file to a federated result in eight lines of YAML."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from bmsfed_app.config import load_config
from bmsfed_app.datasets import ensure_prepared
from tests.federation import simulated

FOLDER = Path(__file__).resolve().parents[2] / "examples/own_table"


def test_it_is_eight_lines() -> None:
    assert len((FOLDER / "table.yaml").read_text().splitlines()) == 8


def test_the_table_is_made_read_and_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BMSFED_HOME", str(tmp_path / "home"))
    spec = importlib.util.spec_from_file_location("own_table", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.make(tmp_path / "data", actors=5)
    given = {"data_dir": str(tmp_path / "data"), "partition": "natural", "rounds": 1}
    config = load_config(str(FOLDER / "table.yaml"), {**given, "per_round": 2})
    info = config.dataset_info()
    assert info.class_names == script.EMOTIONS
    assert dict(info.shapes) == {"face": (35,), "voice": (259,), "speech": (1, 129, 14)}
    account = ensure_prepared("table", config.data_folder(), config.dataset_settings)
    assert account.counts == {"train": 32, "test": 8}
    train = config.load_data("train").train
    assert train is not None
    assert train.owners is not None
    assert set(train.owners) == {f"actor-{n}" for n in range(1, 6)}
    voice = train.stores["voice.values"].numpy()
    column = config.dataset_settings["modalities"]["voice"]
    assert np.allclose(column["offset"], voice.mean(0), rtol=1e-4)
    state = simulated(config, 5)
    assert state.round == 1
    assert all(np.isfinite(a).all() for a in state.arrays.values() if a.dtype.kind == "f")

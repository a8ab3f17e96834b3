"""Every data set of files through two rounds of BMSFed, from its folder to a run folder; no Ray."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bmsfed_app.config import load_config
from bmsfed_app.engine import InlineGrid
from client_app.app import app
from server_app.experiment import run_experiment
from server_app.run_folder import RunFolder
from tests import made_media
from tests.run_folders import rows

REAL = Path(__file__).resolve().parents[2] / "shared/data"
SMALL: dict[str, Any] = {
    "method": "bmsfed",
    "clients": 3,
    "per_round": 2,
    "rounds": 2,
    "partition": "iid",
    "local_epochs": 1,
    "eval_every": 1,
    "connect_timeout": 600,
}
TINY = {"side": 32}
MADE: dict[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
    "crema-d": (made_media.crema, TINY | {"encoders": {"audio": "conv4", "visual": "conv4"}}),
    "ave": (made_media.events, TINY | {"encoders": {"audio": "conv4", "visual": "conv4"}}),
    "modelnet40": (made_media.shapes, TINY | {"classes": 10}),
    "crisismmd": (made_media.crisis, TINY),
}
FROM_FILES: dict[str, dict[str, str]] = {
    "avletters": {"": "avletters"},
    "mvsa": {"": "mvsa_single"},
    "av-digits": {"recordings": "fsdd/recordings", "mnist": "mnist"},
}
LESS: dict[str, dict[str, Any]] = {
    "av-digits": {"pairs": 1, "data_fraction": 0.05},
}


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BMSFED_HOME", str(tmp_path / "home"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def two_rounds(tmp_path: Path, name: str, data: Path, **own: Any) -> list[dict[str, Any]]:
    config = load_config(name, SMALL | own | {"data_dir": str(data)})
    folder = RunFolder.create(tmp_path / "run", config)
    clients = config.clients
    run_experiment(InlineGrid(app, clients), folder)
    found = rows(folder.path)
    assert {r["status"] for r in found if r["kind"] == "client"} == {"ok"}
    last = [r for r in found if r["kind"] == "round"][-1]
    assert last["round"] == 2
    assert set(last["accuracy_by_modality"]) == set(config.dataset_info().modalities)
    return found


@pytest.mark.parametrize("name", MADE)
def test_sets_made_in_the_test(name: str, tmp_path: Path) -> None:
    make, own = MADE[name]
    make(tmp_path / "data")
    two_rounds(tmp_path, name, tmp_path / "data", **own)


def real(files: dict[str, str], tmp_path: Path) -> Path:
    data = tmp_path / "data"
    for link, place in files.items():
        if not (REAL / place).is_dir():
            pytest.skip(f"needs the files of {REAL / place}")
        if not link:
            return REAL / place
        data.mkdir(exist_ok=True)
        (data / link).symlink_to(REAL / place)
    return data


@pytest.mark.parametrize("name", FROM_FILES)
def test_sets_of_real_files(name: str, tmp_path: Path) -> None:
    data = real(FROM_FILES[name], tmp_path)
    two_rounds(tmp_path, name, data, **{"data_fraction": 0.1} | LESS.get(name, {}))


def test_three_modalities_of_real_subjects_that_lack_some(tmp_path: Path) -> None:
    data = real({"": "utd_mhad"}, tmp_path)
    own = {"partition": "natural", "clients": 4, "data_fraction": 0.2, "side": 28}
    lack = {"whole_share": 0.5, "subsets": [["skeleton"], ["inertial", "depth"]]}
    found = two_rounds(tmp_path, "utd-mhad", data, **own, **lack)
    clients = json.loads((tmp_path / "run/clients.json").read_text())
    held = {name: c["modalities"] for name, c in clients.items()}
    assert sorted(map(len, held.values())) == [1, 2, 3, 3]
    assert all(name.startswith("subject-") for name in held)
    trained = [r for r in found if r["kind"] == "client" and r["phase"] == "train"]
    assert len(trained) == 4
    assert all(set(r["assigned"]) <= set(held[r["client"]]) for r in trained)

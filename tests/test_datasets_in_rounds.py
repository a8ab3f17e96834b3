"""Every data set of files through two rounds of BMSFed, from its folder to a run folder; no Ray."""

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
    "utd-mhad": {"": "utd_mhad"},
    "mvsa": {"": "mvsa_single"},
    "av-digits": {"recordings": "fsdd/recordings", "mnist": "mnist"},
}
LESS: dict[str, dict[str, Any]] = {
    "utd-mhad": {"side": 28},
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


def real(name: str, tmp_path: Path) -> Path:
    data = tmp_path / "data"
    for link, place in FROM_FILES[name].items():
        if not (REAL / place).is_dir():
            pytest.skip(f"needs the files of {REAL / place}")
        if not link:
            return REAL / place
        data.mkdir(exist_ok=True)
        (data / link).symlink_to(REAL / place)
    return data


@pytest.mark.parametrize("name", FROM_FILES)
def test_sets_of_real_files(name: str, tmp_path: Path) -> None:
    two_rounds(tmp_path, name, real(name, tmp_path), **{"data_fraction": 0.1} | LESS.get(name, {}))

"""The example package of a data set and an encoder: installed as a wheel would, it trains."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from bmsfed_app.cli.main import main
from bmsfed_app.config import load_config
from bmsfed_app.datasets import DATASETS, ensure_prepared, load_dataset
from bmsfed_app.models import ENCODERS
from server_app.experiment import initial_model
from tests.federation import simulated
from tests.plugins import install

FOLDER = Path(__file__).resolve().parents[2] / "examples/own_data"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What pip would leave behind: the package, and its entry points."""
    points = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]["entry-points"]
    install(tmp_path / "site", monkeypatch, points, DATASETS, ENCODERS)
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("BMSFED_HOME", str(tmp_path / "home"))
    yield
    for name in [n for n in sys.modules if n.startswith("tones")]:
        del sys.modules[name]


@pytest.mark.usefixtures("installed")
def test_the_data_are_written_read_and_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tones.encoder import PitchEncoder
    from tones.make import make

    make(tmp_path / "data", train=12, test=4)
    config = load_config(
        str(FOLDER / "tones.yaml"),
        {"data_dir": str(tmp_path / "data"), "rounds": 2, "clients": 2, "per_round": 2},
    )
    ensure_prepared("tones", tmp_path / "data")
    train = load_dataset("tones", tmp_path / "data", seed=0).train
    assert train is not None
    assert train.class_counts(5).tolist() == [12] * 5
    assert config.network_spec().encoders == {"picture": "conv4", "tone": "pitch"}

    before = initial_model(config)
    state = simulated(config, 2)
    spectrum = "encoders.tone.layers.0.weight"
    assert spectrum in before
    assert (state.arrays[spectrum] != before[spectrum]).any()
    assert PitchEncoder((1, 257, 14)).width == 64

    monkey = sys.argv
    sys.argv = ["bmsfed", "data", "check", "tones", "--data-dir", str(tmp_path / "data")]
    try:
        with pytest.raises(SystemExit) as done:
            main()
    finally:
        sys.argv = monkey
    assert done.value.code in (0, None)
    assert "train: 60 samples; per class: 12 12 12 12 12" in capsys.readouterr().out


def test_the_readme_counts_lines_as_they_are() -> None:
    rows = re.findall(r"\]\((\S+)\) \|.*\| (\d+) \|", (FOLDER / "README.md").read_text())
    assert len(rows) == 3
    for file, lines in rows:
        assert len((FOLDER / file).read_text().splitlines()) == int(lines)

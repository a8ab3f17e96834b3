"""An experiment with ``dp``: what it is refused for, and the ε in its history."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmsfed_app.config import ConfigError, check_config, load_config
from bmsfed_app.engine import InlineGrid
from bmsfed_app.record.files import read_rows
from bmsfed_app.record.rows import RoundRow
from client_app.app import app
from server_app.experiment import build_strategy, run_experiment
from server_app.privacy import epsilon
from server_app.run_folder import RunFolder

DP = {"clip": 1.0, "noise": 2.0}
SMALL = {"clients": 3, "per_round": 2, "rounds": 3, "data_fraction": 0.05, "local_epochs": 1}
SMALL |= {"encoders": {"colored": "mlp", "gray": "mlp"}, "dp": DP}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dp": {"clip": 0}}, r"dp\.clip: Input should be greater than 0"),
        ({"dp": {"noise": -1}}, r"dp\.noise: Input should be greater than or equal to 0"),
        ({"dp": {"delta": 1}}, r"dp\.delta: Input should be less than 1"),
        ({"dp": {"level": "sample"}}, r"dp\.level: Input should be 'client'"),
        ({"dp": {"shares": {"losses": 1}}}, "'losses: 1' is no share above 0 of update, proto"),
        ({"dp": {"clips": 1}}, r"unknown key 'dp\.clips'"),
        ({"method": "fedpac"}, "dp: no differential privacy for FedPAC"),
        ({"method": "bmsfed-release"}, "dp: no differential privacy with head_columns='all'"),
        ({"prototypes": "train"}, "dp: clients' prototypes, .* set prototypes: test"),
    ],
)
def test_what_cannot_be_private_says_why(changes: dict[str, Any], says: str) -> None:
    given = {"dataset": "cg-digits", "method": "fedavg", "prototypes": "test", "dp": DP}
    assert check_config(given).dp
    with pytest.raises(ConfigError, match=says):
        check_config(given | changes)


def test_without_dp_nothing_is_private() -> None:
    assert build_strategy(load_config("cg-digits", {})).privacy is None


def test_a_key_of_dp_can_be_given_alone() -> None:
    config = load_config("cg-digits", {"dp.noise": "0.5"})
    assert config.dp
    assert (config.dp.clip, config.dp.noise) == (1.0, 0.5)


@pytest.mark.parametrize(("method", "rate"), [("fedavg", 2 / 3), ("bmsfed", 1.0)])
def test_the_history_has_what_is_spent(method: str, rate: float, tmp_path: Path) -> None:
    given = SMALL | {"method": method, "prototypes": "test" if method == "fedavg" else "train"}
    folder = RunFolder.create(tmp_path / "run", load_config("cg-digits", given))
    state = run_experiment(InlineGrid(app, 3), folder)
    rounds = [r for r in read_rows(folder.history)[0] if isinstance(r, RoundRow)]
    probe = [] if method == "fedavg" else [[1.0, (3 / 4 / 2.0**2) ** -0.5]]
    for row in rounds[1:]:
        spent = epsilon(np.array([*probe, *[[rate, 2.0]] * row.round]), 1e-5)
        assert row.epsilon == pytest.approx(spent)  # type: ignore[attr-defined]
    assert all(math.isfinite(float(v.max())) for v in state.arrays.values())
    counts = [p.counts for client in state.prototypes.values() for p in client.values()]
    assert all((c == 1).all() for c in counts)
    assert bool(counts) == (method == "bmsfed")

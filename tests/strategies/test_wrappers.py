"""flwr's client mods and differential-privacy wrappers around our strategies."""

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.clientapp.mod import (
    LocalDpMod,
    adaptiveclipping_mod,
    arrays_size_mod,
    fixedclipping_mod,
    message_size_mod,
)
from flwr.server import strategy as old
from flwr.serverapp import SamplingMethod
from flwr.serverapp import strategy as new

from strategies import BMSFed, ClientInfo, FedAvg, classic
from strategies.client import ModalityMod
from tests.strategies.foreign_app import (
    PARTS,
    ClassicClient,
    WholeClient,
    classic_app,
    grid_of,
    message_app,
    model,
    run_classic,
    samples,
)
from tests.strategies.test_interfaces import HELD, start

CLIP = 0.1


def apps(seen: list[Any], behind: Any = None) -> dict[str, Any]:
    made = {}
    for who, held in HELD.items():
        made[who] = message_app(who, held, seen, behind=[behind] if behind else [])
    return made


def moved(after: dict[str, Any]) -> float:
    """Euclidean distance of a model from the initial one."""
    return float(np.sqrt(sum(((after[n] - v) ** 2).sum() for n, v in model().items())))


def bmsfed(**options: Any) -> BMSFed:
    return BMSFed(4, parts=PARTS, threshold=1.0, seed=2, **options)


def alone(seen: list[Any]) -> bool:
    return any(m == ("text",) for w, m, _ in seen if len(HELD[w]) == 2)


def test_clipping_on_the_server_bounds_what_a_round_moves() -> None:
    seen: list[Any] = []
    wrapped = new.DifferentialPrivacyServerSideFixedClipping(
        bmsfed(send_whole_model=True),
        noise_multiplier=0.0,
        clipping_norm=CLIP,
        num_sampled_clients=4,
    )
    after, _ = start(wrapped, grid_of(apps(seen)), 3)
    # Every update has at most norm CLIP; four averaged per part move no further in a round.
    assert 0 < moved(after) <= 3 * CLIP * len(PARTS) ** 0.5 + 1e-5
    assert alone(seen)
    assert all(len(arrays) == len(model()) for _, _, arrays in seen)


def test_without_the_whole_model_clipping_on_the_server_is_refused_by_flwr() -> None:
    wrapped = new.DifferentialPrivacyServerSideFixedClipping(bmsfed(), 0.0, CLIP, 4)
    with pytest.raises(ValueError, match=r"zip|broadcast"):
        start(wrapped, grid_of(apps([])), 3)


def test_adaptive_clipping_on_the_server() -> None:
    wrapped = new.DifferentialPrivacyServerSideAdaptiveClipping(
        bmsfed(send_whole_model=True),
        0.0,
        4,
        initial_clipping_norm=CLIP,
        clipped_count_stddev=0.0,
    )
    seen: list[Any] = []
    after, _ = start(wrapped, grid_of(apps(seen)), 3)
    assert moved(after) > 0
    assert alone(seen)


def test_clipping_by_the_clients_behind_the_mod() -> None:
    seen: list[Any] = []
    wrapped = new.DifferentialPrivacyClientSideFixedClipping(bmsfed(), 0.0, CLIP, 4)
    after, _ = start(wrapped, grid_of(apps(seen, fixedclipping_mod)), 3)
    assert 0 < moved(after) <= 3 * CLIP * len(PARTS) ** 0.5 + 1e-5
    assert alone(seen)


def test_adaptive_clipping_by_the_clients_behind_the_mod() -> None:
    wrapped = new.DifferentialPrivacyClientSideAdaptiveClipping(
        bmsfed(), 0.0, 4, initial_clipping_norm=CLIP, clipped_count_stddev=0.0
    )
    after, _ = start(wrapped, grid_of(apps([], adaptiveclipping_mod)), 2)
    assert moved(after) > 0


def test_noise_on_the_server_reaches_the_next_round() -> None:
    seen: list[Any] = []
    wrapped = new.DifferentialPrivacyClientSideFixedClipping(
        FedAvg(parts=PARTS), 50.0, CLIP, len(HELD)
    )
    start(wrapped, grid_of(apps(seen, fixedclipping_mod)), 2)
    first = [a for w, _, a in seen if w == "c1"]
    assert np.abs(first[1]["bert.w"] - first[0]["bert.w"]).max() > 2 * CLIP


@pytest.mark.parametrize("mod", [message_size_mod, arrays_size_mod])
def test_mods_that_report_sizes(mod: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "flwr"):
        after, _ = start(bmsfed(), grid_of(apps([], mod)), 1)
    assert moved(after) > 0
    assert "ncoming" in caplog.text


def test_local_differential_privacy_behind_the_mod() -> None:
    mod = LocalDpMod(clipping_norm=CLIP, sensitivity=0.0, epsilon=1.0, delta=1e-5)
    after, _ = start(bmsfed(), grid_of(apps([], mod)), 3)
    assert 0 < moved(after) <= 3 * CLIP * len(PARTS) ** 0.5 + 1e-5


def test_clipping_on_the_server_of_the_classic_interface() -> None:
    clients = {w: classic_app(ClassicClient(w, h, [])) for w, h in HELD.items()}
    inner = classic_bmsfed(send_whole_model=True)
    wrapped = old.DifferentialPrivacyServerSideFixedClipping(inner, 0.0, CLIP, 4)
    after = run_classic(wrapped, grid_of(clients), 3, inner)
    assert 0 < moved(after) <= 3 * CLIP * len(PARTS) ** 0.5 + 1e-5


def test_clipping_by_the_clients_of_the_classic_interface() -> None:
    clients = {}
    for who, held in HELD.items():
        translate = ModalityMod(lambda _, w=who, h=held: ClientInfo(w, h, samples(w)))
        mods = [translate, fixedclipping_mod]
        clients[who] = classic_app(WholeClient(who, held, []), mods)
    # The wrapper adds the norm to what is trained only; new clients are measured before that.
    inner = classic_bmsfed(on_fit_config_fn=lambda server_round: {"clipping_norm": CLIP})
    wrapped = old.DifferentialPrivacyClientSideFixedClipping(inner, 0.0, CLIP, 4)
    after = run_classic(wrapped, grid_of(clients), 3, inner)
    assert moved(after) > 0


def classic_bmsfed(**options: Any) -> classic.BMSFed:
    return classic.BMSFed(
        list(model()),
        parts=PARTS,
        clients_per_round=4,
        threshold=1.0,
        fraction_evaluate=0.0,
        **options,
    )


def test_flwr_accounts_for_its_own_fedavg_only() -> None:
    config = SimpleNamespace(sampling_method=SamplingMethod.NO_AMPLIFICATION)
    accountant: Any = SimpleNamespace(config=config)
    with pytest.raises(ValueError, match="requires a strategy using"):
        new.DifferentialPrivacyClientSideFixedClipping(
            bmsfed(), 1.0, CLIP, 4, accountant=accountant
        )

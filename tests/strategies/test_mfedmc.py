"""MFedMC's priorities by hand, its choices on given figures, and whole federations."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bmsfed_app.config import ConfigError, load_config
from bmsfed_app.methods import METHODS
from strategies import ClientInfo, FedAvg, MFedMC, ServerState, Update
from strategies.mfedmc import PersonalMFedMC, priorities
from strategies.protocol import modalities_of
from strategies.testing import FakeGrid
from tests import synthetic
from tests.federation import federate, initial, whole_and_resumed
from tests.test_three_modalities import HELD, answering

SPEC = synthetic.spec("mlp")
CLIENT = {"network": SPEC, "objective": "separate", "objective_settings": {"head_lr": 0.0}}

MODEL = {
    "encoders.a.w": np.zeros(10, np.float32),
    "encoders.b.w": np.zeros(20, np.float32),
    "encoders.c.w": np.zeros(30, np.float32),
    **{f"head.weight.{m}": np.zeros((2, 3), np.float32) for m in "abc"},
    "head.bias": np.zeros(2, np.float32),
}


def answer(
    client: ClientInfo, modalities: str = "", loss: float = 1.0, contribution: float = 1.0
) -> Update:
    """Of training where modalities are given, else of measuring."""
    trained = tuple(modalities or client.modalities)
    update = Update(client.client_id, trained, client.num_samples)
    for m in trained:
        update.measurements[f"loss.{m}"] = np.array([loss], np.float32)
        update.measurements[f"contribution.{m}"] = np.array([contribution], np.float32)
    if modalities:
        wanted = {None, *modalities}
        update.arrays = {n: v for n, v in MODEL.items() if _owner(n) in wanted}
    return update


def _owner(name: str) -> str | None:
    return next((p for p in name.split(".")[1:] if p in "abc"), None)


def strategy(*updates: Update, **options: Any) -> MFedMC:
    """With clients that have been measured."""
    made = MFedMC(**options)
    made.state = ServerState(arrays=dict(MODEL))
    made.aggregate_probe(1, updates)
    return made


# --- the priority -------------------------------------------------------------------------------


def test_priorities_by_hand() -> None:
    """t = 5 and last = (4, -1, 2), both from 0, are the rounds 6 and (5, none, 3)."""
    found = priorities([3, 1, 2], [100, 50, 200], [5, 0, 3], 6)
    np.testing.assert_allclose(found, [0.611111, 0.666667, 0.333333], atol=1e-6)


@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_each_weight_alone(weights: tuple[float, float, float]) -> None:
    found = priorities([3, 1, 2], [100, 50, 200], [5, 0, 3], 6, weights)
    alone = [[1, 0, 0.5], [2 / 3, 1, 0], [1 / 6, 1, 0.5]]
    np.testing.assert_allclose(found, alone[weights.index(1.0)])


def test_equal_figures_and_one_modality_alone_are_no_trouble() -> None:
    np.testing.assert_allclose(priorities([2, 2], [5, 5], [0, 0], 1), 2 / 3)
    np.testing.assert_allclose(priorities([2], [5], [0], 1), 2 / 3)


def test_recency_alone_is_round_robin() -> None:
    client = ClientInfo("k", ("a", "b", "c"), 10)
    made = strategy(answer(client), contribution_weight=0, size_weight=0)
    turns = []
    for server_round in range(1, 8):
        [a] = made.configure_fit(server_round, [client])
        [modality] = a.modalities
        turns.append(modality)
        made.aggregate_fit(server_round, [answer(client, modality)])
    assert "".join(turns) == "abcabca"


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({"size_weight": 1, "contribution_weight": 0}, "a"),
        ({"size_weight": 0, "contribution_weight": 1}, "c"),
        ({"size_weight": 0, "contribution_weight": 1, "gamma": 2}, "bc"),
        ({"gamma": 3}, "abc"),
        ({"gamma": 9}, "abc"),
    ],
)
def test_small_or_telling_modalities_are_trained(options: dict[str, Any], chosen: str) -> None:
    client = ClientInfo("k", ("a", "b", "c"), 10)
    measured = answer(client)
    for value, m in enumerate("abc"):
        measured.measurements[f"contribution.{m}"] = np.array([value], np.float32)
    made = strategy(measured, **options)
    [a] = made.configure_fit(1, [client])
    assert "".join(a.modalities) == chosen
    assert a.reasons["role"] == ("multi" if chosen == "abc" else "uni")
    assert set(made.task(1, a).arrays) == {n for n in MODEL if _owner(n) in {None, *chosen}}


def test_what_is_frozen_need_not_travel_and_has_no_size() -> None:
    client = ClientInfo("k", ("a", "b", "c"), 10)
    made = strategy(answer(client), size_weight=1)
    made.frozen = frozenset({"encoders.c.w"})
    [a] = made.configure_fit(1, [client])
    assert a.modalities == ("c",)


def test_only_held_modalities_compete() -> None:
    """A modality that a client lacks has no priority, whatever the others' are."""
    known = [ClientInfo("k0", ("c",), 5), ClientInfo("k1", ("b", "c"), 5)]
    made = strategy(*(answer(c) for c in known), gamma=2)
    for server_round in range(1, 4):
        chosen = made.configure_fit(server_round, known)
        assert {a.client_id: a.modalities for a in chosen} == {"k0": ("c",), "k1": ("b", "c")}
        for a in chosen:
            assert set(a.reasons["priority"]) == set(a.modalities)


def test_only_who_trained_is_recent() -> None:
    """The official code stamps clients that were not chosen, too."""
    known = [ClientInfo(f"k{i}", ("a", "b"), 5) for i in range(3)]
    made = strategy(*(answer(c) for c in known), contribution_weight=0, size_weight=0)
    made.aggregate_fit(4, [answer(known[0], "a", loss=0.25)])
    reasons = {a.client_id: a.reasons for a in made.configure_fit(5, known)}
    assert reasons["k0"]["trained"] == {"a": 4, "b": 0}
    assert reasons["k0"]["losses"] == {"a": 0.25, "b": 1.0}
    assert reasons["k0"]["loss"] == pytest.approx(0.625)
    assert reasons["k0"]["priority"] == pytest.approx({"a": 1 / 15, "b": 1 / 3})
    assert reasons["k1"]["trained"] == {"a": 0, "b": 0}


# --- the clients --------------------------------------------------------------------------------


@pytest.mark.parametrize(("prefer", "chosen"), [("high", "41"), ("low", "30")])
def test_clients_go_by_their_mean_loss(prefer: Any, chosen: str) -> None:
    known = [ClientInfo(f"k{i}", ("a", "b")[: 1 + i % 2], 5) for i in range(5)]
    losses = [0.5, 1.5, 1.0, 0.25, 2.0]
    probes = [answer(c, loss=x) for c, x in zip(known, losses, strict=True)]
    probes[1].measurements["loss.b"] = np.array([1.25], np.float32)
    made = strategy(*probes, clients_per_round=2, prefer=prefer)
    picks = made.configure_fit(3, known)
    assert [a.client_id for a in picks] == [f"k{i}" for i in chosen]
    if prefer == "high":
        assert [a.reasons["loss"] for a in picks] == [2.0, 1.375]


def test_equal_losses_go_by_a_draw_of_the_seed_and_round() -> None:
    known = [ClientInfo(f"k{i}", ("a",), 5) for i in range(8)]

    def drawn(seed: int, server_round: int, order: int = 1) -> list[str]:
        made = strategy(*(answer(c) for c in known), clients_per_round=3, seed=seed)
        return [a.client_id for a in made.configure_fit(server_round, known[::order])]

    assert drawn(1, 2) == drawn(1, 2, order=-1)
    assert len({tuple(drawn(1, r)) for r in range(1, 9)}) > 4
    assert drawn(1, 2) != drawn(2, 2)


@pytest.mark.parametrize(
    ("delta", "per_round", "count"),
    [(0.0, 4, 4), (0.2, 4, 2), (0.01, 4, 1), (1.0, 4, 10), (0.0, 0.3, 3)],
)
def test_delta_stands_for_clients_per_round(delta: float, per_round: float, count: int) -> None:
    known = [ClientInfo(f"k{i}", ("a",), 5) for i in range(10)]
    made = strategy(*(answer(c) for c in known), clients_per_round=per_round, delta=delta)
    assert len(made.configure_fit(1, known)) == count


def test_newcomers_are_measured_once_and_not_selected_before() -> None:
    known = [ClientInfo(f"k{i}", ("a", "b"), 5) for i in range(4)]
    made = strategy(*(answer(c) for c in known[:2]), clients_per_round=3, measure_per_round=1)
    [probe] = made.configure_probe(2, known)
    assert probe.client_id in {"k2", "k3"}
    assert probe.modalities == ("a", "b")
    assert {a.client_id for a in made.configure_fit(2, known)} == {"k0", "k1"}
    made.aggregate_probe(2, [answer(c) for c in known[2:]])
    assert made.configure_probe(3, known) == []
    made.forget("k1", measured_only=True)
    assert [a.client_id for a in made.configure_probe(3, known)] == ["k1"]
    # It trained, but of what it did not train nothing is known any more.
    made.aggregate_fit(3, [answer(known[1], "a")])
    assert [a.client_id for a in made.configure_probe(4, known)] == ["k1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 0}, "gamma is 0, it must be >= 1"),
        ({"delta": 1.5}, "delta is 1.5, it must be >= 0 and <= 1"),
        ({"size_weight": -1}, "size_weight is -1"),
        (
            {"contribution_weight": 0, "size_weight": 0, "recency_weight": 0},
            "are all 0: raise one",
        ),
    ],
)
def test_what_the_strategy_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MFedMC(2, **options)
    with pytest.raises(ConfigError, match=r"gamma|delta|size_weight"):
        load_config("cg-digits", {"method": "mfedmc", **options})


# --- federations --------------------------------------------------------------------------------


def drop(name: str) -> Callable[[Update], None]:
    def spoil(update: Update) -> None:
        del update.measurements[name]

    return spoil


def set_to(name: str, *value: float) -> Callable[[Update], None]:
    return lambda update: update.measurements.update({name: np.array(value, np.float32)})


def test_bad_answers_are_left_out_by_name_and_do_not_count_as_trained() -> None:
    spoil = {
        "c0": drop("loss.smell"),
        "c1": set_to("contribution.touch", 1.0, 2.0),
        "c2": set_to("loss.touch", -1.0),
        "c3": set_to("extra", 1.0),
        "c4": set_to("contribution.sound", np.nan),
    }
    state, keep = federate(MFedMC(6, gamma=3), initial(SPEC), 1, spoil, **CLIENT)
    [report] = keep.reports
    assert report.failures == {
        "c0": "the answer holds no loss of 'smell' of 0 or more",
        "c1": "measurement 'contribution.touch' has shape (2,), expected (1,)",
        "c2": "the answer holds no loss of 'touch' of 0 or more",
        "c3": "unexpected measurement 'extra' (1 unexpected)",
        "c4": "measurement 'contribution.sound' is not finite",
    }
    trained = {c: v["trained"].tolist() for c, v in state.signatures.items()}
    assert trained == {c: [0, 0, 0] for c in HELD} | {"c5": [1, 1, 1]}


def test_clients_of_one_modality_each_are_fedavg() -> None:
    """Nothing to select: all train the cross-entropy of what they hold, averaged by samples."""
    names = list(synthetic.WIDTHS)
    handlers = {
        f"k{i}": answering(synthetic.client(f"k{i}", 30 + 6 * i, i, (names[i % 3],)))
        for i in range(6)
    }

    def run(made: Any, **told: Any) -> ServerState:
        settings = synthetic.settings(network=SPEC, local_epochs=2, **told).to_json()
        grid = FakeGrid(handlers)
        return made.run(grid, initial(SPEC), num_rounds=3, settings=settings, min_clients=6)

    told = {k: v for k, v in CLIENT.items() if k != "network"}
    found, plain = run(MFedMC(2, delta=1.0), **told), run(FedAvg(6))
    for name, value in plain.arrays.items():
        np.testing.assert_allclose(found.arrays[name], value, rtol=1e-5, atol=1e-6)
        assert not np.array_equal(value, initial(SPEC)[name])


def test_a_federation_of_three_modalities_says_why_and_goes_on_where_it_stopped() -> None:
    make = lambda: MFedMC(4, gamma=2)  # noqa: E731
    whole, resumed = whole_and_resumed(make, lambda: initial(SPEC), **CLIENT)
    assert whole == resumed
    state, keep = federate(make(), initial(SPEC), 3, **CLIENT)
    assert state.to_bytes() == whole
    assert [r.failures for r in keep.reports] == [{}] * 3
    last = {c: dict.fromkeys(held, 0) for c, held in HELD.items()}
    for report in keep.reports:
        losses = [p["loss"] for p in report.picks]
        assert losses == sorted(losses, reverse=True)
        for pick in report.picks:
            held = HELD[pick["client"]]
            assert set(pick["priority"]) == set(pick["losses"]) == set(held)
            assert pick["trained"] == last[pick["client"]]
            left_out = [pick["priority"][m] for m in held if m not in pick["modalities"]]
            assert max(left_out, default=0) <= min(pick["priority"][m] for m in pick["modalities"])
            assert len(pick["modalities"]) == min(2, len(held))
            last[pick["client"]] |= dict.fromkeys(pick["modalities"], report.round)


def test_the_registry_explains_it() -> None:
    settings = METHODS.find("mfedmc")(gamma=2, prefer="low")
    made = settings.strategy(clients_per_round=3)
    assert isinstance(made, MFedMC)
    assert (made.gamma, made.prefer, made.unsupported(ClientInfo("k", ("a",)))) == (2, "low", None)
    assert settings.objective() == ("separate", {"head_lr": 0.0})


# --- clients' own heads -------------------------------------------------------------------------

OWN = CLIENT | {"objective_settings": {"head_lr": 0.1}}


def test_own_heads_are_kept_column_by_column_and_leave_the_federation_alone() -> None:
    make = lambda: PersonalMFedMC(4)  # noqa: E731
    whole, resumed = whole_and_resumed(make, lambda: initial(SPEC), **OWN)
    assert whole == resumed
    made = make()
    state, keep = federate(made, initial(SPEC), 3, {"c5": drop("own.head.bias")}, **OWN)
    assert any("c5" in r.failures for r in keep.reports)
    assert {f for r in keep.reports for f in r.failures.values()} == {
        "the answer holds no 'head.bias' of the client's own"
    }
    trained: dict[str, set[str]] = {}
    for report in keep.reports:
        for a in report.assignments:
            if a.client_id not in report.failures:
                trained.setdefault(a.client_id, set()).update(a.modalities)
    assert set(state.memory) == set(trained)
    models = {m.name: m for m in made.models()}
    for client, modalities in trained.items():
        own = state.memory[client]
        assert set(own) == {"head.bias"} | {f"head.weight.{m}" for m in modalities}
        arrays = models[client].arrays
        assert modalities_of(arrays) == HELD[client]
        for name, value in arrays.items():
            np.testing.assert_array_equal(value, own.get(name, state.arrays[name]))
    assert "global touch+sound+smell" in models  # c5
    plain, _ = federate(MFedMC(4), initial(SPEC), 3, **CLIENT)
    found, _ = federate(make(), initial(SPEC), 3, **OWN)
    assert {n: v.tobytes() for n, v in found.arrays.items()} == {
        n: v.tobytes() for n, v in plain.arrays.items()
    }


def test_a_run_may_test_own_heads() -> None:
    config = load_config("cg-digits", {"method": "mfedmc", "tested": "own", "head_lr": 0.05})
    assert config.client_settings().objective_settings == {"head_lr": 0.05}
    assert isinstance(config.method_settings().strategy(clients_per_round=2), PersonalMFedMC)

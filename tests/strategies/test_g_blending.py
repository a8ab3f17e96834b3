"""G-Blending's weights by hand and by brute force, and whole federations."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bmsfed_app.config import ConfigError, load_config, parse_pairs
from bmsfed_app.methods import METHODS
from strategies import Assignment, ClientInfo, GBlending, ServerState, Update
from strategies.g_blending import blending_weights, gain_and_overfitting
from strategies.protocol import pack_update, unpack_update
from tests.test_methods import federate
from tests.test_three_modalities import HELD, handler

ARRAYS = {f"encoders.{m}.w": np.zeros(1) for m in "abc"} | {"head.bias": np.zeros(1)}


def strategy(**settings: Any) -> GBlending:
    made = GBlending(2, **settings)
    made.state.arrays = dict(ARRAYS)
    return made


def answer(name: str, samples: int = 10, **losses: list[float]) -> Update:
    """A client's losses by head: training and held-out before, training and held-out after."""
    held = tuple(m for m in losses if m != "joint")
    arrays = {f"encoders.{m}.w": np.ones(1) for m in held} | {"head.bias": np.ones(1)}
    measured = {n: np.array(v) for n, v in losses.items()}
    return Update(name, held, samples, arrays, measurements=measured)


def losses(gain: float, overfitting: float) -> list[float]:
    return [1.0, 2.0, 1.0 - gain - overfitting, 2.0 - gain]


# --- weights -------------------------------------------------------------------------------------


def test_the_oracle() -> None:
    found = blending_weights(np.array([0.4, 0.1, 0.3]), np.array([0.2, 0.1, 0.5]))
    np.testing.assert_allclose(found, [0.471698, 0.471698, 0.056604], atol=1e-6)
    gain, overfitting = gain_and_overfitting(np.array(losses(0.4, -0.3)))
    assert (gain, overfitting) == pytest.approx((0.4, -0.3))


def test_losses_that_rise_have_no_weight_and_no_overfitting_is_not_infinite() -> None:
    found = blending_weights(np.array([-0.4, 1e-6, 0.3]), np.array([0.2, 0.0, 0.5]))
    np.testing.assert_allclose(found, np.array([0, 1.0, 1.2]) / 2.2)
    none = blending_weights(np.array([-0.4, 0.0]), np.array([0.2, 0.0]))
    assert none.tolist() == [0.5, 0.5]


def test_the_oracle_through_a_round() -> None:
    made = strategy(super_epoch=1)
    assert made.weights() == dict.fromkeys(("joint", "a", "b", "c"), 0.25)
    both = answer("k", joint=losses(0.4, 0.2), a=losses(0.1, 0.1), b=losses(0.3, 0.5))
    made.aggregate_fit(1, [both])
    found = made.weights()
    assert found["c"] == 0.25  # nobody measured it: it keeps its weight
    expected = 0.75 * np.array([0.471698, 0.471698, 0.056604])
    np.testing.assert_allclose([found[n] for n in ("joint", "a", "b")], expected, atol=1e-6)


def test_estimates_are_sample_weighted_means_over_a_super_epoch() -> None:
    rng = np.random.default_rng(1)
    made = strategy(super_epoch=3)
    held = {"k0": "abc", "k1": "a", "k2": "bc", "k3": "ac"}
    seen: dict[str, list[tuple[int, float, float]]] = {n: [] for n in ("joint", *"abc")}
    for server_round in range(1, 7):
        if server_round == 4:
            seen = {n: [] for n in seen}  # sums restart
        updates = []
        for i, (name, modalities) in enumerate(held.items()):
            own = {n: rng.uniform(0.1, 2.0, 4).tolist() for n in ("joint", *modalities)}
            samples = 5 + 7 * i + server_round
            for n, (tb, hb, ta, ha) in own.items():
                seen[n].append((samples, hb - ha, (ha - ta) - (hb - tb)))
            updates.append(answer(name, samples, **own))
        before = made.weights()
        made.aggregate_fit(server_round, updates[::-1])
        if server_round % 3:
            assert made.weights() == before
            continue
        raw = {}
        for n, rows in seen.items():
            total = sum(s for s, _, _ in rows)
            g, o = (sum(r[0] * r[i] for r in rows) / total for i in (1, 2))
            raw[n] = max(g, 0.0) / max(o * o, 1e-6)
        for n, weight in made.weights().items():
            assert weight == pytest.approx(raw[n] / sum(raw.values()), rel=1e-9)


def test_a_client_is_sent_the_weights_of_what_it_trains() -> None:
    made = strategy(super_epoch=1)
    orders = made.orders(1, Assignment("k", ("a", "c")), "train")
    assert orders.method_state == {"weights": dict.fromkeys(("joint", "a", "c"), 0.25)}
    drawn = made.configure_fit(1, [ClientInfo(f"k{i}", ("a",)) for i in range(3)])
    assert [a.reasons["weights"] for a in drawn] == [made.weights()] * 2


def test_fixed_weights_stay() -> None:
    made = strategy(weights={"joint": 1, "b": 3}, super_epoch=1)
    expected = {"joint": 0.25, "a": 0.0, "b": 0.75, "c": 0.0}
    assert made.weights() == expected
    made.aggregate_fit(1, [answer("k", a=losses(0.1, 0.1))])
    assert made.weights() == expected
    assert made.state.memory == {}
    assert made.check_update(Update("k", ("a",), 10), "train") is None


# --- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measurements", "samples", "reason"),
    [
        ({"joint": 4, "a": 4}, 10, None),
        ({}, 10, "the answer holds no losses of 'joint'"),
        ({"joint": 4}, 10, "the answer holds no losses of 'a'"),
        ({"a": 4}, 10, "the answer holds no losses of 'joint'"),
        ({"joint": 4, "a": 3}, 10, r"the losses of 'a' have shape (3,), expected (4,)"),
        ({}, 1, None),
    ],
)
def test_what_is_missed_in_an_answer(
    measurements: dict[str, int], samples: int, reason: str | None
) -> None:
    update = Update("k", ("a",), samples)
    update.measurements = {n: np.ones(size) for n, size in measurements.items()}
    assert strategy().check_update(update, "train") == reason


def test_a_client_with_gaps_may_have_nothing_to_hold_out() -> None:
    update = Update("k", ("a", "b"), 10, present={"b": 1})
    assert strategy().check_update(update, "train") is None


def spoiled(name: str, change: Callable[[Update], Any]) -> Callable[..., Any]:
    answer = handler(name)

    def changed(message: Any) -> Any:
        content = answer(message)
        if message.metadata.message_type != "train":
            return content
        update = unpack_update(name, content)
        change(update)
        return pack_update(update)

    return changed


def test_bad_answers_are_left_out_by_name_and_reason() -> None:
    handlers = {name: handler(name) for name in HELD}
    handlers["c0"] = spoiled("c0", lambda u: u.measurements.pop("sound"))
    handlers["c1"] = spoiled("c1", lambda u: u.measurements.update(joint=np.ones((4, 1))))
    handlers["c2"] = spoiled("c2", lambda u: u.measurements.update(smell=np.full(4, np.nan)))
    _, keep = federate("g-blending", rounds=6, handlers=handlers)
    failures = {c: reason for r in keep.reports for c, reason in r.failures.items()}
    assert failures == {
        "c0": "the answer holds no losses of 'sound'",
        "c1": "measurement 'joint' has shape (4, 1), expected (4,)",
        "c2": "measurement 'smell' is not finite",
    }


# --- federations ---------------------------------------------------------------------------------


def test_all_weight_on_the_joint_loss_and_no_holdout_is_fedavg_bit_for_bit() -> None:
    found, _ = federate("g-blending", encoder="mlp", weights={"joint": 2.0}, holdout=0.0)
    plain, _ = federate("fedavg", encoder="mlp")
    assert {n: found.arrays[n].tobytes() for n in plain.arrays} == {
        n: v.tobytes() for n, v in plain.arrays.items()
    }
    half, _ = federate("g-blending", encoder="mlp", weights={"joint": 1, "touch": 1}, holdout=0.0)
    assert any((half.arrays[n] != v).any() for n, v in plain.arrays.items())


@pytest.mark.parametrize("super_epoch", [2, 3])
def test_a_resumed_federation_goes_on_with_its_sums_and_weights(super_epoch: int) -> None:
    """The stop after round 2 is between two estimates, or right after one."""
    changes: dict[str, Any] = {"encoder": "mlp", "super_epoch": super_epoch}
    whole, rows = federate("g-blending", **changes)
    half, _ = federate("g-blending", rounds=2, **changes)
    start = ServerState.from_bytes(half.to_bytes())
    resumed, more = federate("g-blending", start=start, **changes)
    assert resumed.to_bytes() == whole.to_bytes()
    assert more.rows() == rows.rows()[2:]
    weights = whole.memory[""]["weights"]
    assert weights.sum() == pytest.approx(1.0)
    assert len(set(weights.tolist())) > 1  # estimated, no longer equal
    assert set(whole.memory) == {""}
    used = [r.picks[0]["weights"]["joint"] for r in rows.reports]
    assert used[:2] == [0.25, 0.25]
    assert (used[2] != 0.25) == (super_epoch == 2)


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": {"joint": -1.0}}, "weights: joint is -1.0, it must be a number >= 0"),
        ({"weights": {"joint": float("inf")}}, "weights: joint is inf"),
        ({"weights": {"joint": 0.0, "a": 0}}, "weights: all are 0"),
        ({"super_epoch": 0}, "super_epoch is 0, it must be >= 1"),
    ],
)
def test_what_the_strategy_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GBlending(2, **settings)


def test_weights_of_heads_that_the_model_lacks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'d' is no head of this model \(it has joint, a, b, c\)"):
        strategy(weights={"d": 1.0}).task(1, Assignment("k", ("a",)))


def test_weights_are_given_as_yaml() -> None:
    given = parse_pairs(["weights={joint: 1, gray: 0.5}", "methods.g-blending.holdout=0"])
    config = load_config("cg-digits", {"method": "g-blending", **given})
    settings: Any = config.method_settings()
    assert (settings.weights, settings.holdout) == ({"joint": 1.0, "gray": 0.5}, 0.0)
    sent = config.client_settings()
    assert sent.objective_settings == {"holdout": 0.0, "measure": False}
    assert sent.network.head == "blending"
    plain = load_config("cg-digits", {"method": "g-blending"}).client_settings()
    assert plain.objective_settings == {"holdout": 0.1, "measure": True}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weights": "{joint: 1, grey: 1}"}, "'grey' is no head.*it has joint, colored, gray"),
        ({"weights": "{joint: -1}"}, "weights: joint is -1.0"),
        ({"weights": "{joint: 0}"}, "weights: all are 0"),
        ({"weights": "1"}, "weights: .* not 1"),
        ({"methods.g-blending.holdout": "0"}, "holdout: 0, but weights are estimated"),
        ({"methods.g-blending.holdout": "0.6"}, "holdout: .* less than or equal to 0.5"),
        ({"super_epoch": "0"}, "super_epoch: .* greater than or equal to 1"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_starts(
    given: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("cg-digits", {"method": "g-blending", **given})


def test_the_descriptions_say_what_one_must_know() -> None:
    blending, greedy = METHODS.find("g-blending"), METHODS.find("greedy")
    assert "solo trainings" in blending.source
    assert "a client that lacks modalities" in blending.source
    assert "needs local_epochs >= 2" in greedy.summary
    assert "a client that lacks modalities" in greedy.source

"""DivFL, pow-d, FedAvg-x and local training: their decisions against independent ones."""

import itertools

import numpy as np
import pytest

from strategies import (
    Assignment,
    ClientInfo,
    DivFL,
    FedAvg,
    LocalTraining,
    ModalityDropout,
    PowerOfChoice,
    ServerState,
    Update,
    submodular,
)

HELD = ("a", "b")
ARRAYS = {"encoders.a.w": np.zeros(2), "encoders.b.w": np.zeros(2), "head.bias": np.zeros(1)}


def clients(count: int, held: tuple[str, ...] = HELD) -> list[ClientInfo]:
    return [ClientInfo(f"k{i:03}", held, 10 + i) for i in range(count)]


# --- DivFL --------------------------------------------------------------------------------------


def measured(points: np.ndarray, n: int, seed: int = 0) -> tuple[DivFL, list[ClientInfo]]:
    strategy, known = DivFL(n, seed=seed), clients(len(points))
    strategy.aggregate_probe(
        1,
        [
            Update(c.client_id, c.modalities, signatures={"multi": row.astype(np.float32)})
            for c, row in zip(known, points, strict=True)
        ],
    )
    return strategy, known


def cost(distances: np.ndarray, chosen: list[int]) -> float:
    return float(distances[:, chosen].min(axis=1).sum())


@pytest.fixture
def everyone_is_a_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submodular, "candidate_size", lambda total, left, n: left)


@pytest.mark.usefixtures("everyone_is_a_candidate")
def test_divfl_on_a_line() -> None:
    """Greedy takes 2, then 10 or 11, cost 4; the optimum {1, 10} or {1, 11} costs 3."""
    points = np.array([0.0, 1.0, 2.0, 10.0, 11.0])[:, None]
    strategy, known = measured(points, 2)
    assignments = strategy.configure_fit(1, known)
    chosen = [int(a.client_id[1:]) for a in assignments]
    assert chosen[0] == 2
    assert chosen[1] in (3, 4)
    distances = np.abs(points - points.T)
    assert cost(distances, chosen) == 4
    assert min(cost(distances, list(s)) for s in itertools.combinations(range(5), 2)) == 3
    assert assignments[-1].reasons["cost_multi"] == pytest.approx(4)


@pytest.mark.usefixtures("everyone_is_a_candidate")
@pytest.mark.parametrize("seed", range(5))
def test_divfl_is_brute_force_greedy_and_within_its_bound(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(10, 3)).astype(np.float32)
    strategy, known = measured(points, 3)
    chosen = [int(a.client_id[1:]) for a in strategy.configure_fit(1, known)]
    distances = np.linalg.norm(points[:, None] - points[None], axis=2).astype(np.float64)
    greedy: list[int] = []
    for _ in range(3):
        left = [i for i in range(10) if i not in greedy]
        greedy.append(min(left, key=lambda i: cost(distances, [*greedy, i])))
    assert chosen == greedy
    # Gain over the worst possible phantom client: at least 1 - 1/e of the optimum's.
    worst = float(distances.max() * 10)
    best = min(cost(distances, list(s)) for s in itertools.combinations(range(10), 3))
    assert worst - cost(distances, chosen) >= (1 - 1 / np.e) * (worst - best)
    everyone, known = measured(points, 10)
    *_, last = everyone.configure_fit(1, known)
    assert last.reasons["cost_multi"] == pytest.approx(0, abs=1e-5)


@pytest.mark.usefixtures("everyone_is_a_candidate")
@pytest.mark.parametrize("seed", range(3))
def test_divfl_picks_what_apricot_picks(seed: int) -> None:
    apricot = pytest.importorskip("apricot")
    points = np.random.default_rng(seed).normal(size=(60, 4)).astype(np.float32)
    strategy, known = measured(points, 8)
    chosen = [int(a.client_id[1:]) for a in strategy.configure_fit(1, known)]
    distances = np.linalg.norm(points[:, None] - points[None], axis=2).astype(np.float64)
    theirs = apricot.FacilityLocationSelection(8, metric="precomputed", optimizer="naive")
    theirs.fit(distances.max() - distances)
    assert chosen == theirs.ranking.tolist()


def test_divfl_measures_new_clients_only_and_asks_for_no_enhancing_gradient() -> None:
    strategy, known = measured(np.eye(4), 2)
    strategy.state.arrays = dict(ARRAYS)
    late = ClientInfo("late", ("b",), 5)
    assert strategy.configure_probe(2, [*known, late]) == [Assignment("late", ("b",))]
    orders = strategy.orders(2, Assignment("late", ("b",)), "measure")
    assert orders.signature is not None
    assert orders.signature.enhancing is False
    assert not orders.measure_prototypes


# --- pow-d --------------------------------------------------------------------------------------


def asked(strategy: PowerOfChoice, known: list[ClientInfo], losses: dict[str, float]) -> list[str]:
    candidates = strategy.configure_probe(3, known)
    answers = [
        Update(a.client_id, a.modalities, measurements={"loss": np.array([losses[a.client_id]])})
        for a in candidates
        if a.client_id in losses
    ]
    strategy.aggregate_probe(3, answers)
    return [a.client_id for a in strategy.configure_fit(3, known)]


def test_with_everyone_a_candidate_the_largest_losses_train() -> None:
    known = clients(9)
    values = np.random.default_rng(0).permutation(9)
    losses = {c.client_id: float(v) for c, v in zip(known, values, strict=True)}
    top = sorted(losses, key=lambda c: -losses[c])[:4]
    assert asked(PowerOfChoice(4, d=9), known, losses) == top
    assert asked(PowerOfChoice(4, d=9), known, {c: v + 7.5 for c, v in losses.items()}) == top


def test_ties_go_by_the_draw_which_is_fedavgs() -> None:
    known = clients(9)
    losses = dict.fromkeys((c.client_id for c in known), 1.0)
    drawn = [a.client_id for a in FedAvg(4, seed=5).configure_fit(3, known)]
    assert asked(PowerOfChoice(4, d=4, seed=5), known, losses) == drawn
    assert asked(PowerOfChoice(4, d=9, seed=5), known, losses) == drawn


def test_half_of_the_clients_are_candidates_but_never_fewer_than_n() -> None:
    assert len(PowerOfChoice(3).configure_probe(1, clients(9))) == 5
    assert len(PowerOfChoice(7).configure_probe(1, clients(9))) == 7
    assert len(PowerOfChoice(3, d=50).configure_probe(1, clients(9))) == 9


def test_a_silent_candidate_is_out_and_an_answer_without_loss_is_refused() -> None:
    known = clients(6)
    strategy = PowerOfChoice(2, d=6)
    losses = {c.client_id: float(i) for i, c in enumerate(known)}
    del losses["k005"]
    assert asked(strategy, known, losses) == ["k004", "k003"]
    assert strategy.check_update(Update("k0", HELD), "loss") == "the answer holds no loss"
    assert strategy.check_update(Update("k0", HELD), "train") is None


@pytest.mark.parametrize("d", [-1, 2])
def test_too_few_candidates_are_refused(d: int) -> None:
    with pytest.raises(ValueError, match=f"d is {d}"):
        PowerOfChoice(3, d=d)


# --- FedAvg-x -----------------------------------------------------------------------------------


def dropped(strategy: ModalityDropout, known: list[ClientInfo], rounds: int) -> np.ndarray:
    """Per round and client: -1 for all kept, else which of the held modalities is missing."""
    found = np.full((rounds, len(known)), -1)
    for server_round in range(rounds):
        for a in strategy.configure_fit(server_round, known):
            i = int(a.client_id[1:])
            missing = [j for j, m in enumerate(known[i].modalities) if m not in a.modalities]
            assert len(missing) <= 1
            assert a.modalities
            found[server_round, i] = missing[0] if missing else -1
    return found


def test_x_is_the_share_of_droppers_and_modalities_are_balanced() -> None:
    known = clients(50, ("a", "b", "c"))
    found = dropped(ModalityDropout(50, drop=0.3, seed=1), known, 60)
    share = (found >= 0).mean()
    assert share == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / found.size))
    counts = np.bincount(found[found >= 0], minlength=3)
    assert np.abs(counts / counts.sum() - 1 / 3).max() < 0.06
    assert (found[0] != found[1]).any()


def test_fixed_drops_stay_and_follow_the_seed() -> None:
    known = clients(40)
    found = dropped(ModalityDropout(40, drop=0.5, fixed=True, seed=1), known, 4)
    assert (found == found[0]).all()
    assert 8 < (found[0] >= 0).sum() < 32
    other = dropped(ModalityDropout(40, drop=0.5, fixed=True, seed=2), known, 1)
    assert (other[0] != found[0]).any()


def test_with_x_1_all_are_uni_modal_and_with_x_0_it_is_fedavg() -> None:
    known = [*clients(6), ClientInfo("k006", ("b",), 3)]
    strategy = ModalityDropout(7, drop=1.0)
    assert all(len(a.modalities) == 1 for a in strategy.configure_fit(1, known))
    roles = {a.client_id: a.reasons["role"] for a in strategy.configure_fit(1, known)}
    assert roles.pop("k006") == "multi"  # it holds no more
    assert set(roles.values()) == {"uni"}
    assert ModalityDropout(3, drop=0.0).configure_fit(5, known) == FedAvg(3).configure_fit(5, known)


@pytest.mark.parametrize("drop", [-0.1, 1.1, float("nan")])
def test_a_probability_outside_0_to_1_is_refused(drop: float) -> None:
    with pytest.raises(ValueError, match=r"drop is .* must be >= 0 and <= 1"):
        ModalityDropout(drop=drop)


# --- local training -----------------------------------------------------------------------------


def test_local_models_are_sent_back_to_their_clients_only() -> None:
    strategy = LocalTraining(2)
    strategy.state = ServerState(arrays=dict(ARRAYS))
    for c in clients(3):
        strategy.state.clients[c.client_id] = c
    own = {"encoders.b.w": np.full(2, 7.0), "head.bias": np.ones(1)}
    strategy.aggregate_fit(4, [Update("k001", ("b",), 11, own)])
    sent = strategy.task(5, Assignment("k001", HELD)).arrays
    np.testing.assert_array_equal(sent["encoders.b.w"], [7, 7])
    np.testing.assert_array_equal(sent["encoders.a.w"], [0, 0])
    assert not strategy.task(5, Assignment("k002", HELD)).arrays["head.bias"].any()
    assert not strategy.state.arrays["encoders.b.w"].any()
    models = {m.name: m for m in strategy.models()}
    assert set(models) == {"initial a+b", "k001"}
    assert models["k001"].version == 4
    back = ServerState.from_bytes(strategy.state.to_bytes())
    strategy.state = back
    assert {m.name: m.version for m in strategy.models()} == {"initial a+b": 0, "k001": 4}

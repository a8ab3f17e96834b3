"""Selection against brute force over full distance matrices, and the rules case by case."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.selection import facility, submodular
from strategies.selection.submodular import (
    FacilityLocation,
    Pick,
    balanced_selection,
    candidate_size,
    cover_rows,
    greedy_selection,
)


def line(*points: float) -> FacilityLocation:
    """Clients on a line: costs can be checked by hand."""
    return FacilityLocation(np.array(points, dtype=float)[:, None])


@pytest.fixture
def all_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submodular, "candidate_size", lambda total, left, n: left)


class Oracle:
    """The cost by definition: every distance by subtraction, every minimum by loop."""

    def __init__(self, signatures: np.ndarray, cover: np.ndarray | None = None) -> None:
        points = signatures.astype(np.float64)
        rows = points if cover is None else points[cover]
        self.distances = [[float(np.linalg.norm(k - i)) for i in points] for k in rows]
        self.tie = 1e-9 * sum(float(np.linalg.norm(k - rows.mean(axis=0))) for k in rows)
        self.members: list[int] = []

    def cost(self, extra: int) -> float:
        return sum(min(row[i] for i in [*self.members, extra]) for row in self.distances)

    def best(self, candidates: list[int]) -> int | None:
        costs = [self.cost(c) for c in candidates]
        return next(
            (c for c, v in zip(candidates, costs, strict=True) if v <= min(costs) + self.tie), None
        )


def brute_force(
    multi, weak, holds_weak, holds_other, ratios, n, threshold, rng, pick, uni_cover
) -> list[tuple[int, str, float | None, float | None]]:
    left = [k for k in range(len(ratios)) if holds_weak[k] or holds_other[k]]
    total, picks = len(left), []

    def take(client: int, role: str, costs: tuple[float | None, float | None]) -> None:
        picks.append((client, role, *costs))
        left.remove(client)
        if role == "multi":
            multi.members.append(client)
        if role == "uni" or uni_cover == "shared":
            weak.members.append(client)

    def costs(client: int) -> tuple[float | None, float | None]:
        return (
            multi.cost(client) if holds_other[client] else None,
            weak.cost(client) if holds_weak[client] else None,
        )

    while left and len(picks) < n:
        size = min(max(n, math.ceil(total / 10)), math.ceil(total / n * math.log(100)), len(left))
        drawn = rng.choice(np.array(left), size=size, replace=False).tolist()
        k1 = multi.best([c for c in drawn if holds_other[c]])
        k2 = weak.best([c for c in drawn if holds_weak[c]])
        both = {k: costs(k) for k in (k1, k2) if k is not None}
        severe = k2 is not None and ratios[k2] > threshold
        if k2 is None:
            take(k1, "multi", both[k1])
        elif k1 is None or (pick == "single" and severe):
            take(k2, "uni", both[k2])
        elif pick == "single" or k1 == k2:
            take(k1, "multi", both[k1])
        elif len(picks) == n - 1:
            if severe and "uni" not in [p[1] for p in picks]:
                take(k2, "uni", both[k2])
            else:
                take(k1, "multi", both[k1])
        else:
            take(k1, "multi", both[k1])
            take(k2, "uni" if severe or not holds_other[k2] else "multi", both[k2])
    return picks


@pytest.mark.parametrize("pick", ["pair", "single"])
@pytest.mark.parametrize("uni_cover", ["shared", "uni"])
@pytest.mark.parametrize("seed", range(40))
def test_selection_equals_brute_force(seed: int, pick: str, uni_cover: str) -> None:
    rng = np.random.default_rng(seed)
    clients, n = int(rng.integers(2, 25)), int(rng.integers(1, 12))
    multi, weak = rng.standard_normal((2, clients, 6)).astype(np.float32)
    if seed % 3 == 0:  # equal signatures: ties
        multi[clients // 2 :], weak[1::2] = multi[0], weak[0]
    congruent = seed % 2 == 0
    holds_weak = np.ones(clients, bool) if congruent else rng.random(clients) < 0.6
    holds_other = np.ones(clients, bool) if congruent else rng.random(clients) < 0.6
    cover = None if seed % 4 else rng.choice(clients, size=(clients + 1) // 2, replace=False)
    ratios = rng.lognormal(0.2, 0.4, clients)
    rest = {"n": n, "threshold": 1.2, "pick": pick, "uni_cover": uni_cover}
    got = balanced_selection(
        FacilityLocation(multi, cover),
        FacilityLocation(weak, cover),
        holds_weak=holds_weak,
        holds_other=holds_other,
        ratios=ratios,
        rng=np.random.default_rng(seed),
        **rest,
    )
    expected = brute_force(
        Oracle(multi, cover),
        Oracle(weak, cover),
        holds_weak,
        holds_other,
        ratios,
        rng=np.random.default_rng(seed),
        **rest,
    )
    assert [(p.client, p.role) for p in got] == [e[:2] for e in expected]
    for p, (_, _, cost_multi, cost_weak) in zip(got, expected, strict=True):
        assert p.cost_multi == (cost_multi and pytest.approx(cost_multi, abs=1e-6))
        assert p.cost_weak == (cost_weak and pytest.approx(cost_weak, abs=1e-6))
        assert p.ratio == ratios[p.client]
    available = int((holds_weak | holds_other).sum())
    assert len({p.client for p in got}) == len(got) == min(n, available)


@pytest.mark.parametrize("seed", range(20))
def test_lazy_choice_and_small_cache_pick_as_full_evaluation_does(seed: int) -> None:
    # Many steps over clustered clients, so that earlier gains do rule candidates out.
    rng = np.random.default_rng(seed)
    centres = 5 * rng.standard_normal((8, 16))
    signatures = centres[rng.integers(8, size=150)] + rng.standard_normal((150, 16))
    column = 150 * 8
    runs = []
    for cache_bytes in (0, 7 * column, 1 << 20):
        cover = FacilityLocation(signatures, cache_bytes=cache_bytes)
        runs.append([p.client for p in greedy_selection(cover, 20, np.random.default_rng(seed))])
    full, draws = FacilityLocation(signatures), np.random.default_rng(seed)
    left, expected = list(range(150)), []
    for _ in range(20):
        size = candidate_size(150, len(left), 20)
        drawn = draws.choice(np.array(left), size=size, replace=False)
        expected.append(int(drawn[np.argmin(full.costs(drawn))]))
        full.add(expected[-1])
        left.remove(expected[-1])
    assert runs == [expected] * 3


def test_a_column_is_computed_once_while_the_cache_has_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computed: list[int] = []
    inner = FacilityLocation._distances

    def counting(self: FacilityLocation, clients: np.ndarray) -> np.ndarray:
        computed.extend(clients.tolist())
        return inner(self, clients)

    monkeypatch.setattr(FacilityLocation, "_distances", counting)
    signatures = np.random.default_rng(0).standard_normal((60, 4))
    everyone = np.arange(60)
    cover = FacilityLocation(signatures)
    for client in (3, 7):
        cover.costs(everyone)
        cover.add(client)
    assert sorted(computed) == list(range(60))
    computed.clear()
    cover = FacilityLocation(signatures, cache_bytes=10 * 60 * 8)
    cover.costs(everyone)
    cover.costs(everyone)
    assert len(computed) == 60 + 50


def test_a_candidate_whose_earlier_gain_cannot_win_is_not_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(facility, "LAZY_BATCH", 1)
    cover = line(0, 1, 2, 100, 101)
    cover.add(0)
    everyone = np.arange(5)
    assert cover.best(everyone) == 3  # gains 0, 4, 6, 200, 200
    cover.add(3)
    looked_at: list[int] = []
    inner = FacilityLocation.costs

    def counting(self: FacilityLocation, candidates: np.ndarray) -> np.ndarray:
        looked_at.extend(candidates.tolist())
        return inner(self, candidates)

    monkeypatch.setattr(FacilityLocation, "costs", counting)
    assert cover.best(everyone) == 1
    assert sorted(looked_at) == [1, 2, 3, 4]


points = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=4, max_size=9).map(
    lambda rows: np.array(rows, dtype=float)
)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(points, st.data())
def test_cost_is_monotone_and_its_gains_diminish(
    signatures: np.ndarray, data: st.DataObject
) -> None:
    n = len(signatures)
    order = data.draw(st.permutations(range(n)))
    small = data.draw(st.integers(1, n - 2))
    large = data.draw(st.integers(small, n - 2))
    sample = data.draw(st.lists(st.integers(0, n - 1), min_size=1, unique=True))
    for cover in (None, np.array(sample)):
        a, b = FacilityLocation(signatures, cover), FacilityLocation(signatures, cover)
        costs_so_far = []
        for client in order[:large]:
            b.add(client)
            costs_so_far.append(b.cost)
        for client in order[:small]:
            a.add(client)
        v = np.array([order[-1]])
        gain_a, gain_b = a.cost - a.costs(v)[0], b.cost - b.costs(v)[0]
        assert all(x >= y - 1e-9 for x, y in itertools.pairwise(costs_so_far))
        assert gain_b >= -1e-9
        assert gain_a >= gain_b - 1e-9


@settings(derandomize=True, deadline=None, max_examples=60)
@given(points, st.integers(1, 4))
def test_costs_equal_the_definition(signatures: np.ndarray, members: int) -> None:
    cover, oracle = FacilityLocation(signatures), Oracle(signatures)
    assert cover.cost == math.inf
    for client in range(members):
        expected = [oracle.cost(c) for c in range(len(signatures))]
        np.testing.assert_allclose(cover.costs(np.arange(len(signatures))), expected, atol=1e-6)
        cover.add(client)
        oracle.members.append(client)
    assert cover.cost == pytest.approx(oracle.cost(0), abs=1e-6)


def test_exact_gradients_wider_than_a_slab_give_the_same_costs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signatures = np.random.default_rng(2).standard_normal((12, 50)).astype(np.float32)
    whole = FacilityLocation(signatures).costs(np.arange(12))
    monkeypatch.setattr(facility, "SLAB_BYTES", 12 * 8 * 7)  # seven columns
    np.testing.assert_allclose(FacilityLocation(signatures).costs(np.arange(12)), whole, rtol=1e-12)


# --- Eq. 13, case by case ------------------------------------------------------------------------
# The first choice is the median: client 1 of MULTI and AGREES, client 0 of DIFFERS.
MULTI = (0.0, 0.1, 1.0, -3.0, 3.0)
AGREES = (0.0, 0.1, 1.0, -3.0, 3.0)
DIFFERS = (0.1, 3.0, 0.0, -3.0, 1.0)


def select(
    weak: tuple[float, ...],
    n: int,
    ratio: float | list[float] = 2.0,
    holds_weak: list[int] | None = None,
    holds_other: list[int] | None = None,
    **options: object,
) -> list[tuple[int, str]]:
    """Select among the clients of MULTI with χ = 1.2 and everyone a candidate."""
    clients = len(MULTI)
    picks = balanced_selection(
        line(*MULTI),
        line(*weak),
        holds_weak=np.array(holds_weak or [1] * clients, bool),
        holds_other=np.array(holds_other or [1] * clients, bool),
        ratios=np.broadcast_to(np.array(ratio, dtype=float), (clients,)),
        n=n,
        threshold=1.2,
        rng=np.random.default_rng(0),
        **options,
    )
    return [(p.client, p.role) for p in picks]


@pytest.mark.usefixtures("all_candidates")
class TestConflictRule:
    def test_same_choice_is_multi_modal_whatever_its_ratio(self) -> None:
        assert select(AGREES, n=2, ratio=9.0)[0] == (1, "multi")

    def test_different_choice_above_the_threshold_trains_the_weak_modality(self) -> None:
        assert select(DIFFERS, n=2, ratio=1.3) == [(1, "multi"), (0, "uni")]

    @pytest.mark.parametrize("ratio", [1.1, 1.2])
    def test_different_choice_up_to_the_threshold_is_multi_modal(self, ratio: float) -> None:
        assert select(DIFFERS, n=2, ratio=ratio) == [(1, "multi"), (0, "multi")]

    def test_the_second_choice_s_own_ratio_decides(self) -> None:
        assert select(DIFFERS, n=2, ratio=[1.0, 9.0, 1.0, 1.0, 1.0])[1] == (0, "multi")

    def test_last_place_goes_to_the_weak_modality_if_nobody_trains_it_yet(self) -> None:
        assert select(DIFFERS, n=1) == [(0, "uni")]

    def test_last_place_goes_to_the_first_function_if_the_ratio_is_small(self) -> None:
        assert select(DIFFERS, n=1, ratio=1.0) == [(1, "multi")]

    def test_last_place_goes_to_the_first_function_if_someone_trains_the_weak_one(self) -> None:
        picks = select(DIFFERS, n=3)
        assert picks[:2] == [(1, "multi"), (0, "uni")]
        assert picks[2][1] == "multi"

    def test_who_holds_only_the_weak_modality_trains_it_whatever_its_ratio(self) -> None:
        only_weak = [0, 1, 1, 1, 1]
        assert select(DIFFERS, n=2, ratio=0.5, holds_other=only_weak) == [(1, "multi"), (0, "uni")]

    def test_who_lacks_the_weak_modality_is_multi_modal(self) -> None:
        without_weak = [1, 0, 1, 1, 1]
        assert select(AGREES, n=2, holds_weak=without_weak) == [(1, "multi"), (0, "uni")]

    def test_nobody_holds_the_weak_modality(self) -> None:
        assert [r for _, r in select(DIFFERS, n=3, holds_weak=[0] * 5)] == ["multi"] * 3

    def test_nobody_holds_anything_else(self) -> None:
        picks = select(DIFFERS, n=3, ratio=0.5, holds_other=[0] * 5)
        assert picks[0] == (0, "uni")
        assert [r for _, r in picks] == ["uni"] * 3

    def test_who_holds_nothing_is_never_selected(self) -> None:
        picks = select(AGREES, n=9, holds_weak=[1, 0, 1, 1, 1], holds_other=[1, 0, 1, 1, 1])
        assert {c for c, _ in picks} == {0, 2, 3, 4}

    def test_single_takes_the_weak_function_s_choice_above_the_threshold(self) -> None:
        assert select(DIFFERS, n=1, pick="single") == [(0, "uni")]
        assert select(AGREES, n=1, pick="single") == [(1, "uni")]

    def test_single_takes_the_other_function_s_choice_up_to_it(self) -> None:
        assert select(DIFFERS, n=1, ratio=1.2, pick="single") == [(1, "multi")]

    def test_single_without_a_candidate_for_one_function(self) -> None:
        picks = select(DIFFERS, n=1, holds_weak=[0] * 5, pick="single")
        assert picks == [(1, "multi")]
        picks = select(DIFFERS, n=1, ratio=0.5, holds_other=[0] * 5, pick="single")
        assert picks == [(0, "uni")]

    def test_multi_modal_picks_cover_the_weak_function_only_if_shared(self) -> None:
        # Client 1 joins S_M first. Where it covers the weak function too, an end of the line gains
        # most next; where it does not, the next best centre, client 0, does.
        assert select(AGREES, n=3)[2][0] in (3, 4)
        assert (0, "uni") not in select(AGREES, n=3)
        assert (0, "uni") in select(AGREES, n=3, uni_cover="uni")


@pytest.mark.usefixtures("all_candidates")
def test_a_pick_carries_the_numbers_behind_it() -> None:
    picks = balanced_selection(
        line(*MULTI),
        line(*DIFFERS),
        holds_weak=np.ones(5, bool),
        holds_other=np.array([0, 1, 1, 1, 1], bool),
        ratios=np.array([0.5, 1.5, 1.0, 1.0, 1.0]),
        n=2,
        threshold=1.2,
        rng=np.random.default_rng(0),
    )
    # Column sums of client 1: |0.1 - MULTI| = 0.1 + 0 + 0.9 + 3.1 + 2.9, |3 - DIFFERS| = 2.9 + 0
    # + 3 + 6 + 2; of client 0: |0.1 - DIFFERS| = 0 + 2.9 + 0.1 + 3.1 + 0.9.
    approx = pytest.approx
    assert picks == [
        Pick(1, "multi", 0, approx(7.0), approx(13.9), 1.5, 5),
        Pick(0, "uni", 0, None, approx(7.0), 0.5, 5),
    ]


# --- plain greedy --------------------------------------------------------------------------------


@pytest.mark.usefixtures("all_candidates")
class TestGreedy:
    def test_example_on_a_line(self) -> None:
        cover = line(0, 1, 2, 10, 11)
        picks = greedy_selection(cover, 2, np.random.default_rng(0))
        assert picks[0].client == 2  # the median: column sum 2 + 1 + 0 + 8 + 9
        assert picks[0].cost_multi == pytest.approx(20)
        assert picks[1].client in (3, 4)
        assert picks[1].cost_multi == pytest.approx(4)
        assert cover.cost == pytest.approx(4)  # 2 + 1 + 0 + 0 + 1
        assert {(p.role, p.cost_weak) for p in picks} == {("multi", None)}

    @pytest.mark.parametrize("seed", range(10))
    def test_gain_is_at_least_the_proven_share_of_the_optimum(self, seed: int) -> None:
        signatures = np.random.default_rng(seed).standard_normal((10, 2))
        distances = np.linalg.norm(signatures[:, None] - signatures[None], axis=-1)
        empty = 10 * distances.max()  # the cost of S = ∅ with a client further off than all
        best = min(
            distances[:, list(s)].min(axis=1).sum() for s in itertools.combinations(range(10), 3)
        )
        cover = FacilityLocation(signatures)
        greedy_selection(cover, 3, np.random.default_rng(seed))
        assert empty - cover.cost >= (1 - 1 / math.e) * (empty - best)

    @pytest.mark.parametrize("seed", range(5))
    def test_first_pick_minimises_the_column_sum(self, seed: int) -> None:
        signatures = np.random.default_rng(seed).standard_normal((30, 5))
        distances = np.linalg.norm(signatures[:, None] - signatures[None], axis=-1)
        (pick,) = greedy_selection(FacilityLocation(signatures), 1, np.random.default_rng(0))
        assert pick.client == distances.sum(axis=0).argmin()
        assert pick.cost_multi == pytest.approx(distances.sum(axis=0).min())

    def test_everyone_is_selected_where_there_are_fewer_than_asked_for(self) -> None:
        picks = greedy_selection(line(0, 1, 2, 10, 11), 9, np.random.default_rng(0))
        assert sorted(p.client for p in picks) == [0, 1, 2, 3, 4]


# --- ties and rounding ---------------------------------------------------------------------------


@pytest.mark.parametrize("clients", [40, 5_050])  # double and single precision
@pytest.mark.parametrize("distinct", [1, 3])
def test_equal_signatures_tie_and_the_draw_decides(clients: int, distinct: int) -> None:
    base = 10 + np.random.default_rng(3).standard_normal((distinct, 257)).astype(np.float32)
    signatures = base[np.arange(clients) % distinct]
    # Candidates are of one kind, in an order of their own; a tie goes to the first.
    candidates = np.random.default_rng(4).permutation(np.arange(0, clients, distinct))[:300]
    cover = FacilityLocation(signatures, np.arange(40))
    for _ in range(2):
        assert cover.best(candidates) == candidates[0]
        cover.add(int(candidates[0]))
    expected = sum(np.linalg.norm(base[k % distinct] - base[0]) for k in range(40))
    assert cover.cost == pytest.approx(expected, rel=1e-5, abs=0)


def test_single_precision_beyond_the_limit_stays_close() -> None:
    rng = np.random.default_rng(5)
    signatures = (100 + rng.standard_normal((5_001, 8))).astype(np.float32)  # far from the origin
    rows = rng.choice(5_001, size=300, replace=False)
    candidates = rng.choice(5_001, size=40, replace=False)
    exact = signatures.astype(np.float64)
    distances = np.linalg.norm(exact[rows][:, None] - exact[candidates][None], axis=-1)
    costs = FacilityLocation(signatures, rows).costs(candidates)
    np.testing.assert_allclose(costs, distances.sum(axis=0), rtol=1e-5)


def test_sampled_cover_estimates_the_full_cost() -> None:
    signatures = np.random.default_rng(6).standard_normal((4_000, 8))
    rows = cover_rows(4_000, 1_000, np.random.default_rng(7))
    assert rows is not None
    assert len(set(rows.tolist())) == 1_000
    full, sampled = FacilityLocation(signatures), FacilityLocation(signatures, rows)
    for client in range(5):
        full.add(client)
        sampled.add(client)
    assert 4 * sampled.cost == pytest.approx(full.cost, rel=0.03)


def test_cover_rows_takes_all_of_a_small_fleet() -> None:
    assert cover_rows(5_000, 5_000, np.random.default_rng(0)) is None


@pytest.mark.parametrize(
    ("clients", "left", "n", "expected"),
    [
        (20, 20, 5, 5),  # max(5, 2)
        (100, 100, 5, 10),  # a tenth
        (71, 71, 2, 8),  # a tenth, rounded up
        (100, 3, 5, 3),  # what is left
        (20, 20, 15, 7),  # ⌈20/15 · ln 100⌉
        (100_000, 100_000, 100, 4_606),  # ⌈1000 · 4.60517⌉
    ],
)
def test_candidate_size(clients: int, left: int, n: int, expected: int) -> None:
    assert candidate_size(clients, left, n) == expected


def test_same_generator_state_selects_the_same() -> None:
    signatures = np.random.default_rng(8).standard_normal((50, 4))
    runs = [
        greedy_selection(FacilityLocation(signatures), 5, np.random.default_rng(s))
        for s in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


# --- errors --------------------------------------------------------------------------------------


def test_an_empty_fleet_selects_nobody() -> None:
    none = FacilityLocation(np.zeros((0, 3)))
    assert greedy_selection(none, 2, np.random.default_rng(0)) == []


@pytest.mark.parametrize("cover", [None, np.array([0, 1])])
def test_a_signature_that_is_not_finite_is_named(cover: np.ndarray | None) -> None:
    signatures = np.ones((4, 3))
    signatures[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"row.* \[?2\]? .*not finite"):
        FacilityLocation(signatures, cover).costs(np.array([1, 2]))


@pytest.mark.parametrize(
    ("signatures", "cover", "cache_bytes"),
    [
        (np.zeros(3), None, 0),
        (np.zeros((3, 2), np.int64), None, 0),
        (np.zeros((3, 2)), np.array([3]), 0),
        (np.zeros((3, 2)), None, -1),
    ],
)
def test_wrong_functions_are_refused(
    signatures: np.ndarray, cover: np.ndarray | None, cache_bytes: int
) -> None:
    with pytest.raises(ValueError, match=r"signatures are|cover must|cache_bytes"):
        FacilityLocation(signatures, cover, cache_bytes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": -1}, "n is -1"),
        ({"threshold": math.nan}, "NaN"),
        ({"ratios": np.array([1.0, math.nan])}, "NaN"),
        ({"ratios": np.ones(3)}, "ratios has shape"),
        ({"weak": line(0, 1, 2)}, "2 and 3 clients"),
    ],
)
def test_wrong_selections_are_refused(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "weak": line(0, 1),
        "holds_weak": np.ones(2, bool),
        "holds_other": np.ones(2, bool),
        "ratios": np.ones(2),
        "n": 1,
        "threshold": 1.2,
        "rng": np.random.default_rng(0),
    }
    with pytest.raises(ValueError, match=message):
        balanced_selection(line(0, 1), **{**arguments, **change})  # type: ignore[arg-type]


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="n is 0"):
        candidate_size(5, 5, 0)
    with pytest.raises(ValueError, match="cover_sample is 0"):
        cover_rows(5, 0, np.random.default_rng(0))

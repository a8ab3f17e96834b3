"""FedMSplit's attention by hand and by brute force, and whole federations."""

import numpy as np
import pytest

from bmsfed_app.methods import METHODS
from bmsfed_app.models import build_network
from strategies import FedAvg, FedMSplit, ServerState, Update, aggregate_parts
from strategies.fedmsplit import attention, block_of, similarity
from tests import synthetic
from tests.federation import federate, initial, whole_and_resumed
from tests.test_three_modalities import HELD

SPEC = synthetic.spec("mlp")


def one_block(*changes: list[float]) -> tuple[dict[str, np.ndarray], list[Update]]:
    """Clients that changed the one block of a model of ones."""
    updates = [
        Update(f"k{i}", ("a",), 1, {"encoders.a.w": np.array(c) + 1}) for i, c in enumerate(changes)
    ]
    return {"encoders.a.w": np.ones(len(changes[0]))}, updates


def random_updates() -> tuple[dict[str, np.ndarray], list[Update]]:
    """Clients of three modalities, some lacking, with float and integer arrays."""
    network = build_network(SPEC, 0)
    model = {n: v.numpy() for n, v in network.state_dict().items()}
    model["encoders.touch.steps"] = np.array(3)
    rng = np.random.default_rng(1)
    updates = []
    for i, held in enumerate(HELD.values()):
        arrays = {
            n: v + (i if v.dtype.kind == "i" else rng.normal(size=v.shape).astype(v.dtype))
            for n, v in model.items()
            if n == "head.bias" or set(n.split(".")) & set(held)
        }
        updates.append(Update(f"c{i}", held, 10 + 7 * i, arrays))
    return model, updates


def test_two_orthogonal_changes() -> None:
    received, updates = one_block([1.0, 0.0], [0.0, 2.0])
    expected = [[0.731059, 0.268941], [0.268941, 0.731059]]
    np.testing.assert_allclose(similarity(received, updates, "encoders.a"), expected, atol=1e-6)
    # One block: r is its A squared, rows to sum 1 (softmax of 2 and 0).
    r = attention(received, updates)["encoders.a"]
    np.testing.assert_allclose(r[0], [0.880797, 0.119203], atol=1e-6)


def test_who_changed_nothing_is_like_nobody_but_itself() -> None:
    received, updates = one_block([1.0, 0.0], [0.0, 0.0], [1.0, 1.0])
    e = np.exp([0.0, 1.0, 0.0])
    np.testing.assert_allclose(similarity(received, updates, "encoders.a")[1], e / e.sum())


def test_two_groups_find_each_other() -> None:
    rng = np.random.default_rng(0)
    groups = [0, 1, 0, 1, 0, 1]
    changes = np.eye(2, 40)[groups] + 0.02 * rng.normal(size=(6, 40))
    received, updates = one_block(*changes.tolist())
    r = attention(received, updates)["encoders.a"]
    same = np.equal.outer(groups, groups)
    assert r[same].min() > 5 * r[~same].max()
    np.testing.assert_allclose(r.sum(axis=1), 1.0)


def test_running_statistics_do_not_say_who_is_alike() -> None:
    received, updates = one_block([1.0, 0.0], [0.0, 1.0])
    before = attention(received, updates)["encoders.a"]
    received["encoders.a.norm.running_var"] = np.ones(1)
    for update in updates:
        update.arrays["encoders.a.norm.running_var"] = np.full(1, 100.0)
    np.testing.assert_array_equal(attention(received, updates)["encoders.a"], before)


def mixed_by_loops(
    received: dict[str, np.ndarray], updates: list[Update], gamma: float
) -> dict[str, np.ndarray]:
    """The definition, a pair of clients and a block at a time."""
    n, blocks = len(updates), sorted({block_of(name) for name in received})
    changes: dict[str, list[np.ndarray | None]] = {}
    for b in blocks:
        names = [m for m in received if block_of(m) == b and received[m].dtype.kind == "f"]
        changes[b] = [
            np.concatenate(
                [(u.arrays.get(m, received[m]).astype(float) - received[m]).ravel() for m in names]
            )
            if b == "head" or b.split(".")[1] in u.modalities
            else None
            for u in updates
        ]
    a = {b: np.zeros((n, n)) for b in blocks}
    for b, of in changes.items():
        for k, x in enumerate(of):
            for j, y in enumerate(of):
                if x is not None and y is not None:
                    a[b][k, j] = np.exp(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
        a[b] = np.array([row / row.sum() if row.sum() else row for row in a[b]])
    e = np.zeros((n, n))
    for k, u in enumerate(updates):
        for j, other in enumerate(updates):
            shared = len(set(u.modalities) & set(other.modalities))
            e[k, j] = sum(a[b][k, j] for b in blocks) / (1 + shared)
    new = {}
    for name, old in received.items():
        there = [k for k, u in enumerate(updates) if name in u.arrays]
        values = {k: updates[k].arrays[name].astype(float) for k in there}
        if old.dtype.kind == "i":
            new[name] = max(updates[k].arrays[name] for k in there)
            continue
        total = sum(updates[k].num_samples for k in there)
        new[name] = np.zeros(old.shape)
        for k in there:
            row = {j: a[block_of(name)][k, j] * e[k, j] for j in there}
            mixture = sum(row[j] * values[j] for j in there) / sum(row.values())
            own = gamma * values[k] + (1 - gamma) * mixture
            new[name] = new[name] + updates[k].num_samples / total * own
    return new


@pytest.mark.parametrize("gamma", [0.0, 0.4])
def test_the_global_model_is_the_mean_of_the_clients_mixtures(gamma: float) -> None:
    received, updates = random_updates()
    strategy = FedMSplit(gamma=gamma)
    strategy.state = ServerState(arrays=received)
    new = strategy.aggregate_fit(1, updates[::-1])
    for name, expected in mixed_by_loops(received, updates, gamma).items():
        np.testing.assert_allclose(new[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)
        assert new[name].dtype == received[name].dtype
    plain = aggregate_parts(received, updates)
    assert any(np.abs(new[n] - plain[n]).max() > 1e-3 for n in received)


@pytest.mark.parametrize("columns", ["own", "all"])
def test_gamma_one_is_fedavg_to_the_last_bit(columns: str) -> None:
    states = [
        federate(s, initial(SPEC), 2, network=SPEC)[0].to_bytes()
        for s in (
            FedAvg(4, head_columns=columns),  # type: ignore[arg-type]
            FedMSplit(4, gamma=1.0, head_columns=columns),  # type: ignore[arg-type]
        )
    ]
    assert states[0] == states[1]


def test_all_head_columns_count_the_untrained_ones_as_sent() -> None:
    received, updates = random_updates()
    strategy = FedMSplit(gamma=0.5, head_columns="all")
    strategy.state = ServerState(arrays=received)
    new = strategy.aggregate_fit(1, updates)["head.weight.sound"]
    samples = np.array([u.num_samples for u in updates], float)
    weights = 0.5 * samples + 0.5 * samples @ attention(received, updates)["head"]
    name = "head.weight.sound"
    sent = np.stack([u.arrays.get(name, received[name]) for u in updates])
    np.testing.assert_allclose(
        new, np.tensordot(weights / weights.sum(), sent, 1), rtol=1e-5, atol=1e-6
    )


def test_clients_without_samples_count_for_nothing() -> None:
    received, updates = random_updates()
    new = []
    for there in (updates, [*updates, Update("idle", ("touch",), 0, updates[0].arrays)]):
        strategy = FedMSplit(gamma=0.5)
        strategy.state = ServerState(arrays=received)
        new.append(strategy.aggregate_fit(1, there))
    assert all(new[0][n].tobytes() == new[1][n].tobytes() for n in received)
    nobody = FedMSplit()
    nobody.state = ServerState(arrays=received)
    same = nobody.aggregate_fit(1, [Update("idle", ("touch",), 0, updates[0].arrays)])
    assert all(same[n] is received[n] for n in received)


def test_a_federation_of_three_modalities_goes_on_where_it_stopped() -> None:
    whole, resumed = whole_and_resumed(
        lambda: FedMSplit(4, gamma=0.5), lambda: initial(SPEC), network=SPEC
    )
    assert whole == resumed
    _, keep = federate(FedMSplit(6, gamma=0.5), initial(SPEC), 4, network=SPEC)
    assert [r.failures for r in keep.reports] == [{}] * 4
    losses = [np.mean([c.metrics["loss"] for c in r.clients]) for r in keep.reports]
    assert losses[-1] < 0.5 * losses[0]


def test_what_is_out_of_range_is_refused_and_the_registry_explains_it() -> None:
    with pytest.raises(ValueError, match="gamma is 2"):
        FedMSplit(gamma=2)
    settings = METHODS.find("fedmsplit")()
    assert settings.objective() == ("proximal", {"mu": 0.02})
    strategy = settings.strategy(clients_per_round=3)
    assert isinstance(strategy, FedMSplit)
    assert strategy.gamma == 0.9
    assert "KDD 2022" in settings.source

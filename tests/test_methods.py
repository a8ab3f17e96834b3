"""Every method of the registry in whole federations with real local training, without Ray."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bmsfed_app.methods import METHODS, find_method
from bmsfed_app.models import build_network
from bmsfed_app.settings import ClientSettings
from strategies import (
    ClientInfo,
    FederationError,
    ModalityStrategy,
    RoundReport,
    ServerState,
    Update,
)
from strategies.testing import FakeGrid, Handler
from tests import synthetic
from tests.test_three_modalities import HELD, Keep, answering, handler

pytestmark = pytest.mark.xdist_group("methods")  # whole runs are compared with many others

ROUNDS = 3
#: Patterns of an encoder's parameters, by modality.
Freeze = dict[str, list[str]]


class Still(Keep):
    """Holds a state as it was after a round against what the next round made of it."""

    def __init__(self) -> None:
        super().__init__()
        self.then, self.kept = b"", ServerState()

    def on_end(self, strategy: ModalityStrategy, error: BaseException | None) -> None:
        assert self.then in (b"", self.kept.to_bytes())

    def after_round(self, strategy: ModalityStrategy, report: RoundReport) -> None:
        super().after_round(strategy, report)
        self.on_end(strategy, None)
        self.kept = strategy.state.snapshot()
        self.then = strategy.state.to_bytes()


def build(
    name: str, encoder: str = "identity", freeze: Freeze | None = None, **changes: Any
) -> tuple[ModalityStrategy, Any]:
    """A method's strategy, and the settings that every client is sent."""
    settings = find_method(name)(**changes)
    head, head_settings = settings.head()
    objective, objective_settings = settings.objective()
    spec = synthetic.spec(encoder)
    spec = replace(spec, head=head, head_settings=head_settings, freeze=freeze or {})
    client = synthetic.settings(
        network=spec,
        objective=objective,
        objective_settings=objective_settings,
        prototypes=True,
        local_epochs=2,
        ratio_kind=settings.ratio_kind(),
        uni_weight=settings.uni_weight,
    ).to_json()
    return settings.strategy(clients_per_round=3, seed=4), client


def federate(
    name: str,
    *,
    rounds: int = ROUNDS,
    start: ServerState | None = None,
    handlers: dict[str, Handler] | None = None,
    encoder: str = "identity",
    freeze: Freeze | None = None,
    **changes: Any,
) -> tuple[ServerState, Keep]:
    strategy, settings = build(name, encoder, freeze, **changes)
    lend(strategy)
    spec = ClientSettings.from_json(settings).network
    initial = {n: v.numpy().copy() for n, v in build_network(spec, 0).state_dict().items()}
    handlers = handlers or {client: handler(client) for client in HELD}
    keep = Still()
    state = strategy.run(
        FakeGrid(handlers, seed=0 if start is None else 1),
        start or initial,
        num_rounds=rounds,
        settings=settings,
        round_settings=lambda r: {"progress": (r - 1) / ROUNDS},
        callbacks=[keep],
        min_clients=len(handlers),
        connect_timeout=600,
        frozen=spec.frozen(),
    )
    return state, keep


def lend(strategy: ModalityStrategy) -> None:
    """Hold a strategy to what answers are: lent, in memory that is shared and used again.

    It may not write into them, and has copies of what it keeps of them.
    """

    def lent(aggregate: Callable[[int, Sequence[Update]], Any]) -> Any:
        def call(server_round: int, updates: Sequence[Update]) -> Any:
            answers = [array for update in updates for array in arrays_of(update)]
            for array in answers:
                array.flags.writeable = False
            aggregated = aggregate(server_round, updates)
            kept = list(arrays_kept(strategy.state))
            shared = [a for a in answers for k in kept if np.may_share_memory(a, k)]
            assert not shared, "the state holds an array of an answer: it needs a copy"
            return aggregated

        return call

    for hook in ("aggregate_fit", "aggregate_probe"):
        setattr(strategy, hook, lent(getattr(strategy, hook)))


def arrays_of(update: Update) -> Iterator[NDArray[Any]]:
    for named in (update.arrays, update.measurements, update.signatures):
        yield from named.values()
    for p in update.prototypes.values():
        yield from (p.means, p.counts)


def arrays_kept(state: ServerState) -> Iterator[NDArray[Any]]:
    yield from state.arrays.values()
    for by_client in (state.memory, state.measured, state.signatures):
        for named in by_client.values():
            yield from named.values()
    for prototypes in state.prototypes.values():
        for p in prototypes.values():
            yield from (p.means, p.counts)


def whole_holders() -> dict[str, Handler]:
    """Clients that hold all three modalities."""

    def make(number: int) -> Handler:
        return answering(synthetic.client(f"w{number}", n=30 + 6 * number, seed=number))

    return {f"w{i}": make(i) for i in range(5)}


def clients_of(name: str) -> dict[str, Handler] | None:
    return whole_holders() if name == "pow-d" else None


@cache
def whole(name: str) -> tuple[ServerState, Keep]:
    """A method's run, never stopped."""
    return federate(name, handlers=clients_of(name))


@cache
def fedavg() -> tuple[ServerState, Keep]:
    """What others are compared with."""
    return federate("fedavg", encoder="mlp")


NAMES = [*METHODS.names(), "fedavg-0", "fedavg-1-fix"]


@pytest.mark.parametrize("name", NAMES)
def test_three_modalities_and_clients_that_lack_some(name: str) -> None:
    state, keep = whole(name)
    assert state.round == ROUNDS
    for report in keep.reports:
        assert report.failures == {}
        assert len(report.assignments) == 3
        for a in report.assignments:
            assert set(a.modalities) <= set(state.clients[a.client_id].modalities)


@pytest.mark.parametrize("name", NAMES)
def test_going_on_after_round_two_equals_never_stopping(name: str) -> None:
    never_stopped, rows = whole(name)
    half, _ = federate(name, rounds=2, handlers=clients_of(name))
    start = ServerState.from_bytes(half.to_bytes())
    resumed, more = federate(name, start=start, handlers=clients_of(name))
    assert more.rows() == rows.rows()[2:]
    assert resumed.to_bytes() == never_stopped.to_bytes()


def with_gaps() -> dict[str, Handler]:
    """Clients of whose samples every fourth lacks sound, and every fifth smell."""

    def make(number: int) -> Handler:
        data = synthetic.client(f"g{number}", n=30 + 6 * number, seed=number)
        rows = torch.arange(len(data))
        masks = {"sound": (rows + number) % 4 > 0, "smell": (rows + number) % 5 > 0}
        return answering(replace(data, split=data.split.lacking(masks)))

    return {f"g{i}": make(i) for i in range(4)}


@pytest.mark.parametrize("name", NAMES)
def test_samples_that_lack_modalities_and_going_on(name: str) -> None:
    """All answers are used, but for a method that refuses such samples, and says why."""
    if name == "fedcmi":
        with pytest.raises(FederationError, match="one modality teaches the others"):
            federate(name, rounds=1, handlers=with_gaps())
        return
    whole, keep = federate(name, rounds=2, handlers=with_gaps())
    assert [report.failures for report in keep.reports] == [{}, {}]
    half, _ = federate(name, rounds=1, handlers=with_gaps())
    start = ServerState.from_bytes(half.to_bytes())
    resumed, _ = federate(name, rounds=2, start=start, handlers=with_gaps())
    assert resumed.to_bytes() == whole.to_bytes()


def model(state: ServerState) -> dict[str, bytes]:
    return {n: v.tobytes() for n, v in state.arrays.items()}


REDUCTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "fedavg-uni, weight 0": ("fedavg-uni", {"uni_weight": 0.0}),
    "fedavg-0": ("fedavg-0", {}),
    "fedavg-0-fix": ("fedavg-0-fix", {}),
    "fedprox, mu 0": ("fedprox", {"mu": 0.0}),
    "fedproto, lambda 0": ("fedproto", {"lam": 0.0}),
    "fedproto-release, lambda 0": ("fedproto-release", {"lam": 0.0}),
    "fedogm, alpha 0, no noise": ("fedogm", {"alpha": 0.0, "noise": False, "until": 1.0}),
    "fedogm, no rounds": ("fedogm", {"until": 0.0}),
    "fedpmr, coefficient 0": (
        "fedpmr",
        {"coefficient": "constant", "coefficient_value": 0.0, "until": 1.0},
    ),
    "agm, alpha 0": ("agm", {"alpha": 0.0, "until": 1.0}),
    "agm, no rounds": ("agm", {"until": 0.0}),
    "fedmsplit, gamma 1, mu 0": ("fedmsplit", {"gamma": 1.0, "mu": 0.0}),
    "g-blending, the joint loss alone": (
        "g-blending",
        {"weights": {"joint": 1.0}, "holdout": 0.0},
    ),
    "fedavg-me, coefficient 0": (
        "fedavg-me",
        {"coefficient": "constant", "coefficient_value": 0.0},
    ),
}


@pytest.mark.parametrize("case", REDUCTIONS)
def test_reductions_to_fedavg_are_exact(case: str) -> None:
    name, settings = REDUCTIONS[case]
    found, rows = federate(name, encoder="mlp", **settings)
    plain, plain_rows = fedavg()
    shared = model(plain)  # G-Blending has heads besides
    assert {n: v for n, v in model(found).items() if n in shared} == shared
    assert [r[0] for r in rows.rows()] == [r[0] for r in plain_rows.rows()]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("fedprox", {"mu": 1.0}),
        ("fedproto", {"lam": 1.0}),
        ("fedproto-release", {"lam": 1.0}),
        ("fedogm", {"until": 1.0}),
        ("fedpmr", {"until": 1.0}),
        ("agm", {"until": 1.0}),
        ("fedmsplit", {"gamma": 0.0, "mu": 0.0}),
        ("fedmsplit", {"gamma": 1.0}),
        ("g-blending", {}),
        ("fedpac", {}),
        ("fedavg-me", {}),
        ("fedavg-uni", {}),
        ("mmpareto", {}),
        ("mmpareto", {"heads": "own"}),
        ("lfm", {}),
        ("fedavg-0.9", {}),
    ],
)
def test_other_values_do_change_the_model(name: str, settings: dict[str, Any]) -> None:
    found, _ = federate(name, encoder="mlp", **settings)
    plain, _ = fedavg()
    ours, theirs = model(found), model(plain)
    assert all(ours[n] != v for n, v in theirs.items() if n.endswith("weight"))


def test_divfl_me_at_coefficient_0_is_divfl() -> None:
    found, _ = federate("divfl-me", encoder="mlp", coefficient="constant", coefficient_value=0.0)
    plain, _ = federate("divfl", encoder="mlp")
    assert model(found) == model(plain)


def test_pow_d_with_d_equal_to_n_is_fedavg_on_that_draw() -> None:
    handlers = whole_holders()
    found, _ = federate("pow-d", handlers=handlers, d=3)
    plain, _ = federate("fedavg", handlers=handlers)
    assert model(found) == model(plain)


def test_pow_d_refuses_clients_that_lack_a_modality() -> None:
    with pytest.raises(FederationError, match=r"client 'c2' lacks 'sound'.*another method"):
        federate("pow-d")


def test_local_models_stay_with_their_clients() -> None:
    strategy, _ = build("local")
    state, keep = federate("local")
    strategy.state = state
    models = {m.name: m for m in strategy.models()}
    trained = {a.client_id for r in keep.reports for a in r.assignments}
    assert trained <= set(models)
    assert sum(m.weight for m in strategy.models()) == sum(
        c.num_samples for c in state.clients.values()
    )
    for client in trained:
        names = set(models[client].arrays)
        held = set(HELD[client])
        assert {n.split(".")[1] for n in names if n.startswith("encoders.")} == held
        assert any((models[client].arrays[n] != state.arrays[n]).any() for n in names), (
            "it trained, its model differs from the initial one"
        )


def test_clients_of_random_modality_are_split_as_bmsfed_would() -> None:
    """As many uni-modal clients as BMSFed would take on the same state, but others."""
    ours, _ = build("random-modality", chi=1.0)
    theirs, _ = build("bmsfed", chi=1.0)
    state, _ = federate("bmsfed", chi=1.0)
    ours.state = theirs.state = state
    clients: list[ClientInfo] = list(state.clients.values())
    splits, same = [], []
    for server_round in range(4, 24):
        drawn = ours.configure_fit(server_round, clients)
        chosen = theirs.configure_fit(server_round, clients)
        splits.append([sum(a.reasons["role"] == "uni" for a in d) for d in (drawn, chosen)])
        same.append({a.client_id for a in drawn} == {a.client_id for a in chosen})
        for a in drawn:
            assert set(a.modalities) <= set(HELD[a.client_id])
    assert all(a == b for a, b in splits)
    assert {b for _, b in splits} != {0}
    assert not all(same)

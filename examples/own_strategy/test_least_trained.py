"""The strategy over a grid without Flower processes: clients are functions, rounds take no time."""

import numpy as np
from flwr.app import Message, RecordDict
from least_trained import LeastTrained

from strategies import Callback, ClientInfo, ServerState, Update
from strategies.protocol import pack_enrolment, pack_update, unpack_task
from strategies.testing import FakeGrid

HELD = {"ann": ("audio", "visual"), "bob": ("audio", "visual"), "eve": ("visual",)}
MODEL = {
    "encoders.audio.w": np.zeros(2, np.float32),
    "encoders.visual.w": np.zeros(2, np.float32),
    "head.bias": np.zeros(1, np.float32),
}


def client(name: str):
    """A client that adds 1 to whatever it is told to train."""

    def answer(message: Message) -> RecordDict:
        if message.metadata.message_type == "query.enrol":
            return pack_enrolment(ClientInfo(name, HELD[name], num_samples=10), "1")
        task = unpack_task(message.content)
        trained = {n: v + 1 for n, v in task.arrays.items()}
        return pack_update(Update(name, task.orders.modalities, 10, trained))

    return answer


class Watch(Callback):
    """Notes who trained what."""

    def __init__(self) -> None:
        self.rounds: list[dict[str, tuple[str, ...]]] = []

    def after_round(self, strategy, report) -> None:
        self.rounds.append({a.client_id: a.modalities for a in report.assignments})


def test_everybody_and_every_modality_takes_its_turn() -> None:
    watch, grid = Watch(), FakeGrid({name: client(name) for name in HELD})
    state = LeastTrained(2).run(grid, MODEL, num_rounds=6, callbacks=[watch], min_clients=3)
    assert watch.rounds == [
        {"ann": ("audio",), "bob": ("audio",)},
        {"eve": ("visual",), "ann": ("visual",)},
        {"bob": ("visual",), "eve": ("visual",)},
        {"ann": ("audio",), "bob": ("audio",)},
        {"eve": ("visual",), "ann": ("visual",)},
        {"bob": ("visual",), "eve": ("visual",)},
    ]
    # Rounds 1 and 4 trained audio, the others visual; everyone trained the head.
    assert [float(v[0]) for v in state.arrays.values()] == [2.0, 4.0, 6.0]


def test_a_saved_state_goes_on_where_it_stopped() -> None:
    grid = FakeGrid({name: client(name) for name in HELD})
    half = LeastTrained(2).run(grid, MODEL, num_rounds=3, min_clients=3)
    watch = Watch()
    loaded = ServerState.from_bytes(half.to_bytes())
    LeastTrained(2).run(grid, loaded, num_rounds=4, callbacks=[watch], min_clients=3)
    assert watch.rounds == [{"ann": ("audio",), "bob": ("audio",)}]

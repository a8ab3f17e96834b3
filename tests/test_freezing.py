"""Frozen encoders: never trained, sent back or signed, whatever the method; kept bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from bmsfed_app.settings import ClientSettings
from strategies import Arrays, BMSFed, FedAvg, ServerState, Update
from strategies.protocol import unpack_update
from strategies.testing import Handler
from tests import synthetic
from tests.federation import federate as federation
from tests.federation import initial
from tests.test_methods import NAMES, Freeze, build, clients_of, federate, whole_holders
from tests.test_three_modalities import HELD, handler

#: One modality wholly, one by a pattern, one free.
SOME: Freeze = {"touch": ["*"], "sound": ["layers.1.*"]}
FIXED = ("encoders.touch.", "encoders.sound.layers.1.")
ALL: Freeze = {m: ["*"] for m in synthetic.WIDTHS}


def watched(answer: Handler, seen: set[str]) -> Handler:
    """A client whose answers' arrays are noted by name."""

    def noting(message: Message) -> RecordDict:
        content = answer(message)
        if message.metadata.message_type == "train":
            seen.update(unpack_update("", content).arrays)
        return content

    return noting


def clients(name: str, seen: set[str]) -> dict[str, Handler]:
    answers = clients_of(name) or {client: handler(client) for client in HELD}
    return {client: watched(answer, seen) for client, answer in answers.items()}


def start_of(name: str, freeze: Freeze) -> Arrays:
    _, settings = build(name, "mlp", freeze)
    return initial(ClientSettings.from_json(settings).network)


@pytest.mark.parametrize("name", NAMES)
def test_no_method_trains_or_receives_what_is_frozen(name: str) -> None:
    before, sent = start_of(name, SOME), set[str]()
    state, keep = federate(name, rounds=2, handlers=clients(name, sent), encoder="mlp", freeze=SOME)
    assert [r.failures for r in keep.reports] == [{}, {}]
    frozen = {n for n in before if n.startswith(FIXED)}
    assert sent.isdisjoint(frozen)
    assert "encoders.smell.layers.1.weight" in sent
    kept = [state.arrays, *state.memory.values()]  # `local` has models in its memory
    moved = {n for n, v in before.items() if any((k[n] != v).any() for k in kept if n in k)}
    assert moved.isdisjoint(frozen)
    assert {n for n in sent if n.startswith("encoders.")} <= moved
    half, _ = federate(name, rounds=1, handlers=clients(name, sent), encoder="mlp", freeze=SOME)
    again = ServerState.from_bytes(half.to_bytes())
    resumed, _ = federate(
        name, rounds=2, start=again, handlers=clients(name, sent), encoder="mlp", freeze=SOME
    )
    assert resumed.to_bytes() == state.to_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_every_method_works_where_all_encoders_are_frozen(name: str) -> None:
    before, sent = start_of(name, ALL), set[str]()
    state, keep = federate(name, rounds=2, handlers=clients(name, sent), encoder="mlp", freeze=ALL)
    assert [r.failures for r in keep.reports] == [{}, {}]
    assert sent
    assert {n.split(".")[0] for n in sent} == {"head"}
    assert all((state.arrays[n] == v).all() for n, v in before.items() if "encoders" in n)
    kept = [state.arrays, *state.memory.values()]
    heads = [n for n in before if n.startswith("head.")]
    assert any((k[n] != before[n]).any() for k in kept for n in heads if n in k)


def test_what_is_frozen_is_not_paid_for_on_the_way_up() -> None:
    def traffic(freeze: Freeze) -> tuple[int, int]:
        handlers = whole_holders()
        _, keep = federate("fedavg", rounds=1, handlers=handlers, encoder="mlp", freeze=freeze)
        return keep.reports[0].bytes_down, keep.reports[0].bytes_up

    (down, up), (down_frozen, up_frozen) = traffic({}), traffic({"touch": ["*"]})
    arrays = [v for n, v in start_of("fedavg", {}).items() if n.startswith("encoders.touch.")]
    assert sum(v.nbytes for v in arrays) * 3 <= up - up_frozen
    assert down - 1000 < down_frozen < down + 1000  # sent down as ever: clients keep nothing


def test_a_client_that_answers_with_frozen_arrays_is_left_out_by_name() -> None:
    def add(update: Update) -> None:
        update.arrays["encoders.touch.scale"] = np.zeros((), np.float32)

    spec = replace(synthetic.spec(), freeze={"touch": ["*"]})
    _, keep = federation(FedAvg(6), initial(spec), 1, {"c5": add}, network=spec)
    assert keep.reports[0].failures == {"c5": "unknown array 'encoders.touch.scale' (1 unknown)"}


def test_a_strategy_is_told_of_arrays_that_the_model_has() -> None:
    spec = synthetic.spec()
    with pytest.raises(ValueError, match=r"no array 'encoders.taste.w' to freeze"):
        BMSFed(3).run(None, initial(spec), num_rounds=1, frozen={"encoders.taste.w"})  # type: ignore[arg-type]

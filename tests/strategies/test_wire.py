"""How messages travel: what comes out is what went in; arrays become bytes by a codec."""

import gzip
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Array, Error

from strategies import Orders, Prototypes, SignatureOrders, Task
from strategies.federation import wire
from strategies.federation.transport import Answer, read_reply

ORDERS = Orders(
    kind="measure",
    modalities=("gray", "colored"),
    round=7,
    client_id="k3",
    measure_prototypes=True,
    prototypes={"gray": Prototypes(np.eye(3, 2, dtype=np.float32), np.array([4, 0, 1]))},
    weak="gray",
    ratio=1.25,
    signature=SignatureOrders("update", 0, 3, 2**31 + 5, enhancing=False),
    method_state={"means": {"gray": 0.5}, "steps": 3},
)


def test_orders_come_out_as_they_went_in() -> None:
    found = wire.unpack_orders(wire.pack_orders(ORDERS))
    for name in {f.name for f in fields(Orders)} - {"prototypes"}:
        assert getattr(found, name) == getattr(ORDERS, name)
    assert list(found.prototypes) == ["gray"]
    np.testing.assert_array_equal(found.prototypes["gray"].means, np.eye(3, 2))
    np.testing.assert_array_equal(found.prototypes["gray"].counts, [4, 0, 1])


def test_orders_of_nothing_but_modalities_hold_no_blob() -> None:
    packed = wire.pack_orders(Orders("train", ("gray",)))
    assert list(packed) == ["orders"]
    assert wire.unpack_orders(packed) == Orders("train", ("gray",))


def test_the_experiments_settings_travel_beside_the_orders() -> None:
    content = wire.pack_task(Task(ORDERS, {"head.bias": np.ones(2)}), {"lr": 0.1})
    assert wire.unpack_settings(content) == {"lr": 0.1}
    task = wire.unpack_task(content)
    assert task.orders.client_id == "k3"
    np.testing.assert_array_equal(task.arrays["head.bias"], [1, 1])


def test_what_many_receive_is_serialised_once() -> None:
    count = []
    codec = wire.Codec("numpy.ndarray", lambda v: (count.append(1), Array(v))[1], Array.numpy)
    encode = wire.Encoder(codec)
    weight = np.ones(3)
    for _ in range(4):
        encode({"a": weight, "b": np.zeros(1)})  # the second is a new array each time
    assert len(count) == 1 + 4


def half(value: np.ndarray) -> Array:
    data = gzip.compress(value.astype(np.float16).tobytes())
    return Array(str(value.dtype), value.shape, "half.gzip", data)


def whole(array: Array) -> np.ndarray:
    flat = np.frombuffer(gzip.decompress(array.data), np.float16)
    return flat.reshape(array.shape).astype(array.dtype)


def test_a_compression_is_one_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = wire.Codec("half.gzip", half, whole)
    value = np.linspace(0, 1, 2000, dtype=np.float32).reshape(40, 50)
    content = wire.pack_task(Task(ORDERS, {"w": value}), encode=wire.Encoder(codec))
    assert wire.payload_bytes(content) < value.nbytes
    with pytest.raises(
        ValueError, match=r"array 'w' is written as 'half.gzip'.*register its codec"
    ):
        wire.unpack_task(content)
    monkeypatch.setitem(wire.CODECS, codec.stype, codec)
    found = wire.unpack_task(content).arrays["w"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, value, atol=1e-3)


@pytest.mark.parametrize(
    "reason",
    [
        "<class 'ValueError'>:<'client 'bob' lacks\n 'gray''>",  # of a SuperNode
        "<class 'flwr.X'>:<'\nException X occurred. Message: client 'bob' lacks 'gray''>",  # of Ray
        "client 'bob' lacks 'gray'",
    ],
)
def test_of_what_a_client_raised_its_words_are_kept(reason: str) -> None:
    reply = SimpleNamespace(has_error=lambda: True, error=Error(0, reason))
    answer = read_reply(reply, Answer(None))  # type: ignore[arg-type]
    assert answer.error == "client 'bob' lacks 'gray'"

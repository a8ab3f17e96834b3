"""Global prototypes and ratios by hand; saving and loading."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from strategies import ClientInfo, Prototypes, ServerState, Update
from strategies.state import read_extra


def protos(means: list[list[float]], counts: list[int]) -> Prototypes:
    return Prototypes(np.array(means, np.float32), np.array(counts))


def test_global_prototypes_are_count_weighted_and_leave_absent_classes_out() -> None:
    state = ServerState()
    state.absorb(
        Update("k1", ("a",), prototypes={"a": protos([[1, 0], [9, 9], [0, 0]], [3, 0, 0])})
    )
    state.absorb(
        Update("k2", ("a",), prototypes={"a": protos([[5, 4], [2, 2], [0, 0]], [1, 2, 0])})
    )
    merged = state.global_prototypes()["a"]
    np.testing.assert_allclose(merged.means[:2], [[2, 1], [2, 2]])  # (3*1+5)/4, (0+4)/4
    np.testing.assert_array_equal(merged.counts, [4, 2, 0])


def test_absent_rows_may_hold_anything() -> None:
    state = ServerState()
    state.absorb(Update("k", ("a",), prototypes={"a": protos([[np.nan, 1], [1, 1]], [0, 1])}))
    np.testing.assert_allclose(state.global_prototypes()["a"].means[1], [1, 1])


def test_latest_prototypes_replace_a_clients_earlier_ones() -> None:
    state = ServerState()
    for value in (1.0, 3.0):
        state.absorb(Update("k", ("a",), prototypes={"a": protos([[value]], [2])}))
    assert state.global_prototypes()["a"].means[0, 0] == 3.0


def test_global_ratio_weighs_clients_by_their_samples() -> None:
    state = ServerState(arrays={"encoders.a.w": np.zeros(1), "encoders.b.w": np.zeros(1)})
    for client, samples, ratio in (("k1", 10, 1.0), ("k2", 30, 3.0)):
        state.clients[client] = ClientInfo(client, ("a", "b"), samples)
        state.absorb(Update(client, ("a", "b"), ratios={"a": 1.0, "b": ratio}))
    assert state.global_ratios() == {"a": 1.0, "b": 2.5}  # Eq. 18
    assert state.weak_modality() == "b"


def test_equal_ratios_make_the_first_named_modality_weak() -> None:
    state = ServerState(arrays={"encoders.z.w": np.zeros(1), "encoders.a.w": np.zeros(1)})
    state.absorb(Update("k", ("z", "a"), ratios={"a": 1.0, "z": 1.0}))
    assert state.weak_modality() == "z"
    assert ServerState().weak_modality() is None


def full_state() -> ServerState:
    state = ServerState(round=7, arrays={"encoders.b.w": np.ones((2, 3), np.float32)})
    state.arrays |= {"encoders.a.n": np.array(5), "head.bias": np.zeros(2, np.float32)}
    state.clients['odd "id".é'] = ClientInfo('odd "id".é', ("b",), 4, (1, 3))
    update = Update('odd "id".é', ("b",), prototypes={"b": protos([[1, 2]], [4])})
    update.ratios, update.signatures = {"b": 1.5}, {"enhance.b": np.arange(3, dtype=np.float32)}
    state.absorb(update)
    state.memory["client-0"] = {"anything": np.eye(2)}
    return state


def test_a_state_survives_saving(tmp_path: Path) -> None:
    state = full_state()
    data = state.to_bytes({"config": {"lr": 0.1}})
    back = ServerState.from_bytes(data)
    assert (back.round, back.clients, back.ratios) == (7, state.clients, state.ratios)
    assert list(back.arrays) == list(state.arrays)  # the order names the first modality
    for name, value in state.arrays.items():
        assert back.arrays[name].tobytes() == value.tobytes()
        assert back.arrays[name].shape == value.shape
    np.testing.assert_array_equal(back.memory["client-0"]["anything"], np.eye(2))
    np.testing.assert_array_equal(back.signatures['odd "id".é']["enhance.b"], [0, 1, 2])
    np.testing.assert_array_equal(back.prototypes['odd "id".é']["b"].counts, [4])
    assert read_extra(data) == {"config": {"lr": 0.1}}
    state.save(tmp_path / "state", {"config": {"lr": 0.1}})
    assert (tmp_path / "state").read_bytes() == data


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_damaged_states_are_refused(cut: int) -> None:
    data = full_state().to_bytes()
    with pytest.raises(ValueError, match="server state"):
        ServerState.from_bytes(data[:cut])


def test_a_bit_that_changed_anywhere_is_noticed(tmp_path: Path) -> None:
    full_state().save(tmp_path / "state", {"config": {"lr": 0.1}})
    data = bytearray((tmp_path / "state").read_bytes())
    for place in range(0, 8 * len(data), 5):  # every bit has its turn in some byte
        data[place // 8] ^= 1 << place % 8
        with pytest.raises(ValueError, match="server state"):
            ServerState.from_bytes(bytes(data))
        data[place // 8] ^= 1 << place % 8
    assert ServerState.from_bytes(bytes(data)).round == 7


def test_a_state_has_as_many_tensors_however_many_clients_there_are() -> None:
    counts = []
    for clients in (2, 50):
        state = full_state()
        for number in range(clients):
            means = protos([[number, 2], [3, number]], [1, number])
            update = Update(f"c{number}", ("a",), prototypes={"a": means})
            update.signatures = {"multi": np.full(3, number, np.float32)}
            state.absorb(update)
        data = state.to_bytes()
        counts.append(len(safetensors.numpy.load(data)))
        back = ServerState.from_bytes(data)
        for number in range(clients):
            found = back.prototypes[f"c{number}"]["a"]
            np.testing.assert_array_equal(found.means, [[number, 2], [3, number]])
            np.testing.assert_array_equal(found.counts, [1, number])
            np.testing.assert_array_equal(back.signatures[f"c{number}"]["multi"], [number] * 3)
        assert back.to_bytes() == data
    assert counts[0] == counts[1]


def test_a_state_of_the_format_before_is_read() -> None:
    state = full_state()
    tensors = {json.dumps(["arrays", n]): v for n, v in state.arrays.items()}
    tensors[json.dumps(["memory", "client-0", "anything"])] = np.eye(2)
    who, protos_ = next(iter(state.prototypes.items()))
    tensors[json.dumps(["means", who, "b"])] = protos_["b"].means
    tensors[json.dumps(["counts", who, "b"])] = protos_["b"].counts
    tensors[json.dumps(["signatures", who, "enhance.b"])] = np.arange(3, dtype=np.float32)
    header = {"format": 2, "round": 7, "arrays": list(state.arrays), "scores": state.scores}
    header |= {"extra": {}, "ratios": state.ratios, "clients": {who: [["b"], 4, [1, 3]]}}
    data = safetensors.numpy.save(tensors, {"state": json.dumps(header)})
    assert ServerState.from_bytes(data).to_bytes() == state.to_bytes()


def test_a_state_of_the_format_without_a_checksum_is_read() -> None:
    state = full_state()
    data = state.to_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["state"]
    values = {k: v for k, v in json.loads(header).items() if k != "checksum"}
    tensors = safetensors.numpy.load(data)
    old = safetensors.numpy.save(tensors, {"state": json.dumps(values | {"format": 3})})
    assert ServerState.from_bytes(old).to_bytes() == data
    unsealed = safetensors.numpy.save(tensors, {"state": json.dumps(values)})
    with pytest.raises(ValueError, match="its checksum is missing"):
        ServerState.from_bytes(unsealed)

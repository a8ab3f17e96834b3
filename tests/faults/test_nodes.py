"""Bad nodes, bad answers, a dead SuperLink: one federation and one run that goes on through it all.

The tests follow each other; each leaves a, b and c connected and well.
"""

import json

import pytest

from tests.faults.federation import LONG, Federation, Run, call
from tests.faults.table import fault
from tests.processes import PATIENCE, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.xdist_group("faults-nodes")]


@fault(
    "a node whose key was never registered",
    happens="Flower refuses it; the node's process says so and ends",
    kept="all",
    message="Failed to activate SuperNode.",
)
def test_a_node_with_an_unknown_key_is_refused(federation: Federation, long_run: Run) -> None:
    call("node-key.sh", str(federation.folder / "keys"), "unknown")
    federation.start_node("unknown", shard=3)
    federation.parties["unknown"].wait(PATIENCE)
    assert "Failed to activate SuperNode." in federation.said("unknown")


@fault(
    "answers with NaN, and answers that protobuf cannot parse",
    happens="they are left out by name, each with its reason; the others' count",
    kept="the model of the honest ones",
    message="array 'encoders.…' holds NaN or infinity: …",
)
def test_bad_answers_are_left_out_by_name(federation: Federation, long_run: Run) -> None:
    federation.spoil("a", "with_nan")
    federation.spoil("b", "that_protobuf_cannot_parse")
    row = long_run.next_round(lambda r: {"a", "b"} <= set(r["failures"]), "two bad answers")
    assert "NaN" in row["failures"]["a"]
    assert "cannot be read" in row["failures"]["b"]
    assert long_run.statuses(row["round"])["c"] == "ok"


@fault(
    "a registered node claims the client id of another one; another node comes late",
    happens="the first is refused, the second takes part from the next round",
    kept="the id belongs to the key that first had it, also while that node is away",
    message="client id 'b' belongs to the node with key …",
)
def test_an_impostor_is_refused_and_a_late_node_takes_part(
    federation: Federation, long_run: Run
) -> None:
    for name in ("impostor", "d"):
        federation.register(name)
    federation.start_node("impostor", shard=3, client_id="b")
    federation.start_node("d", shard=4)
    long_run.wait_for(lambda rounds: "d" in rounds[-1]["assignments"], "a round of d")
    long_run.wait_for(
        lambda rounds: any("client id 'b'" in str(r["failures"]) for r in rounds), "the refusal"
    )


@fault(
    "a node is killed while it trains, and started again",
    happens="it is left out of that round; back, it trains again as the client it was",
    kept="its history and what the server remembers of it; an impostor gets neither meanwhile",
    message="Error: Node Unavailable — …",
)
def test_a_node_killed_while_training_comes_back(federation: Federation, long_run: Run) -> None:
    federation.spoil("b", "never")
    wait_until(lambda: federation.hangs("b"), "b at work", long_run.process, long_run.said)
    before = json.loads((long_run.folder / "clients.json").read_text())["b"]
    federation.kill("b")
    lost = long_run.next_round(lambda r: "b" in r["failures"], "a round without b")
    assert long_run.statuses(lost["round"])["a"] == "ok"
    without = long_run.next_round(lambda r: True, "a round of the others")
    assert set(without["assignments"]) == {"a", "c", "d"}  # the impostor got nothing
    federation.start_node("b", shard=1)
    long_run.next_round(
        lambda r: long_run.statuses(r["round"]).get("b") == "ok", "a round of b, which is back"
    )
    assert json.loads((long_run.folder / "clients.json").read_text())["b"] == before


@fault(
    "the SuperLink is killed -9, ServerApp and all, and started again with its database",
    happens="nodes connect again by themselves; the run is resumed with `resume`",
    kept="registrations, the history up to the last complete round, every client's id; "
    "`flwr stop` ends it after its last complete round",
)
def test_a_superlink_killed_and_restarted_serves_the_run_again(
    federation: Federation, long_run: Run
) -> None:
    federation.kill("superlink")
    before = long_run.complete_rounds()
    assert before
    federation.start_superlink()
    resumed = federation.run("resumed", resume="long", **LONG)
    resumed.trains("a", "b", "c")
    assert resumed.rounds()[: len(before)] == before
    resumed.stop()
    assert (resumed.folder / "checkpoint.safetensors").exists()

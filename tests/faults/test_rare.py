"""The long half: networks, disks, data folders, versions, two runs at once; one federation."""

import resource
import shutil

import pytest

from tests.faults.federation import LONG, Federation, Run
from tests.faults.table import fault
from tests.processes import PATIENCE, wait_until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.faults,
    pytest.mark.long,
    pytest.mark.xdist_group("faults-rare"),
]


@fault(
    "the network is cut for 30 s",
    happens="the round waits for the answers, which nodes send once they can",
    kept="all; nobody has to be started anew",
)
def test_a_network_that_is_cut_and_mended_costs_nothing(
    federation: Federation, long_run: Run
) -> None:
    federation.network.cut(seconds=30)
    long_run.trains("a", "b", "c")


@fault(
    "a ClientApp is killed (by the kernel, for want of memory)",
    happens="Flower reports it after 60 s; its answer is left out, and it is asked again",
    kept="the round of the others",
    message="…",
)
def test_a_client_process_that_dies_costs_its_answer_alone(
    federation: Federation, long_run: Run
) -> None:
    federation.spoil("c", "whose_process_dies")
    lost = long_run.next_round(lambda r: "c" in r["failures"], "a round without c")
    federation.spoil("c", "")
    assert long_run.statuses(lost["round"])["a"] == "ok"
    long_run.trains("a", "b", "c")


@fault(
    "a node's data folder is gone, then there again, then damaged",
    happens="its answers are errors that name the file, until it is mended",
    kept="the rounds of the others",
    message="no train.safetensors in …: write the folder with `bmsfed data split` or mend …",
)
def test_a_node_without_its_data_is_left_out_until_it_has_it(
    federation: Federation, long_run: Run
) -> None:
    folder = federation.shard(2)
    shutil.move(folder, folder.with_name("away"))
    reason = long_run.failed_with("c")
    assert "no train.safetensors in" in reason
    shutil.move(folder.with_name("away"), folder)
    long_run.trains("a", "b", "c")
    file = folder / "train.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    reason = long_run.failed_with("c")
    assert str(file) in reason or "train.safetensors" in reason
    file.write_bytes(whole)
    long_run.trains("a", "b", "c")


@fault(
    "a node runs another version of the app",
    happens="it is refused, and asked again once it is mended",
    kept="the rounds of the others",
    message="client 'd' runs version …, the server …: install the same version on both",
)
def test_a_node_of_another_version_is_refused_until_it_is_mended(
    federation: Federation, long_run: Run
) -> None:
    federation.register("d")
    federation.start_node("d", shard=4, spoiled="of_another_version")
    refused = long_run.next_round(lambda r: "version" in str(r["failures"]), "the refusal")
    assert "client 'd' runs version 0.0.0" in str(refused["failures"])
    federation.spoil("d", "")  # the next message's process runs the server's version
    long_run.next_round(lambda r: "d" in r["assignments"], "a round of d")


@fault(
    "a node leaves for good",
    happens="it is left out of the round in which it left, and not selected again",
    kept="what the server knows of it",
)
def test_a_node_that_leaves_for_good_is_not_selected_again(
    federation: Federation, long_run: Run
) -> None:
    federation.kill("d")
    long_run.next_round(lambda r: "d" not in r["assignments"], "a round without d")
    assert "d" not in long_run.next_round(lambda r: True, "one more round")["assignments"]


@fault(
    "two runs at once on one SuperLink",
    happens="both go on; nodes answer one after the other",
    kept="both histories",
)
def test_two_runs_at_once_on_one_superlink(federation: Federation, long_run: Run) -> None:
    other = federation.run("other", rounds=2, per_round=3, clients=3)
    assert other.end()["complete"]
    assert [r["failures"] for r in other.rounds()] == [{}, {}, {}]
    long_run.trains("a", "b", "c")


@fault(
    "two runs are told to write one folder",
    happens="the second is refused, and names the process that writes it",
    kept="the first run goes on",
    message="…",
)
def test_one_folder_is_written_by_one_run(federation: Federation, long_run: Run) -> None:
    second = federation.run("second", resume="long", **LONG)
    second.process.wait(PATIENCE)
    assert "bmsfed: " in second.said()
    long_run.trains("a", "b", "c")


@fault(
    "the disk is full while a checkpoint is written",
    happens="the run fails by the file's name; resumed once there is room, it goes on",
    kept="the last complete round, its checkpoint and all rows",
    message="cannot write …/checkpoint.safetensors …",
)
def test_a_full_disk_ends_the_run_at_its_last_complete_round(
    federation: Federation, long_run: Run
) -> None:
    [serverapp] = federation.apps("superlink", "flwr-serverapp")
    before = resource.prlimit(serverapp, resource.RLIMIT_FSIZE)
    resource.prlimit(serverapp, resource.RLIMIT_FSIZE, (100_000, before[1]))
    long_run.process.wait(PATIENCE)
    assert "checkpoint" in long_run.said()
    rounds = len(long_run.rounds())
    resumed = federation.run("resumed", resume="long", **LONG)
    resumed.next_round(lambda r: r["round"] >= rounds - 1, "the next round")
    resumed.stop()


@fault(
    "fewer clients than `min_clients`",
    happens="the run ends after `connect_timeout` and says who is there",
    kept="the empty run folder",
    message="3 of 5 clients connected (a, b, c) …",
)
def test_too_few_clients_end_a_run_before_it_starts(federation: Federation) -> None:
    run = federation.run(
        "lonely", rounds=1, per_round=5, clients=0, min_clients=5, connect_timeout=5
    )
    run.process.wait(PATIENCE)
    assert "3 of 5" in run.said()


@fault(
    "a node is stopped (a laptop that sleeps) while it trains, and goes on later",
    happens="the others wait for it until `deadline` (3x what clients took so far; here 60 s)",
    kept="the round of the others; its late answer is ignored, and it trains again",
    message="no answer within 60 s",
)
def test_a_node_that_sleeps_is_waited_for_until_the_deadline(federation: Federation) -> None:
    run = federation.run("deadline", deadline=60, **LONG)
    run.wait_for(lambda rounds: len(rounds) > 1, "the first round")
    federation.hold("c")
    assert "within 60 s" in run.failed_with("c")
    federation.let_go("c")
    run.trains("a", "b", "c")
    run.stop()


@fault(
    "all nodes are gone at once, and back",
    happens="the round is tried again, up to `patience`",
    kept="all complete rounds; the failed try is a row",
)
def test_a_federation_whose_nodes_all_restart_goes_on(federation: Federation) -> None:
    run = federation.run("restarted", **LONG)
    run.wait_for(lambda rounds: len(rounds) > 1, "the first round")
    federation.spoil("a", "never")
    wait_until(lambda: federation.hangs("a"), "a at work", run.process, run.said)
    for name in "abc":
        federation.end(name)
    for number, name in enumerate("abc"):
        federation.start_node(name, shard=number)
    run.trains("a", "b", "c")
    run.stop()

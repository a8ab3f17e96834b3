"""Faults that tests of other folders show, in one process: lines of the table."""

from tests.faults.table import shown_by

shown_by(
    "client_app/test_memory.py::test_the_batch_is_halved_once",
    "a client runs out of memory",
    happens="it trains once more with batches half as large, noted as `batch_halved`",
    kept="its round; where half is too much as well, its answer is an error that says so",
    message="client '…' ran out of memory: batches of … from here",
)

shown_by(
    "engine/test_ray_grid.py::test_a_machine_that_does_not_answer_for_a_while_is_not_given_up",
    "a machine is overloaded, and Ray's own process does not answer",
    happens="a simulation's own Ray waits ten minutes, not one",
    kept="all",
)
shown_by(
    "engine/test_ray_grid.py::test_a_worker_that_dies_costs_its_client_one_answer",
    "a Ray worker of a simulation dies",
    happens="it is started anew; its client is left out of the round",
    kept="all else",
)

# --- waiting --------------------------------------------------------------------------------------
shown_by(
    "strategies/test_waiting.py::test_two_nodes_restarted_for_ten_seconds_cost_no_more_than_that",
    "all clients are gone for ten seconds",
    happens="the round is tried again once they are back, for up to `patience`",
    kept="all; the try that came to nothing is a row",
)
shown_by(
    "strategies/test_waiting.py::test_when_nobody_comes_back_it_is_paused_and_can_go_on",
    "all clients are gone for good",
    happens="after `patience` the run ends as paused, exit code 3",
    kept="the last complete round; it can be resumed",
)
shown_by(
    "strategies/test_waiting.py::test_one_dead_client_costs_a_try_and_not_the_run",
    "a dead client where `per_round` is 1",
    happens="another client is drawn",
    kept="all",
)
shown_by(
    "strategies/test_waiting.py::test_at_the_end_it_tells_who_is_there_and_who_was_refused_and_why",
    "a misconfigured node, and another one that is missing",
    happens="the missing one is waited for; then the run ends and says who is there, and who was "
    "refused and why",
    kept="all",
)
shown_by(
    "strategies/test_waiting.py::test_enough_answers_close_a_round_and_late_ones_are_ignored",
    "some clients are slow, and `enough` is below 1",
    happens="the round closes with the share that has answered; late answers are ignored",
    kept="the round",
)

# --- the run folder -------------------------------------------------------------------------------
shown_by(
    "server_app/test_going_on.py::test_a_folder_is_written_by_one_run_at_a_time",
    "one run folder resumed twice",
    happens="the second is refused and names the process that writes it",
    kept="all",
)
shown_by(
    "server_app/test_going_on.py::test_a_flipped_bit_is_refused_and_the_one_before_offered",
    "a bit of a checkpoint is flipped, or it is cut",
    happens="its checksum is wrong: the run is not resumed from it; the one before is offered",
    kept="all, aside where a run goes back",
)
shown_by(
    "server_app/test_going_on.py::test_a_missing_checkpoint_beside_rounds_is_no_new_run",
    "the checkpoint is gone, rounds are there",
    happens="refused, with the round to go back to",
    kept="the history",
)
shown_by(
    "server_app/test_going_on.py::test_damaged_lines_are_left_out_by_number_and_kept",
    "a line of the history is damaged",
    happens="that line is left out, by its number",
    kept="all that follows, and the line itself aside",
)
shown_by(
    "server_app/test_going_on.py::test_killed_while_a_round_is_saved",
    "the server is killed between two writes of a round",
    happens="the run goes on from the last complete round",
    kept="history and model of the uninterrupted run, to the last bit",
)
shown_by(
    "server_app/test_going_on.py::test_a_broken_configuration_is_one_error",
    "`config.yaml` in the run folder is broken",
    happens="one error that names the file",
    kept="all",
)
shown_by(
    "server_app/test_overlapped_runs.py::"
    "test_a_full_disk_is_one_error_and_the_run_goes_on_once_there_is_room",
    "the disk is full while a row or a checkpoint is written",
    happens="one error by the file's name; resumed, the run goes on once there is room",
    kept="the last complete round",
)

shown_by(
    "e2e/test_simulation.py::"
    "test_a_run_that_is_killed_and_one_that_is_interrupted_resume_to_the_same_last_bit",
    "`bmsfed run` is killed -9, or interrupted by Ctrl-C",
    happens="it ends, with Ctrl-C after saying how to resume",
    kept="history and model of the uninterrupted run, to the last bit",
)

# --- identity -------------------------------------------------------------------------------------
shown_by(
    "strategies/test_identity.py::test_a_client_id_belongs_to_the_key_that_came_with_it",
    "another key claims the id of a client that has left",
    happens="it is refused; the client itself is admitted when it comes back",
    kept="its history and personal head, also in the checkpoint",
)
shown_by(
    "strategies/test_identity.py::test_a_node_that_comes_back_with_other_modalities_is_enrolled_anew",
    "a node comes back with other modalities",
    happens="it is enrolled anew and asked for what it holds now",
    kept="its rounds",
)
shown_by(
    "strategies/test_identity.py::"
    "test_a_refused_node_is_asked_again_ever_more_rarely_and_comes_in_once_mended",
    "a node is refused, and mended",
    happens="it is asked again, ever more rarely, and admitted",
    kept="the rounds of the others, which it does not hold up",
)
shown_by(
    "strategies/test_identity.py::test_a_late_node_that_hangs_holds_up_nobody",
    "a late node hangs when it is asked who it is",
    happens="the rounds go on beside it",
    kept="all",
)

# --- answers --------------------------------------------------------------------------------------
shown_by(
    "strategies/test_outliers.py::test_a_scaled_update_neither_poisons_the_model_nor_ends_the_run",
    "an update scaled by 10⁶",
    happens="it is scaled down to what is usual, with a line in the log",
    kept="the model",
)
shown_by(
    "strategies/test_outliers.py::test_one_ratio_does_not_turn_the_weak_modality_round",
    "one client's imbalance ratio is 10¹²",
    happens="ratios are bounded and combined robustly",
    kept="the weak modality",
)
shown_by(
    "strategies/test_fuzz.py::test_a_mutated_answer_ends_nothing_and_changes_nothing",
    "10,000 mutated answers: wrong types, kinds, shapes, ranges, names, sizes",
    happens="each that is not valid is left out, by name and reason",
    kept="all: a refused answer changes no bit of the state",
)

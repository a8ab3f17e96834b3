"""Faults that tests of other folders show, in one process: lines of the table."""

from tests.faults.table import shown_by

shown_by(
    "client_app/test_memory.py::test_the_batch_is_halved_once",
    "a client runs out of memory",
    happens="it trains once more with batches half as large, noted as `batch_halved`",
    kept="its round; where half is too much as well, its answer is an error that says so",
    message="client '…' ran out of memory: batches of … from here",
)

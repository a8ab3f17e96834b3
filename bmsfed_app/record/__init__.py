"""The record of a run: what its folder's files hold, and one way to write, read and sum them up."""

from bmsfed_app.record.files import (
    RunFolderError,
    append_rows,
    drop_rows_after,
    read_json,
    read_rows,
    replace,
    write_json,
)
from bmsfed_app.record.rows import (
    STANDARD_METRICS,
    ClientRow,
    Member,
    PickRow,
    RoundRow,
    RunInfo,
    RunSummary,
)
from bmsfed_app.record.run import Run, common_prefix, read_run
from bmsfed_app.record.summary import LAST_ROUNDS, Summary, points, summarise, summary

__all__ = [
    "LAST_ROUNDS",
    "STANDARD_METRICS",
    "ClientRow",
    "Member",
    "PickRow",
    "RoundRow",
    "Run",
    "RunFolderError",
    "RunInfo",
    "RunSummary",
    "Summary",
    "append_rows",
    "common_prefix",
    "drop_rows_after",
    "points",
    "read_json",
    "read_rows",
    "read_run",
    "replace",
    "summarise",
    "summary",
    "write_json",
]

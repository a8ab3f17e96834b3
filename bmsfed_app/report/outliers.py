"""Clients of a run whose updates stand out, for the report."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from bmsfed_app.record.rows import ClientRow
from bmsfed_app.record.run import Run

#: Rounds that a client must have trained in before its direction is spoken of.
_LEAST_ROUNDS = 3

#: Rounds that are listed by number.
_LISTED = 8


def standing_out(run: Run) -> list[tuple[str, str, str]]:
    """Return (client, rounds, what) of clients that stand out, by client.

    Either their updates were scaled down, or they point, in the mean over at least three rounds,
    against what the rounds made of all of them.
    """
    found = []
    trained: dict[str, list[ClientRow]] = {}
    for row in run.answers:
        if row.phase == "train" and row.status == "ok":
            trained.setdefault(row.client, []).append(row)
    for client, rows in sorted(trained.items()):
        if noted := [row for row in rows if row.note]:
            found.append((client, _rounds(noted), noted[-1].note))
        measured = [row for row in rows if row.update_cosine is not None]
        cosines = [row.update_cosine for row in measured if row.update_cosine is not None]
        if len(cosines) >= _LEAST_ROUNDS and mean(cosines) < 0:
            what = f"its updates point against the global model's: mean cosine {mean(cosines):.2f}"
            found.append((client, _rounds(measured), what))
    return found


def _rounds(rows: Sequence[ClientRow]) -> str:
    numbers = [str(row.round) for row in rows[:_LISTED]]
    more = len(rows) - len(numbers)
    return ", ".join(numbers) + (f" and {more} more" if more else "")

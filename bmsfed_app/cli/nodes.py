"""``bmsfed nodes``: who takes part in a run, connected or not."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from bmsfed_app.record.status import ClientStatus, RunStatus, read_status

#: Seconds between two looks of ``--watch``.
_LOOK = 1.0


class _ShowsByDefault(TyperGroup):
    """``bmsfed nodes RUN`` is ``bmsfed nodes show RUN``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command there if none is named."""
        if args and args[0] not in (*self.commands, "--help"):
            args = ["show", *args]
        return list(super().parse_args(ctx, args))


cli = typer.Typer(help="Who takes part in a run.", no_args_is_help=True, cls=_ShowsByDefault)


@cli.command()
def show(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    watch: Annotated[bool, typer.Option(help="Follow the run until it ends.")] = False,
) -> None:
    """Show each client's node, what it holds, and what it did last (the default)."""
    # Piped, lines are not cut to a terminal's width.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    folder = run.expanduser()
    if not watch:
        console.print(shown(read_status(folder)))
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            status = read_status(folder)
            live.update(shown(status), refresh=True)
            if not status.going_on:
                return
            time.sleep(_LOOK)


@cli.command()
def forget(
    run: Annotated[Path, typer.Argument(help="Run folder, of a run that does not go on now.")],
    client_id: Annotated[str, typer.Argument(help="Whose node is replaced.")],
) -> None:
    """Release a client id from its node's key: the next node that comes with it may have it."""
    from server_app.forgetting import forget as release

    key = release(run.expanduser(), client_id)
    print(f"client id '{client_id}' belongs to key {key[:12]} no more; what it trained is kept")


def shown(status: RunStatus) -> Group:
    """Return a run's status as a table, and whom it refused below."""
    table = Table(box=None, pad_edge=False)
    for name in ("client", "node", "holds"):
        table.add_column(name, overflow="fold")
    for name in ("samples", "round", "ratio", "left out", "down", "up", "s"):
        table.add_column(name, justify="right")
    table.add_column("last left out for", overflow="fold")
    for client, of in status.clients.items():
        table.add_row(*map(Text, _cells(client, of)))
    refused = [Text(f"refused: node {n}: {why}") for n, why in sorted(status.refused.items())]
    return Group(Text(_headline(status)), table, *refused)


def _headline(status: RunStatus) -> str:
    state = "killed" if status.killed else status.state
    there = sum(of.connected for of in status.clients.values())
    why = f": {status.why}" if status.why else ""
    return (
        f"{state}{why}\nround {status.round} of {status.rounds}, {there} of {len(status.clients)} "
        f"known clients connected, at {status.updated.replace('T', ' ')} (process {status.process} "
        f"on {status.host})"
    )


def _cells(client: str, of: ClientStatus) -> list[str]:
    ratio = " ".join(f"{m} {value:.2f}" for m, value in of.ratio.items())
    return [
        *(client, of.node if of.connected else "not connected", "+".join(of.modalities)),
        *(str(of.num_samples), "-" if of.last_round is None else str(of.last_round), ratio or "-"),
        *(str(of.failures), f"{of.bytes_down / 2**20:.1f}M", f"{of.bytes_up / 2**20:.1f}M"),
        *(f"{of.seconds:.1f}", of.last_failure),
    ]

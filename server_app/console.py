"""The table that a person watches while a federation runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from bmsfed_app.record.files import read_json, read_rows
from bmsfed_app.record.rows import RoundRow, RunInfo
from bmsfed_app.record.run import common_prefix
from bmsfed_app.record.summary import summary
from server_app.failures import is_failure
from server_app.run_folder import RunFolder
from strategies import Callback, Decisions, Metric, Paused, RoundReport

_LISTED = 5  # clients named per cell; the history has them all


class TableCallback(Callback):
    """Prints one line per round and a closing summary, and puts them into the run's log.

    Parameters
    ----------
    folder : RunFolder
        Named at the end; its history is summarised.
    write : callable, default print
        Takes one line.
    """

    def __init__(self, folder: RunFolder, write: Callable[[str], None] = print) -> None:
        self.folder, self._write = folder, write
        self.columns: list[tuple[Metric, str | None]] = []  # of one modality, where it is by those
        self.widths: list[str] = []

    def on_start(self, strategy: Decisions, num_rounds: int) -> None:
        """Say what runs, and print the table's head."""
        config, modalities = self.folder.config, strategy.state.modalities
        info = read_json(self.folder.info_file, RunInfo)
        metrics = [m for m in info.metrics if m.column]
        self.columns = [
            (m, one) for m in metrics for one in (modalities if m.by_modality else (None,))
        ]
        heads = [m.column.replace("{modality}", one or "") for m, one in self.columns]
        weakest = max([len(m) for m in modalities], default=0) + 8
        self.widths = [">5", *(f">{max(len(head), 5)}" for head in heads)]
        self.widths += [f"<{weakest}", "<22", "<26", ">7", ">7", ">6"]
        self.write(
            f"{config.method} on {info.dataset}: rounds {strategy.state.round + 1}-{num_rounds}, "
            f"seed {config.seed}, {config.division().describe()}"
        )
        of = "training" if config.prototypes == "train" else "test"
        self.write(
            f"accuracy in % of {strategy.evaluated}: all modalities; each alone by nearest "
            f"prototype of the {of} data"
        )
        who = ("all held (S_M)", "one alone (S_I)")
        self._line("round", *heads, " ratio", *who, "down", "up", "s")

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        """Print the round's line, and a line for every client left out."""
        if report.joined and len(strategy.state.clients) < 3:
            self.write(
                "      (two clients leave the selection nothing to choose; a larger simulation: "
                "bmsfed run --clients 10, or flwr run . --federation-config "
                '"num-supernodes=10 client-resources-num-cpus=1")'
            )
        held = {c: set(i.modalities) for c, i in strategy.state.clients.items()}
        prefix = common_prefix(held)
        multi, uni = [], []
        for a in report.assignments:
            alone = len(a.modalities) == 1 and held.get(a.client_id) != set(a.modalities)
            only = len(a.modalities) == 1 and not alone
            name = a.client_id.removeprefix(prefix)
            if alone:
                uni.append(f"{name}:{a.modalities[0]}")
            else:
                multi.append(f"{name}:{a.modalities[0]}" if only else name)
        ratio = f" {report.weak} {report.ratios[report.weak]:.2f}" if report.weak else " -"
        self._line(
            str(report.round),
            *(self._value(report, metric, modality) for metric, modality in self.columns),
            ratio,
            _listing(multi),
            _listing(uni),
            _size(report.bytes_down),
            _size(report.bytes_up),
            f"{report.seconds:.1f}",
        )
        for name, reason in sorted((report.failures | report.refused).items()):
            self.write(f"      left out: {name}: {reason}")

    def after_failure(self, strategy: Decisions, report: RoundReport) -> None:
        """Say what went wrong, and for whom."""
        self.write(f"      round {report.round}, try {report.attempt + 1}: {report.failed}")
        for name, reason in sorted(report.failures.items()):
            self.write(f"      left out: {name}: {reason}")

    def on_end(self, strategy: Decisions, error: BaseException | None) -> None:
        """Print the summary and where the run folder is."""
        if self.folder.history.exists():
            rows, _ = read_rows(self.folder.history)
            self._sum_up([r for r in rows if isinstance(r, RoundRow)])
        if error is not None:
            ended = "paused" if isinstance(error, Paused) else "ended"
            ended = "FAILED" if is_failure(error) else ended
            self.write(f"{ended} after round {strategy.state.round}: {error}")
        self.write(f"run folder: {self.folder.path}")

    def write(self, line: str) -> None:
        """Show a line, and log it."""
        self._write(line)
        self.folder.log.note(line)

    def _line(self, *cells: str) -> None:
        pairs = zip(cells, self.widths, strict=True)
        self.write(" ".join(f"{cell:{width}}" for cell, width in pairs))

    def _value(self, report: RoundReport, metric: Metric, modality: str | None) -> str:
        value = report.metrics.get(metric.name)
        if metric.by_modality:
            value = (value or {}).get(modality)
        return "-" if value is None else metric.text(value)

    def _sum_up(self, rounds: Sequence[RoundRow]) -> None:
        """Print the metrics' summaries, those of one unit and rounds together, and the traffic."""
        found = [(m, one, summary(rounds, m, one)) for m, one in self.columns]
        known = [(m, one, s) for m, one, s in found if s is not None]
        for (what, over), group in groupby(known, key=lambda f: (_what(f[0]), f[2].over())):
            self.write(f"{what:<30}last   mean of {over}")
            for metric, one, s in group:
                numbers = "  ".join(f"{metric.text(v):>5}" for v in (s.last, s.mean_last))
                self.write(f"  {metric.label(one):<26} {numbers}")
        if known:
            down, up = sum(r.bytes_down for r in rounds), sum(r.bytes_up for r in rounds)
            self.write(
                f"sent {_size(down)} to clients, received {_size(up)}, "
                f"{sum(r.seconds for r in rounds):.0f} s in rounds"
            )


def _what(metric: Metric) -> str:
    return f"{metric.axis} in {metric.unit}" if metric.unit else metric.axis


def _listing(names: list[str]) -> str:
    names = sorted(names)
    more = f" +{len(names) - _LISTED}" if len(names) > _LISTED else ""
    return " ".join(names[:_LISTED]) + more if names else "-"


def _size(count: int) -> str:
    return f"{count / 2**20:.1f}M" if count >= 2**20 else f"{count / 2**10:.0f}K"

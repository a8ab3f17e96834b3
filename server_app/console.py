"""The table that a person watches while a federation runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from server_app.history import summarise
from server_app.run_folder import RunFolder, read_rows
from strategies import Callback, ModalityStrategy, RoundReport

_LISTED = 5  # clients named per cell; the history has them all


class TableCallback(Callback):
    """Prints one line per round and a closing summary.

    Parameters
    ----------
    folder : RunFolder
        Named at the end; its history is summarised.
    write : callable, default print
        Takes one line.
    """

    def __init__(self, folder: RunFolder, write: Callable[[str], None] = print) -> None:
        self.folder, self.write = folder, write
        self.modalities: tuple[str, ...] = ()
        self.prefix = ""

    def on_start(self, strategy: ModalityStrategy, num_rounds: int) -> None:
        """Say what runs, and print the table's head."""
        config = self.folder.config
        self.modalities = strategy.state.modalities
        self.write(
            f"{config.method} on {config.dataset}: rounds {strategy.state.round + 1}-{num_rounds}, "
            f"seed {config.seed}, {config.division().describe()}"
        )
        of = "training" if config.prototypes == "train" else "test"
        self.write(
            f"accuracy in % of {strategy.evaluated}: all modalities; each alone by nearest "
            f"prototype of the {of} data"
        )
        self.write(
            self._line(
                "round",
                "all",
                self.modalities,
                "ratio",
                "all held (S_M)",
                "one alone (S_I)",
                "down",
                "up",
                "s",
            )
        )

    def after_round(self, strategy: ModalityStrategy, report: RoundReport) -> None:
        """Print the round's line, and a line for every client left out."""
        if report.joined and len(strategy.state.clients) < 3:
            self.write(
                "      (two clients leave the selection nothing to choose; a larger simulation: "
                '--federation-config "num-supernodes=10 client-resources-num-cpus=1")'
            )
        held = {c: set(i.modalities) for c, i in strategy.state.clients.items()}
        self.prefix = _common_prefix(list(held))
        multi, uni = [], []
        for a in report.assignments:
            alone = len(a.modalities) == 1 and held.get(a.client_id) != set(a.modalities)
            only = len(a.modalities) == 1 and not alone
            name = a.client_id.removeprefix(self.prefix)
            if alone:
                uni.append(f"{name}:{a.modalities[0]}")
            else:
                multi.append(f"{name}:{a.modalities[0]}" if only else name)
        by_modality = report.metrics.get("accuracy_by_modality", {})
        ratio = f"{report.weak} {report.ratios[report.weak]:.2f}" if report.weak else "-"
        self.write(
            self._line(
                str(report.round),
                _percent(report.metrics.get("accuracy")),
                [_percent(by_modality.get(m)) for m in self.modalities],
                ratio,
                _listing(multi),
                _listing(uni),
                _size(report.bytes_down),
                _size(report.bytes_up),
                f"{report.seconds:.1f}",
            )
        )
        for name, reason in sorted((report.failures | report.refused).items()):
            self.write(f"      left out: {name}: {reason}")

    def on_end(self, strategy: ModalityStrategy, error: BaseException | None) -> None:
        """Print the summary and where the run folder is."""
        rows = []
        if self.folder.history.exists():
            rows = [r for r in read_rows(self.folder.history) if r["kind"] == "round"]
        summary = summarise(rows)
        if summary:
            self.write(f"accuracy in %{'':17}last   best   mean of last {min(len(rows) - 1, 10)}")
            self.write(_summary_line("all modalities", summary["accuracy"]))
            for m, values in summary["accuracy_by_modality"].items():
                self.write(_summary_line(f"{m} alone", values))
            traffic = [sum(r[f"bytes_{way}"] for r in rows) for way in ("down", "up")]
            seconds = sum(r["seconds"] for r in rows)
            self.write(
                f"sent {_size(traffic[0])} to clients, received {_size(traffic[1])}, "
                f"{seconds:.0f} s in rounds"
            )
        if error is not None:
            self.write(f"ended after round {strategy.state.round}: {error}")
        self.write(f"run folder: {self.folder.path}")

    def _line(
        self,
        number: str,
        accuracy: str,
        by_modality: Iterable[str],
        ratio: str,
        multi: str,
        uni: str,
        down: str,
        up: str,
        seconds: str,
    ) -> str:
        each = " ".join(
            f"{a:>{max(len(m), 5)}}" for a, m in zip(by_modality, self.modalities, strict=True)
        )
        width = max([len(m) for m in self.modalities], default=0) + 7
        return (
            f"{number:>5} {accuracy:>5} {each}  {ratio:<{width}} {multi:<22} {uni:<26} "
            f"{down:>7} {up:>7} {seconds:>6}"
        )


def _summary_line(name: str, values: dict[str, float]) -> str:
    numbers = "  ".join(f"{100 * values[k]:5.1f}" for k in ("last", "best", "mean_last"))
    return f"  {name:<26} {numbers}"


def _common_prefix(names: list[str]) -> str:
    """What all names begin with, less digits: "client-" of client-08 and client-09."""
    shared = 0
    while len(names) > 1 and len({name[: shared + 1] for name in names}) == 1:
        shared += 1
        if shared >= len(names[0]):
            break
    return names[0][:shared].rstrip("0123456789") if names else ""


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _listing(names: list[str]) -> str:
    names = sorted(names)
    more = f" +{len(names) - _LISTED}" if len(names) > _LISTED else ""
    return " ".join(names[:_LISTED]) + more if names else "-"


def _size(count: int) -> str:
    return f"{count / 2**20:.1f}M" if count >= 2**20 else f"{count / 2**10:.0f}K"

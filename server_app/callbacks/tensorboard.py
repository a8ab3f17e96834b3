"""The rounds in TensorBoard."""

from __future__ import annotations

from typing import Any

from server_app.callbacks import CALLBACKS, Watched
from strategies import Callback, Decisions, RoundReport


@CALLBACKS.register("tensorboard")
class TensorBoard(Callback):
    """Writes every number of a round as a scalar, below ``tensorboard`` in the run folder.

    Raises
    ------
    ValueError
        If the package tensorboard is not installed.
    """

    def __init__(self, watched: Watched) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError(
                "the callback tensorboard needs a package: pip install 'bmsfed[track]'"
            ) from None
        self.writer: Any = SummaryWriter(str(watched.folder / "tensorboard"))

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        values = {"bytes_down": report.bytes_down, "bytes_up": report.bytes_up, **report.metrics}
        values["ratio"] = report.ratios
        for name, value in values.items():
            parts = value if isinstance(value, dict) else {"": value}
            for part, number in parts.items():
                if isinstance(number, int | float):
                    tag = f"{name}/{part}" if part else name
                    self.writer.add_scalar(tag, number, report.round)
        self.writer.flush()

    def on_end(self, strategy: Decisions, error: BaseException | None) -> None:
        self.writer.close()

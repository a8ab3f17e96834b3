"""The rounds in TensorBoard."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from server_app.callbacks import CALLBACKS
from server_app.tracking import Ending, Tracker


@CALLBACKS.register("tensorboard")
class TensorBoard(Tracker):
    """Writes rounds as scalars, the configuration as hyperparameters, and figures as images.

    All of it is below ``tensorboard`` in the folder: ``tensorboard --logdir RUN``.

    Parameters
    ----------
    watched : Watched, str or Path
        The run, or a folder of one's own.
    tags, config : mapping, optional
        As of :class:`server_app.tracking.Tracker`; they are hyperparameters, too.
    """

    name = "tensorboard"
    needs = ("tensorboard", "bmsfed[tensorboard]")

    _writer: Any = None

    @property
    def where(self) -> str:
        """A folder in the run's own."""
        return "tensorboard"

    def open(self, run_id: str, first: int) -> str:
        """Begin a file of events, with the hyperparameters."""
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self._wait_for_a_later_name()
        # Readers drop what earlier files hold from this round on.
        self._writer = SummaryWriter(str(self.folder / self.where), purge_step=first)
        entries = {**self.params, **self.tags}
        plain = {k: v if isinstance(v, int | float | str) else str(v) for k, v in entries.items()}
        for summary in hparams(plain, {"accuracy": 0, "loss": 0}):  # whose last values are shown
            self._writer.file_writer.add_summary(summary)
        return self.where

    def _wait_for_a_later_name(self) -> None:
        """Readers take files by name: second, host, process. Those of one second have no order."""
        files = (self.folder / self.where).glob("events.out.tfevents.*")
        taken = {int(file.name.split(".")[3]) for file in files}
        while int(time.time()) in taken:
            time.sleep(0.05)

    def tell(self, server_round: int, values: Mapping[str, float]) -> None:
        """Write scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, server_round)
        self._writer.flush()

    def show(self, figures: Mapping[str, bytes], server_round: int) -> None:
        """Write images."""
        for name, png in figures.items():
            pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
            self._writer.add_image(f"figures/{name}", pixels, server_round, dataformats="HWC")

    def close(self, ending: Ending) -> None:
        """Close the file."""
        self._writer.close()

"""The rounds in Weights & Biases."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from server_app.callbacks import CALLBACKS, Watched
from server_app.tracking import Ending, Tracker

_MODES = ("online", "offline")


@CALLBACKS.register("wandb")
class WeightsAndBiases(Tracker):
    """Writes rounds, the configuration and figures for Weights & Biases.

    Offline, the default, they stay below ``wandb`` in the folder, and ``wandb sync`` sends them. A
    run that was resumed has several folders there, which make one run.

    Parameters
    ----------
    watched : Watched, str or Path
        The run, or a folder of one's own.
    mode : {"online", "offline"}, optional
        By default what ``$WANDB_MODE`` says, else online where ``$WANDB_API_KEY`` is set.
    project : str, optional
        By default what ``$WANDB_PROJECT`` names, else "bmsfed".
    entity : str, optional
        User or team; by default the user's own choice.
    tags, config : mapping, optional
        As of :class:`server_app.tracking.Tracker`. A tag is written as ``name:value``.

    Raises
    ------
    ValueError
        If there is no such mode.
    """

    name = "wandb"
    needs = ("wandb", "bmsfed[wandb]")
    lasting = False  # W&B's own process writes, every 15 s

    def __init__(
        self,
        watched: Watched | str | Path,
        *,
        mode: str = "",
        project: str = "",
        entity: str = "",
        tags: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(watched, tags=tags, config=config)
        if mode and mode not in _MODES:
            raise ValueError(f"mode: '{mode}' is neither {' nor '.join(_MODES)}")
        by_key = "online" if os.environ.get("WANDB_API_KEY") else "offline"
        self.mode: Any = mode or os.environ.get("WANDB_MODE") or by_key
        self.project = project or os.environ.get("WANDB_PROJECT") or "bmsfed"
        self.entity = entity
        self._run: Any = None

    @property
    def where(self) -> str:
        """Mode and project."""
        return f"{self.mode} {self.entity}/{self.project}"

    def open(self, run_id: str, first: int) -> str:
        """Begin a run, with configuration and tags, or go on with one."""
        import wandb

        self._put_aside()
        self._run = wandb.init(
            id=run_id or None,
            resume="allow" if run_id else None,
            mode=self.mode,
            project=self.project,
            entity=self.entity or None,
            dir=str(self.folder),
            name=self.folder.name,
            group=self.tags.get("sweep"),
            tags=[f"{key}:{value}"[:64] for key, value in self.tags.items()],
            config={**self.params, **{k: v for k, v in self.tags.items() if k not in self.params}},
            settings=wandb.Settings(console="off", silent=True, disable_git=True),
        )
        self._run.define_metric("*", step_metric="round")
        if self._run.offline:
            self._unfinished.write_text(Path(self._run.dir).parent.name, encoding="utf-8")
        return str(self._run.id)

    @property
    def _unfinished(self) -> Path:
        return self.folder / "wandb" / "unfinished.txt"

    def _put_aside(self) -> None:
        """Take the files of a process that was killed out of what `wandb sync` sends.

        How many of its rounds they hold is not known, and all of them will be told again.
        """
        if not self._unfinished.exists():
            return
        files = self._unfinished.with_name(self._unfinished.read_text(encoding="utf-8"))
        if files.is_dir():
            files.rename(files.with_name(f"unfinished-{files.name}"))
        self._unfinished.unlink()

    def tell(self, server_round: int, values: Mapping[str, float]) -> None:
        """Log a row, whose step is the round."""
        self._run.log({**values, "round": server_round}, step=server_round, commit=True)

    def show(self, figures: Mapping[str, bytes], server_round: int) -> None:
        """Log images, in a row after the last round's."""
        import wandb

        images = {f"figures/{k}": Image.open(io.BytesIO(png)) for k, png in figures.items()}
        row: dict[str, Any] = {name: wandb.Image(image) for name, image in images.items()}
        self._run.log({**row, "round": server_round}, step=server_round + 1, commit=True)

    def close(self, ending: Ending) -> None:
        """Finish the run."""
        self._run.finish(exit_code=0 if ending == "complete" else 1)
        self._unfinished.unlink(missing_ok=True)

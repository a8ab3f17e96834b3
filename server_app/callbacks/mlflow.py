"""The rounds in MLflow."""

from __future__ import annotations

import logging
import os
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bmsfed_app.paths import home
from server_app.callbacks import CALLBACKS, Watched
from server_app.tracking import Ending, Tracker

#: MLflow takes no more parameters at once.
_BATCH = 100

_STATUS: dict[Ending, str] = {"complete": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


@CALLBACKS.register("mlflow")
class MLflow(Tracker):
    """Writes rounds as metrics, the configuration as parameters, and figures as artifacts.

    Parameters
    ----------
    watched : Watched, str or Path
        The run, or a folder of one's own.
    uri : str, optional
        Tracking server or store; by default what ``$MLFLOW_TRACKING_URI`` names, else
        ``mlflow.db`` in ``$BMSFED_HOME``, whose artifacts are beside it, in ``mlflow``.
    experiment : str, optional
        By default what ``$MLFLOW_EXPERIMENT_NAME`` names, else "bmsfed".
    tags, config : mapping, optional
        As of :class:`server_app.tracking.Tracker`.

    Raises
    ------
    ValueError
        If MLflow is not installed, or cannot use the URI.
    """

    name = "mlflow"
    needs = ("mlflow", "bmsfed[mlflow]")

    def __init__(
        self,
        watched: Watched | str | Path,
        *,
        uri: str = "",
        experiment: str = "",
        tags: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(watched, tags=tags, config=config)
        # By itself MLflow waits for minutes for a server that is gone, and the rounds with it.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells how it makes its tables
        own = "" if uri else os.environ.get("MLFLOW_TRACKING_URI", "")
        self._artifacts: str | None = None
        if not (uri or own):
            home().mkdir(parents=True, exist_ok=True)
            self._artifacts = (home() / "mlflow").absolute().as_uri()
        self.uri = uri or own or f"sqlite:///{(home() / 'mlflow.db').absolute()}"
        self.experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "bmsfed"
        try:
            self._client = MlflowClient(tracking_uri=self.uri)
        except Exception as error:  # of its own kinds, for each store
            raise ValueError(
                f"uri: MLflow cannot use '{self.uri}' ({' '.join(str(error).split())})"
            ) from None
        self._run = ""

    @property
    def where(self) -> str:
        """Store and experiment."""
        return f"{self.uri} {self.experiment}"

    def open(self, run_id: str, first: int) -> str:
        """Begin a run of the experiment, with parameters and tags, or go on with one."""
        client = self._client
        if run_id:
            client.update_run(run_id, status="RUNNING")
            self._run = run_id
            return run_id
        from mlflow.entities import Param

        run = client.create_run(self._experiment_id(), run_name=self.folder.name, tags=self.tags)
        self._run = str(run.info.run_id)
        params = [Param(_allowed(k), str(v)) for k, v in self.params.items()]
        for start in range(0, len(params), _BATCH):
            client.log_batch(self._run, params=params[start : start + _BATCH])
        return self._run

    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        def known() -> str | None:
            """Ask for the experiment's id."""
            found = self._client.get_experiment_by_name(self.experiment)
            return None if found is None else str(found.experiment_id)

        if there := known():
            return there
        try:
            return str(self._client.create_experiment(self.experiment, self._artifacts))
        except MlflowException:  # another run made it meanwhile
            if there := known():
                return there
            raise

    def tell(self, server_round: int, values: Mapping[str, float]) -> None:
        """Write metrics, whose step is the round."""
        from mlflow.entities import Metric

        now = time.time_ns() // 10**6
        found = [Metric(_allowed(k), v, now, server_round) for k, v in values.items()]
        self._client.log_batch(self._run, metrics=found)

    def show(self, figures: Mapping[str, bytes], server_round: int) -> None:
        """Write artifacts."""
        with tempfile.TemporaryDirectory(prefix="bmsfed-") as folder:
            for name, png in figures.items():
                (Path(folder) / f"{name}.png").write_bytes(png)
            self._client.log_artifacts(self._run, folder, "figures")

    def close(self, ending: Ending) -> None:
        """Set the run's status."""
        self._client.set_terminated(self._run, _STATUS[ending])


def _allowed(name: str) -> str:
    """Return a name with what MLflow takes in one."""
    return re.sub(r"[^\w\-. /]", "_", name)

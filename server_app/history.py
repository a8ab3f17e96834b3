"""Callbacks that evaluate, record and summarise a federation."""

from __future__ import annotations

import json
import time
from typing import Any

from bmsfed_app.config import ExperimentConfig
from server_app.evaluation import Evaluation, Evaluator, mean_evaluation
from server_app.run_folder import RunFolder, read_rows
from strategies import Callback, ClientReport, ModalityStrategy, RoundReport

#: Rounds behind the closing mean.
LAST_ROUNDS = 10


class EvaluateCallback(Callback):
    """Evaluates the strategy's model before the first round and every ``eval_every`` rounds.

    Where a strategy has several models, as local training has, their weighted mean counts, and
    only those that changed are evaluated again. The result is put into the round's ``metrics`` for
    the callbacks that follow.
    """

    def __init__(self, evaluator: Evaluator, config: ExperimentConfig) -> None:
        self.evaluator, self.config = evaluator, config
        self.initial: Evaluation | None = None
        self.num_rounds = config.rounds
        self._known: dict[tuple[str, int], Evaluation] = {}

    def on_start(self, strategy: ModalityStrategy, num_rounds: int) -> None:
        self.num_rounds = num_rounds
        if strategy.state.round == 0:
            self.initial = self.evaluate(strategy)

    def after_round(self, strategy: ModalityStrategy, report: RoundReport) -> None:
        report.metrics["lr"] = self.config.learning_rate(report.round)
        if report.round % self.config.eval_every and report.round != self.num_rounds:
            return
        started = time.monotonic()
        report.metrics |= self.evaluate(strategy).as_row()
        report.metrics["seconds_evaluation"] = time.monotonic() - started

    def evaluate(self, strategy: ModalityStrategy) -> Evaluation:
        """Evaluate a strategy's models against the prototypes that the configuration names."""
        of_training = self.config.prototypes == "train"
        models = strategy.models()
        found: dict[tuple[str, int], Evaluation] = {}
        for model in models:
            key = model.name, model.version
            found[key] = (
                found.get(key)
                or self._known.get(key)
                or self.evaluator(model.arrays, model.prototypes if of_training else None)
            )
        self._known = found if len(models) > 1 else {}
        return mean_evaluation([(found[m.name, m.version], m.weight) for m in models])


class RecordCallback(Callback):
    """Writes every round to the run folder; the checkpoint last."""

    def __init__(self, folder: RunFolder, evaluate: EvaluateCallback) -> None:
        self.folder, self.evaluate = folder, evaluate

    def on_start(self, strategy: ModalityStrategy, num_rounds: int) -> None:
        if self.evaluate.initial is not None:
            row = {"kind": "round", "round": 0, "assignments": {}, "failures": {}, "ratio": {}}
            row |= {"weak": None, "bytes_down": 0, "bytes_up": 0, "seconds": 0.0}
            self.folder.append(self.folder.history, [row | self.evaluate.initial.as_row()])
            self.folder.save_checkpoint(strategy.state)

    def after_round(self, strategy: ModalityStrategy, report: RoundReport) -> None:
        clients = [_client_row(report.round, c) for c in report.clients]
        self.folder.append(self.folder.history, [*clients, _round_row(report)])
        picks = [{"round": report.round, **pick} for pick in report.picks]
        self.folder.append(self.folder.selection, picks)
        if report.joined or report.round == 1:
            self._write_clients(strategy, report.round)
        self.folder.save_checkpoint(strategy.state)

    def on_end(self, strategy: ModalityStrategy, error: BaseException | None) -> None:
        if not self.folder.history.exists():
            return
        self.folder.save_model(strategy.state.arrays)
        rows = [r for r in read_rows(self.folder.history) if r["kind"] == "round"]
        summary = summarise(rows) | {"complete": error is None, "rounds": strategy.state.round}
        self.folder.write_json("summary.json", summary)

    def _write_clients(self, strategy: ModalityStrategy, server_round: int) -> None:
        file = self.folder.path / "clients.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        for client_id, info in sorted(strategy.state.clients.items()):
            known.setdefault(
                client_id,
                {
                    "modalities": list(info.modalities),
                    "num_samples": info.num_samples,
                    "class_counts": list(info.class_counts),
                    "enrolled_round": server_round,
                },
            )
        self.folder.write_json("clients.json", known)


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Last, best and mean of the last ten evaluated rounds, for all accuracies.

    Parameters
    ----------
    rows : list of dict
        The history's rows of kind "round".

    Returns
    -------
    dict
        ``{"accuracy": {"last", "best", "mean_last"}, "accuracy_by_modality": {m: {...}}}``;
        values in [0, 1], best by its own maximum.
    """
    rows = [r for r in rows if r["round"] > 0 and r.get("accuracy") is not None]
    if not rows:
        return {}
    modalities = list(rows[-1]["accuracy_by_modality"])
    return {
        "accuracy": _three([r["accuracy"] for r in rows]),
        "accuracy_by_modality": {
            m: _three([v for r in rows if (v := r["accuracy_by_modality"].get(m)) is not None])
            for m in modalities
        },
    }


def _three(values: list[float]) -> dict[str, float]:
    last = values[-LAST_ROUNDS:]
    return {"last": values[-1], "best": max(values), "mean_last": sum(last) / len(last)}


def _round_row(report: RoundReport) -> dict[str, Any]:
    return {
        "kind": "round",
        "round": report.round,
        "assignments": {a.client_id: list(a.modalities) for a in report.assignments},
        "failures": report.failures | report.refused,
        "joined": [c.client_id for c in report.joined],
        "ratio": report.ratios,
        "weak": report.weak,
        "bytes_down": report.bytes_down,
        "bytes_up": report.bytes_up,
        "seconds": report.seconds,
        **report.metrics,
    }


def _client_row(server_round: int, client: ClientReport) -> dict[str, Any]:
    return {
        "kind": "client",
        "round": server_round,
        "phase": client.phase,
        "client": client.client_id,
        "assigned": list(client.modalities),
        "num_samples": client.num_samples,
        "losses": {k: v for k, v in client.metrics.items() if k.startswith("loss")},
        "metrics": {k: v for k, v in client.metrics.items() if not k.startswith("loss")},
        "ratio": client.ratios,
        "bytes_down": client.bytes_down,
        "bytes_up": client.bytes_up,
        "seconds": client.seconds,
        "status": client.status,
    }

"""Callbacks that evaluate, record and summarise a federation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from bmsfed_app.config import ExperimentConfig
from bmsfed_app.record.files import append_rows, read_json, read_rows, write_json
from bmsfed_app.record.rows import (
    STANDARD_METRICS,
    ClientRow,
    FailedRow,
    Member,
    PickRow,
    RoundRow,
    RunInfo,
    RunSummary,
)
from bmsfed_app.record.summary import summarise
from server_app.evaluation import Evaluator
from server_app.failures import is_failure
from server_app.looks import Look
from server_app.metrics import declared
from server_app.outcome import Evaluation, mean_evaluation
from server_app.run_folder import RunFolder
from strategies import Callback, ClientReport, Decisions, Paused, RoundReport


class EvaluateCallback(Look):
    """Evaluates the strategy's model before the first round and every ``eval_every`` rounds.

    Where a strategy has several models, as local training has, their weighted mean counts, and
    only those that changed are evaluated again. The result is put into the round's ``metrics`` for
    the callbacks that follow.
    """

    def __init__(self, evaluator: Evaluator, config: ExperimentConfig) -> None:
        super().__init__(evaluator, config.eval_every)
        self.metrics = (*STANDARD_METRICS, *declared(config.metrics))
        self.config = config
        self.initial: Evaluation | None = None
        self._known: dict[tuple[str, int], Evaluation] = {}

    def on_start(self, strategy: Decisions, num_rounds: int) -> None:
        super().on_start(strategy, num_rounds)
        if strategy.state.round == 0:
            self.initial = self.evaluate(strategy)

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        report.metrics["lr"] = self.config.learning_rate(report.round)
        super().after_round(strategy, report)

    def look(self, strategy: Decisions, report: RoundReport) -> None:
        """Add the evaluation, and how long it took."""
        started = time.monotonic()
        report.metrics |= self.evaluate(strategy).as_row()
        report.metrics["seconds_evaluation"] = time.monotonic() - started

    def evaluate(self, strategy: Decisions) -> Evaluation:
        """Evaluate a strategy's models against the prototypes that the configuration names."""
        of_training = self.config.prototypes == "train"
        models = strategy.models()
        found: dict[tuple[str, int], Evaluation] = {}
        for model in models:
            key = model.name, model.version
            found[key] = (
                found.get(key)
                or self._known.get(key)
                or self.evaluator(
                    model.arrays, model.prototypes if of_training else None, model.absent
                )
            )
        self._known = found if len(models) > 1 else {}
        return mean_evaluation([(found[m.name, m.version], m.weight) for m in models])


class RecordCallback(Callback):
    """Writes every round to the run folder; the checkpoint last.

    Parameters
    ----------
    folder : RunFolder
        Receives everything.
    evaluate : EvaluateCallback
        Has the evaluation of the model before the first round.
    callbacks : sequence of Callback, optional
        Run before this one: what they declare is noted in ``run.json``.

    Raises
    ------
    ValueError
        If two of them declare one metric, or one has the name of a key of the run folder's own.
    """

    def __init__(
        self, folder: RunFolder, evaluate: EvaluateCallback, callbacks: Sequence[Callback] = ()
    ) -> None:
        self.folder, self.evaluate = folder, evaluate
        self.declared = [m for c in (evaluate, *callbacks) for m in c.metrics]
        names = [m.name for m in self.declared]
        taken = {*RoundRow.model_fields, *RunSummary.model_fields}
        for name in names:
            if name in taken or names.count(name) > 1:
                raise ValueError(f"metric '{name}' has a name that is taken: give it another")

    def on_start(self, strategy: Decisions, num_rounds: int) -> None:
        self.folder.summary.unlink(missing_ok=True)  # of the run as it ended before it was resumed
        info = read_json(self.folder.info_file, RunInfo)
        write_json(self.folder.info_file, info.model_copy(update={"metrics": self.declared}))
        if self.evaluate.initial is not None:
            nothing: dict[str, Any] = {"assignments": {}, "failures": {}, "ratio": {}, "weak": None}
            nothing |= {"bytes_down": 0, "bytes_up": 0, "seconds": 0.0}
            row = RoundRow(kind="round", round=0, **nothing, **self.evaluate.initial.as_row())
            append_rows(self.folder.history, [row])
            self.folder.save_checkpoint(strategy.state)

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        clients = [client_row(report.round, c) for c in report.clients]
        append_rows(self.folder.history, [*clients, _round_row(report)])
        picks = [PickRow(round=report.round, **pick) for pick in report.picks]
        append_rows(self.folder.selection, picks)
        if report.joined or report.round == 1:
            self._write_clients(strategy, report.round)
        self.folder.save_checkpoint(strategy.state)

    def after_failure(self, strategy: Decisions, report: RoundReport) -> None:
        append_rows(self.folder.history, [_failed_row(report)])

    def on_end(self, strategy: Decisions, error: BaseException | None) -> None:
        if not self.folder.history.exists():
            return
        self.folder.save_model(strategy.state.arrays)
        rows, _ = read_rows(self.folder.history)
        rounds = [r for r in rows if isinstance(r, RoundRow)]
        metrics: Any = summarise(rounds, self.declared)
        summary = RunSummary(
            **metrics,
            complete=error is None,
            failed=str(error) if is_failure(error) else "",
            paused=str(error) if isinstance(error, Paused) else "",
            rounds=strategy.state.round,
            ended=rounds[-1].ended if rounds else "",
        )
        write_json(self.folder.summary, summary)

    def _write_clients(self, strategy: Decisions, server_round: int) -> None:
        file = self.folder.clients
        known = read_json(file, dict[str, Member]) if file.exists() else {}
        for client_id, info in sorted(strategy.state.clients.items()):
            known.setdefault(
                client_id,
                Member(
                    modalities=list(info.modalities),
                    num_samples=info.num_samples,
                    class_counts=list(info.class_counts),
                    enrolled_round=server_round,
                ),
            )
        write_json(file, known)


def _round_row(report: RoundReport) -> RoundRow:
    return RoundRow(
        kind="round",
        round=report.round,
        assignments={a.client_id: list(a.modalities) for a in report.assignments},
        failures=report.failures | report.refused,
        joined=[c.client_id for c in report.joined],
        ratio=report.ratios,
        weak=report.weak,
        bytes_down=report.bytes_down,
        bytes_up=report.bytes_up,
        seconds=report.seconds,
        notes=report.notes,
        ended=report.ended,
        **report.metrics,
    )


def _failed_row(report: RoundReport) -> FailedRow:
    return FailedRow(
        kind="failed",
        round=report.round,
        attempt=report.attempt,
        reason=report.failed,
        assignments={a.client_id: list(a.modalities) for a in report.assignments},
        failures=report.failures,
        bytes_down=report.bytes_down,
        bytes_up=report.bytes_up,
        seconds=report.seconds,
    )


def client_row(server_round: int, client: ClientReport) -> ClientRow:
    """Return what is recorded of one client's part in a round."""
    return ClientRow(
        kind="client",
        round=server_round,
        phase=client.phase,
        client=client.client_id,
        assigned=list(client.modalities),
        num_samples=client.num_samples,
        losses={k: v for k, v in client.metrics.items() if k.startswith("loss")},
        metrics={k: v for k, v in client.metrics.items() if not k.startswith("loss")},
        ratio=client.ratios,
        bytes_down=client.bytes_down,
        bytes_up=client.bytes_up,
        seconds=client.seconds,
        status=client.status,
        weight=client.weight,
        update_norm=client.update_norm,
        update_cosine=client.update_cosine,
        note=client.note,
    )

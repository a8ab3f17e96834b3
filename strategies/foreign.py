"""Messages for clients that do not run our app: plain Flower, and the names of their own model.

Such a client is sent a *train* message as by any strategy of flwr, and answers with arrays and
metrics. A client with :class:`strategies.client.ModalityMod` is sent just the parts that it needs,
and what it may need to know besides; one without is sent the whole model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from .aggregation import imbalance_ratios
from .parts import Parts
from .protocol import (
    TRAIN,
    Arrays,
    Task,
    Update,
    array_record,
    pack_orders,
    unpack_measurements,
)
from .transport import Outgoing

#: Scores are clamped below here, so that every ratio is finite.
MIN_SCORE = 1e-12

#: Message type by which flwr asks for an evaluation.
EVALUATE = "evaluate"

#: Keys of the config that a client reads; its own keys stand beside them.
ROUND, MODALITIES, PROBING = "server-round", "modalities", "probe"

#: Metrics by which a client says how well each modality does alone, such as ``score.image``.
SCORE = "score."

#: On the classic interface, besides: the names of the arrays sent, as JSON, in their order.
NAMES = "names"


@dataclass(frozen=True)
class Keys:
    """Under which keys a message holds what, by flwr's names and defaults.

    Attributes
    ----------
    arrays, config : str
        Records of what is sent (``arrayrecord_key``, ``configrecord_key``).
    weight : str
        Metric that weighs an answer (``weighted_by_key``).
    loss : str
        Metric of an evaluation that holds the loss, where a method asks for it.
    """

    arrays: str = "arrays"
    config: str = "config"
    weight: str = "num-examples"
    loss: str = "eval_loss"


@dataclass(frozen=True)
class Request:
    """One message to a foreign client.

    Attributes
    ----------
    task : Task
        With the arrays that are sent, named as inside the strategies.
    probe : bool
        Whether what it trains is only measured.
    plain : bool
        Whether the client has no mod: nothing is added to what flwr would send.
    """

    task: Task
    probe: bool
    plain: bool

    @property
    def asks_loss(self) -> bool:
        """Whether the client is to evaluate rather than to train."""
        return self.probe and self.task.settings.get("probe_kind") == "loss"


def pack_request(
    request: Request,
    model: Arrays,
    parts: Parts,
    keys: Keys,
    config: Mapping[str, Any],
    server_round: int,
    made: dict[int, Array] | None = None,
) -> Outgoing:
    """Turn a request into a message's type and content.

    Parameters
    ----------
    model : dict
        The whole model, named as inside the strategies: says what is withheld.
    config : mapping
        The user's own entries of the config.
    made : dict, optional
        As for :func:`strategies.protocol.array_record`.
    """
    task = request.task
    entries = {**config, ROUND: server_round}
    arrays = parts.outside(task.arrays)
    if not request.plain:
        whole = parts.outside(model)
        settings = {
            **task.settings,
            "encoder_of": {n: m for n in arrays if (m := parts.encoder_of(n))},
            "withheld": [
                [position, name, str(value.dtype), list(value.shape)]
                for position, (name, value) in enumerate(whole.items())
                if name not in arrays
            ],
        }
        entries |= pack_orders(Task(task.modalities, {}, task.prototypes, settings))
        entries |= {MODALITIES: list(task.modalities), PROBING: request.probe}
    content = RecordDict(
        {keys.arrays: array_record(arrays, made), keys.config: ConfigRecord(entries)}
    )
    return (EVALUATE if request.asks_loss else TRAIN), content


def read_answer(
    client_id: str, request: Request, content: RecordDict, parts: Parts, keys: Keys
) -> Update:
    """Read what a foreign client answered.

    Raises
    ------
    ValueError
        If something is missing, saying what the client should return.
    """
    measured = [r for r in content.config_records.values() if "update" in r]
    update = unpack_measurements(client_id, measured[0]) if measured else Update(client_id, ())
    update.modalities = request.task.modalities
    metrics = {k: v for r in content.metric_records.values() for k, v in r.items()}
    weight = metrics.pop(keys.weight, None)
    if not isinstance(weight, int | float):
        raise ValueError(
            f"its metrics lack the number '{keys.weight}': return it, or set weighted_by_key"
        )
    update.num_samples = int(weight)
    update.metrics = {k: float(v) for k, v in metrics.items() if isinstance(v, int | float)}
    _take_scores(update)
    if request.asks_loss:
        if keys.loss not in update.metrics:
            raise ValueError(
                f"its evaluation's metrics {sorted(update.metrics)} lack '{keys.loss}': return "
                "the loss under this key, or set loss_key"
            )
        update.measurements["loss"] = np.array([update.metrics[keys.loss]], np.float32)
        return update
    records = list(content.array_records.values())
    if len(records) != 1:
        raise ValueError(f"it answered with {len(records)} array records, expected exactly one")
    update.arrays = parts.inside(_arrays(records[0], parts.outside(request.task.arrays), parts))
    return update


def _take_scores(update: Update) -> None:
    """Scores of modalities, and their ratios (Eq. 17), of a client that gives them as metrics."""
    if not update.scores:
        found = {k.removeprefix(SCORE): v for k, v in update.metrics.items() if k.startswith(SCORE)}
        update.scores = {m: max(v, MIN_SCORE) for m, v in found.items() if m in update.modalities}
    if len(update.scores) > 1 and not update.ratios:
        update.ratios = imbalance_ratios(update.scores)


def _arrays(record: ArrayRecord, sent: Arrays, parts: Parts) -> Arrays:
    """The answer's arrays in the types that were sent (numpy code easily returns float64)."""
    arrays = {name: value.numpy() for name, value in record.items()}
    if unknown := [n for n in arrays if n not in parts.part_of]:
        raise ValueError(
            f"array '{unknown[0]}' is no parameter of the model ({len(unknown)} unknown): answer "
            "with the names that were sent"
        )
    for name, value in arrays.items():
        want = sent[name].dtype if name in sent else value.dtype
        if np.issubdtype(value.dtype, np.floating) and np.issubdtype(want, np.floating):
            arrays[name] = value.astype(want, copy=False)
    return arrays

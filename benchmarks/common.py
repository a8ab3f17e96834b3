"""What the benchmarks share: the machine they ran on, and made-up digits where no data is given."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from flwr.app import Message, RecordDict

from bmsfed_app.datasets.base import Split
from bmsfed_app.datasets.colored import ColorSettings, pair_info, pair_split
from bmsfed_app.record.origin import commit, versions
from client_app import app as client_app
from strategies.testing import Handler


def made_up_digits(n: int) -> Split:
    """A colored/gray split of n random pictures of MNIST's shape."""
    rng = torch.Generator().manual_seed(0)
    digits = torch.randint(256, (n, 28, 28), generator=rng, dtype=torch.uint8)
    labels = torch.arange(n) % 10
    info = pair_info("made-up")
    return pair_split(info, digits, labels, "train", seed=0, settings=ColorSettings())


def client(number: int, total: int) -> Handler:
    """A simulated client of this process, for :class:`strategies.testing.FakeGrid`."""
    context: Any = SimpleNamespace(node_config={"partition-id": number, "num-partitions": total})
    kinds = {"query.enrol": client_app.enrol, "query.measure": client_app.measure}

    def answer(message: Message) -> RecordDict:
        task = kinds.get(message.metadata.message_type, client_app.train)
        reply: Message = task(message, context)
        if reply.has_error():
            raise RuntimeError(reply.error.reason)
        return reply.content

    return answer


def write(out: Path | None, figures: dict[str, Any]) -> None:
    """Write figures as JSON, with the machine and versions beside them."""
    if out is not None:
        machine = {"machine": platform.machine(), "cores": os.cpu_count(), "commit": commit()}
        out.write_text(json.dumps({**figures, **machine, "versions": versions()}, indent=1) + "\n")

"""Bad clients of a simulated federation: what they do to their answers on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from bmsfed_app.models.encoders import ENCODERS, Encoder
from client_app.app import enrol, measure, train
from strategies import Arrays, Update
from strategies.protocol import pack_update, unpack_task, unpack_update
from strategies.randomness import generator


@ENCODERS.register("pooled-linear")
class PooledLinear(Encoder):
    """Images pooled to 8 x 8 and mapped linearly, for federations that learn in seconds."""

    width = 64

    def __init__(self, shape: tuple[int, ...], vocabulary: int = 0, width: int = 0) -> None:
        super().__init__()
        self.pool = torch.nn.AdaptiveAvgPool2d(8)
        self.map = torch.nn.Linear(64 * shape[0], self.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features (B, 64)."""
        return torch.relu(self.map(self.pool(x).flatten(1)))


#: Changes an answer in place, given what was sent.
Attack = Callable[[Update, Arrays], None]


def scaled(factor: float) -> Attack:
    """Multiply the change of every float array."""

    def attack(update: Update, sent: Arrays) -> None:
        for name, value in update.arrays.items():
            if np.issubdtype(value.dtype, np.floating):
                changed = sent[name] + factor * (value - sent[name])
                update.arrays[name] = _as_variance(name, changed).astype(value.dtype)

    return attack


def noise(update: Update, sent: Arrays) -> None:
    """Take a random direction of three times the change's norm."""
    rng = generator(0, "noise", update.client_id)
    for name, value in update.arrays.items():
        if np.issubdtype(value.dtype, np.floating):
            norm = float(np.linalg.norm(value - sent[name]))
            drawn = rng.normal(size=value.shape)
            drawn *= 3 * norm / max(float(np.linalg.norm(drawn)), 1e-12)
            update.arrays[name] = _as_variance(name, sent[name] + drawn).astype(value.dtype)


def nan(update: Update, sent: Arrays) -> None:
    """Hold nothing but NaN."""
    update.arrays = {n: np.full_like(v, np.nan) for n, v in update.arrays.items()}


def _as_variance(name: str, value: np.ndarray) -> np.ndarray:
    return np.maximum(value, 0) if name.endswith("running_var") else value


ATTACKS: dict[str, Attack] = {
    "x 100": scaled(100.0),
    "x 1e6": scaled(1e6),
    "flipped": scaled(-1.0),
    "flipped x 5": scaled(-5.0),
    "noise x 3": noise,
    "NaN": nan,
}


@dataclass(frozen=True)
class BadClients:
    """A mod by which the first clients of a simulation attack.

    Attributes
    ----------
    attack : Attack
    number : int
    """

    attack: Attack
    number: int

    def __call__(
        self, message: Message, context: Context, call_next: Callable[[Message, Context], Message]
    ) -> Message:
        """Let the client answer, and change what it trained."""
        reply = call_next(message, context)
        bad = int(context.node_config["partition-id"]) < self.number
        if not bad or message.metadata.message_type != "train" or reply.has_error():
            return reply
        update = unpack_update(str(context.node_config["partition-id"]), reply.content)
        self.attack(update, unpack_task(message.content).arrays)
        return Message(pack_update(update), reply_to=message)


def attacked_app(mod: BadClients) -> ClientApp:
    """Return this app's client with a mod around its training."""
    app = ClientApp(mods=[mod])
    app.query("enrol")(enrol)
    app.query("measure")(measure)
    app.train()(train)
    return app

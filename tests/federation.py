"""Whole federations of three modalities for any strategy, objective and head; resumed ones."""

from collections.abc import Callable
from typing import Any

from bmsfed_app.config import ExperimentConfig
from bmsfed_app.engine import InlineGrid
from bmsfed_app.models import NetworkSpec, build_network
from client_app.app import app
from server_app.experiment import build_strategy, initial_model
from strategies import Arrays, ModalityStrategy, ServerState, Update
from strategies.protocol import pack_update, unpack_update
from strategies.testing import FakeGrid, Handler
from tests import synthetic
from tests.test_three_modalities import HELD, Keep, handler


def initial(network: NetworkSpec) -> Arrays:
    return {n: v.numpy().copy() for n, v in build_network(network, 0).state_dict().items()}


def spoiled(answer: Handler, spoil: Callable[[Update], None]) -> Handler:
    """A client whose answers to training are changed on the way."""

    def changed(message: Any) -> Any:
        content = answer(message)
        if message.metadata.message_type != "train":
            return content
        update = unpack_update("spoiled", content)
        spoil(update)
        return pack_update(update)

    return changed


def federate(
    strategy: ModalityStrategy,
    start: Arrays | ServerState,
    rounds: int,
    spoil: dict[str, Callable[[Update], None]] | None = None,
    **changes: object,
) -> tuple[ServerState, Keep]:
    """Run a federation of the six clients of ``HELD``; ``changes`` are of the client settings."""
    settings = synthetic.settings(**({"prototypes": True} | changes))
    handlers = {name: handler(name) for name in HELD}
    for name, change in (spoil or {}).items():
        handlers[name] = spoiled(handlers[name], change)
    keep = Keep()
    state = strategy.run(
        FakeGrid(handlers),
        start,
        num_rounds=rounds,
        settings=settings.to_json(),
        callbacks=[keep],
        min_clients=len(HELD),
        connect_timeout=600,
        frozen=settings.network.frozen(),
    )
    return state, keep


def simulated(config: ExperimentConfig, nodes: int) -> ServerState:
    """Run an experiment on its own data, which is prepared, with so many simulated clients."""

    return build_strategy(config).run(
        InlineGrid(app, nodes),
        initial_model(config),
        num_rounds=config.rounds,
        settings=config.client_settings().to_json(),
        min_clients=nodes,
        round_settings=lambda r: {"lr": config.learning_rate(r)},
    )


def whole_and_resumed(
    make: Callable[[], ModalityStrategy], start: Callable[[], Arrays], **changes: object
) -> tuple[bytes, bytes]:
    """Three rounds in one go, and with the state saved and loaded after the second."""
    whole, _ = federate(make(), start(), 3, **changes)  # type: ignore[arg-type]
    half, _ = federate(make(), start(), 2, **changes)  # type: ignore[arg-type]
    loaded = ServerState.from_bytes(half.to_bytes())
    resumed, _ = federate(make(), loaded, 3, **changes)  # type: ignore[arg-type]
    return whole.to_bytes(), resumed.to_bytes()

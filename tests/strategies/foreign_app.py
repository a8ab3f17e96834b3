"""A small foreign project in numpy: two towers of its own names, clients on both interfaces."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from flwr.common import ndarrays_to_parameters
from flwr.server import Server, ServerConfig, SimpleClientManager

from strategies import ClientInfo
from strategies._flower import private
from strategies.client import ModalityMod
from strategies.testing import FakeGrid

PARTS = {"image": "vision.*", "text": ["bert.*", "pooler"], "head": "classifier.*"}
OF = {"vision": "image", "bert": "text", "pooler": "text", "classifier": None}
SEED = 5


def model() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {"vision.w": (30, 4), "bert.w": (5,), "pooler": (2, 2), "classifier.w": (4,)}
    return {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}


def modality(name: str) -> str | None:
    return OF[name.split(".")[0]]


def trained(
    arrays: dict[str, Any], who: str, modalities: Sequence[str], seen: list[Any]
) -> dict[str, Any]:
    """Move what is assigned half way to the client's own target; leave the rest untouched."""
    seen.append((who, tuple(sorted(modalities)), {n: v.copy() for n, v in arrays.items()}))
    rng = np.random.default_rng(20 + int(who[1:]))
    targets = {n: rng.normal(size=v.shape).astype(np.float32) for n, v in model().items()}
    return {
        n: (v + targets[n]) / 2 if modality(n) in {None, *modalities} else v
        for n, v in arrays.items()
    }


def scores(modalities: Sequence[str]) -> dict[str, float]:
    """Text is everywhere the weak modality, by a factor of 4."""
    return {f"score.{m}": {"image": 0.8, "text": 0.2}[m] for m in modalities}


def loss(arrays: dict[str, Any], who: str) -> float:
    return float(int(who[1:]) * 3 % 7 + abs(sum(v.sum() for v in arrays.values())) * 1e-3)


def samples(who: str) -> int:
    return 10 * int(who[1:]) + 10


def message_app(
    who: str, held: Sequence[str], seen: list[Any], *, mod: bool = True, behind: Any = ()
) -> ClientApp:
    """The client with flwr's decorators; without the mod it is any stock app."""
    translate = ModalityMod(lambda _: ClientInfo(who, tuple(held), samples(who)))
    app = ClientApp(mods=[translate] if mod else [])
    if mod:
        translate.register(app)

    @app.train(mods=list(behind))
    def train(message: Message, context: Context) -> Message:
        arrays = {n: a.numpy() for n, a in message.content["arrays"].items()}
        modalities = message.content["config"]["modalities"] if mod else ["image", "text"]
        new = trained(arrays, who, modalities, seen)
        content = {
            "arrays": ArrayRecord({n: _array(v) for n, v in new.items()}),
            "metrics": MetricRecord({"num-examples": samples(who), **scores(modalities)}),
        }
        return Message(RecordDict(content), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        arrays = {n: a.numpy() for n, a in message.content["arrays"].items()}
        metrics = {"num-examples": samples(who), "eval_loss": loss(arrays, who)}
        return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)

    return app


class ClassicClient(NumPyClient):
    """A client that speaks for itself: properties, ``modalities`` and ``names`` of the config."""

    def __init__(self, who: str, held: Sequence[str], seen: list[Any]) -> None:
        self.who, self.held, self.seen = who, held, seen

    def get_properties(self, config: Any) -> Any:
        held = ",".join(self.held)
        return {"client-id": self.who, "modalities": held, "num-samples": samples(self.who)}

    def fit(self, parameters: Any, config: Any) -> Any:
        arrays = dict(zip(json.loads(config["names"]), parameters, strict=True))
        modalities = config["modalities"].split(",")
        new = trained(arrays, self.who, modalities, self.seen)
        return list(new.values()), samples(self.who), scores(modalities)

    def evaluate(self, parameters: Any, config: Any) -> Any:
        arrays = dict(enumerate(parameters))
        return loss(arrays, self.who), samples(self.who), {}


class WholeClient(ClassicClient):
    """The same with the mod: says nothing, and always handles the model's whole list."""

    get_properties = NumPyClient.get_properties

    def fit(self, parameters: Any, config: Any) -> Any:
        assert len(parameters) == len(model())
        arrays = dict(zip(model(), parameters, strict=True))
        modalities = config["modalities"].split(",")
        new = trained(arrays, self.who, modalities, self.seen)
        return list(new.values()), samples(self.who), scores(modalities)


class StockClient(WholeClient):
    """A client that knows nothing of us, by the pattern of flwr's documentation."""

    def fit(self, parameters: Any, config: Any) -> Any:
        assert "modalities" not in config
        arrays = dict(zip(model(), parameters, strict=True))
        new = trained(arrays, self.who, ["image", "text"], self.seen)
        return list(new.values()), samples(self.who), {}


def classic_app(client: ClassicClient, mods: Sequence[Any] = ()) -> ClientApp:
    return ClientApp(client_fn=lambda context: client.to_client(), mods=list(mods))


def grid_of(apps: dict[str, ClientApp], seed: int = 0) -> FakeGrid:
    """A grid whose nodes are real ClientApps."""

    def handler(app: ClientApp) -> Callable[[Message], RecordDict]:
        def answer(message: Message) -> RecordDict:
            context = Context(0, 0, {}, RecordDict(), {})
            reply = app(message, context)
            if reply.has_error():
                raise RuntimeError(reply.error.reason)
            return reply.content

        return answer

    return FakeGrid({name: handler(app) for name, app in apps.items()}, seed=seed)


def manager_of(grid: FakeGrid) -> SimpleClientManager:
    """The grid's nodes as clients of the classic interface."""
    manager = SimpleClientManager()
    proxy = private("flwr.server.compat.grid_client_proxy:GridClientProxy")
    for node in grid.get_node_ids():
        manager.register(proxy(node, grid, 1))
    return manager


def run_classic(strategy: Any, grid: FakeGrid, rounds: int, inner: Any = None) -> dict[str, Any]:
    """Flower's own classic server over the grid; returns the final model."""
    manager = manager_of(grid)
    (inner or strategy).initial_parameters = ndarrays_to_parameters(list(model().values()))
    server = Server(client_manager=manager, strategy=strategy)
    server.fit(ServerConfig(num_rounds=rounds).num_rounds, timeout=None)
    from flwr.common import parameters_to_ndarrays

    return dict(zip(model(), parameters_to_ndarrays(server.parameters), strict=True))


def _array(value: Any) -> Any:
    from flwr.app import Array

    return Array(np.ascontiguousarray(value))

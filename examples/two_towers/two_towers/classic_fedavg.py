"""The project as it was: flwr's FedAvg on the classic interface."""

import torch
from flwr.app import Context
from flwr.client import Client, NumPyClient
from flwr.clientapp import ClientApp
from flwr.common import NDArrays, Scalar, ndarrays_to_parameters
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.serverapp import ServerApp
from torch.nn.functional import cross_entropy

from two_towers.data import client_samples, test_samples
from two_towers.model import TwoTowers, accuracy

ROUNDS, EPOCHS = 10, 3


def get_parameters(model: TwoTowers) -> NDArrays:
    """The model as a list of arrays."""
    return [value.numpy() for value in model.state_dict().values()]


def set_parameters(model: TwoTowers, parameters: NDArrays) -> None:
    """Load a list of arrays."""
    named = zip(model.state_dict(), map(torch.tensor, parameters), strict=True)
    model.load_state_dict(dict(named))


class DigitClient(NumPyClient):
    """Trains the global model on its own samples."""

    def __init__(self, number: int, clients: int) -> None:
        self.data = client_samples(number, clients)

    def fit(
        self, parameters: NDArrays, config: dict[str, Scalar]
    ) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Train for some epochs."""
        torch.manual_seed(int(config["round"]))
        model, data = TwoTowers(), self.data
        set_parameters(model, parameters)
        optimizer = torch.optim.SGD(model.parameters(), config["lr"], momentum=0.9)
        model.train()
        for _ in range(EPOCHS):
            for image, text, label in data.batches(32):
                _, logits = model(image, text)
                loss = cross_entropy(logits, label)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return get_parameters(model), len(data), {"train_loss": loss.item()}


def client_fn(context: Context) -> Client:
    """Make this node's client."""
    number, total = context.node_config["partition-id"], context.node_config["num-partitions"]
    return DigitClient(int(number), int(total)).to_client()


client_app = ClientApp(client_fn=client_fn)


def server_fn(context: Context) -> ServerAppComponents:
    """Make the strategy."""
    torch.manual_seed(0)
    model = TwoTowers()
    strategy = FedAvg(
        fraction_fit=0.5,
        fraction_evaluate=0.0,
        min_available_clients=4,
        evaluate_fn=evaluate,
        on_fit_config_fn=lambda server_round: {"round": server_round, "lr": 0.05},
        initial_parameters=ndarrays_to_parameters(get_parameters(model)),
    )
    rounds = int(context.run_config.get("rounds", ROUNDS))
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=rounds))


server_app = ServerApp(server_fn=server_fn)


def evaluate(
    server_round: int, parameters: NDArrays, config: dict[str, Scalar]
) -> tuple[float, dict[str, Scalar]]:
    """Accuracy in percent with both modalities, and by each alone."""
    model, data = TwoTowers(), test_samples()
    set_parameters(model, parameters)
    found = {
        "both": accuracy(model, data, ["image", "text"]),
        "image": accuracy(model, data, ["image"]),
        "text": accuracy(model, data, ["text"]),
    }
    print(f"round {server_round:2}", *(f"  {k} {100 * v:5.1f}" for k, v in found.items()))
    return 1 - found["both"], dict(found)

"""The same project with balanced modality selection, on the Message API."""

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from torch.nn.functional import cross_entropy

from client_app.local_task import LocalTask
from strategies import BMSFed, ClientInfo
from strategies.client import ModalityMod
from two_towers.data import CLASSES, client_samples, modalities_of, test_samples
from two_towers.model import TwoTowers, accuracy

ROUNDS, EPOCHS = 10, 3


def describe(context: Context) -> ClientInfo:
    """Who this client is, and what it holds."""
    number = int(context.node_config["partition-id"])
    return ClientInfo(f"client-{number}", modalities_of(number))


mod = ModalityMod(describe)
client_app = ClientApp(mods=[mod])
mod.register(client_app)


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Train the global model on this client's samples."""
    torch.manual_seed(int(message.content["config"]["server-round"]))
    model = TwoTowers()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    number, total = context.node_config["partition-id"], context.node_config["num-partitions"]
    data = client_samples(int(number), int(total))
    optimizer = torch.optim.SGD(model.parameters(), message.content["config"]["lr"], momentum=0.9)
    task = LocalTask(message.content["config"], CLASSES)
    features, logits = model(data.image, data.text, task.modalities)
    task.begin(features, data.label)
    task.sign(model, logits, features, data.label)
    model.train()
    for _ in range(EPOCHS):
        for image, text, label in data.batches(32):
            features, logits = model(image, text, task.modalities)
            loss = cross_entropy(logits, label) + task.enhancement(features, label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        task.measure(model.eval()(data.image, data.text, task.modalities)[0], data.label)
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": len(data), "train_loss": loss.item()}),
            "config": ConfigRecord(task.answer()),
        }
    )
    return Message(content, reply_to=message)


server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Federate, and test the global model after each round."""
    torch.manual_seed(0)
    parts = {"image": "vision.*", "text": "bert.*", "head": "classifier.*"}
    strategy = BMSFed(fraction_train=0.5, fraction_evaluate=0.0, min_available_nodes=4, parts=parts)
    strategy.start(
        grid,
        ArrayRecord(TwoTowers().state_dict()),
        num_rounds=int(context.run_config.get("rounds", ROUNDS)),
        train_config=ConfigRecord({"lr": 0.05}),
        evaluate_fn=evaluate,
    )


def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Accuracy in percent with both modalities, and by each alone."""
    model, data = TwoTowers(), test_samples()
    model.load_state_dict(arrays.to_torch_state_dict())
    found = {
        "both": accuracy(model, data, ["image", "text"]),
        "image": accuracy(model, data, ["image"]),
        "text": accuracy(model, data, ["text"]),
    }
    print(f"round {server_round:2}", *(f"  {k} {100 * v:5.1f}" for k, v in found.items()))
    return MetricRecord(found)

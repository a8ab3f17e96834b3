"""A federation over four kinds of input, each with an encoder of its own and another width."""

from pathlib import Path

import numpy as np
import torch

from bmsfed_app.datasets.base import Renderer, Split
from bmsfed_app.models import NetworkSpec, build_network
from bmsfed_app.settings import ClientSettings
from client_app.data import LocalData
from client_app.training import run_task
from server_app.evaluation import Evaluator
from strategies import BMSFed, Orders, ServerState, Task
from strategies.testing import FakeGrid
from tests import synthetic
from tests.bmsfed_app.test_encoders import bert
from tests.test_three_modalities import Keep, answering

CLASSES, VOCABULARY = 3, 20
SPEC = NetworkSpec(
    encoders={"touch": "mlp", "motion": "gru", "view": "conv4", "words": "text-hash"},
    shapes={"touch": (4,), "motion": (5, 3), "view": (2, 1, 8, 8), "words": (6,)},
    num_classes=CLASSES,
    feature_norm=10.0,
    vocabularies={"words": VOCABULARY},
    widths={"touch": 8, "motion": 12, "words": 16},
)
HELD = {
    "c0": ("touch", "motion", "view", "words"),
    "c1": ("motion", "words"),
    "c2": ("touch", "view"),
    "c3": ("words",),
    "c4": ("touch", "motion", "words"),
}


def client(name: str, n: int = 24) -> LocalData:
    """A class shifts what is felt and seen; texts are words of the class, some padded."""
    rng = torch.Generator().manual_seed(int(name[1:]))
    labels = torch.arange(n) % CLASSES
    stores = {
        m: torch.randn(n, *shape, generator=rng) + labels.view(-1, *[1] * len(shape))
        for m, shape in SPEC.shapes.items()
        if m != "words"
    }
    words = torch.randint(1, 6, (n, 6), generator=rng) + 6 * labels.unsqueeze(1)
    words[::4, 3:] = 0
    words[0] = 0
    stores["words"] = words
    split = Split(labels, stores, {m: Renderer((m,), lambda x: x) for m in SPEC.encoders})
    return LocalData(name, split, torch.arange(n), HELD.get(name, ()), CLASSES)


def settings(network: NetworkSpec = SPEC) -> ClientSettings:
    return synthetic.settings(network=network, prototypes=True, batch_size=8, **synthetic.ENHANCING)


def federate(drawn_before: int) -> tuple[ServerState, Keep]:
    torch.manual_seed(drawn_before)
    keep = Keep()
    state = BMSFed(4, seed=1, threshold=1.0, sketch_dim=0).run(
        FakeGrid({name: answering(client(name)) for name in HELD}),
        {n: v.numpy().copy() for n, v in build_network(SPEC, 0).state_dict().items()},
        num_rounds=2,
        settings=settings().to_json(),
        callbacks=[keep],
        min_clients=len(HELD),
        connect_timeout=600,
    )
    return state, keep


def test_two_rounds_over_four_kinds_of_input() -> None:
    (state, keep), (same, _) = federate(1), federate(2)
    assert [r.failures for r in keep.reports] == [{}, {}]
    trained = {m for r in keep.reports for a in r.assignments for m in a.modalities}
    assert trained == set(SPEC.encoders)
    start = build_network(SPEC, 0).state_dict()
    for m, width in {"touch": 8, "motion": 12, "view": 512, "words": 16}.items():
        assert state.arrays[f"head.weight.{m}"].shape == (CLASSES, width)
        changed = [n for n in start if n.startswith(f"encoders.{m}.")]
        assert any(not np.array_equal(state.arrays[n], start[n].numpy()) for n in changed)
    assert all(np.isfinite(v).all() for v in state.arrays.values())
    assert state.arrays["encoders.view.layers.0.num_batches_tracked"].dtype == np.int64
    assert state.to_bytes() == same.to_bytes()
    evaluate = Evaluator(SPEC, client("c9", n=90).split, torch.device("cpu"))
    accuracy = evaluate(state.arrays, state.global_prototypes()).accuracy
    assert accuracy > 0.6  # one of three classes at random: 0.33


def test_dropout_follows_from_the_seed_alone(tmp_path: Path) -> None:
    spec = NetworkSpec(
        {"words": bert(tmp_path, hidden_dropout_prob=0.5)},
        {"words": (6,)},
        CLASSES,
        vocabularies={"words": VOCABULARY},
    )
    arrays = {n: v.numpy().copy() for n, v in build_network(spec, 0).state_dict().items()}

    def trained(drawn_before: int, **changes: object) -> bytes:
        torch.manual_seed(drawn_before)
        asked = ClientSettings.from_json(settings(spec).to_json() | changes)
        update = run_task(Task(Orders("train", ("words",)), arrays), client("c3"), asked)
        return b"".join(v.tobytes() for v in update.arrays.values())

    assert trained(1) == trained(2)
    assert trained(1) != trained(1, seed=9)

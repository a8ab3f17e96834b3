"""Local training and measuring: what is trained, what is sent, what a seed fixes."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bmsfed_app.models import MultiModalNetwork, build_network
from bmsfed_app.prototypes import ClassMeans, class_means, enhancement_loss, score
from bmsfed_app.settings import ClientSettings
from client_app.data import LocalData
from client_app.divergence import DivergedError
from client_app.training import run_task
from strategies import Orders, Prototypes, SignatureOrders, Task, Update, imbalance_ratios
from strategies.aggregation import aggregate_parts
from strategies.protocol import owner, pack_update, select_parts, unpack_update
from strategies.selection.sketch import count_sketch
from tests import synthetic

ALL = tuple(synthetic.WIDTHS)
EXACT = SignatureOrders(sketch_dim=0)


def model(encoder: str = "mlp", seed: int = 0) -> dict[str, np.ndarray]:
    state = build_network(synthetic.spec(encoder), seed).state_dict()
    return {n: v.numpy().copy() for n, v in state.items()}


def task(modalities: tuple[str, ...] = ALL, encoder: str = "mlp", **told: object) -> Task:
    orders = Orders(**{"kind": "train", "modalities": modalities} | told)  # type: ignore[arg-type]
    return Task(orders, select_parts(model(encoder), modalities))


def run(what: Task, data: LocalData | None = None, **changes: object) -> Update:
    values = {"network": synthetic.spec("mlp")} | changes
    return run_task(what, data or synthetic.client(), synthetic.settings(**values))


def test_only_assigned_parts_are_trained_and_sent() -> None:
    update = run(task(("smell",)))
    assert {owner(n) for n in update.arrays} == {"smell", None}
    assert all(not np.array_equal(update.arrays[n], v) for n, v in task(("smell",)).arrays.items())


def test_one_step_is_plain_sgd_with_weight_decay() -> None:
    what, data = task(("touch", "smell")), synthetic.client(n=20)
    update = run(what, data, weight_decay=0.1, lr=0.2)
    network = MultiModalNetwork(synthetic.spec("mlp"), ("touch", "smell"))
    network.load_state_dict({n: torch.tensor(v) for n, v in what.arrays.items()})
    inputs, labels = next(data.batches(20, ("touch", "smell")))
    F.cross_entropy(network(inputs).logits, labels).backward()
    for name, p in network.named_parameters():
        expected = p.detach() - 0.2 * (p.grad + 0.1 * p.detach())
        np.testing.assert_allclose(update.arrays[name], expected.numpy(), rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_to_the_norm() -> None:
    what = task()
    before, after = (
        what.arrays,
        run(what, synthetic.client(n=20), clip_norm=1e-3, lr=1.0, weight_decay=0.0).arrays,
    )
    moved = np.sqrt(sum(float(((after[n] - before[n]) ** 2).sum()) for n in before))
    assert moved == pytest.approx(1e-3, rel=1e-2)


def test_same_seed_round_and_client_give_the_same_bits() -> None:
    one, same = (run(task(client_id="c", round=3)) for _ in range(2))
    other = run(task(client_id="c", round=4))
    assert all(one.arrays[n].tobytes() == same.arrays[n].tobytes() for n in one.arrays)
    assert any(one.arrays[n].tobytes() != other.arrays[n].tobytes() for n in one.arrays)


def test_prototypes_and_ratios_are_of_the_trained_model() -> None:
    data = synthetic.client()
    update = run(task(), data, prototypes=True)
    network = MultiModalNetwork(synthetic.spec("mlp")).eval()
    network.load_state_dict({n: torch.tensor(v) for n, v in update.arrays.items()})
    inputs, labels = next(data.batches(len(data), ALL))
    features = network(inputs).features
    scores = {}
    for m in ALL:
        expected = class_means(features[m].detach(), labels, synthetic.CLASSES)
        np.testing.assert_allclose(update.prototypes[m].means, expected.means, rtol=1e-4, atol=1e-5)
        assert update.prototypes[m].counts.tolist() == [20, 20, 20]
        scores[m] = float(score(features[m], labels, expected))
    assert update.ratios == pytest.approx(imbalance_ratios(scores), rel=1e-4)
    assert max(update.ratios, key=lambda m: update.ratios[m]) == "smell"
    alone = run(task(("smell",)), data, prototypes=True)
    assert list(alone.prototypes) == ["smell"]
    assert alone.ratios == {}
    assert list(alone.scores) == ["smell"]


def test_a_probe_returns_measurements_and_no_parts() -> None:
    what = task(kind="measure", signature=EXACT, measure_prototypes=True)
    update = run(what, **synthetic.ENHANCING)
    assert update.arrays == {}
    assert set(update.signatures) == {"multi", *(f"enhance.{m}" for m in ALL)}
    assert set(update.prototypes) == set(ALL)
    assert set(update.ratios) == set(ALL)


def test_a_probe_for_selection_alone_measures_one_gradient() -> None:
    """DivFL without training prototypes: no pass over the data, no enhancing gradients."""
    update = run(task(kind="measure", signature=replace(EXACT, enhancing=False)))
    assert set(update.signatures) == {"multi"}
    assert update.prototypes == update.scores == update.ratios == {}
    whole = run(task(kind="measure", signature=EXACT))
    np.testing.assert_array_equal(update.signatures["multi"], whole.signatures["multi"])


def test_a_probe_for_the_loss_is_the_mean_cross_entropy_and_nothing_else() -> None:
    what = task(kind="loss")
    update = run(what)
    assert (update.arrays, update.signatures, update.prototypes) == ({}, {}, {})
    network = MultiModalNetwork(synthetic.spec("mlp"), ALL)
    network.load_state_dict({n: torch.from_numpy(v) for n, v in what.arrays.items()})
    data = synthetic.client()
    logits = network({m: data.split.stores[m] for m in ALL}).logits.detach()
    expected = F.cross_entropy(logits, data.labels)
    np.testing.assert_allclose(update.measurements["loss"], [float(expected)], rtol=1e-6)


def gradient(loss: torch.Tensor, network: MultiModalNetwork, modality: str) -> np.ndarray:
    parameters = list(network.encoders[modality].parameters())
    grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    pairs = zip(grads, parameters, strict=True)
    flat = [torch.zeros_like(p).ravel() if g is None else g.ravel() for g, p in pairs]
    return torch.cat(flat).numpy()


def measured(modalities: tuple[str, ...], **told: object) -> tuple[Update, MultiModalNetwork]:
    """Exact decoupled signatures on the whole local set, at the received model."""
    means = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    known = dict.fromkeys(modalities, Prototypes(means, np.array([1, 1, 1])))
    what = task(modalities, **{"prototypes": known, "signature": EXACT} | told)
    halves = synthetic.ENHANCEMENT | {"coefficient": "constant", "coefficient_value": 0.5}
    update = run(what, objective="modal_enhancement", objective_settings=halves, batch_size=60)
    network = MultiModalNetwork(synthetic.spec("mlp"), modalities)
    network.load_state_dict({n: torch.tensor(v) for n, v in what.arrays.items()})
    return update, network


def test_decoupled_signatures_are_gradients_at_the_received_model() -> None:
    update, network = measured(ALL)
    data = synthetic.client()
    inputs, labels = next(data.batches(60, ALL))
    output = network(inputs)
    ce = F.cross_entropy(output.logits, labels)
    multi = np.concatenate([gradient(ce, network, m) for m in ALL])
    np.testing.assert_allclose(update.signatures["multi"], multi, rtol=1e-3, atol=1e-6)
    means = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    prototypes = ClassMeans(torch.tensor(means), torch.ones(3).long())
    for m in ALL:
        me = 0.5 * enhancement_loss(output.features[m], labels, prototypes)
        np.testing.assert_allclose(
            update.signatures[f"enhance.{m}"], gradient(me, network, m), rtol=1e-3, atol=1e-6
        )


def test_a_uni_modal_client_offers_both_gradients_of_its_modality() -> None:
    update, network = measured(("smell",), weak="smell")
    inputs, labels = next(synthetic.client().batches(60, ("smell",)))
    output = network(inputs)
    means = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    prototypes = ClassMeans(torch.tensor(means), torch.ones(3).long())
    loss = F.cross_entropy(output.logits, labels)
    loss = loss + 0.5 * enhancement_loss(output.features["smell"], labels, prototypes)
    assert set(update.signatures) == {"enhance.smell"}  # no multi-modal row: it saw one modality
    expected = gradient(loss, network, "smell")
    np.testing.assert_allclose(update.signatures["enhance.smell"], expected, rtol=1e-3, atol=1e-6)


def test_a_modality_that_a_client_lacks_is_a_zero_block() -> None:
    data = synthetic.client(modalities=("touch", "smell"))
    what = task(("touch", "smell"), kind="measure", signature=EXACT)
    update = run(what, data, **synthetic.ENHANCING)
    sizes = [
        sum(p.numel() for p in MultiModalNetwork(synthetic.spec("mlp")).encoders[m].parameters())
        for m in ALL
    ]
    blocks = np.split(update.signatures["multi"], np.cumsum(sizes)[:-1])
    assert [bool(b.any()) for b in blocks] == [True, False, True]


def test_update_signatures_are_the_change_of_the_encoders() -> None:
    what = task(("touch", "smell"), signature=replace(EXACT, gradient="update"))
    data = synthetic.client(modalities=("touch", "smell"))
    update = run(what, data)
    for m in ("touch", "smell"):
        names = [n for n in what.arrays if n.startswith(f"encoders.{m}.")]
        change = np.concatenate([(what.arrays[n] - update.arrays[n]).ravel() for n in names])
        np.testing.assert_allclose(update.signatures[f"enhance.{m}"], change, rtol=1e-5, atol=1e-7)
    assert np.count_nonzero(update.signatures["multi"]) > 0


def test_sketches_are_of_the_exact_vectors() -> None:
    exact, _ = measured(ALL)
    sketched, _ = measured(ALL, signature=SignatureOrders(sketch_dim=256, seed=9))
    expected = count_sketch({"smell": exact.signatures["enhance.smell"]}, 256, 9)
    np.testing.assert_allclose(sketched.signatures["enhance.smell"], expected, rtol=1e-4, atol=1e-6)
    assert sketched.signatures["multi"].shape == (256,)


def test_measuring_leaves_no_trace_in_the_training() -> None:
    plain = run(task(client_id="c"), **synthetic.ENHANCING)
    measured_too = run(task(client_id="c", signature=SignatureOrders()), **synthetic.ENHANCING)
    assert measured_too.signatures
    assert all(plain.arrays[n].tobytes() == v.tobytes() for n, v in measured_too.arrays.items())


def test_full_participation_and_one_step_equal_central_full_batch_sgd() -> None:
    clients = [synthetic.client(f"c{i}", n=n, seed=i) for i, n in enumerate((30, 12, 48))]
    central = MultiModalNetwork(synthetic.spec("mlp"))
    arrays = model()
    central.load_state_dict({n: torch.tensor(v) for n, v in arrays.items()})
    inputs = {m: torch.cat([c.split.stores[m] for c in clients]) for m in ALL}
    labels = torch.cat([c.labels for c in clients])
    for _ in range(4):
        optimizer = torch.optim.SGD(central.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
        F.cross_entropy(central(inputs).logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        updates = [run(Task(Orders("train", ALL), arrays), c, batch_size=1000) for c in clients]
        arrays = aggregate_parts(arrays, updates)
    for name, value in central.state_dict().items():
        np.testing.assert_allclose(arrays[name], value.numpy(), atol=1e-5)


def test_an_update_survives_the_wire() -> None:
    what = task(signature=SignatureOrders(sketch_dim=64), measure_prototypes=True)
    update = run(what, **synthetic.ENHANCING)
    back = unpack_update("client-0", pack_update(update))
    assert (back.modalities, back.num_samples, back.ratios) == (ALL, 60, update.ratios)
    assert all(back.arrays[n].tobytes() == v.tobytes() for n, v in update.arrays.items())
    np.testing.assert_array_equal(back.signatures["multi"], update.signatures["multi"])
    np.testing.assert_array_equal(back.prototypes["smell"].means, update.prototypes["smell"].means)


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape"])
def test_parts_that_do_not_fit_are_refused_by_name(fault: str) -> None:
    what = task()
    if fault == "missing":
        del what.arrays["head.bias"]
    elif fault == "unknown":
        what.arrays["head.extra"] = np.zeros(1, np.float32)
    else:
        what.arrays["head.bias"] = np.zeros(7, np.float32)
    with pytest.raises(ValueError, match="received array 'head"):
        run(what)


def test_a_client_refuses_to_train_what_it_lacks() -> None:
    with pytest.raises(ValueError, match="was told to train 'sound', it lacks it"):
        run(task(), synthetic.client(modalities=("touch", "smell")))


def test_settings_survive_json() -> None:
    settings = synthetic.settings(lr=0.3, objective_settings={"mu": 1.0})
    assert ClientSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batchsize": 3}, "'batchsize': Unexpected keyword argument"),
        ({"lr": "fast"}, "'lr': Input should be a valid number"),
        ({"network": {}}, "'network.encoders': Field required"),
    ],
)
def test_settings_that_do_not_fit_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}.*the same version") as caught:
        ClientSettings.from_json(synthetic.settings().to_json() | change)
    assert "\n" not in str(caught.value)


def test_nothing_of_an_earlier_task_is_left_in_a_workers_network() -> None:
    """FedPAC freezes the head, Greedy a gate, training leaves gradients and training mode."""
    network = MultiModalNetwork(replace(synthetic.spec("mlp"), head="mmtm"))
    arrays = {n: v.numpy().copy() for n, v in network.state_dict().items()}
    network.train()
    inputs, labels = next(synthetic.client().batches(20, ALL))
    F.cross_entropy(network(inputs).logits, labels).backward()
    network.head.requires_grad_(False)
    network.head.frozen = "touch"
    assert network.restart(arrays) is network
    assert not any(module.training for module in network.modules())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert network.head.frozen is None
    assert all(torch.equal(v, torch.tensor(arrays[n])) for n, v in network.state_dict().items())


def test_received_arrays_may_be_read_only_and_are_not_written_to() -> None:
    what = task()
    received = {n: v.tobytes() for n, v in what.arrays.items()}
    read_only = {
        n: np.frombuffer(received[n], v.dtype).reshape(v.shape) for n, v in what.arrays.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        update = run(Task(what.orders, read_only))
    assert all(update.arrays[n].tobytes() == v.tobytes() for n, v in run(what).arrays.items())
    assert {n: v.tobytes() for n, v in read_only.items()} == received
    assert any(update.arrays[n].tobytes() != v for n, v in received.items())


@pytest.mark.parametrize("encoder", ["identity", "mlp"])
def test_three_modalities_with_any_encoder(encoder: str) -> None:
    update = run(
        task(encoder=encoder, signature=SignatureOrders(sketch_dim=16)),
        network=synthetic.spec(encoder),
        prototypes=True,
        **synthetic.ENHANCING,
    )
    assert np.isfinite(update.metrics["loss"])
    assert len(update.prototypes) == 3


# --- numbers that are not finite ----------------------------------------------------------------


def test_training_that_diverges_says_where_and_what_to_do() -> None:
    with pytest.raises(
        DivergedError, match=r"the loss became \w+ in epoch \d, batch \d of 3: "
    ) as ended:
        run(task(), lr=1e20, local_epochs=5)
    assert str(ended.value).endswith("lower lr (1e+20 in this round), or set clip_norm")
    large = synthetic.client()
    large.split.stores["sound"].mul_(1e30)
    with pytest.raises(DivergedError, match="standardise modality 'sound', whose inputs reach "):
        run(task(), large)
    with pytest.raises(DivergedError, match=r"or lower clip_norm \(1e\+20\)$"):
        run(task(), lr=1e20, local_epochs=5, clip_norm=1e20)


@pytest.mark.parametrize("kind", ["train", "measure", "loss"])
def test_inputs_that_are_not_finite_are_named(kind: str) -> None:
    data = synthetic.client(n=60)
    data.split.stores["smell"][[3, 50], 1] = torch.tensor([torch.inf, torch.nan])
    told = {"kind": kind, "measure_prototypes": True, "signature": SignatureOrders()}
    with pytest.raises(DivergedError, match=r"'smell' of 2 of 60 samples is .* \(3, 50\): mend"):
        run(task(**told), data)
    run(task(("touch", "sound"), **told), data)  # what is not looked at does no harm
    few = replace(data, index=torch.arange(4, 50))
    assert len(run(task(**told), few).scores) == (0 if kind == "loss" else 3)

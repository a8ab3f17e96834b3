"""Strategies in other people's projects: both interfaces of Flower, mods, wrappers, bad input."""

import logging
import re
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.server.strategy import FedAvg as StockClassic
from flwr.serverapp.strategy import FedAvg as StockMessage

import strategies
from strategies import ClientInfo, classic
from strategies.client import ModalityMod
from strategies.federation.flower import mean_metrics
from strategies.federation.transport import quiet_about_plain_nodes
from tests.strategies.foreign_app import (
    PARTS,
    SEED,
    ClassicClient,
    StockClient,
    WholeClient,
    classic_app,
    grid_of,
    message_app,
    modality,
    model,
    run_classic,
    samples,
    trained,
)

HELD = {f"c{i}": ("image", "text") if i % 3 else ("text",) for i in range(6)}
BOTH = dict.fromkeys(HELD, ("image", "text"))
METHODS = {"FedAvg": {}, "BMSFed": {"threshold": 1.0}, "DivFL": {}, "PowerOfChoice": {"d": 5}}


def record(arrays: dict[str, Any]) -> ArrayRecord:
    return ArrayRecord({n: Array(v) for n, v in arrays.items()})


def last_picks(strategy: Any) -> list[Any]:
    """The last round's picks, of ours; flwr's own strategies have none."""
    report = getattr(strategy, "report", None)
    return report.picks if report else []


def start(
    strategy: Any, grid: Any, rounds: int, initial: dict[str, Any] | None = None
) -> tuple[dict[str, Any], list[Any]]:
    """Flower's loop; returns the final model and the picks of each round."""
    picks: list[Any] = []
    result = strategy.start(
        grid,
        record(initial or model()),
        num_rounds=rounds,
        evaluate_fn=lambda r, arrays: picks.append(last_picks(strategy)),
    )
    return {n: a.numpy() for n, a in result.arrays.items()}, picks[1:]


@pytest.mark.parametrize("name", METHODS)
def test_both_interfaces_pick_and_average_alike(name: str) -> None:
    held = BOTH if name == "PowerOfChoice" else HELD
    common = {"clients_per_round": 3, "seed": SEED, "parts": PARTS, **METHODS[name]}
    seen_message: list[Any] = []
    apps = {w: message_app(w, h, seen_message) for w, h in held.items()}
    by_message, picks = start(getattr(strategies, name)(**common), grid_of(apps), 5)

    seen_classic: list[Any] = []
    classic_picks: list[Any] = []
    strategy = getattr(classic, name)(
        list(model()),
        evaluate_fn=lambda r, p, c: classic_picks.append(last_picks(strategy)),
        **common,
    )
    apps = {w: classic_app(ClassicClient(w, h, seen_classic)) for w, h in held.items()}
    by_classic = run_classic(strategy, grid_of(apps, seed=3), 5)

    assert len(picks) == 5
    assert all(picks)
    assert picks == classic_picks[1:]
    for n, value in by_message.items():
        np.testing.assert_array_equal(value, by_classic[n])
        assert not np.array_equal(value, model()[n])
    # Classic clients without the mod received just the parts assigned.
    for _, modalities, arrays in seen_classic:
        assert {modality(n) for n in arrays} == {None, *modalities}
    if name == "BMSFed":  # its choice of modalities did come through
        assert any(m != held[w] for w, m, _ in seen_message)


@pytest.mark.parametrize("name", strategies.classic.__all__)
def test_every_method_serves_foreign_clients_or_says_why_not(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    if name == "ClassicStrategy":
        return
    options: dict[str, Any] = {"clients_per_round": 3, "seed": SEED, "parts": PARTS}
    if name == "ModalityDropout":
        options["drop"] = 0.5
    strategy = getattr(classic, name)(list(model()), **options)
    grid = grid_of({w: classic_app(ClassicClient(w, h, [])) for w, h in BOTH.items()})
    if name in {"FedNH", "FedPAC", "MFedMC", "PmcmFL"}:
        with pytest.raises(ValueError, match=f"{name} works on the columns of a linear head"):
            run_classic(strategy, grid, 2)
        return
    with caplog.at_level(logging.WARNING, "flwr"):
        after = run_classic(strategy, grid, 2)
    moved = any(not np.array_equal(after[n], v) for n, v in model().items())
    if name == "GBlending":
        assert "is left out: the answer holds no losses" in caplog.text
        assert not moved
    elif name == "LocalTraining":  # the clients' own models are trained, not the global one
        own = strategy.method.state.memory
        assert len(own) >= 3
        assert not moved
    else:
        assert moved
        assert "left out" not in caplog.text


def test_the_mod_completes_a_numpy_clients_list_and_cuts_its_answer() -> None:
    common = {"clients_per_round": 3, "seed": SEED, "parts": PARTS, "threshold": 1.0}
    results = []
    for make in (ClassicClient, WholeClient):
        mods = [ModalityMod(lambda c: ClientInfo("?", ()))]
        apps = {}
        for w, h in HELD.items():
            info = ClientInfo(w, h, samples(w))
            mods = [] if make is ClassicClient else [ModalityMod(lambda _, info=info: info)]
            apps[w] = classic_app(make(w, h, []), mods)
        results.append(
            run_classic(
                classic.BMSFed(list(model()), **common), grid_of(apps, seed=len(results)), 4
            )
        )
    for n, value in results[0].items():
        np.testing.assert_array_equal(value, results[1][n])


def test_a_part_nobody_trained_stays_and_the_others_are_means_over_their_trainers() -> None:
    held = {"c0": ("text",), "c1": ("text",)}
    apps = {w: message_app(w, h, []) for w, h in held.items()}
    after, _ = start(strategies.FedAvg(parts=PARTS), grid_of(apps), 1)
    np.testing.assert_array_equal(after["vision.w"], model()["vision.w"])
    want = {w: trained(model(), w, ("text",), []) for w in held}
    for n in ("bert.w", "pooler", "classifier.w"):
        mean = sum(samples(w) * want[w][n] for w in held) / sum(map(samples, held))
        np.testing.assert_allclose(after[n], mean, rtol=1e-6)


def test_stock_clients_under_our_fedavg_give_what_flwrs_fedavg_gives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stock = {w: classic_app(StockClient(w, h, [])) for w, h in HELD.items()}
    with caplog.at_level(logging.WARNING, "flwr"):
        ours = run_classic(classic.FedAvg(list(model()), parts=PARTS), grid_of(stock), 3)
    theirs = run_classic(StockClassic(), grid_of(stock), 3)
    for n in model():
        np.testing.assert_allclose(ours[n], theirs[n], rtol=0, atol=1e-6)
    told = [r.getMessage() for r in caplog.records if "does not say" in r.getMessage()]
    assert len(told) == 1
    assert "ModalityMod" in told[0]

    plain = {w: message_app(w, h, [], mod=False) for w, h in HELD.items()}
    ours, _ = start(strategies.FedAvg(parts=PARTS), grid_of(plain), 3)
    theirs, _ = start(StockMessage(), grid_of(plain), 3)
    for n in model():
        np.testing.assert_allclose(ours[n], theirs[n], rtol=0, atol=1e-6)


def test_bmsfed_serves_plain_clients_whole_beside_those_with_the_mod() -> None:
    seen: list[Any] = []
    apps = {w: message_app(w, h, seen) for w, h in HELD.items()}
    apps["c9"] = message_app("c9", ("image", "text"), seen, mod=False)
    strategy = strategies.BMSFed(7, parts=PARTS, threshold=0.0, seed=1)
    start(strategy, grid_of(apps), 2)
    assert {m for w, m, _ in seen if w == "c9"} == {("image", "text")}
    assert {w for w, m, _ in seen if m == ("text",)} > {"c0", "c3"}


def test_the_update_is_the_signature_of_a_client_that_offers_none() -> None:
    apps = {w: message_app(w, h, []) for w, h in HELD.items()}
    strategy = strategies.BMSFed(2, parts=PARTS, sketch_dim=0)
    start(strategy, grid_of(apps), 1)
    picked = {p["client"] for p in strategy.report.picks}
    who = next(w for w in ("c1", "c2", "c4") if w not in picked)  # measured once, never trained
    kept = strategy.state.signatures[who]
    change = {n: model()[n] - v for n, v in trained(model(), who, ("image", "text"), []).items()}
    text = np.concatenate([change["bert.w"], change["pooler"].ravel()])
    image = change["vision.w"].ravel()
    np.testing.assert_allclose(kept["enhance.text"], text, rtol=1e-6)
    np.testing.assert_allclose(kept["multi"], np.concatenate([image, text]), rtol=1e-6)
    lacking = strategy.state.signatures["c0"]["multi"]  # its missing modality is a zero block
    np.testing.assert_array_equal(lacking[: image.size], 0)


def test_the_model_is_found_by_the_names_of_encoders() -> None:
    names = {"vision.w": "encoders.image.w", "bert.w": "encoders.text.w", "pooler": "proj.0.bias"}
    named = {names.get(n, n): v for n, v in model().items()}
    parts = strategies.Parts(named)
    assert parts.part_of == {
        "encoders.image.w": "image",
        "encoders.text.w": "text",
        "proj.0.bias": "shared",
        "classifier.w": "shared",
    }
    assert list(parts.outside(parts.inside(named))) == list(named)


def test_metrics_are_means_over_those_that_report_them() -> None:
    contents = [
        RecordDict({"metrics": MetricRecord({"num-examples": n, **more})})
        for n, more in ((10, {"loss": 1.0, "score.text": 0.5}), (30, {"loss": 2.0, "l": [1, 2]}))
    ]
    found = mean_metrics(contents, "num-examples")
    assert dict(found) == {"loss": 1.75, "score.text": 0.5, "l": [1.0, 2.0]}


def test_only_what_plain_nodes_cannot_answer_is_kept_from_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = logging.getLogger("flwr")
    with caplog.at_level(logging.INFO, "flwr"):
        with quiet_about_plain_nodes():
            log.error("Traceback ... No query function registered with name 'enrol'")
            log.error("ValueError: no data in this folder")
        log.error("No query function registered with name 'enrol'")
    assert [r.getMessage() for r in caplog.records] == [
        "ValueError: no data in this folder",
        "No query function registered with name 'enrol'",
    ]


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"image": "vision.*", "head": "classifier.*"}, r"'bert.w' is in no part \(2 in all\)"),
        (PARTS | {"audio": "wave.*"}, "part 'audio' has no parameters"),
        (PARTS | {"text": "*"}, "'vision.w' is in the parts 'image' and 'text'"),
        ({"head": "*"}, "hold no modality"),
        ({"im.age": "*"}, "holds no dot"),
        (None, r"tell the strategy which parameters belong together, such as parts="),
    ],
)
def test_parts_that_do_not_fit_the_model_are_refused(parts: Any, says: str) -> None:
    grid = grid_of({"c0": message_app("c0", ("image",), [])})
    with pytest.raises(ValueError, match=says):
        strategies.BMSFed(parts=parts, min_available_nodes=1).start(grid, record(model()))
    with pytest.raises(ValueError, match=says):
        classic.BMSFed(list(model()), parts=parts)


def test_a_model_whose_names_change_after_round_one_is_refused() -> None:
    apps = {w: message_app(w, h, []) for w, h in HELD.items()}
    strategy, grid = strategies.FedAvg(parts=PARTS), grid_of(apps)
    strategy.configure_train(1, record(model()), ConfigRecord(), grid)
    renamed = {n.replace("bert", "gpt"): v for n, v in model().items()}
    with pytest.raises(ValueError, match=r"names changed.*'bert.w' is gone.*'gpt.w' is new"):
        strategy.configure_train(2, record(renamed), ConfigRecord(), grid)


def test_the_classic_interface_wants_as_many_names_as_arrays() -> None:
    apps = {w: classic_app(ClassicClient(w, h, [])) for w, h in HELD.items()}
    strategy = classic.FedAvg([*model(), "classifier.b"], parts=PARTS)
    with pytest.raises(ValueError, match=r"4 arrays, but 5 names.*list\(model.state_dict"):
        run_classic(strategy, grid_of(apps), 1)


class Short(ClassicClient):
    """Returns fewer arrays than it was sent."""

    def fit(self, parameters: Any, config: Any) -> Any:
        new, n, metrics = super().fit(parameters, config)
        return new[1:], n, metrics


def test_an_answer_of_another_length_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    apps = {w: classic_app(ClassicClient(w, h, [])) for w, h in HELD.items()}
    apps["c1"] = classic_app(Short("c1", HELD["c1"], []))
    with caplog.at_level(logging.WARNING, "flwr"):
        run_classic(classic.FedAvg(list(model()), parts=PARTS), grid_of(apps), 1)
    assert "client 'c1' is left out: it returned 3 arrays, but was sent 4" in caplog.text


def drop(content: RecordDict) -> None:
    arrays = dict(content["arrays"])
    del arrays["pooler"]
    content["arrays"] = ArrayRecord(arrays)


def rename(content: RecordDict) -> None:
    content["arrays"] = ArrayRecord({f"model.{n}": a for n, a in content["arrays"].items()})


def unweighted(content: RecordDict) -> None:
    content["metrics"] = MetricRecord({"examples": 3})


def poison(content: RecordDict) -> None:
    arrays = {n: a.numpy() * np.nan for n, a in content["arrays"].items()}
    content["arrays"] = record(arrays)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (drop, "missing array 'pooler' .*answer with all the arrays that were sent"),
        (rename, r"'model.vision.w' is no parameter of the model \(4 unknown\)"),
        (unweighted, "lack the number 'num-examples': return it, or set weighted_by_key"),
        (poison, "holds NaN or infinity"),
        (lambda content: content.pop("arrays"), "0 array records, expected exactly one"),
    ],
)
def test_a_bad_answer_is_left_out_and_the_rest_goes_on(
    spoil: Any, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    grid = grid_of({w: message_app(w, h, []) for w, h in BOTH.items()})
    good = grid.handlers["c1"]

    def bad(message: Any) -> RecordDict:
        content = good(message)
        if message.metadata.message_type == "train":
            spoil(content)
        return content

    grid.handlers["c1"] = bad
    with caplog.at_level(logging.WARNING, "flwr"):
        after, _ = start(strategies.FedAvg(parts=PARTS, fraction_evaluate=0.0), grid, 1)
    told = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("client 'c1' is left out: ")
    assert re.search(says, told[0])
    others = [w for w in BOTH if w != "c1"]
    each = {w: trained(model(), w, ("image", "text"), [])["pooler"] for w in others}
    mean = sum(samples(w) * each[w] for w in others) / sum(map(samples, others))
    np.testing.assert_allclose(after["pooler"], mean, rtol=1e-6)


def test_our_own_loop_refuses_clients_of_other_apps() -> None:
    grid = grid_of({w: message_app(w, h, []) for w, h in BOTH.items()})
    native = {"encoders.image.w": np.zeros(2), "encoders.text.w": np.zeros(2)}
    with pytest.raises(strategies.FederationError, match="'c0' runs another app than the server"):
        strategies.FedAvg(2).run(grid, native, num_rounds=1, min_clients=6, connect_timeout=600)


def test_clients_that_hold_what_the_model_has_not_are_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    apps = {w: message_app(w, h, []) for w, h in BOTH.items()}
    apps["c7"] = message_app("c7", ("image", "smell"), [])
    with caplog.at_level(logging.WARNING, "flwr"):
        start(strategies.FedAvg(parts=PARTS), grid_of(apps), 1)
    assert "'c7' holds ['image', 'smell'], the model has ['image', 'text']" in caplog.text


def test_pow_d_says_which_loss_it_misses(caplog: pytest.LogCaptureFixture) -> None:
    grid = grid_of({w: message_app(w, h, []) for w, h in BOTH.items()})
    strategy = strategies.PowerOfChoice(2, parts=PARTS, loss_key="val_loss")
    with pytest.raises(strategies.FederationError, match="lack 'val_loss': return the loss"):
        start(strategy, grid, 1)


def test_unknown_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="fraction_fitt"):
        classic.FedAvg(list(model()), parts=PARTS, fraction_fitt=0.5)
    with pytest.raises(ValueError, match=r"fraction_train is 1\.5"):
        strategies.FedAvg(fraction_train=1.5)

"""Simulated masks: who loses what, as the schemes promise, and alike wherever they are drawn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bmsfed_app.config import ConfigError, check_config, load_config
from bmsfed_app.datasets.shard import load_shard, save_shard
from bmsfed_app.partitions import (
    Missing,
    PartitionError,
    experiment_data,
    experiment_shares,
    masked_as_training,
    read_partition,
)
from client_app.data import local_data
from strategies.randomness import generator
from tests import synthetic
from tests.federation import simulated

SCHEMES = ("one", "bernoulli", "client")
NAMES = tuple(synthetic.WIDTHS)


def divided(n: int, clients: int, seed: int = 0, **missing: object):  # type: ignore[no-untyped-def]
    """Masks (n, K) of a synthetic split, and the shares."""
    partition = read_partition({"missing": missing})
    split, shares = experiment_data(synthetic.split(n), partition, clients, seed=seed)
    return matrix(split), shares


def matrix(split):  # type: ignore[no-untyped-def]
    whole = torch.ones(len(split), dtype=torch.bool)
    return torch.stack([split.present.get(m, whole) for m in split.modalities], 1).numpy()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_a_rate_masks_a_larger_one_masks_too(scheme: str) -> None:
    before = np.ones((600, 3), dtype=bool)
    for rate in (0.0, 0.1, 0.3, 0.5, 0.8, 1.0):
        there, _ = divided(600, 20, scheme=scheme, rate=rate)
        assert there.any(axis=1).all()
        assert not (there & ~before).any()
        before = there
    assert before.sum(axis=1).tolist() == [2 if scheme == "one" else 1] * 600


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_effective_rates(rate: float) -> None:
    """Of three modalities each is lost with chance q / 3, or q - q^3 / 3 (0.375 of two at 0.5)."""
    n = 30_000
    there, _ = divided(n, 3, scheme="one", rate=rate)
    assert np.allclose((~there).mean(axis=0), rate / 3, atol=0.012)
    assert set((~there).sum(axis=1)) == {0, 1}
    there, _ = divided(n, 3, scheme="bernoulli", rate=rate)
    assert np.allclose((~there).mean(axis=0), rate - rate**3 / 3, atol=0.012)
    there, shares = divided(3000, 3000, scheme="client", rate=rate)
    assert np.allclose((~there).mean(axis=0), rate - rate**3 / 3, atol=0.03)
    assert all(
        share.modalities
        == tuple(m for m, kept in zip(NAMES, there[share.rows[0]], strict=True) if kept)
        for share in shares
    )


def test_masks_are_those_of_a_plain_loop() -> None:
    there, _ = divided(50, 2, seed=7, scheme="bernoulli", rate=0.6)
    draws = {m: generator(7, "missing", "train", m).random(50) for m in NAMES}
    for row in range(50):
        own = {m: draws[m][row] for m in NAMES}
        kept = [m for m in NAMES if own[m] >= 0.6] or [max(own, key=lambda m: own[m])]
        assert [m for m, k in zip(NAMES, there[row], strict=True) if k] == kept
    other, _ = divided(50, 2, seed=8, scheme="bernoulli", rate=0.6)
    assert (other != there).any()


def test_a_client_loses_only_what_it_holds() -> None:
    """Half the clients hold one modality, which they keep; masks of others are unchanged."""
    given = {"whole_share": 0.5, "subsets": (("sound",),)}
    for scheme in SCHEMES:
        partition = read_partition({**given, "missing": {"scheme": scheme, "rate": 1.0}})
        split, shares = experiment_data(synthetic.split(), partition, 4, seed=0)
        for share, before in zip(
            shares, experiment_shares(synthetic.split(), partition, 4, seed=0), strict=True
        ):
            assert share.rows.tolist() == before.rows.tolist()
            left = matrix(split)[share.rows][:, [NAMES.index(m) for m in before.modalities]]
            alone = len(before.modalities) == 1
            assert left.sum(axis=1).tolist() == [2 if scheme == "one" and not alone else 1] * 15


def test_rate_0_changes_nothing() -> None:
    split = synthetic.split()
    partition = read_partition({"missing": {"rate": 0.0}})
    found, shares = experiment_data(split, partition, 3, seed=0)
    assert found is split
    assert partition.describe() == read_partition({}).describe() == "iid"
    plain = experiment_shares(split, read_partition({}), 3, seed=0)
    assert all(np.array_equal(a.rows, b.rows) for a, b in zip(shares, plain, strict=True))


def test_complete_samples_only() -> None:
    """Of what a client has at all: what it never has, it does not lack."""
    there, plain = divided(60, 3, scheme="one", rate=0.5)
    _, shares = divided(60, 3, scheme="one", rate=0.5, complete_only=True)
    for share, before in zip(shares, plain, strict=True):
        assert share.rows.tolist() == [r for r in before.rows if there[r].all()]
    _, shares = divided(60, 3, scheme="client", rate=0.5, complete_only=True)
    assert all(len(share.rows) == 20 for share in shares)
    with pytest.raises(PartitionError, match=r"client-0' has 0 samples with all .*missing.rate"):
        divided(60, 3, scheme="one", rate=1.0, complete_only=True)


def test_samples_without_anything_that_their_client_has_are_left_out() -> None:
    real = {"touch": torch.arange(60) > 5, "sound": torch.arange(60) > 3}
    split = synthetic.split().lacking(real)
    partition = read_partition({"whole_share": 0.0, "subsets": (("touch", "sound"), ("smell",))})
    found, shares = experiment_data(split, partition, 2, seed=0)
    both = next(s for s in shares if "sound" in s.modalities)
    before = experiment_shares(split, partition, 2, seed=0)
    rows = next(s for s in before if "sound" in s.modalities).rows
    assert both.rows.tolist() == [r for r in rows if r > 3]
    assert torch.equal(found.present["touch"], real["touch"])
    masked, _ = experiment_data(split, read_partition({"missing": {"rate": 1.0}}), 2, seed=0)
    assert not (matrix(masked) & ~matrix(split)).any()
    assert (matrix(masked).sum(axis=1) == np.maximum(matrix(split).sum(axis=1) - 1, 1)).all()


def test_a_test_split_is_masked_as_training() -> None:
    split = synthetic.split(9000)
    for scheme in SCHEMES:
        missing = Missing(scheme=scheme, rate=0.5)
        lost = ~matrix(masked_as_training(split, missing, seed=0))
        wanted = 0.5 / 3 if scheme == "one" else 0.5 - 0.5**3 / 3
        assert np.allclose(lost.mean(axis=0), wanted, atol=0.02)
    assert (lost != ~divided(9000, 3, scheme="bernoulli", rate=0.5)[0]).any()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_shards_hold_what_the_simulation_has(tmp_path: Path, scheme: str) -> None:
    config = load_config("cg-digits", {"missing": {"scheme": scheme, "rate": 0.6}, "clients": 4})
    info, train = config.dataset_info(), config.load_data("train").train
    assert train is not None
    masked, shares = experiment_data(train, config.division(), 4, seed=config.seed)
    for number, share in enumerate(shares):
        save_shard(masked, share.rows, info, tmp_path / share.name, share.modalities)
        settings = config.client_settings()
        ours = local_data({"partition-id": number, "num-partitions": 4}, settings)
        own = {"client-id": share.name, "data-dir": str(tmp_path / share.name)}
        theirs = local_data(own, settings)
        assert ours.modalities == theirs.modalities == share.modalities
        assert torch.equal(ours.labels, theirs.labels)
        for (a, _), (b, _) in zip(
            ours.batches(64, ours.modalities), theirs.batches(64, ours.modalities), strict=True
        ):
            assert all(torch.equal(a[m], b[m]) for m in a)
            assert all(torch.equal(a.present[m], b.present[m]) for m in b.present)
        if "colors" in theirs.split.stores and "colored" in theirs.split.present:
            assert not theirs.split.stores["colors"][~theirs.split.present["colored"]].any()


def test_a_shard_says_that_it_has_masks(tmp_path: Path) -> None:
    """Older versions, which would take zeros for inputs, refuse it."""
    from safetensors import safe_open

    split, info = synthetic.split(), load_config("cg-digits").dataset_info()
    info = replace(info, modalities=NAMES, renderers=split.renderers, kept={})
    for masks, version in (({}, '"version": 2'), ({"sound": split.labels > 0}, '"version": 3')):
        save_shard(split.lacking(masks), torch.arange(60), info, tmp_path)
        with safe_open(tmp_path / "train.safetensors", framework="pt") as file:
            assert version in file.metadata()["bmsfed_shard"]
        found, _ = load_shard(tmp_path, info)
        assert {m: mask.tolist() for m, mask in found.present.items()} == {
            m: mask.tolist() for m, mask in masks.items()
        }


def test_a_client_narrowed_by_its_node_has_what_is_left() -> None:
    given = {"missing": {"rate": 1.0}, "clients": 2}
    settings = load_config("cg-digits", given).client_settings()
    node = {"partition-id": 0, "num-partitions": 2}
    whole, gray = local_data(node, settings), local_data(node | {"modalities": "gray"}, settings)
    assert len(whole) > len(gray) > 0
    assert gray.present("gray") is None


def test_a_rate_of_0_gives_the_old_bits() -> None:
    given = {"data_fraction": 0.1, "rounds": 2, "clients": 3, "per_round": 2, "method": "fedavg"}
    plain = simulated(load_config("cg-digits", given), 3)
    zero = simulated(load_config("cg-digits", given | {"missing": {"rate": 0}}), 3)
    assert plain.to_bytes() == zero.to_bytes()


def test_a_method_that_allows_no_gaps_says_so_at_the_start() -> None:
    given = {"method": "fedcmi", "missing.rate": "0.3"}
    why = (
        "missing: method 'fedcmi' allows no samples that lack .*one modality teaches.*complete_only"
    )
    with pytest.raises(ConfigError, match=why):
        load_config("cg-digits", given)
    for other in ({"missing.complete_only": "true"}, {"missing.scheme": "client"}):
        load_config("cg-digits", given | other)


def test_the_key_is_checked_and_travels() -> None:
    config = load_config("cg-digits", {"missing.rate": "0.3", "missing.scheme": "client"})
    assert config.division().describe() == "iid, clients lack each modality with chance 30 %"
    again = check_config(config.model_dump())
    assert again.division() == config.division()
    assert read_partition(config.client_settings().partition) == config.division()
    with pytest.raises(ConfigError, match=r"missing\.rate"):
        load_config("cg-digits", {"missing.rate": "2"})
    with pytest.raises(ConfigError, match="missing"):
        load_config("cg-digits", {"missing.scheme": "some"})

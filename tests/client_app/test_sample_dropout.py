"""Modality dropout: masks anew with every mini-batch, those of simulated gaps by another path."""

from typing import Any

import numpy as np
import pytest
import torch

from bmsfed_app.config import ConfigError, load_config
from bmsfed_app.datasets import Inputs
from bmsfed_app.partitions.missing import lose_each
from client_app.packed import packing_fault
from client_app.sample_dropout import dropped
from tests import synthetic
from tests.client_app.test_gaps import ALL, MASKS, bits, gapped, told, trained
from tests.federation import simulated


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("masks", [{}, MASKS])
@pytest.mark.parametrize("rate", [0.0, 0.2, 0.6, 1.0])
def test_samples_lose_what_a_simulation_of_gaps_takes(rate: float, masks: dict[str, Any]) -> None:
    inputs = Inputs(synthetic.split().stores, masks)
    found = dropped(inputs, rate, generator())
    held = np.stack([masks.get(m, torch.ones(60, dtype=torch.bool)).numpy() for m in ALL], 1)
    uniforms = torch.rand((3, 60), generator=generator()).numpy().T
    left = np.stack([found.present[m].numpy() for m in ALL], axis=1)
    np.testing.assert_array_equal(left, lose_each(held, uniforms, rate))
    assert all(torch.equal(found[m], x) for m, x in inputs.items())


def test_another_round_or_client_loses_other_things_and_a_rate_of_0_nothing() -> None:
    settings = told(sample_dropout=0.2)
    assert bits(trained(gapped({}), settings)) == bits(trained(gapped({}), settings))
    assert bits(trained(gapped({}), settings)) != bits(trained(gapped({}), told()))
    alone = [trained(gapped({}), told(sample_dropout=q), ("sound",)) for q in (0.0, 0.9)]
    assert bits(alone[0]) == bits(alone[1])  # the last modality stays
    update = trained(gapped({}), settings)
    assert (update.num_samples, update.present) == (60, {})  # the samples have what they have


def test_it_goes_with_the_experiment_and_is_refused_where_gaps_are() -> None:
    given = {"data_fraction": 0.1, "rounds": 2, "clients": 3, "per_round": 2, "method": "fedavg"}
    plain, zero, some = (
        simulated(load_config("cg-digits", given | changes), 3).to_bytes()
        for changes in ({}, {"sample_dropout": 0.0}, {"sample_dropout": 0.2})
    )
    assert plain == zero != some
    with pytest.raises(
        ConfigError, match=r"sample_dropout: method 'fedcmi' allows no .*set it to 0"
    ):
        load_config("cg-digits", {"method": "fedcmi", "sample_dropout": 0.2})
    fault = packing_fault(told(sample_dropout=0.2), ALL)
    assert fault == "clients with sample_dropout cannot be packed"

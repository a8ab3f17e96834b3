"""Splits of samples that lack a modality: the masks stay with their rows."""

from dataclasses import replace

import torch

from tests import synthetic

MASK = torch.arange(60) % 4 > 0  # every fourth sample lacks sound


def test_masks_follow_the_rows() -> None:
    split = synthetic.split().lacking({"sound": MASK, "smell": torch.ones(60, dtype=torch.bool)})
    assert list(split.present) == ["sound"]  # nobody lacks smell
    rows = torch.tensor([0, 1, 8, 3])
    batch = split.batch(rows, ["touch", "sound"])
    assert list(batch.present) == ["sound"]
    assert batch.present["sound"].tolist() == [False, True, False, True]
    whole = synthetic.split().batch(rows, ["sound"])["sound"]
    assert torch.equal(batch["sound"], whole * batch.present["sound"][:, None])
    assert torch.equal(split.subset(rows).present["sound"], MASK[rows])
    assert split.subset(torch.tensor([1, 2])).present == {}
    assert list(split.only(["touch", "sound"]).present) == ["sound"]
    assert split.only(["touch"]).present == {}
    assert torch.equal(split.to("cpu").present["sound"], MASK)


def test_a_client_knows_its_own_gaps() -> None:
    split = synthetic.split().lacking({"sound": MASK})
    data = replace(synthetic.client(), split=split, index=torch.tensor([4, 5, 6]))
    found = data.present("sound")
    assert found is not None
    assert found.tolist() == [False, True, True]
    assert data.present("touch") is None
    assert replace(data, index=torch.tensor([5, 6])).present("sound") is None
    [(inputs, _)] = data.batches(10, ("touch", "sound"))
    assert inputs.present["sound"].tolist() == [False, True, True]

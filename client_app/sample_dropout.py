"""Modality dropout in training: samples lose modalities anew with every mini-batch."""

from __future__ import annotations

import torch

from bmsfed_app.datasets import Inputs


def dropped(inputs: Inputs, rate: float, rng: torch.Generator) -> Inputs:
    """Return a mini-batch whose samples each lose each modality with chance ``rate``.

    One that would lose all that it has keeps the last, so that of K modalities each is lost with
    chance q - q^K / K, as in ``missing`` of scheme "bernoulli".

    Parameters
    ----------
    inputs : Inputs
        (B, ...) by modality; what samples lack already stays so.
    rate : float
        q, 0 to 1.
    rng : torch.Generator
        On the CPU.
    """
    first = next(iter(inputs.values()))
    size, device = len(first), first.device
    everyone = torch.ones(size, dtype=torch.bool, device=device)
    held = torch.stack([inputs.present.get(m, everyone) for m in inputs])
    uniforms = torch.rand(held.shape, generator=rng).to(device)
    left = held & (uniforms >= rate)
    last = uniforms.where(held, -1.0).argmax(dim=0)
    rows = torch.arange(len(held), device=device)[:, None]
    left |= held & (rows == last) & ~left.any(dim=0)
    return Inputs(inputs, dict(zip(inputs, left, strict=True)))

"""Which batches a network cannot be trained on, because parts of it normalise over them."""

from __future__ import annotations

from collections.abc import Sequence

from bmsfed_app.models.network import NetworkSpec


def batch_fault(
    spec: NetworkSpec, client_id: str, modalities: Sequence[str], samples: int, batch_size: int
) -> str | None:
    """Say why a client cannot train with batches of one sample, or None.

    Batch normalisation of one sample takes away what tells it from others. A last batch of
    one is no such case: it joins the one before.

    Parameters
    ----------
    spec : NetworkSpec
    client_id : str
    modalities : sequence of str
        What it may train.
    samples, batch_size : int
        How many samples it has to train on, and a batch.
    """
    if min(samples, batch_size) > 1:
        return None
    parts = [p for p in spec.normalising() if p in {*modalities, "head"}]
    if not parts:
        return None
    [part, *_] = parts
    what = f"encoder {spec.encoders[part]} of '{part}'" if part in spec.encoders else "the head"
    why = f"{what} normalises over batches of at least 2"
    other = "choose another encoder, or freeze it"
    if batch_size < 2:
        return f"batch_size is {batch_size}, but {why}: raise it, {other}"
    return (
        f"client '{client_id}' has {samples} sample to train on, but {why}: give it more "
        f"(min_samples: 2, fewer clients), {other}"
    )

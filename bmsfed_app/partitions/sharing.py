"""Sharing samples and modalities out among simulated clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bmsfed_app.partitions.base import (
    SCHEMES,
    Names,
    PartitionError,
    PartitionSettings,
    Share,
    client_names,
    nearest,
)
from bmsfed_app.partitions.schemes import DRAWN, natural, subsample
from bmsfed_app.partitions.sites import read_sites
from strategies.randomness import generator

if TYPE_CHECKING:
    from bmsfed_app.datasets.base import Split


def share_out(
    labels: NDArray[Any],
    modalities: Sequence[str],
    settings: PartitionSettings,
    num_clients: int,
    *,
    seed: int,
    owners: Names | None = None,
    ids: Names | None = None,
) -> list[Share]:
    """Divide samples among clients, each to one at most, and say who holds which modalities.

    A stratified ``fraction`` of the samples is divided by the scheme:

    - "iid": uniformly at random, sizes differing by at most one.
    - "dirichlet": the samples of every class by its own shares p ~ Dir(alpha) over the clients
      (the paper, Sect. 4.1).
    - "quantity": uniformly at random, into log-normal sizes of spread ``sigma``.
    - "pathological": to every client samples of exactly ``classes_per_client`` classes.
    - "natural": by ``owners``; whole ones are grouped where there are fewer clients.
    - "file": as a CSV file lists them; see :func:`bmsfed_app.partitions.sites.read_sites`.

    Then each client keeps at most ``samples_per_client``, drawn by itself: a smaller cap's samples
    are among a larger one's. Then ``whole_share`` of the clients hold all modalities and the others
    one of ``subsets`` each, as evenly as can be (the paper, Table 5).

    Parameters
    ----------
    labels : array (n,), int
    modalities : sequence of str
        The data set's.
    settings : PartitionSettings
    num_clients : int
        N, at most n.
    seed : int
    owners : array (n,) of str, optional
        Each sample's natural client: a talker, a subject, an event.
    ids : array (n,) of str, optional
        Each sample's name, unique; for "file".

    Returns
    -------
    list of N Share

    Raises
    ------
    PartitionError
        If the samples or modalities cannot be divided so.
    """
    _check(modalities, settings, num_clients)
    kept = subsample(labels, settings.fraction, seed)
    if num_clients * settings.min_samples > len(kept):
        raise PartitionError(
            f"{len(kept)} samples cannot give {num_clients} clients {settings.min_samples} each: "
            "have fewer clients, lower min_samples or use more data"
        )
    held = None
    if settings.scheme == "file":
        names, parts, held = read_sites(settings.file, modalities, len(labels), ids)
        parts = [np.intersect1d(part, kept) for part in parts]
        _check_sites(names, held, settings, num_clients)
    elif settings.scheme == "natural":
        if owners is None:
            raise PartitionError(
                "partition: natural needs data that knows its natural clients (talkers, subjects, "
                "events); this data set does not: choose another partition"
            )
        names, parts = natural(owners[kept], num_clients)
        parts = [kept[part] for part in parts]
    else:
        drawn = DRAWN[settings.scheme](labels[kept], settings, num_clients, seed)
        names = client_names(num_clients)
        parts = [kept[part] for part in drawn]
    _check_sizes(names, [len(part) for part in parts], settings.min_samples)
    if cap := settings.samples_per_client:
        parts = [
            np.sort(generator(seed, "samples per client", name).permutation(part)[:cap])
            for name, part in zip(names, parts, strict=True)
        ]
    held = held or _held(modalities, settings, num_clients, seed)
    if absent := [m for m in modalities if not any(m in own for own in held)]:
        raise PartitionError(
            f"no client holds modality '{absent[0]}': raise whole_share, or have subsets, or the "
            "file's modalities, name it"
        )
    return [Share(*share) for share in zip(names, parts, held, strict=True)]


def experiment_shares(
    split: Split, settings: PartitionSettings, num_clients: int, *, seed: int
) -> list[Share]:
    """Share an experiment's training split out; see :func:`share_out`."""
    return share_out(
        split.labels.cpu().numpy(),
        split.modalities,
        settings,
        num_clients,
        seed=seed,
        owners=split.owners,
        ids=split.ids,
    )


def _held(
    modalities: Sequence[str], settings: PartitionSettings, num_clients: int, seed: int
) -> list[tuple[str, ...]]:
    """Draw which clients hold all modalities, and which subset each of the others holds."""
    held = [tuple(modalities)] * num_clients
    named = settings.subsets or tuple((m,) for m in modalities)
    subsets = [tuple(m for m in modalities if m in subset) for subset in named]
    rng = generator(seed, "modalities")
    others = rng.permutation(num_clients)[int(settings.whole_share * num_clients + 0.5) :]
    turns = rng.permutation(len(subsets))  # which subset is held once more falls by chance
    for turn, client in enumerate(others):
        held[client] = subsets[turns[turn % len(turns)]]
    return held


# --- what is refused ----------------------------------------------------------------------------


def subsets_fault(subsets: Sequence[Sequence[str]], modalities: Sequence[str]) -> str:
    """Say what is wrong with sets of modalities; empty if nothing is."""
    for subset in subsets:
        if not subset:
            return f"an empty one holds nothing; name some of {', '.join(modalities)}"
        if unknown := [m for m in subset if m not in modalities]:
            return (
                f"no modality '{unknown[0]}'{nearest(unknown[0], modalities)} "
                f"(the data set has {', '.join(modalities)})"
            )
    return ""


def _check(modalities: Sequence[str], settings: PartitionSettings, num_clients: int) -> None:
    scheme, least, most = settings.scheme, settings.min_samples, settings.samples_per_client
    if scheme not in SCHEMES:
        raise PartitionError(
            f"unknown partition '{scheme}'{nearest(scheme, SCHEMES)} (known: {', '.join(SCHEMES)})"
        )
    if num_clients < 1:
        raise PartitionError(f"clients: at least 1, not {num_clients}")
    if least < 1:
        raise PartitionError(f"min_samples: at least 1, not {least}")
    if scheme == "dirichlet" and not 0 < settings.alpha < np.inf:
        raise PartitionError(f"alpha: a finite number above 0, not {settings.alpha}")
    if scheme == "quantity" and not 0 <= settings.sigma < np.inf:
        raise PartitionError(f"sigma: a finite number, at least 0, not {settings.sigma}")
    if scheme == "pathological" and settings.classes_per_client < 1:
        raise PartitionError(f"classes_per_client: at least 1, not {settings.classes_per_client}")
    if most < 0 or 0 < most < least:
        raise PartitionError(
            f"samples_per_client: 0 for all, or at least min_samples ({least}), not {most}"
        )
    if not 0 <= settings.whole_share <= 1:
        raise PartitionError(f"whole_share: a share from 0 to 1, not {settings.whole_share}")
    if fault := subsets_fault(settings.subsets, modalities):
        raise PartitionError(f"subsets: {fault}")


def _check_sites(
    names: Sequence[str],
    held: list[tuple[str, ...]] | None,
    settings: PartitionSettings,
    num_clients: int,
) -> None:
    if len(names) != num_clients:
        raise PartitionError(
            f"{settings.file} lists {len(names)} clients, the federation has {num_clients}: "
            f"set clients to {len(names)} or name another file"
        )
    if held is not None and settings.whole_share < 1:
        raise PartitionError(
            f"{settings.file} says who holds which modalities: leave whole_share at 1, or the "
            "column out"
        )


def _check_sizes(names: Sequence[str], sizes: Sequence[int], least: int) -> None:
    smallest = int(np.argmin(sizes))
    if sizes[smallest] < least:
        raise PartitionError(
            f"client '{names[smallest]}' would have {sizes[smallest]} samples, min_samples is "
            f"{least}: lower it, have fewer clients or use more data"
        )

"""Random crops and flips of whole batches, on the batch's device.

Shape legend: b pictures, C channels, S side as kept, s side as wanted.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.datasets.base import sent

#: Area of a crop, as a share of the picture, and its aspect: torchvision's RandomResizedCrop.
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
_TRIES = 10


def resized(pictures: Tensor, side: int) -> Tensor:
    """Resize pictures (b, C, S, S) to (b, C, s, s)."""
    if pictures.shape[-1] == side:
        return pictures
    return F.interpolate(
        pictures, size=(side, side), mode="bilinear", antialias=True, align_corners=False
    )


def crop_boxes(aspect: Tensor, rng: torch.Generator) -> Tensor:
    """Draw boxes as torchvision's RandomResizedCrop does, for pictures of given aspects.

    The first of ten draws of area and aspect that fits; else the whole picture, cut to the nearest
    aspect allowed, in the middle.

    Parameters
    ----------
    aspect : Tensor (b,)
        Width over height of the pictures as they were; crops are drawn on those.
    rng : torch.Generator
        On the CPU.

    Returns
    -------
    Tensor (b, 4), float64
        Left, top, width, height, as shares of the picture's width and height; on the device of
        ``aspect``.
    """
    b, device, aspect = len(aspect), aspect.device, aspect.double()
    area = torch.empty(b, _TRIES, dtype=torch.float64).uniform_(*SCALE, generator=rng)
    log_ratio = torch.empty(b, _TRIES, dtype=torch.float64)
    ratio = log_ratio.uniform_(math.log(RATIO[0]), math.log(RATIO[1]), generator=rng).exp()
    place = torch.rand(b, 2, generator=rng, dtype=torch.float64)
    area, ratio, place = (sent(drawn, device) for drawn in (area, ratio, place))
    widths = (area * ratio / aspect[:, None]).sqrt()
    heights = (area / ratio * aspect[:, None]).sqrt()
    fits = (widths <= 1) & (heights <= 1)
    rows, first = torch.arange(b, device=device), fits.int().argmax(dim=1)
    nearest = aspect.clamp(*RATIO)
    some = fits.any(dim=1)
    width = torch.where(some, widths[rows, first], (nearest / aspect).clamp(max=1))
    height = torch.where(some, heights[rows, first], (aspect / nearest).clamp(max=1))
    place = torch.where(some[:, None], place, 0.5)
    left, top = place[:, 0] * (1 - width), place[:, 1] * (1 - height)
    return torch.stack([left, top, width, height], dim=1)


def random_resized_crop(
    pictures: Tensor, aspect: Tensor, side: int, rng: torch.Generator
) -> Tensor:
    """Crop each picture at random, resize it and flip it with probability one half.

    Parameters
    ----------
    pictures : Tensor (b, C, S, S), float
        Squeezed to squares.
    aspect : Tensor (b,)
        Width over height of the pictures as they were.
    side : int
    rng : torch.Generator
        On the CPU.

    Returns
    -------
    Tensor (b, C, s, s)
    """
    left, top, width, height = crop_boxes(aspect, rng).unbind(dim=1)
    flip = torch.where(torch.rand(len(pictures), generator=rng) < 0.5, -1.0, 1.0).double()
    flip = sent(flip, aspect.device)
    zero = torch.zeros_like(left)
    # A sampling grid's coordinates run from -1 to 1 over the picture.
    theta = torch.stack(
        [width * flip, zero, 2 * left + width - 1, zero, height, 2 * top + height - 1], dim=1
    ).view(-1, 2, 3)
    shape = [len(pictures), pictures.shape[1], side, side]
    grid = F.affine_grid(theta.to(pictures), shape, align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)

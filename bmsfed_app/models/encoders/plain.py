"""The small encoders: the paper's four convolutions, two layers, none.

Shape legend: B batch, C channels, H height, W width, D feature width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmsfed_app.models.encoders.base import ENCODERS, Encoder, ImageEncoder, InputError, image_shape


@ENCODERS.register("conv4")
class Conv4(ImageEncoder):
    """Four convolutions and an average pool, the paper's CG-MNIST encoder (its Sect. 4.2).

    98,786 parameters for one channel, 100,390 for three; D = 512.

    Parameters
    ----------
    shape : tuple of int
        One input, (C, H, W) or (F, C, H, W), H and W at least 8.

    Raises
    ------
    InputError
        If the input is something else.
    """

    width = 512
    #: A third faster than the plain layout on CPU, twice where no gradients are needed.
    layout = torch.channels_last

    def __init__(self, shape: tuple[int, ...], vocabulary: int = 0, width: int = 0) -> None:
        super().__init__()
        image = image_shape(shape)
        if image is None or min(image[1:]) < 8 or vocabulary:
            raise InputError("images (C, H, W) or frames (F, C, H, W) of at least 8x8")
        self.layers = nn.Sequential(
            nn.BatchNorm2d(image[0]),
            nn.Conv2d(image[0], 32, 5, padding=2),
            nn.MaxPool2d(3, stride=2, padding=1),  # 28x28 becomes B 32 14 14
            nn.ReLU(),  # after the pool: the same numbers of a quarter of the values
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),  # B 64 7 7
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(7) if image[1:] == (28, 28) else nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, self.width),
        )
        self.layers.to(memory_format=self.layout)  # type: ignore[call-overload]

    def encode(self, images: Tensor) -> Tensor:
        """Encode images (B, C, H, W) as features (B, 512).

        The norm's weight w and bias b are taken into the first convolution k, which is linear and
        pads with zeros. Of images x that have their channels' mean 0 and variance 1, ``k(w x + b)``
        is a convolution of ``x`` and a channel of ones, by the weights ``k w`` and ``k b``. So no
        gradient goes back as far as the images, which took a third of a training step.
        """
        norm, first, *others = self.layers
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(first, nn.Conv2d)
        per_channel = 1, -1, 1, 1
        scales = first.weight * norm.weight.view(per_channel)
        shifts = (first.weight * norm.bias.view(per_channel)).sum(dim=1, keepdim=True)
        x = torch.cat([_standardised(norm, images), torch.ones_like(images[:, :1])], dim=1)
        z = F.conv2d(
            x.contiguous(memory_format=self.layout),
            torch.cat([scales, shifts], dim=1).contiguous(memory_format=self.layout),
            first.bias,
            padding=first.padding,
        )
        for layer in others:
            z = layer(z)
        return z


def _standardised(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Return what a batch norm gives before its weight and bias, and update its statistics."""
    assert norm.momentum is not None
    assert norm.num_batches_tracked is not None
    if norm.training:
        norm.num_batches_tracked.add_(1)
    return F.batch_norm(
        x,
        norm.running_mean,
        norm.running_var,
        training=norm.training,
        momentum=norm.momentum,
        eps=norm.eps,
    )


@ENCODERS.register("mlp")
class MLP(Encoder):
    """One hidden layer, as wide as the features, over any flattened input; D = 64 by default."""

    def __init__(self, shape: tuple[int, ...], vocabulary: int = 0, width: int = 0) -> None:
        super().__init__()
        _refuse_tokens(vocabulary)
        self.width = width or 64
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(shape), self.width),
            nn.ReLU(),
            nn.Linear(self.width, self.width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Encode inputs (B, ...) as features (B, D)."""
        features: Tensor = self.layers(x)
        return features


@ENCODERS.register("identity")
class Identity(Encoder):
    """The flattened input times a learned scalar of 1: what goes in is what is fused."""

    def __init__(self, shape: tuple[int, ...], vocabulary: int = 0, width: int = 0) -> None:
        super().__init__()
        _refuse_tokens(vocabulary)
        self.width = math.prod(shape)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Return inputs (B, ...) flattened to (B, D) and scaled."""
        return x.flatten(1) * self.scale


def _refuse_tokens(vocabulary: int) -> None:
    if vocabulary:
        raise InputError("numbers of any shape")

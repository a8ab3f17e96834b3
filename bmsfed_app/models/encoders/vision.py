"""Torchvision's classification models as encoders, without their classifier.

Torchvision is loaded where the first of them is built.

Shape legend: B batch, C channels, H height, W width, D feature width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bmsfed_app.models.encoders.base import (
    ENCODERS,
    ImageEncoder,
    InputError,
    image_shape,
)

#: Classes of ImageNet, by which the classifier's last layer is known.
_CLASSES = 1000


class VisionModel(ImageEncoder):
    """A model of torchvision's whose last layer, the 1000-way linear one, is taken off.

    Where the input has other than 3 channels, the first convolution is made anew for them. Weights
    start as torchvision draws them; resnet18's by the network's own rule, which is the same one.

    Parameters
    ----------
    model : str
        Torchvision's name, e.g. ``resnet18``, ``mobilenet_v3_small``.
    shape : tuple of int
        One input, (C, H, W) or (F, C, H, W).

    Raises
    ------
    InputError
        If the input is something else.
    ValueError
        If the model has no such layer, or no convolution of 3 channels to replace.
    """

    prefix = "model."

    def __init__(
        self, model: str, shape: tuple[int, ...], vocabulary: int = 0, width: int = 0
    ) -> None:
        super().__init__()
        image = image_shape(shape)
        if image is None or vocabulary:
            raise InputError("images (C, H, W) or frames (F, C, H, W)")
        self.name, self.own_initialisation = model, model != "resnet18"
        self.model: nn.Module = _models().get_model(model, weights=None)
        self.width, classifier = self._take_off_classifier()
        self.unused = (f"{classifier}.",)
        if image[0] != 3:
            self._replace_first_convolution(image[0])

    def _take_off_classifier(self) -> tuple[int, str]:
        layers = [
            (name, m)
            for name, m in self.model.named_modules()
            if isinstance(m, nn.Linear) and m.out_features == _CLASSES
        ]
        if not layers:
            raise ValueError("its classifier does not end in a 1000-way linear layer to take off")
        name, layer = layers[-1]
        self.model.set_submodule(name, nn.Identity())
        return layer.in_features, name

    def _replace_first_convolution(self, channels: int) -> None:
        layers = [
            (name, m)
            for name, m in self.model.named_modules()
            if isinstance(m, nn.Conv2d) and m.in_channels == 3 and m.groups == 1
        ]
        if not layers:
            raise ValueError(f"it has no first convolution to make anew for {channels} channels")
        name, old = layers[0]
        new = nn.Conv2d(
            channels,
            old.out_channels,
            old.kernel_size,  # type: ignore[arg-type]
            stride=old.stride,  # type: ignore[arg-type]
            padding=old.padding,  # type: ignore[arg-type]
            dilation=old.dilation,  # type: ignore[arg-type]
            bias=old.bias is not None,
        )
        self.model.set_submodule(name, new)

    def encode(self, images: Tensor) -> Tensor:
        """Encode images (B, C, H, W) as features (B, D)."""
        features: Tensor = self.model(images)
        return features

    def published_weights(self) -> dict[str, Tensor]:
        """Fetch torchvision's weights, trained on ImageNet's images of 3 channels.

        Raises
        ------
        ValueError
            If they cannot be fetched.
        """
        try:
            model = _models().get_model(self.name, weights="DEFAULT")
        except (OSError, RuntimeError) as error:
            raise ValueError(f"torchvision's weights cannot be fetched: {error}") from None
        weights: dict[str, Tensor] = model.state_dict()
        return weights


@ENCODERS.register("resnet18")
def resnet18(shape: tuple[int, ...], vocabulary: int = 0, width: int = 0) -> VisionModel:
    """Return a ResNet-18 (He et al., CVPR 2016); 11,176,512 parameters for 3 channels, D = 512."""
    return VisionModel("resnet18", shape, vocabulary)


@ENCODERS.register("resnet18-audio")
def resnet18_audio(shape: tuple[int, ...], vocabulary: int = 0, width: int = 0) -> VisionModel:
    """Return a ResNet-18 for spectrograms; 11,170,240 parameters, D = 512.

    Raises
    ------
    InputError
        If the input is not (1, F, T), frequencies by time.
    """
    if len(shape) != 3 or shape[0] != 1 or vocabulary:
        raise InputError("spectrograms (1, F, T)")
    return VisionModel("resnet18", shape)


def vision_models() -> list[str]:
    """Return the names of torchvision's classification models."""
    names: list[str] = _models().list_models(module=_models())
    return names


def _models() -> Any:
    import torchvision  # a slow import

    return torchvision.models

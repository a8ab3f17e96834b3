"""Made-up data: two random pictures per sample, as large as real ones, kept as real ones are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field

from bmsfed_app.datasets import DATASETS, DatasetInfo, Source, SourceSettings, Split
from bmsfed_app.datasets.kinds import Image

CLASSES, MODALITIES = 10, ("left", "right")


class PictureSettings(SourceSettings):
    """How many there are to train on (a fifth as many to test), and their side."""

    samples: int = Field(4_000, ge=10)
    side: int = Field(224, ge=32)


class MadeUpPictures(Source):
    """Noise, a little lighter from class to class."""

    name = "made-up-pictures"
    summary = "random pictures, in pairs"
    obtain = "Made up."
    layout = "nothing"
    settings: ClassVar = PictureSettings

    def info(self, settings: PictureSettings) -> DatasetInfo:
        """Describe two modalities of pictures, as :class:`Image` normalises them."""
        kind = Image(settings.side, crop=False)
        return DatasetInfo(
            name=self.name,
            modalities=MODALITIES,
            num_classes=CLASSES,
            class_names=tuple(map(str, range(CLASSES))),
            shapes=dict.fromkeys(MODALITIES, kind.shape),
            renderers={m: kind.renderer(m) for m in MODALITIES},
            encoders=dict.fromkeys(MODALITIES, kind.encoder),
        )

    def load_split(self, split: str, data_dir: Path, seed: int, settings: Any) -> Split:
        """Draw a split; ``seed`` changes nothing."""
        n = settings.samples if split == "train" else settings.samples // 5
        rng, labels = torch.Generator().manual_seed(n), torch.arange(n) % CLASSES
        stores = {}
        for modality in MODALITIES:
            shape = (n, 3, settings.side, settings.side)
            noise = torch.randint(128, shape, generator=rng, dtype=torch.uint8)
            stores[f"{modality}.pixels"] = noise + 12 * labels.to(torch.uint8)[:, None, None, None]
            stores[f"{modality}.aspect"] = torch.ones(n)
        return Split(labels, stores, self.info(settings).renderers)


DATASETS.add(MadeUpPictures.name, MadeUpPictures())

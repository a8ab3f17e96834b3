"""A small CLIP-like model: a tower for pictures, a tower for texts, and a classifier over both."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from two_towers.data import CLASSES, VOCABULARY, Samples

WIDTH = 32


class TwoTowers(nn.Module):
    """Features of a modality that is left out are zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(16 * 16, WIDTH), nn.ReLU(),
        )  # fmt: skip
        self.bert = Transformer()
        self.classifier = nn.Linear(2 * WIDTH, CLASSES)

    def forward(
        self, image: Tensor, text: Tensor, modalities: Sequence[str] = ("image", "text")
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Features (B, 32) by modality, and logits (B, 10)."""
        features = {}
        if "image" in modalities:
            features["image"] = self.vision(image)
        if "text" in modalities:
            features["text"] = self.bert(text)
        nothing = torch.zeros(len(image), WIDTH)
        both = [features.get("image", nothing), features.get("text", nothing)]
        return features, self.classifier(torch.cat(both, dim=1))


class Transformer(nn.Module):
    """Mean over one transformer layer's outputs; token 0 is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(VOCABULARY), WIDTH, padding_idx=0)
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 64, dropout=0.0, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        """Features (B, 32) of token ids (B, L)."""
        return self.layer(self.embed(tokens)).mean(dim=1)


@torch.no_grad()
def accuracy(model: TwoTowers, data: Samples, modalities: Sequence[str]) -> float:
    """Share of the samples that the model gets right by these modalities alone."""
    model.eval()
    _, logits = model(data.image, data.text, modalities)
    return float((logits.argmax(dim=1) == data.label).float().mean())

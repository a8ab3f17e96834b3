"""Scikit-learn's handwritten digits with made-up captions; every third client lacks pictures.

A caption names its digit in a sentence, but three in ten name another: texts are the weak modality.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

CLASSES = 10
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
FILLERS = ["a", "the", "digit", "written", "by", "hand", "looks", "like", "maybe", "number"]
VOCABULARY = ["<pad>", *WORDS, *FILLERS]
LENGTH = 8
TEST = 360


@dataclass
class Samples:
    """Pictures (n, 1, 8, 8) in [0, 1], token ids (n, 8) and labels (n,)."""

    image: Tensor
    text: Tensor
    label: Tensor

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: Tensor) -> "Samples":
        return Samples(self.image[index], self.text[index], self.label[index])

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Mini-batches in random order."""
        for index in torch.randperm(len(self)).split(size):
            yield self.image[index], self.text[index], self.label[index]


@lru_cache
def everything() -> Samples:
    """All 1,797 digits with their captions, in a fixed random order."""
    rng = np.random.default_rng(0)
    pictures, labels = load_digits(return_X_y=True)
    order = rng.permutation(len(labels))
    pictures, labels = pictures[order].reshape(-1, 1, 8, 8) / 16, labels[order]
    said = np.where(rng.random(len(labels)) < 0.3, rng.integers(CLASSES, size=len(labels)), labels)
    tokens = rng.integers(1 + CLASSES, len(VOCABULARY), size=(len(labels), LENGTH))
    tokens[np.arange(len(labels)), rng.integers(LENGTH, size=len(labels))] = 1 + said
    return Samples(
        torch.tensor(pictures, dtype=torch.float32), torch.tensor(tokens), torch.tensor(labels)
    )


def test_samples() -> Samples:
    """The last 360 digits."""
    return everything()[torch.arange(len(everything()) - TEST, len(everything()))]


def modalities_of(client: int) -> tuple[str, ...]:
    """What a client holds."""
    return ("text",) if client % 3 == 2 else ("image", "text")


def client_samples(client: int, clients: int) -> Samples:
    """One client's share; pictures that it does not hold are black."""
    data = everything()[torch.arange(client, len(everything()) - TEST, clients)]
    if "image" not in modalities_of(client):
        data.image = torch.zeros_like(data.image)
    return data

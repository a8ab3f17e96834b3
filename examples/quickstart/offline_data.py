"""A stand-in for CIFAR-10 that needs no download: scikit-learn's digits, enlarged and coloured.

``python offline_data.py`` writes ``uoft-cs/cifar10/{train,test}.parquet`` into the current folder,
with CIFAR-10's columns ``img`` (32x32 RGB) and ``label`` (10 classes). Any process that runs there
and asks ``load_dataset`` or ``FederatedDataset`` for ``uoft-cs/cifar10`` gets these files: a local
folder of that name goes before the hub. They are digits and not CIFAR-10, so accuracies are not
those of CIFAR-10.
"""

from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from strategies.randomness import generator

FEATURES = Features({"img": Image(), "label": ClassLabel(names=[str(i) for i in range(10)])})


def colored(digits: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw gray pictures (N, 8, 8) in [0, 1] as (N, 32, 32, 3), each in two colours of its own."""
    large = np.kron(digits, np.ones((4, 4)))[..., None]
    ink = rng.uniform(0.5, 1, (len(digits), 1, 1, 3))
    paper = rng.uniform(0, 0.5, (len(digits), 1, 1, 3))
    return np.asarray(255 * (large * ink + (1 - large) * paper), np.uint8)


def write(folder: Path, copies: int = 4, seed: int = 0) -> None:
    """Write both splits below ``folder``.

    Parameters
    ----------
    copies : int, default 4
        Colourings of each training digit, >= 1; each test digit is drawn once.
    seed : int, default 0
        Draws the split and the colours.
    """
    pixels, labels = load_digits(return_X_y=True)
    parts = train_test_split(pixels, labels, test_size=360, stratify=labels, random_state=seed)
    train, test, train_labels, test_labels = parts
    target = folder / "uoft-cs" / "cifar10"
    target.mkdir(parents=True, exist_ok=True)
    for split, rows, classes, times in (
        ("train", train, train_labels, copies),
        ("test", test, test_labels, 1),
    ):
        digits = np.tile(rows.reshape(-1, 8, 8) / 16, (times, 1, 1))
        pictures = colored(digits, generator(seed, "colors", split))
        columns = {"img": list(pictures), "label": np.tile(classes, times)}
        Dataset.from_dict(columns, features=FEATURES).to_parquet(target / f"{split}.parquet")


if __name__ == "__main__":
    write(Path())

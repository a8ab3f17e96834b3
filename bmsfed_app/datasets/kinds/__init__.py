"""Kinds of modality: how each is decoded once, kept, and turned into model inputs.

A data set names a kind for each of its modalities; the rest (preparation, cache, batches) is
shared.
"""

from bmsfed_app.datasets.kinds.base import Kind, Rows
from bmsfed_app.datasets.kinds.numbers import Array, Series
from bmsfed_app.datasets.kinds.pictures import Frames, Image
from bmsfed_app.datasets.kinds.sound import Audio
from bmsfed_app.datasets.kinds.text import Text, clean

__all__ = ["Array", "Audio", "Frames", "Image", "Kind", "Rows", "Series", "Text", "clean"]

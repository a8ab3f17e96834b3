"""Text as token ids."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bmsfed_app.datasets import media
from bmsfed_app.datasets.base import DataError
from bmsfed_app.datasets.kinds.base import Kind, Rows

#: Words, and single signs that carry meaning: !, ?, %, emoji.
_WORD = re.compile(r"""\w+(?:['’]\w+)*|[^\w\s.,;:'"’“”()\[\]-]""")
_URL = re.compile(r"https?://\S+|www\.\S+")


@dataclass(frozen=True)
class Text(Kind):
    """Text as token ids (tokens,), 0 where it is over.

    Cleaned first: a leading RT, URLs and # signs go. ``tokenizer`` "hash" takes lower-case words
    and signs, and hashes each to one of ``buckets`` ids; "hf:NAME" takes the tokenizer of a Hugging
    Face model (name or folder), its ids plus 1. Values: a text, or a ``Path`` to a file of it.
    """

    tokens: int = 40
    tokenizer: str = "hash"
    buckets: int = 8192
    encoder: str = "text-hash"
    parts: tuple[str, ...] = ("ids",)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.tokens,)

    @property
    def vocabulary(self) -> int:  # type: ignore[override]
        if self.tokenizer == "hash":
            return self.buckets
        return len(_hf_tokenizer(self.tokenizer.removeprefix("hf:"))) + 1

    def decode(self, value: Any) -> Rows:
        ids = self._ids(self.caption(value))[: self.tokens]
        return {"ids": np.array(ids + [0] * (self.tokens - len(ids)), dtype=np.int32)}

    def caption(self, value: Any) -> str:
        """Return the text, cleaned."""
        return clean(media.read_text(value) if isinstance(value, Path) else str(value))

    def _ids(self, text: str) -> list[int]:
        if self.tokenizer == "hash":
            words = _WORD.findall(text.lower())
            return [1 + zlib.crc32(w.encode()) % (self.buckets - 1) for w in words]
        tokenizer = _hf_tokenizer(self.tokenizer.removeprefix("hf:"))
        found = tokenizer(text, truncation=True, max_length=self.tokens)["input_ids"]
        return [1 + int(i) for i in found]

    def render(self, *rows: Tensor) -> Tensor:
        return rows[0].long()


def clean(text: str) -> str:
    """Drop a leading RT, URLs and the signs # from a post."""
    return _URL.sub(" ", re.sub(r"^\s*RT\b", " ", text)).replace("#", " ").strip()


@lru_cache(maxsize=4)
def _hf_tokenizer(name: str) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise DataError(
            "a Hugging Face tokenizer needs transformers: pip install 'bmsfed[text]'"
        ) from None
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"no tokenizer '{name}' ({reason}): name a Hugging Face model or its local folder"
        ) from None

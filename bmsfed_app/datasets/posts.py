"""Posts of one text and one picture: what data sets of social media share."""

from __future__ import annotations

from pydantic import Field

from bmsfed_app.datasets.kinds import Image, Kind, Text
from bmsfed_app.datasets.prepared import PreparedSource
from bmsfed_app.datasets.source import PreparedSettings


class PostSettings(PreparedSettings):
    """How texts and pictures of posts are decoded."""

    side: int = Field(224, ge=32, description="side of a picture in pixels")
    tokens: int = Field(40, ge=1, description="longest text, in tokens")
    tokenizer: str = Field("hash", description="hash, or hf:NAME of a Hugging Face model")


class PostSource(PreparedSource):
    """A data set of posts."""

    def kinds(self, settings: PostSettings) -> dict[str, Kind]:
        """Return text, the stronger one, and image."""
        return {
            "text": Text(settings.tokens, settings.tokenizer),
            "image": Image(settings.side),
        }

"""Language models of Hugging Face's ``transformers`` as encoders of token ids.

Shape legend: B batch, L tokens of a text, D feature width.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from bmsfed_app.models.encoders.base import Encoder, InputError, masked_mean, padded_attention
from bmsfed_app.models.encoders.sequences import TOKENS


class HuggingFaceModel(Encoder):
    """A model by its name on the Hub, or in a folder, as its makers initialise it.

    Features are the mean of the last hidden states of the tokens that are no padding, 0 where all
    are. A pooling layer on top is left out. Only the configuration is read: every client needs it
    (in the same folder, or from the Hub), its weights come from the server.

    Parameters
    ----------
    model : str
        Name on the Hub, or folder with a ``config.json``.
    shape : tuple of int
        One input, (L,), of token ids.
    vocabulary : int
        Token ids, the model's own plus 1, are below it.

    Raises
    ------
    InputError
        If the input is something else, longer than the model takes, or of other tokens.
    ValueError
        If ``transformers`` is not installed, or the model cannot be had or returns no states.
    """

    own_initialisation = True
    prefix = "model."
    unused = ("pooler.",)

    def __init__(
        self, model: str, shape: tuple[int, ...], vocabulary: int = 0, width: int = 0
    ) -> None:
        super().__init__()
        if not vocabulary or len(shape) != 1:
            raise InputError(TOKENS)
        self.name = model
        config = copy.deepcopy(_config(model))
        if getattr(config, "is_encoder_decoder", False):
            raise ValueError("it also decodes: choose a model that only encodes or only decodes")
        known = getattr(config, "vocab_size", 0)
        if vocabulary - 1 > known:
            raise InputError(f"token ids below {known + 1}")
        self.model: Any = _transformers().AutoModel.from_config(config, dtype=torch.float32)
        if isinstance(getattr(self.model, "pooler", None), nn.Module):
            self.model.pooler = None
        if shape[0] > (longest := self._longest()):
            raise InputError(f"at most {longest} tokens")
        pad = config.pad_token_id
        self.padding = pad if isinstance(pad, int) and 0 <= pad < known else 0
        self.width = int(config.hidden_size)

    def _longest(self) -> float:
        """Return the most tokens that there are positions for."""
        longest = getattr(self.model.config, "max_position_embeddings", None)
        table = getattr(getattr(self.model, "embeddings", None), "position_embeddings", None)
        # Positions of RoBERTa and its kin begin behind that of padding.
        taken = getattr(table, "padding_idx", None)
        return float("inf") if longest is None else longest - (0 if taken is None else taken + 1)

    def forward(self, ids: Tensor) -> Tensor:
        """Encode token ids (B, L) as features (B, D)."""
        there, attended = padded_attention(ids)
        states: Tensor = self.model(
            input_ids=(ids - 1).masked_fill(~there, self.padding),
            # Libraries look into a mask, and meta tensors have no values to look at.
            attention_mask=None if ids.is_meta else attended.long(),
        ).last_hidden_state
        return masked_mean(states, there)

    def published_weights(self) -> dict[str, Tensor]:
        """Read the folder's weights, or fetch them from the Hub.

        Raises
        ------
        ValueError
            If there are none.
        """
        try:
            model = _transformers().AutoModel.from_pretrained(self.name, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise ValueError(f"its weights cannot be had: {_first(error)}") from None
        weights: dict[str, Tensor] = model.state_dict()
        return weights


@lru_cache
def _config(model: str) -> Any:
    """Read a configuration once: the Hub is asked each time."""
    try:
        return _transformers().AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise ValueError(f"its configuration cannot be had: {_first(error)}") from None


def _transformers() -> Any:
    try:
        return import_module("transformers")
    except ImportError:
        raise ValueError("it needs the package transformers: pip install 'bmsfed[text]'") from None


def _first(error: Exception) -> str:
    return str(error).strip().split("\n")[0]

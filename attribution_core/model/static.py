"""The route of a StaticEmbedding, which averages one vector a token: no layers, so the cut is at the embeddings.

The reference is the empty text. Its embedding is the mean of nothing, zero, for sentence-transformers too; so without a
Dense bias behind it the reference terms vanish and the attributions sum to the score. A padding token would be a poor
choice here: it was never part of any mean, its vector is arbitrary, and a mean of many is no shorter than itself. So
the setting ``reference`` is not used here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sentence_transformers.base.modules import Dense, Normalize
from torch import Tensor, nn

from attribution_core.errors import ModelError
from attribution_core.memory import LayerShape
from attribution_core.model.batch import TextBatch, padded
from attribution_core.model.encoder import Encoder
from attribution_core.model.families import STATIC, LayerParts
from attribution_core.model.modules import Role
from attribution_core.model.reading import Reader, tokens_of
from attribution_core.text.plain import Tokens
from attribution_core.text.tokenized import ReadText


class StaticEncoder(Encoder):
    """An encoder that has no layers: features are the vectors of tokens, and g is their mean and what is behind it.

    Raises:
        ModelError: where a Normalize makes g singular at the empty text.
    """

    def _cut(self, layer: int) -> None:
        if any(isinstance(module, Normalize) for module in self.head):
            raise ModelError(
                "a Normalize behind a static embedding has no derivative at the empty text, which is the reference; "
                + ("ask for similarity 'cosine'" if isinstance(self.head[-1], Normalize) else "it cannot be attributed")
            )
        self.pooling_modes = ("mean",)
        self.family = STATIC
        self.layers = []
        self.layer = 0
        self.above: list[nn.Module] = []
        self.top: list[nn.Module] = []
        self.tokenizer: Any = self.transformer.tokenizer
        self.pad_id = self.reference_id = 0
        self.reference_name = "the empty text (zero)"
        self.width = int(self.transformer.embedding_dim)

    @property
    def linear(self) -> bool:
        """Whether g is linear, so that one node is exact."""
        return all(isinstance(one, Dense) and isinstance(one.activation_function, nn.Identity) for one in self.head)

    def layer_parts(self) -> list[LayerParts] | None:
        """None: there are no layers."""
        return None

    def layer_shape(self) -> LayerShape:
        """What decides the memory that a token takes."""
        return LayerShape(self.width, self.width, 0, 0, torch.finfo(self.dtype).bits // 8)

    def _reader(self) -> Reader:
        return StaticReader(self.model, self.transformer, self.role, self.prompts)

    @torch.no_grad()
    def batch(self, texts: Sequence[ReadText], *, length: int | None = None) -> TextBatch:
        """Vectors of the texts' tokens; the reference has those of the prompt alone."""
        assert texts, "a batch has at least one text"
        b, s = len(texts), max(length or 0, 1, *(len(text) for text in texts))
        weight_Vd: Tensor = self.transformer.embedding.weight
        lengths_B = np.fromiter(map(len, texts), np.int64, b)
        mask_BS = self._on_device((np.arange(s) < lengths_B[:, None]).astype(np.int64))
        kept_BS = padded([text.kept_S for text in texts], s, 1) > 0
        x_BSd = F.embedding(self._on_device(padded([text.ids_S for text in texts], s)), weight_Vd)
        x_BSd = x_BSd * mask_BS.unsqueeze(-1)
        share_BS = mask_BS / mask_BS.sum(1, keepdim=True).clamp_min(1)
        return TextBatch(
            x_BSd=x_BSd,
            r_BSd=x_BSd * self._on_device(kept_BS).unsqueeze(-1),
            pool_BMS=share_BS.to(self.dtype).unsqueeze(1),
            mask_BS=mask_BS,
            moving_BS=np.where(kept_BS, -1, padded([text.of_token_S for text in texts], s, -1)),
            groups=max(text.group_count for text in texts),
            calls=(),
            pooled=s,
            # What is kept of the prompt, and of how many tokens it is a part.
            references=tuple((len(text), text.ids_S[text.kept_S].tobytes()) for text in texts),
        )


class StaticReader(Reader):
    """Reads texts without special tokens and whole."""

    def most_tokens(self, role: Role) -> int | None:
        """More than any text has."""
        return sys.maxsize

    def tokenise(self, texts: list[str], prompt: str, role: Role) -> tuple[Tokens, int | None]:
        """The tokens of prompt and text; a static model has no use for the prompt's length."""
        read = self.tokenizer.encode_batch([prompt + text for text in texts], add_special_tokens=False)
        # Nothing is added, so that special tokens written in a text are text.
        return tokens_of(read, types=False), None

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def name_tokens(self, whole: str, ids: list[int]) -> Sequence[str]:
        """What the tokenizer calls the tokens of a prompt and a text; an unknown one may be called as it is written."""
        if self._as_written.isdisjoint(ids):
            return self.known_names(ids)
        names: list[str] = self.tokenizer.encode(whole, add_special_tokens=False).tokens
        return names

    @cached_property
    def _as_written(self) -> set[int | None]:
        """Ids whose token may be called as it is written in the text: the unknown one, and added ones."""
        model = self.tokenizer.model
        unknown = {getattr(model, "unk_id", None), self.tokenizer.token_to_id(getattr(model, "unk_token", None) or "")}
        return unknown | set(self.tokenizer.get_added_tokens_decoder())

    def _vocabulary(self, ids: list[int]) -> list[str]:
        return [self.tokenizer.id_to_token(one) for one in ids]

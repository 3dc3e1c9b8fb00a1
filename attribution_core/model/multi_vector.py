"""The route of a late-interaction model (MultiVectorEncoder), which has an embedding for each token.

Its g gives all outputs, concatenated: E [S · D], zero where an output is not scored. With the matches of a pair fixed,
its score is then a product of two such embeddings (:mod:`attribution_core.pairs.late`), so all that is computed for
one vector a text serves here too. Normalize belongs to g.

What is read is what the model's own ``encode_query`` and ``encode_document`` read: queries are filled up with the
expansion token, and its own MultiVectorMask says which outputs are scored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import BaseTokenPooling, MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Dropout
from torch import Tensor, nn

from attribution_core.errors import ModelError
from attribution_core.model.batch import TextBatch, padded
from attribution_core.model.embedding import embeddings_of
from attribution_core.model.encoder import Encoder, ReadText, Role
from attribution_core.model.modules import AnyModel, check_transformer, route_of
from attribution_core.model.reading import Reader
from attribution_core.text.expansion import expanded
from attribution_core.text.grouping import Unit

NOTHING_SCORED = "no token left to score: the model's skip list drops every token"
TOKENS = "token_embeddings"


class LateEncoder(Encoder):
    """An encoder with an output for each token; ``embedding_width`` is that of one output.

    Raises:
        ModelError: where one of the model's modules cannot be attributed, with the reason.
    """

    def _find_modules(self) -> None:
        modules = route_of(self.model, self.role)
        names = " → ".join(type(module).__name__ for module in modules)
        if not modules or not isinstance(modules[0], Transformer):
            raise ModelError(f"the model's modules are {names}; supported: Transformer → (Dense, Normalize)")
        check_transformer(modules[0])
        self.transformer: Any = modules[0]
        self.pooling = None
        self.masks = [module for module in modules if isinstance(module, MultiVectorMask)]
        self.head = [module for module in modules[1:] if not isinstance(module, (MultiVectorMask, Dropout))]
        for module in self.head:
            if isinstance(module, BaseTokenPooling):
                raise ModelError(
                    f"module {type(module).__name__} cannot be attributed: it merges output tokens by clusters that "
                    "depend on the text; load the model without it"
                )
            if not isinstance(module, (Dense, Normalize)):
                raise ModelError(f"module {type(module).__name__} of a late-interaction model cannot be attributed")
            if not module.module_input_name == module.module_output_name == TOKENS:
                raise ModelError(
                    f"module {type(module).__name__} reads {module.module_input_name!r} and writes "
                    f"{module.module_output_name!r}; in a late-interaction model both must be {TOKENS!r}"
                )
        if self.expansion is not None and self.transformer.tokenizer.padding_side == "left":
            raise ModelError("a model that pads on the left and expands its queries cannot be attributed")

    def _modes(self) -> tuple[str, ...]:
        return ()

    @property
    def has_lift(self) -> bool:
        """False: MaxSim of a text with itself is no part of its score with another."""
        return False

    @property
    def expansion(self) -> dict[str, Any] | None:
        """How queries are filled up: sentence-transformers' ``query_expansion``, None where they are not."""
        found: dict[str, Any] | None = getattr(self.transformer, "query_expansion", None)
        return found

    @property
    def expansion_token(self) -> tuple[int, str]:
        """The token that queries are filled up with, its id and its name, by sentence-transformers' rules."""
        tokenizer = self.transformer.tokenizer
        own = (self.expansion or {}).get("token")
        name = own or tokenizer.mask_token or tokenizer.eos_token or tokenizer.pad_token
        return int(tokenizer.convert_tokens_to_ids(name)), str(name)

    def _reader(self) -> Reader:
        return LateReader(self, self.model, self.transformer, self.role, self.prompts)

    def _pool_weights(self, mask_BS: Tensor, texts: Sequence[ReadText]) -> Tensor:
        """Which outputs are scored, as weights [B, 1, S]."""
        scored_BS = padded([_scored(text) for text in texts], mask_BS.shape[1])
        return self._on_device(scored_BS).to(self.dtype).unsqueeze(1)

    def g(self, hidden_BSd: Tensor, batch: TextBatch, *, copies: int = 1) -> Tensor:
        """All outputs, concatenated, [B, S · D], from features at the cut; zero where an output is not scored."""
        outputs_BSD = self.embed_tokens(self.token_embeddings(hidden_BSd, batch, copies))
        return (outputs_BSD * batch.pool_BMS[:, 0].repeat_interleave(copies, 0).unsqueeze(-1)).flatten(1)

    def embed_tokens(self, hidden: Tensor) -> Tensor:
        """The modules behind the transformer: Dense modules and Normalize, [..., D] from [..., d]."""
        for module in self.head:
            hidden = module({TOKENS: hidden})[TOKENS]
        return hidden

    @property
    def embedding_width(self) -> int:
        """D, the number of values of one output token."""
        sized = [module for module in (self.transformer, *self.head) if hasattr(module, "get_embedding_dimension")]
        return int(sized[-1].get_embedding_dimension())

    def embedding_size(self, text: ReadText) -> int:
        """How many values the embedding of a text has: D for each of its tokens."""
        return len(text) * self.embedding_width

    def outputs(self, texts: Sequence[ReadText]) -> list[NDArray[Any]]:
        """The scored outputs of each text, [T, D]: what the model's own encode_query or encode_document gives."""
        embedded = zip(texts, embeddings_of(self, texts), strict=True)
        return [values.reshape(len(text), -1)[_scored(text)] for text, values in embedded]

    def fingerprint(self) -> str:
        """A hash of everything that decides attributions, what is scored among it."""
        rules = [(mask.skiplist_words, mask.skiplist_tasks, mask.keep_only_token_ids) for mask in self.masks]
        facts = repr((super().fingerprint(), sorted((self.expansion or {}).items()), rules))
        return hashlib.sha256(facts.encode()).hexdigest()[:32]


class LateReader(Reader):
    """Reads texts as a late-interaction model does: expanded queries, and which outputs are scored."""

    def __init__(
        self,
        encoder: LateEncoder,
        model: AnyModel,
        transformer: Any,
        route: Role,
        prompts: dict[str, str | None],
    ) -> None:
        super().__init__(model, transformer, route, prompts)
        self._expansion, self._expansion_token = encoder.expansion, encoder.expansion_token
        self._masks: list[nn.Module] = list(encoder.masks)

    def most_tokens(self, role: Role) -> int | None:
        """How many tokens the model reads of a text in this role; a fixed expansion is the limit of queries."""
        if role == "query" and self._expansion is not None and self._expansion["strategy"] == "fixed":
            return int(self._expansion["length"])
        return super().most_tokens(role)

    def read(self, texts: Sequence[str], role: Role, unit: Unit) -> list[ReadText]:
        """Tokenise texts by the model's own rules for a role; a text without a scored output has a problem."""
        read = super().read(texts, role, unit)
        expansion = self._expansion if role == "query" else None
        if expansion is not None:
            token_id, name = self._expansion_token
            length, attend = int(expansion["length"]), bool(expansion.get("attend"))
            read = [expanded(text, token_id, name, length, attend=attend) for text in read]
        for text in read:
            text.scored_S = self._scored(text, role)
            if text.problem is None and not text.scored_S.any():
                text.problem = NOTHING_SCORED
        return read

    def _scored(self, text: ReadText, role: Role) -> NDArray[np.bool_]:
        """Which outputs the model scores, by its own masks."""
        there = np.ones(len(text), np.bool_) if text.attended_S is None else text.attended_S
        features: dict[str, Any] = {
            "input_ids": torch.from_numpy(text.ids_S.astype(np.int64)[None]),
            "attention_mask": torch.from_numpy(there.astype(np.int64)[None]),
            "query_expansion_positions": torch.from_numpy(~there[None]),
        }
        for mask in self._masks:
            features = mask(features, task=None if role == "text" else role)
        scored: NDArray[np.bool_] = features["attention_mask"][0].bool().numpy()
        return scored


def _scored(text: ReadText) -> NDArray[np.bool_]:
    assert text.scored_S is not None, "a late-interaction model's own reader read the text"
    return text.scored_S

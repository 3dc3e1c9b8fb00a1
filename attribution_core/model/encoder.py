"""A loaded SentenceTransformer cut at a layer: what it reads, the features at the cut, the reference, and g.

The encoder e is split as e = g ∘ h. h reads a text and gives features x [S, d] at the input of layer ``layer``; g is
everything above: the remaining layers, pooling, Dense heads. The reference r is h of the same token ids with every
token but special and prompt tokens replaced by one token, that of padding by default, at the same length and under
full attention.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from attribution_core.byte_cache import ByteCache
from attribution_core.errors import SettingError
from attribution_core.memory import LayerShape
from attribution_core.model.batch import (
    Shared,
    TextBatch,
    by_reference,
    finite_in_float32,
    most_pooled,
    padded,
    pick_rows,
    repeat_rows,
)
from attribution_core.model.families import Family, LayerParts, family_of, hidden_of
from attribution_core.model.inspection import INNER_WIDTHS, first_layer_above
from attribution_core.model.modules import (
    POOLING_MODES,
    AnyModel,
    Role,
    Similarity,
    cut_modules,
    is_shifted,
    pooling_modes,
    route_of,
    similarity_of,
    text_lengths,
)
from attribution_core.model.reading import Reader
from attribution_core.text.grouping import Unit
from attribution_core.text.reference import reference_token
from attribution_core.text.tokenized import ReadText

REFERENCE_BYTES = 64 << 20

__all__ = ["POOLING_MODES", "Encoder", "ReadText", "Role", "Similarity", "route_of"]


class _ReachedCut(Exception):  # noqa: N818 - a signal, not an error
    """Ends a forward pass as soon as the features at the cut are known."""


class Encoder:
    """A private float copy of a model with eager attention; the caller's model stays as it was.

    ``reference`` says which token replaces every word in a reference: pad, unk, mask, or a word of one token.
    ``role`` says whose route is taken through a model with a Router; ``model`` is used as it is where it is already a
    ``private`` copy, so that the encoders of two routes share one.

    Raises:
        ModelError: where the model cannot be attributed, with the reason.
        SettingError: where ``similarity``, a prompt or a dtype is not one that is allowed.
    """

    def __init__(
        self,
        model: AnyModel,
        *,
        layer: int = -2,
        similarity: str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        prompts: dict[str, str | None] | None = None,
        reference: str = "pad",
        role: Role = "text",
        private: bool = False,
    ) -> None:
        self.device = torch.device(device) if device is not None else model.device
        self.model = model if private else copy.deepcopy(model).to(self.device).to(dtype).eval()
        self.role = role
        self.dtype = dtype
        self.prompts = prompts or {}
        self.similarity: Similarity = similarity_of(model, similarity)
        self._find_modules()
        self._references: ByteCache[Any, Tensor] = ByteCache(REFERENCE_BYTES)
        self._shifts: ByteCache[Any, Tensor] = ByteCache(REFERENCE_BYTES)
        self.shifted = is_shifted([self.transformer])
        self.reference = reference
        self._cut(layer)
        self.reader = self._reader()

    def _find_modules(self) -> None:
        """Find the transformer, what pools behind it, and the modules behind that."""
        self.transformer, self.pooling, self.head = cut_modules(self.model, self.role, self.similarity)

    def _modes(self) -> tuple[str, ...]:
        return pooling_modes(self.pooling)

    def _cut(self, layer: int) -> None:
        """Find the layers and the token that replaces words in a reference."""
        self.pooling_modes = self._modes()
        backbone = self.transformer.model
        self.family: Family = family_of(backbone)
        backbone.set_attn_implementation("eager")
        backbone.config.use_cache = False
        self.layers = self.family.find_layers(backbone)
        self.layer = first_layer_above(layer, len(self.layers))
        self.above: list[nn.Module] = self.family.find_above(backbone, self.layer)
        self.top: list[nn.Module] = self.family.find_top(backbone)
        # A Router's own tokenizer is that of its first route.
        self.tokenizer = self.transformer.tokenizer
        self.reference_id, self.reference_name = reference_token(self.tokenizer, self.reference)
        self.pad_id = int(self.tokenizer.pad_token_id)
        if self.shifted and self.reference_id != self.pad_id:
            raise SettingError(
                f"reference {self.reference!r}: this model was fine-tuned against padding, and is exact against that "
                "alone; take 'pad'"
            )
        self.width = self.family.width(backbone, len(self.above))

    @property
    def layer_count(self) -> int:
        """How many layers there are to cut between."""
        return len(self.layers)

    @property
    def linear(self) -> bool:
        """Whether g is linear, so that one node is exact."""
        return False

    @property
    def has_lift(self) -> bool:
        """Whether lifts are told of its texts, which need products with a text's own embedding."""
        return True

    @property
    def takes_maxima(self) -> bool:
        """Whether a pooling mode is max, so that g has kinks."""
        return "max" in self.pooling_modes

    def layer_parts(self) -> list[LayerParts] | None:
        """The weights of the layers above the cut, where all are of BERT's kind and as they were made."""
        if self.family.parts is None:
            return None
        parts = [part for layer in self.above for part in self.family.parts(layer)]
        return parts if parts and all(part.plain for part in parts) else None

    def layer_shape(self) -> LayerShape:
        """The sizes that decide how much memory a token needs."""
        config = self.transformer.model.config.get_text_config()
        return LayerShape(
            d=max(self.width, int(config.num_attention_heads) * _head_width(self.layers)),
            inner=_inner_width(config) or 4 * self.width,
            heads=int(config.num_attention_heads),
            layers=len(self.above),
            bytes=torch.finfo(self.dtype).bits // 8,
            positions=_scored_positions(config),
        )

    # Reading -----------------------------------------------------------------------------------------------------

    def _reader(self) -> Reader:
        return Reader(self.model, self.transformer, self.role, self.prompts)

    def forget_references(self) -> None:
        """Drop the references that were computed for earlier texts."""
        self._references.clear()
        self._shifts.clear()

    def read(self, texts: Sequence[str], role: Role, unit: Unit) -> list[ReadText]:
        """Tokenise texts by the model's own rules for a role, with offsets, kinds and groups."""
        return self.reader.read(texts, role, unit)

    def prompt(self, role: Role) -> str:
        """Return the prompt put before a text of this role: the one asked for, or the model's own."""
        return self.reader.prompt(role)

    def most_tokens(self, role: Role) -> int | None:
        """How many tokens the model reads of a text in this role; None where that is not known."""
        return self.reader.most_tokens(role)

    # Features ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def batch(self, texts: Sequence[ReadText], *, length: int | None = None) -> TextBatch:
        """Features of texts and references at the cut; ``length`` pads further than the longest text needs."""
        assert texts, "a batch has at least one text"
        assert len({text.prompt_length for text in texts}) == 1, "one batch holds texts of one prompt length"
        b, s = len(texts), max(length or 0, *(len(text) for text in texts))
        lengths_B = np.fromiter(map(len, texts), np.int64, b)
        ids_BS = padded([text.ids_S for text in texts], s, self.pad_id)
        kept_BS = padded([text.kept_S for text in texts], s, 1) > 0
        blank_BS = np.where(kept_BS, ids_BS, self.reference_id)
        # Any row of a text may differ from its reference's: it attends to others, or, as in RoBERTa's embeddings, its
        # position is counted without padding.
        moves_B1 = (ids_BS != blank_BS).any(1, keepdims=True)
        types_BS = None if texts[0].types_S is None else padded([_known(text.types_S) for text in texts], s)
        there_BS = np.arange(s) < lengths_B[:, None]
        attended_BS = there_BS.astype(np.int64)
        partly = any(text.attended_S is not None for text in texts)
        if partly:
            attended_BS = padded([_attended(text) for text in texts], s)
        known = (blank_BS, types_BS, attended_BS if partly else None)
        references = tuple(
            (n, *(None if rows is None else rows[at, :n].tobytes() for rows in known))
            for at, n in enumerate(lengths_B.tolist())
        )
        distinct = dict(zip(references, range(b), strict=True))
        fresh = {one: row for one, row in distinct.items() if one not in self._references}
        # A text without a replaced token is its own reference.
        more = [row for row in fresh.values() if moves_B1[row, 0]]
        mask_RS = self._on_device(np.concatenate([attended_BS, attended_BS[more]]))
        features: dict[str, Any] = {
            "input_ids": self._on_device(np.concatenate([ids_BS, blank_BS[more]])),
            "attention_mask": mask_RS,
            "modality": "text",
        }
        if types_BS is not None:
            features["token_type_ids"] = self._on_device(np.concatenate([types_BS, types_BS[more]]))
        hidden, calls = self._run_to_cut(features, b)
        behind = dict(zip(more, range(b, b + len(more)), strict=True))
        for one, row in fresh.items():
            self._references[one] = hidden[behind.get(row, row), : one[0]].clone()
        known_USd = pad_sequence([self._references[one] for one in distinct], batch_first=True)
        known_USd = F.pad(known_USd, (0, 0, 0, s - known_USd.shape[1]))
        self._references.shrink()
        place = {one: at for at, one in enumerate(distinct)}
        which_B = self._on_device(np.fromiter(map(place.__getitem__, references), np.int64, b))
        mask_BS = mask_RS[:b]
        # Where a row is padded the text is its own reference, so that nothing moves there.
        r_BSd = torch.where(self._on_device(there_BS).unsqueeze(-1), known_USd[which_B], hidden[:b])
        pool_BMS = self._pool_weights(mask_BS, texts)
        batch = TextBatch(
            x_BSd=hidden[:b],
            r_BSd=r_BSd,
            pool_BMS=pool_BMS,
            mask_BS=mask_BS,
            moving_BS=np.where(moves_B1, padded([text.of_token_S for text in texts], s, -1), -1),
            groups=max(text.group_count for text in texts),
            calls=calls,
            pooled=most_pooled(pool_BMS),
            references=references,
            prompt_length=texts[0].prompt_length,
        )
        return replace(batch, shift_BD=self._shift(batch)) if self.shifted else batch

    def _on_device(self, values: NDArray[Any]) -> Tensor:
        """Whole numbers or truth values on the encoder's device."""
        return torch.from_numpy(values).to(self.device)

    def _shift(self, batch: TextBatch) -> Tensor:
        """What a shifted model subtracts behind pooling: the pooled token embeddings of each reference, [B, M·d]."""

        def pooled(rows: list[int]) -> Tensor:
            part = batch.select(rows)
            return self._pooled(part.r_BSd, part, 1)

        return by_reference(self._shifts, batch.references, pooled)

    def _run_to_cut(self, features: dict[str, Any], b: int) -> tuple[Tensor, tuple[Any, ...]]:
        """Hidden states at the cut for all rows, and each upper layer's further arguments for the first ``b``."""
        hidden: list[Tensor] = []
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        below = self.layer

        def capture(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            nonlocal below
            if self.family.casts and self.dtype == torch.float64:
                args, kwargs = finite_in_float32(args), finite_in_float32(kwargs)
            if below:  # one layer may be called many times, so calls are counted
                below -= 1
                return args, kwargs
            if not hidden:
                hidden.append(args[0])
            rows, further = len(hidden[0]), args[1:]
            if self.family.beside:
                hidden.append(args[1])
                further = args[2:]
            shared = {name: Shared(value) for name, value in kwargs.items() if name in self.family.shared}
            calls.append((pick_rows(further, rows, slice(b)), pick_rows(kwargs | shared, rows, slice(b))))
            if self.family.uniform or len(calls) == len(self.above):
                raise _ReachedCut
            return args, kwargs

        hooks = [one.register_forward_pre_hook(capture, with_kwargs=True) for one in dict.fromkeys(self.layers)]
        try:
            (self.transformer.unshifted if self.shifted else self.transformer)(features)
        except _ReachedCut:
            if self.family.uniform:
                calls = calls * len(self.above)
        finally:
            for hook in hooks:
                hook.remove()
        return hidden[0] if len(hidden) == 1 else torch.cat(hidden, -1), tuple(calls)

    def _pool_weights(self, mask_BS: Tensor, texts: Sequence[ReadText]) -> Tensor:
        """What the model's own pooling does to token embeddings, as weights [B, M, S].

        Every pooling mode but max sums rows with weights that depend on the mask alone, so pooling the rows of an
        identity matrix reads the weights off. For max these are ones for the rows that it looks at.
        """
        b, s = mask_BS.shape
        eye_BSS = torch.eye(s, dtype=self.dtype, device=self.device).expand(b, s, s)
        return self._pool(eye_BSS, mask_BS, texts[0].prompt_length).view(b, -1, s)

    def _pool(self, tokens_BSd: Tensor, mask_BS: Tensor, prompt_length: int | None) -> Tensor:
        """The model's own pooling, [B, M·d]."""
        features: dict[str, Any] = {"token_embeddings": tokens_BSd, "attention_mask": mask_BS}
        if prompt_length is not None:
            features["prompt_length"] = prompt_length
        pooled: Tensor = self.pooling(features)["sentence_embedding"]
        return pooled

    # g -----------------------------------------------------------------------------------------------------------

    def g(self, hidden_BSd: Tensor, batch: TextBatch, *, copies: int = 1) -> Tensor:
        """Embeddings [B, D] from features at the cut, without the trailing Normalize where similarity is cosine.

        With ``copies`` > 1 the first axis holds that many rows of each text one after another, [B·copies, S, d].
        """
        pooled_BD = self._pooled(hidden_BSd, batch, copies)
        if batch.shift_BD is not None:
            pooled_BD = pooled_BD - batch.shift_BD.repeat_interleave(copies, 0)
        return self.embed_pooled(pooled_BD)

    def _pooled(self, hidden_BSd: Tensor, batch: TextBatch, copies: int) -> Tensor:
        """The upper layers and pooling, [B, M·d], without a shift."""
        return self.pool(self.token_embeddings(hidden_BSd, batch, copies), batch, copies)

    def token_embeddings(self, hidden_BSd: Tensor, batch: TextBatch, copies: int) -> Tensor:
        """The upper layers, [B, S, d]."""
        for layer, (args, kwargs) in zip(self.above, batch.calls, strict=True):
            args, kwargs = repeat_rows(args, len(batch.x_BSd), copies), repeat_rows(kwargs, len(batch.x_BSd), copies)
            hidden_BSd = hidden_of(layer(hidden_BSd, *args, **kwargs))
        for module in self.top:
            hidden_BSd = module(hidden_BSd)
        return hidden_BSd

    def pool(self, tokens_BSd: Tensor, batch: TextBatch, copies: int) -> Tensor:
        """Pooling of token embeddings, [B, M·d]."""
        if self.takes_maxima:  # for which there are no weights
            mask_BS = repeat_rows(batch.mask_BS, len(batch.x_BSd), copies)
            return self._pool(tokens_BSd, mask_BS, batch.prompt_length)
        pool_BMS = repeat_rows(batch.pool_BMS, len(batch.x_BSd), copies)
        return (pool_BMS @ tokens_BSd).flatten(1)

    def embed_pooled(self, pooled_BD: Tensor) -> Tensor:
        """The head behind pooling: Dense modules, inner Normalize, truncation."""
        for module in self.head:
            pooled_BD = module({"sentence_embedding": pooled_BD})["sentence_embedding"]
        if self.truncated_to is not None:
            pooled_BD = pooled_BD[..., : self.truncated_to]
        return pooled_BD

    @property
    def embedding_width(self) -> int:
        """D, the number of values of one embedding."""
        sized = [module for module in (self.pooling, *self.head) if hasattr(module, "get_embedding_dimension")]
        full = int(sized[-1].get_embedding_dimension())
        return min(full, self.truncated_to or full)

    @property
    def truncated_to(self) -> int | None:
        """How many values of an embedding are kept, where not all are."""
        found: int | None = getattr(self.model, "truncate_dim", None)
        return found

    def embedding_size(self, text: ReadText) -> int:
        """How many values the embedding of a text has."""
        return self.embedding_width

    def fingerprint(self) -> str:
        """A hash of weights, modules and tokenizer: two models with the same one give the same attributions."""
        digest = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
        digest.update(repr(self.model).encode())
        digest.update(repr((sorted(self.model.prompts.items()), self.model.default_prompt_name)).encode())
        digest.update(
            repr(
                (
                    self.model.max_seq_length,
                    self.truncated_to,
                    text_lengths(self.model),
                    self.tokenizer.get_vocab_size()
                    if hasattr(self.tokenizer, "get_vocab_size")
                    else len(self.tokenizer),
                )
            ).encode()
        )
        return digest.hexdigest()[:32]


def _attended(text: ReadText) -> NDArray[np.bool_]:
    return np.ones(len(text), np.bool_) if text.attended_S is None else text.attended_S


def _known(types_S: NDArray[Any] | None) -> NDArray[Any]:
    assert types_S is not None, "all texts of one model have token types, or none has"
    return types_S


def _head_width(layers: list[nn.Module]) -> int:
    """The width of an attention head, which may differ from layer to layer; 0 where it is the hidden width's share."""
    return max(int(getattr(module, "head_dim", 0)) for layer in layers for module in layer.modules())


def _inner_width(config: Any) -> int:
    """The width of a layer's feed-forward block; 0 where the configuration calls it by another name."""
    return next((int(width) for name in INNER_WIDTHS if (width := getattr(config, name, None))), 0)


def _scored_positions(config: Any) -> int:
    """How many relative positions a layer of DeBERTa's kind scores for each token; 0 elsewhere."""
    if not getattr(config, "relative_attention", False):
        return 0
    buckets = max(getattr(config, "position_buckets", -1), 0)
    most = getattr(config, "max_relative_positions", -1)
    span = buckets or (most if most > 0 else config.max_position_embeddings)
    return 2 * span * len(getattr(config, "pos_att_type", None) or ())

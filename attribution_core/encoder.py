"""A loaded SentenceTransformer cut at a layer: what it reads, the features at the cut, the reference, and g.

The encoder e is split as e = g ∘ h. h reads a text and gives features x [S, d] at the input of layer ``layer``; g is
everything above: the remaining layers, pooling, Dense heads. The reference r is h of the same token ids with every
token but special and prompt tokens replaced by the padding token, at the same length and under full attention.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attribution_core.architectures import Family, family_of, first_layer_above, hidden_of
from attribution_core.batch import TextBatch, pick_rows, repeat_rows
from attribution_core.errors import ModelError
from attribution_core.grouping import Groups, Kind, Unit, group_tokens
from attribution_core.memory import RecentTensors
from attribution_core.modules import (
    POOLING_MODES,
    Role,
    Similarity,
    cut_modules,
    is_shifted,
    pooling_modes,
    route_of,
    similarity_of,
    text_lengths,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

READ_AT_ONCE = 512
REFERENCE_BYTES = 64 << 20

__all__ = ["POOLING_MODES", "Encoder", "ReadText", "Role", "Similarity", "route_of"]


@dataclass(frozen=True, eq=False)
class ReadText:
    """One text as the tokenizer read it.

    ``ids``, ``types``, ``kept``, ``tokens`` and ``groups.of_token`` have one entry a token; ``kept`` marks the
    tokens that the reference keeps. ``problem`` says why the text cannot be attributed, if so.
    """

    text: str
    role: Role
    prompt: str
    prompt_length: int | None
    ids: tuple[int, ...]
    types: tuple[int, ...] | None
    kept: tuple[bool, ...]
    tokens: tuple[str, ...]
    groups: Groups
    truncated: bool
    cut_at: int | None
    problem: str | None

    def __len__(self) -> int:
        return len(self.ids)

    def reference(self, pad_id: int) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
        """Ids and types of the reference: kept tokens stay, every other one becomes padding.

        Texts of one length mostly share theirs, so it is the key under which its features are kept.
        """
        ids = tuple(one if kept else pad_id for one, kept in zip(self.ids, self.kept, strict=True))
        return ids, self.types


class _ReachedCut(Exception):  # noqa: N818 - a signal, not an error
    """Ends a forward pass as soon as the features at the cut are known."""


class Encoder:
    """A private float copy of a model with eager attention; the caller's model stays as it was.

    ``role`` says whose route is taken through a model with a Router; ``model`` is used as it is where it is already a
    ``private`` copy, so that the encoders of two routes share one.

    Raises:
        ModelError: where the model cannot be attributed, with the reason.
        SettingError: where ``similarity``, a prompt or a dtype is not one that is allowed.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        layer: int = -2,
        similarity: str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        prompts: dict[str, str | None] | None = None,
        role: Role = "text",
        private: bool = False,
    ) -> None:
        self.device = torch.device(device) if device is not None else model.device
        self.model = model if private else copy.deepcopy(model).to(self.device).to(dtype).eval()
        self.role = role
        self.dtype = dtype
        self.prompts = prompts or {}
        self.similarity: Similarity = similarity_of(model, similarity)
        self.transformer, self.pooling, self.head = cut_modules(self.model, role, self.similarity)
        self.pooling_modes = pooling_modes(self.pooling)
        self.shifted = is_shifted([self.transformer])
        backbone = self.transformer.model
        self.family: Family = family_of(backbone)
        backbone.set_attn_implementation("eager")
        self.layers = self.family.find_layers(backbone)
        self.layer = first_layer_above(layer, len(self.layers))
        self.above: list[nn.Module] = list(self.layers[self.layer :])
        # A Router's own tokenizer is that of its first route.
        self.tokenizer = self.transformer.tokenizer
        if self.tokenizer.pad_token_id is None:
            raise ModelError("the tokenizer has no padding token, so there is no reference to attribute against")
        self.pad_id = int(self.tokenizer.pad_token_id)
        self.width = int(backbone.config.hidden_size)
        self._references = RecentTensors(REFERENCE_BYTES)
        self._shifts = RecentTensors(REFERENCE_BYTES)

    # Reading -----------------------------------------------------------------------------------------------------

    def read(self, texts: Sequence[str], role: Role, unit: Unit) -> list[ReadText]:
        """Tokenise texts by the model's own rules for a role, with offsets, kinds and groups."""
        read: list[ReadText] = []
        for at in range(0, len(texts), READ_AT_ONCE):
            read.extend(self._read_some(list(texts[at : at + READ_AT_ONCE]), role, unit))
        return read

    def prompt(self, role: Role) -> str:
        """The prompt put before a text of this role, by the rules of encode, encode_query or encode_document.

        What was asked for is the name of one of the model's prompts, or else the prompt itself.
        """
        asked = self.prompts.get(role)
        if asked is not None:
            return self.model.prompts.get(asked, asked) or ""
        names = {"text": (), "query": ("query",), "document": ("document", "passage", "corpus")}[role]
        for name in names:
            if name in self.model.prompts:
                return self.model.prompts[name] or ""
        if self.model.default_prompt_name is not None:
            return self.model.prompts.get(self.model.default_prompt_name) or ""
        return ""

    def _read_some(self, texts: list[str], role: Role, unit: Unit) -> list[ReadText]:
        prompt = self.prompt(role)
        # A text without a role goes the way of this encoder's route.
        task: dict[str, str] = {"task": role if role != "text" else self.role}
        task = {} if task["task"] == "text" else task
        read = self._preprocess(texts, prompt, task)
        prompt_length = read.get("prompt_length")
        limit = self._most_tokens(role)
        found: list[ReadText] = []
        for row, text in enumerate(texts):
            length = int(read["attention_mask"][row].sum())
            seen = read["attention_mask"][row].bool()
            ids = read["input_ids"][row][seen].tolist()
            added = read["special_tokens_mask"][row][seen].tolist()
            spans = [(a - len(prompt), b - len(prompt)) for a, b in read["offset_mapping"][row][seen].tolist()]
            assert len(ids) == length
            kinds: list[Kind] = [
                "special" if add else "prompt" if end <= 0 and prompt else "text"
                for add, (_, end) in zip(added, spans, strict=True)
            ]
            tokens = self.tokenizer.convert_ids_to_tokens(ids)
            last = max((end for (_, end), kind in zip(spans, kinds, strict=True) if kind == "text"), default=0)
            # A full row alone does not tell: the text may just fit. Nor does text behind the last token: normalisers
            # shift offsets by a combining mark.
            full = limit is None or length >= limit
            truncated = full and bool(text[last:].strip()) and self._has_tokens(text[last:])
            problem = None if "text" in kinds else "no token to attribute"
            if problem and truncated:
                problem = "the prompt leaves no room for the text"
            found.append(
                ReadText(
                    text=text,
                    role=role,
                    prompt=prompt,
                    prompt_length=None if prompt_length is None else int(prompt_length),
                    ids=tuple(ids),
                    types=tuple(read["token_type_ids"][row][seen].tolist()) if "token_type_ids" in read else None,
                    kept=tuple(kind != "text" for kind in kinds),
                    tokens=tuple(tokens),
                    groups=group_tokens(text, tokens, spans, kinds, unit),
                    truncated=truncated,
                    cut_at=last if truncated else None,
                    problem=problem,
                )
            )
        return found

    def _preprocess(self, texts: list[str], prompt: str, task: dict[str, str]) -> dict[str, Any]:
        extra = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
        try:
            return self.model.preprocess(texts, prompt=prompt or None, processing_kwargs={"text": extra}, **task)
        except NotImplementedError as error:
            raise ModelError("the model's tokenizer gives no character offsets; a fast tokenizer is needed") from error

    def _most_tokens(self, role: Role) -> int | None:
        """How many tokens the model reads of a text in this role; None where that is not known."""
        own = {"query": "query_length", "document": "document_length"}.get(role)
        limit = getattr(self.transformer, own, None) if own else None
        return limit if limit is not None else self.transformer.max_seq_length

    def _has_tokens(self, rest: str) -> bool:
        return bool(self.tokenizer(rest, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])

    # Features ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def batch(self, texts: Sequence[ReadText], *, length: int | None = None) -> TextBatch:
        """Features of texts and references at the cut; ``length`` pads further than the longest text needs."""
        assert texts, "a batch has at least one text"
        assert len({text.prompt_length for text in texts}) == 1, "one batch holds texts of one prompt length"
        b, s = len(texts), max(length or 0, *(len(text) for text in texts))
        references = [text.reference(self.pad_id) for text in texts]
        fresh = [one for one in dict.fromkeys(references) if one not in self._references]
        rows = b + len(fresh)
        ids_RS = torch.full((rows, s), self.pad_id)
        mask_RS = torch.zeros((rows, s), dtype=torch.long)
        types_RS = torch.zeros((rows, s), dtype=torch.long)
        group_BS = torch.full((b, s), -1)
        for row, (ids, types) in enumerate([*((text.ids, text.types) for text in texts), *fresh]):
            ids_RS[row, : len(ids)] = torch.tensor(ids)
            mask_RS[row, : len(ids)] = 1
            if types is not None:
                types_RS[row, : len(ids)] = torch.tensor(types)
        for row, text in enumerate(texts):
            group_BS[row, : len(text)] = torch.tensor(text.groups.of_token)
        mask_BS = mask_RS[:b].to(self.device)
        features: dict[str, Any] = {
            "input_ids": ids_RS.to(self.device),
            "attention_mask": mask_RS.to(self.device),
            "modality": "text",
        }
        if texts[0].types is not None:
            features["token_type_ids"] = types_RS.to(self.device)
        hidden, calls = self._run_to_cut(features, b)
        for row, one in enumerate(fresh, b):
            self._references[one] = hidden[row, : len(one[0])].clone()
        # Where a row is padded the text is its own reference, so that nothing moves there.
        r_BSd = hidden[:b].clone()
        for row, one in enumerate(references):
            r_BSd[row, : len(one[0])] = self._references[one]
        self._references.shrink()
        batch = TextBatch(
            x_BSd=hidden[:b],
            r_BSd=r_BSd,
            pool_BMS=self._pool_weights(mask_BS, texts[0].prompt_length),
            mask_BS=mask_BS,
            group_BS=group_BS.to(self.device),
            groups=max(len(text.groups) for text in texts),
            calls=calls,
        )
        return replace(batch, shift_BD=self._shift(batch, references)) if self.shifted else batch

    def _shift(self, batch: TextBatch, references: list[Any]) -> Tensor:
        """What a shifted model subtracts behind pooling: the pooled token embeddings of each reference, [B, M·d]."""
        fresh = [row for row, one in enumerate(references) if one not in self._shifts and one not in references[:row]]
        if fresh:
            part = batch.select(fresh)
            for row, pooled_D in zip(fresh, self._pooled(part.r_BSd, part, 1), strict=True):
                self._shifts[references[row]] = pooled_D.clone()
        found = torch.stack([self._shifts[one] for one in references])
        self._shifts.shrink()
        return found

    def _run_to_cut(self, features: dict[str, Any], b: int) -> tuple[Tensor, tuple[Any, ...]]:
        """Hidden states at the cut for all rows, and each upper layer's further arguments for the first ``b``."""
        hidden: list[Tensor] = []
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def capture(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not hidden:
                hidden.append(args[0])
            rows = len(hidden[0])
            calls.append((pick_rows(args[1:], rows, slice(b)), pick_rows(kwargs, rows, slice(b))))
            if self.family.uniform:
                raise _ReachedCut

        hooks = [layer.register_forward_pre_hook(capture, with_kwargs=True) for layer in self.above]
        try:
            (self.transformer.unshifted if self.shifted else self.transformer)(features)
        except _ReachedCut:
            calls = calls * len(self.above)
        finally:
            for hook in hooks:
                hook.remove()
        return hidden[0], tuple(calls)

    def _pool_weights(self, mask_BS: Tensor, prompt_length: int | None) -> Tensor:
        """What the model's own pooling does to token embeddings, as weights [B, M, S].

        Every supported pooling mode sums rows with weights that depend on the mask alone, so pooling the rows of an
        identity matrix reads the weights off.
        """
        b, s = mask_BS.shape
        eye_BSS = torch.eye(s, dtype=self.dtype, device=self.device).expand(b, s, s)
        features: dict[str, Any] = {"token_embeddings": eye_BSS, "attention_mask": mask_BS}
        if prompt_length is not None:
            features["prompt_length"] = prompt_length
        pooled = self.pooling(features)["sentence_embedding"]
        return pooled.view(b, -1, s)

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
        for layer, (args, kwargs) in zip(self.above, batch.calls, strict=True):
            args, kwargs = repeat_rows(args, len(batch.x_BSd), copies), repeat_rows(kwargs, len(batch.x_BSd), copies)
            hidden_BSd = hidden_of(layer(hidden_BSd, *args, **kwargs))
        pool_BMS = repeat_rows(batch.pool_BMS, len(batch.x_BSd), copies)
        return (pool_BMS @ hidden_BSd).flatten(1)

    def embed_pooled(self, pooled_BD: Tensor) -> Tensor:
        """The head behind pooling: Dense modules, inner Normalize, truncation."""
        for module in self.head:
            pooled_BD = module({"sentence_embedding": pooled_BD})["sentence_embedding"]
        if self.model.truncate_dim is not None:
            pooled_BD = pooled_BD[..., : self.model.truncate_dim]
        return pooled_BD

    @property
    def embedding_width(self) -> int:
        """D, the number of values of one embedding."""
        sized = [module for module in (self.pooling, *self.head) if hasattr(module, "get_embedding_dimension")]
        full = int(sized[-1].get_embedding_dimension())
        return min(full, self.model.truncate_dim or full)

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
                    self.model.truncate_dim,
                    text_lengths(self.model),
                    self.tokenizer.get_vocab_size()
                    if hasattr(self.tokenizer, "get_vocab_size")
                    else len(self.tokenizer),
                )
            ).encode()
        )
        return digest.hexdigest()[:32]

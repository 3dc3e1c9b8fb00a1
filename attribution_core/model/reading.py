"""How a model reads texts: by sentence-transformers' own rules, and faster where the tokenizer alone is enough.

``model.preprocess`` decides on prompt, truncation, route and letter case, but it is slow. It therefore reads only a few
probes; where the tokenizer alone gives the same tokens for all of them, the tokenizer alone reads the texts.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer

from attribution_core.errors import ModelError
from attribution_core.model.inspection import prompt_of
from attribution_core.model.modules import AnyModel, Role
from attribution_core.model.towers import why_no_text
from attribution_core.text.grouping import Unit
from attribution_core.text.plain import Tokens
from attribution_core.text.tokenized import ReadText, read_texts

READ_AT_ONCE = 512
# A tokenizer carries its padding and truncation from call to call, and readers of one model share it.
_TOKENISING = threading.RLock()
LONGEST_PROBE = 1 << 15
# Inputs that tokenizers and the rules around them are known to treat differently.
_PROBES = (
    "A short Text.",
    "  two  spaces, both  ends  ",
    "\ta tab,\na line\r\nand\n\n",
    "",
    " ",
    "naïve CAFÉ e\u0301 — “quotes” ½ ﬁ \u00a0\u200b\u00ad",
    "不好。 コーヒー 한국어 ไทย मराठी العربية",
    "👍🏽 👨\u200d👩\u200d👧 \x00\x07",
    "[CLS] x [SEP] y [PAD] [MASK] [UNK] <s> x </s> <pad> <mask> <unk> <|endoftext|>",
    "don't 3.14, 1,000 x-ray_2 ... (a)",
)


@dataclass(frozen=True)
class _Direct:
    """How a tokenizer alone reads what ``model.preprocess`` reads."""

    tokenizer: Tokenizer
    truncation: dict[str, Any] | None
    split_special: bool
    types: bool
    prompt_length: int | None

    def read(self, whole: Sequence[str]) -> Tokens:
        """The tokens of prompts and the texts behind them."""
        # Others use this tokenizer too, and leave their own settings on it.
        if self.tokenizer.padding is not None:
            self.tokenizer.no_padding()
        if self.tokenizer.encode_special_tokens != self.split_special:
            self.tokenizer.encode_special_tokens = self.split_special
        if self.tokenizer.truncation != self.truncation:
            if self.truncation is None:
                self.tokenizer.no_truncation()
            else:
                self.tokenizer.enable_truncation(**self.truncation)
        return tokens_of(self.tokenizer.encode_batch(whole), types=self.types)


class Reader:
    """Reads texts as a model does.

    ``route`` says whose route a text without a role takes through a model with a Router, whose transformer is
    ``transformer``; ``prompts`` are those asked for by role.
    """

    def __init__(self, model: AnyModel, transformer: Any, route: Role, prompts: dict[str, str | None]) -> None:
        self.model = model
        self.transformer = transformer
        # A Router's own tokenizer is that of its first route.
        self.tokenizer: Any = transformer.tokenizer
        self.route = route
        self.prompts = prompts
        self._direct: dict[tuple[Role, str, int | None], _Direct | None] = {}
        self._names: dict[int, str] = {}
        # sentence-transformers takes some strings for the address of an image where the model has images.
        self._media = set(getattr(transformer, "modalities", ["text"])) != {"text"}

    def read(self, texts: Sequence[str], role: Role, unit: Unit) -> list[ReadText]:
        """Tokenise texts by the model's own rules for a role, with offsets, kinds and groups.

        Raises:
            ModelError: where the model's tokenizer gives no offsets.
        """
        prompt, limit = self.prompt(role), self.most_tokens(role)
        read: list[ReadText] = []
        with _TOKENISING:
            for at in range(0, len(texts), READ_AT_ONCE):
                some = list(texts[at : at + READ_AT_ONCE])
                tokens, prompt_length = self.tokenise(some, prompt, role)
                read += read_texts(
                    some, tokens, role, prompt, prompt_length, unit, limit, self.count_tokens, self.name_tokens
                )
        if self._media:
            for one in read:
                one.problem = one.problem or why_no_text(self.transformer, one.text, one.ids_S)
        return read

    def prompt(self, role: Role) -> str:
        """The prompt put before a text of this role: the one asked for, or the model's own."""
        return prompt_of(role, self.prompts.get(role), self.model.prompts, self.model.default_prompt_name)

    def most_tokens(self, role: Role) -> int | None:
        """How many tokens the model reads of a text in this role; None where that is not known."""
        own = {"query": "query_length", "document": "document_length"}.get(role)
        limit = getattr(self.transformer, own, None) if own else None
        most: int | None = limit if limit is not None else self.transformer.max_seq_length
        return most

    def tokenise(self, texts: list[str], prompt: str, role: Role) -> tuple[Tokens, int | None]:
        """The tokens of prompt and text, and how many of them are the prompt."""
        key = role, prompt, self.most_tokens(role)
        if key not in self._direct:
            self._direct[key] = self._probed(prompt, role)
        direct = self._direct[key]
        if direct is None:
            return self._preprocessed(texts, prompt, role)
        return direct.read([prompt + text for text in texts] if prompt else texts), direct.prompt_length

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has, without special ones and whatever the model reads of it."""
        return len(self.tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])

    def name_tokens(self, whole: str, ids: list[int]) -> Sequence[str]:
        """What the tokenizer calls the tokens of a prompt and a text."""
        return self.known_names(ids)

    def known_names(self, ids: list[int]) -> list[str]:
        """The tokens of some ids by the tokenizer's vocabulary."""
        names = self._names
        fresh = [one for one in ids if one not in names]
        if fresh:
            names.update(zip(fresh, self._vocabulary(fresh), strict=True))
        return [names[one] for one in ids]

    def _vocabulary(self, ids: list[int]) -> list[str]:
        found: list[str] = self.tokenizer.convert_ids_to_tokens(ids)
        return found

    def _probed(self, prompt: str, role: Role) -> _Direct | None:
        """How the tokenizer alone reads texts of a role; None where it does not read all probes as the model does."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            return None
        # More than the model reads, by itself so that the other probes are not padded to its length.
        most = min(self.most_tokens(role) or LONGEST_PROBE, LONGEST_PROBE)
        for probes in (list(_PROBES), ["a long Text " * (most // 3 + 1)]):
            expected, prompt_length = self._preprocessed(probes, prompt, role)
            direct = _Direct(
                tokenizer=backend,
                truncation=backend.truncation,
                split_special=backend.encode_special_tokens,
                types=expected.types_T is not None,
                prompt_length=prompt_length,
            )
            if not _equal(direct.read([prompt + text for text in probes]), expected):
                return None
        return direct

    def _preprocessed(self, texts: list[str], prompt: str, role: Role) -> tuple[Tokens, int | None]:
        # A text without a role takes the model's route.
        task = role if role != "text" else self.route
        extra = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
        try:
            read = self.model.preprocess(
                [{"text": text} for text in texts] if self._media else texts,
                prompt=prompt or None,
                processing_kwargs={"text": extra},
                **({} if task == "text" else {"task": task}),
            )
        except NotImplementedError as error:
            raise ModelError("the model's tokenizer gives no character offsets; a fast tokenizer is needed") from error
        seen_NS = read.get("attention_mask", torch.ones_like(read["input_ids"])).bool()
        if (more_NS := read.get("query_expansion_positions")) is not None:
            seen_NS &= ~more_NS.bool()
        types_NS = read.get("token_type_ids")
        span_T2 = read["offset_mapping"][seen_NS].numpy().astype(np.int64)
        prompt_length = read.get("prompt_length")
        return Tokens(
            at_N=np.concatenate(([0], np.cumsum(seen_NS.sum(1).numpy()))),
            ids_T=read["input_ids"][seen_NS].numpy().astype(np.int32),
            types_T=None if types_NS is None else types_NS[seen_NS].numpy().astype(np.int32),
            special_T=read["special_tokens_mask"][seen_NS].numpy().astype(np.bool_),
            start_T=span_T2[:, 0],
            end_T=span_T2[:, 1],
        ), None if prompt_length is None else int(prompt_length)


def tokens_of(read: Sequence[Encoding], *, types: bool) -> Tokens:
    """The tokens of many texts as arrays; ``types`` asks for their types."""
    at_N = np.concatenate(([0], np.cumsum(np.fromiter(map(len, read), np.int64, len(read)))))
    count = int(at_N[-1])
    spans = chain.from_iterable(chain.from_iterable(one.offsets for one in read))
    span_2T = np.fromiter(spans, np.int64, 2 * count)
    return Tokens(
        at_N=at_N,
        ids_T=_joined((one.ids for one in read), count),
        types_T=_joined((one.type_ids for one in read), count) if types else None,
        special_T=_joined((one.special_tokens_mask for one in read), count).astype(np.bool_),
        start_T=span_2T[::2],
        end_T=span_2T[1::2],
    )


def _joined(lists: Any, count: int) -> Any:
    return np.fromiter(chain.from_iterable(lists), np.int32, count)


def _equal(one: Tokens, other: Tokens) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("at_N", "ids_T", "special_T", "start_T", "end_T", "types_T")
        if getattr(one, name) is not None
    )

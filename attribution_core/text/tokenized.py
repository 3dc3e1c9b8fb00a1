"""Texts as a model's tokenizer read them: tokens, what they are, and the groups they form."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attribution_core.text.characters import Span, clusters_of, trimmed
from attribution_core.text.grouping import KINDS, Groups, Kind, Unit, group_tokens
from attribution_core.text.plain import TEXT, Bools, Ints, Tokens, group_plain

if TYPE_CHECKING:
    from attribution_core.model.modules import Role  # torch, which reading texts does not need

# The arrays of a text: first those with one entry a token.
_ARRAYS = (
    *("ids_S", "types_S", "kept_S", "of_token_S", "scored_S", "attended_S"),
    *("kind_G", "text_G", "start_G", "end_G", "shares_G"),
)
# What the tokens of a prompt and a text, and their ids, are called.
NameTokens = Callable[[str, list[int]], Sequence[str]]


@dataclass(frozen=True, eq=False)
class RawText:
    """The tokens of a prompt and a text, one entry per token.

    ``added`` marks tokens that are in no text, ``spans`` are character ranges in the prompt and the text behind it.
    """

    ids: tuple[int, ...]
    types: tuple[int, ...] | None
    added: tuple[bool, ...]
    spans: tuple[Span, ...]
    tokens: tuple[str, ...]


@dataclass(slots=True, eq=False)
class ReadText:
    """One text as the tokenizer read it: arrays, from which tokens, labels and groups are made when first used.

    ``ids_S``, ``types_S`` (None where the model takes none), ``kept_S`` and ``of_token_S`` have one entry a token:
    ``kept_S`` marks the tokens that the reference keeps, ``of_token_S`` is a token's group. ``kind_G`` (places in
    ``KINDS``), ``text_G`` (of kind text), ``start_G``, ``end_G`` and ``shares_G`` are what :class:`Groups` says of its
    groups. All are views of arrays of many texts and must not be written to. ``problem`` says why the text cannot be
    attributed, if so. For late interaction ``scored_S`` marks the tokens whose outputs are scored, and ``attended_S``
    those that other tokens attend to, None where that is all.
    """

    text: str
    role: Role
    prompt: str
    prompt_length: int | None
    unit: Unit
    ids_S: Ints
    types_S: Ints | None
    kept_S: Bools
    of_token_S: Ints
    kind_G: NDArray[np.int8]
    text_G: Bools
    start_G: Ints
    end_G: Ints
    shares_G: NDArray[np.float64]
    name_tokens: NameTokens
    truncated: bool = False
    cut_at: int | None = None
    problem: str | None = None
    scored_S: Bools | None = None
    attended_S: Bools | None = None
    _tokens: tuple[str, ...] | None = None
    _groups: Groups | None = None
    _labels: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids_S)

    @property
    def group_count(self) -> int:
        """G, the number of groups."""
        return len(self.text_G)

    @property
    def ids(self) -> tuple[int, ...]:
        """The tokens' ids."""
        return tuple(self.ids_S.tolist())

    @property
    def types(self) -> tuple[int, ...] | None:
        """The tokens' types; None where the model takes none."""
        return None if self.types_S is None else tuple(self.types_S.tolist())

    @property
    def kept(self) -> tuple[bool, ...]:
        """Whether the reference keeps a token."""
        return tuple(self.kept_S.tolist())

    @property
    def tokens(self) -> tuple[str, ...]:
        """What the tokenizer calls the tokens."""
        if self._tokens is None:
            self._tokens = tuple(self.name_tokens(self.prompt + self.text, self.ids_S.tolist()))
        return self._tokens

    @property
    def labels(self) -> tuple[str, ...]:
        """What a reader sees of the groups."""
        if self._labels is None:
            text = self.text
            labels = [text[low:high] for low, high in zip(self.start_G.tolist(), self.end_G.tolist(), strict=True)]
            # Of special and prompt groups the token.
            for at in np.flatnonzero(self.end_G <= self.start_G).tolist():
                labels[at] = self.tokens[int(np.searchsorted(self.of_token_S, at))]
            self._labels = tuple(labels) if self._groups is None else self._groups.labels
        return self._labels

    @property
    def groups(self) -> Groups:
        """The groups of the tokens."""
        if self._groups is None:
            self._groups = Groups(
                unit=self.unit,
                labels=self.labels,
                starts=tuple(self.start_G.tolist()),
                ends=tuple(self.end_G.tolist()),
                kinds=tuple(KINDS[kind] for kind in self.kind_G.tolist()),
                of_token=tuple(self.of_token_S.tolist()),
            )
        return self._groups

    def by_itself(self) -> ReadText:
        """The same in arrays of its own, which keep no other text in memory."""
        own: ReadText = copy.copy(self)
        for name in _ARRAYS:
            values = getattr(self, name)
            setattr(own, name, None if values is None else values.copy())
        return own

    def blanked(self, reference_id: int) -> ReadText:
        """The reference as a text: every token that it does not keep is the reference's token."""
        blank: ReadText = copy.copy(self)
        blank.ids_S = np.where(self.kept_S, self.ids_S, reference_id).astype(self.ids_S.dtype)
        return blank

    def reference(self, reference_id: int) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
        """Ids and types of the reference: kept tokens stay, every other one becomes the reference's token.

        Texts of one length mostly share theirs, so it is the key under which its features are cached.
        """
        return tuple(np.where(self.kept_S, self.ids_S, reference_id).tolist()), self.types


def distinct_texts(texts: Iterable[ReadText]) -> tuple[list[ReadText], NDArray[np.int64]]:
    """The texts that differ in role or text, as they come, and the place among them of every text."""
    numbers: dict[tuple[str, str], int] = {}
    distinct: list[ReadText] = []
    places: list[int] = []
    for text in texts:
        number = numbers.setdefault((text.role, text.text), len(distinct))
        if number == len(distinct):
            distinct.append(text)
        places.append(number)
    return distinct, np.array(places, np.int64)


def read_texts(
    texts: Sequence[str],
    tokens: Tokens,
    role: Role,
    prompt: str,
    prompt_length: int | None,
    unit: Unit,
    limit: int | None,
    count_tokens: Callable[[str], int],
    name_tokens: NameTokens,
) -> list[ReadText]:
    """Texts with their kinds, groups and what was cut off: plain ones together, others by :func:`read_text`.

    The other arguments are those of :func:`read_text`; ``name_tokens`` gives the names of tokens.
    """
    made = group_plain(texts, tokens, prompt, unit, limit)
    kept_T, text_G = made.kind_T != TEXT, made.kind_G == TEXT
    read = []
    at_N, at_G = tokens.at_N.tolist(), made.at_N.tolist()
    for n, (text, plain) in enumerate(zip(texts, made.plain_N.tolist(), strict=True)):
        own, groups = slice(at_N[n], at_N[n + 1]), slice(at_G[n], at_G[n + 1])
        if not plain:
            raw = _raw(tokens, own, prompt + text, name_tokens)
            read.append(read_text(text, raw, role, prompt, prompt_length, unit, limit, count_tokens))
            continue
        read.append(
            ReadText(
                text,
                role,
                prompt,
                prompt_length,
                unit,
                tokens.ids_T[own],
                None if tokens.types_T is None else tokens.types_T[own],
                kept_T[own],
                made.of_token_T[own],
                made.kind_G[groups],
                text_G[groups],
                made.start_G[groups],
                made.end_G[groups],
                made.share_G[groups],
                name_tokens,
            )
        )
    return read


def _raw(tokens: Tokens, own: slice, whole: str, name_tokens: NameTokens) -> RawText:
    ids = tokens.ids_T[own].tolist()
    return RawText(
        ids=tuple(ids),
        types=None if tokens.types_T is None else tuple(tokens.types_T[own].tolist()),
        added=tuple(tokens.special_T[own].tolist()),
        spans=tuple(zip(tokens.start_T[own].tolist(), tokens.end_T[own].tolist(), strict=True)),
        tokens=tuple(name_tokens(whole, ids)),
    )


def read_text(
    text: str,
    raw: RawText,
    role: Role,
    prompt: str,
    prompt_length: int | None,
    unit: Unit,
    limit: int | None,
    count_tokens: Callable[[str], int],
) -> ReadText:
    """A text with its kinds, groups and what was cut off.

    ``limit`` is how many tokens the model reads, if known; ``count_tokens`` says how many a text has.
    """
    spans = [(start - len(prompt), end - len(prompt)) for start, end in raw.spans]
    kinds: list[Kind] = [
        "special" if added else "prompt" if end <= 0 and prompt else "text"
        for added, (_, end) in zip(raw.added, spans, strict=True)
    ]
    last = max((end for (_, end), kind in zip(spans, kinds, strict=True) if kind == "text"), default=0)
    # A full row alone does not tell: the text may just fit.
    full = limit is None or len(raw.ids) >= limit
    cut = _cut(prompt, text, last, raw.added.count(False), count_tokens) if full else None
    groups = group_tokens(text, raw.tokens, spans, kinds, unit, cut)
    problem = None
    if "text" not in kinds:
        problem = "no token to attribute" if cut is None else "the prompt leaves no room for the text"
    elif not groups.visible:
        problem = "no visible character to attribute"
    return ReadText(
        text=text,
        role=role,
        prompt=prompt,
        prompt_length=prompt_length,
        unit=unit,
        ids_S=np.array(raw.ids, np.int32),
        types_S=None if raw.types is None else np.array(raw.types, np.int32),
        kept_S=np.array([kind != "text" for kind in kinds], np.bool_),
        of_token_S=np.array(groups.of_token, np.int32),
        kind_G=np.array([KINDS.index(kind) for kind in groups.kinds], np.int8),
        text_G=np.array([kind == "text" for kind in groups.kinds], np.bool_),
        start_G=np.array(groups.starts, np.int32),
        end_G=np.array(groups.ends, np.int32),
        shares_G=groups.token_shares,
        name_tokens=lambda _whole, _ids: raw.tokens,
        truncated=cut is not None,
        cut_at=cut,
        problem=problem,
        _tokens=raw.tokens,
        _groups=groups,
    )


def _cut(prompt: str, text: str, last: int, tokens: int, count_tokens: Callable[[str], int]) -> int | None:
    """The offset at which a model with a full context stopped reading a text; None where it read all of it.

    ``last`` is where the last of the ``tokens`` of prompt and text ends. Text behind it is no evidence: tokenizers drop
    accents and other characters.
    """
    clusters = clusters_of(text)
    cut = clusters.end[last - 1] if clusters is not None and last > 0 else last
    start, end = trimmed(text, cut, len(text))
    if end > start:
        return cut if count_tokens(text[cut:]) else None
    # A byte-level tokenizer may have stopped inside the last character.
    inside = not text[max(cut - 1, 0) : cut].isascii() and count_tokens(prompt + text) > tokens
    return cut if inside else None

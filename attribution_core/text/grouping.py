"""Tokens, words or sentences as the units that contributions are given for, with offsets in the original text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from attribution_core.text.characters import Clusters, Span, clusters_of, is_invisible, trimmed
from attribution_core.text.words import sentence_spans, word_spans

Kind = Literal["text", "special", "prompt"]
Unit = Literal["token", "word", "sentence"]
KINDS: tuple[Kind, ...] = get_args(Kind)
UNITS: tuple[str, ...] = get_args(Unit)

# Pieces that are a space and nothing else: SentencePiece's and that of byte-level tokenizers.
_SPACES = "▁Ġ"


@dataclass(frozen=True)
class Groups:
    """The attributed units of one text, in reading order.

    ``starts[g]`` and ``ends[g]`` are character offsets in the original text (both 0 for special and prompt groups,
    which are not part of it), ``kinds[g]`` says what it is, and ``of_token[s]`` is the group of token s. ``labels[g]``
    is what a reader sees: of text ``text[starts[g]:ends[g]]``, which has no invisible character at either end, and of
    special and prompt groups the token. Words and sentences do not overlap. Tokens of one character do, as bytes of an
    emoji; then the first is labelled with the text and the others as the tokenizer calls them.
    """

    unit: Unit
    labels: tuple[str, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    kinds: tuple[Kind, ...]
    of_token: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def visible(self) -> bool:
        """Whether any group of text has a visible character."""
        return any(
            kind == "text" and end > start for kind, start, end in zip(self.kinds, self.starts, self.ends, strict=True)
        )

    @cached_property
    def token_shares(self) -> NDArray[np.float64]:
        """w [G]: each group's tokens as a share of all tokens of kind text; 0 for special and prompt groups."""
        tokens_G = np.bincount(self.of_token, minlength=len(self)).astype(np.float64)
        tokens_G[[kind != "text" for kind in self.kinds]] = 0.0
        total = tokens_G.sum()
        return tokens_G / total if total else tokens_G


def group_tokens(
    text: str,
    tokens: Sequence[str],
    spans: Sequence[Span],
    kinds: Sequence[Kind],
    unit: Unit,
    read_to: int | None = None,
) -> Groups:
    """Collect tokens into groups, each attributed as one unit.

    ``spans[s]`` is token s's character range in ``text``; it is ignored for special and prompt tokens, which are
    groups of their own. ``read_to`` is where the model stopped reading, if it did: a word ends there at the latest.

    A word is what :func:`word_spans` says, as it stands in the text, also where the tokenizer dropped a part of it,
    such as an accent. Tokens that reach over two words or share a grapheme cluster tie them together. A text token that
    covers no visible character (a lone SentencePiece space, say) joins its neighbour, so that every token is in exactly
    one group and the groups' contributions sum to the text's.
    """
    clusters = clusters_of(text)
    length = len(text)
    ranges = [
        (0, 0) if kind != "text" else span if 0 <= span[0] <= span[1] <= length else _range(span, length)
        for span, kind in zip(spans, kinds, strict=True)
    ]
    if unit == "token":
        return _one_by_one(text, tokens, ranges, kinds, clusters)
    bounds = word_spans(text) if unit == "word" else sentence_spans(text)
    if read_to is not None:
        bounds = [(start, min(end, read_to)) for start, end in bounds if start < read_to]
    return _together(text, tokens, ranges, kinds, unit, bounds, clusters)


def encodable(text: str) -> bool:
    """Whether a text can be written as UTF-8: half a surrogate pair is no character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _range(span: Span, length: int) -> Span:
    start = min(max(span[0], 0), length)
    return start, max(min(span[1], length), start)


def _one_by_one(
    text: str, tokens: Sequence[str], ranges: Sequence[Span], kinds: Sequence[Kind], clusters: Clusters | None
) -> Groups:
    """Every token a group; a token has the marks behind it that no token has, such as an accent that was dropped."""
    labels = list(tokens)
    spans = list(ranges)
    reached = 0
    for s, (kind, (start, end)) in enumerate(zip(kinds, ranges, strict=True)):
        if kind != "text":
            continue
        following = ranges[s + 1] if s + 1 < len(ranges) and kinds[s + 1] == "text" else None
        if clusters is not None and end > start:
            cluster_end = clusters.end[end - 1]
            if following is None or following[0] >= cluster_end:
                end = cluster_end
        start, end = spans[s] = trimmed(text, start, end)
        # The space put before a text has the range of the text's first character.
        is_space = not tokens[s].strip(_SPACES) and following is not None and following[0] == start
        if end > max(start, reached) and not is_space:
            labels[s] = text[start:end]
            reached = end
    starts, ends = zip(*spans, strict=True) if spans else ((), ())
    return Groups("token", tuple(labels), starts, ends, tuple(kinds), tuple(range(len(tokens))))


@dataclass
class _Group:
    """A group that may still grow: its first token and what it covers, with invisible characters."""

    first: int
    start: int
    end: int
    kind: Kind = "text"


def _together(
    text: str,
    tokens: Sequence[str],
    ranges: Sequence[Span],
    kinds: Sequence[Kind],
    unit: Unit,
    bounds: Sequence[Span],
    clusters: Clusters | None,
) -> Groups:
    """Tokens whose ranges, or the bounds and clusters that they touch, overlap are one group."""
    groups: list[_Group] = []
    floor = 0  # groups before this one are closed
    waiting: int | None = None  # the first of the tokens that join the next group
    reached = -1  # where the last token of the open groups ended
    at = 0
    for s, (kind, (start, end)) in enumerate(zip(kinds, ranges, strict=True)):
        if kind != "text":
            _close(groups, floor, waiting, ranges)
            groups.append(_Group(s, 0, 0, kind))
            floor, waiting, reached = len(groups), None, -1
            continue
        low, high = start, end
        if end <= start or is_invisible(text[start]) or is_invisible(text[end - 1]):
            low, high = trimmed(text, start, end)
        if clusters is not None:
            # What is trimmed off may be part of a character that is seen, as a joiner in an emoji is.
            low, high = trimmed(text, *clusters.around(*((low, high) if high > low else (start, end))))
        if high <= low:
            behind = start == reached and end > start and not text[start:end].isspace()
            if waiting is None and not (behind and len(groups) > floor):
                waiting = s
            reached = max(reached, end)
            continue
        reached = end
        while at > 0 and bounds[at - 1][1] > low:
            at -= 1
        while at < len(bounds) and bounds[at][1] <= low:
            at += 1
        last = at
        while last < len(bounds) and bounds[last][0] < high:
            bound = bounds[last]
            low = bound[0] if bound[0] < low else low
            high = bound[1] if bound[1] > high else high
            last += 1
        first = s if waiting is None else waiting
        waiting = None
        while len(groups) > floor and groups[-1].end > low:
            before = groups.pop()
            first, low, high = before.first, min(low, before.start), max(high, before.end)
        groups.append(_Group(first, low, high))
    _close(groups, floor, waiting, ranges)
    return _finished(text, tokens, unit, groups)


def _close(groups: list[_Group], floor: int, waiting: int | None, ranges: Sequence[Span]) -> None:
    """Let tokens that no group follows join the one before; without one they are a group of their own."""
    if waiting is not None and len(groups) == floor:
        at = ranges[waiting][0]
        groups.append(_Group(waiting, at, at))


def _finished(text: str, tokens: Sequence[str], unit: Unit, groups: Sequence[_Group]) -> Groups:
    spans = [trimmed(text, one.start, one.end) for one in groups]
    sizes = np.diff([*(one.first for one in groups), len(tokens)])
    return Groups(
        unit=unit,
        labels=tuple(
            text[start:end] if end > start else tokens[one.first]
            for one, (start, end) in zip(groups, spans, strict=True)
        ),
        starts=tuple(start for start, _ in spans),
        ends=tuple(end for _, end in spans),
        kinds=tuple(one.kind for one in groups),
        of_token=tuple(np.repeat(np.arange(len(groups)), sizes).tolist()),
    )

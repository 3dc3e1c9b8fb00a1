"""Tokens, words or sentences as the units that contributions are given for, with offsets in the original text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Kind = Literal["text", "special", "prompt"]
Unit = Literal["token", "word", "sentence"]
UNITS: tuple[str, ...] = get_args(Unit)

Span = tuple[int, int]

_ASCII_WORD = re.compile(r"\d+(?:[.,]\d+)+|[A-Za-z0-9_]+(?:'[A-Za-z]+)*|[^\sA-Za-z0-9_]")
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+[”’」』）]*|\n\s*\n")
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st vs etc e.g i.e cf fig figs eq eqs no vol pp al inc ltd co jr sr approx dept est".split()  # noqa: SIM905
)
# Scripts written without spaces between words: there a token is the best word there is.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),  # CJK
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3134F),
)


@dataclass(frozen=True)
class Groups:
    """The attributed units of one text, in reading order.

    ``labels[g]`` is what a reader sees, ``starts[g]`` and ``ends[g]`` are character offsets in the original text
    (both 0 for special and prompt groups, which are not part of it), ``kinds[g]`` says what it is, and
    ``of_token[s]`` is the group of token s.
    """

    unit: Unit
    labels: tuple[str, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    kinds: tuple[Kind, ...]
    of_token: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def token_shares(self) -> NDArray[np.float64]:
        """w [G]: each group's tokens as a share of all tokens of kind text; 0 for special and prompt groups."""
        tokens_G = np.bincount(self.of_token, minlength=len(self)).astype(np.float64)
        tokens_G[[kind != "text" for kind in self.kinds]] = 0.0
        total = tokens_G.sum()
        return tokens_G / total if total else tokens_G


def group_tokens(text: str, tokens: Sequence[str], spans: Sequence[Span], kinds: Sequence[Kind], unit: Unit) -> Groups:
    """Collect tokens into the groups that are attributed as one.

    ``spans[s]`` is token s's character range in ``text``; it is ignored for special and prompt tokens, which are
    groups of their own. A text token that covers no visible character (a lone SentencePiece space, say) joins its
    neighbour, so that every token is in exactly one group and the groups' contributions sum to the text's.
    """
    units = [_visible(text, span) if kind == "text" else (0, 0) for span, kind in zip(spans, kinds, strict=True)]
    if unit == "token":
        keys: list[int | None] = list(range(len(tokens)))
    else:
        bounds = word_spans(text) if unit == "word" else sentence_spans(text)
        keys = _keys_by_overlap(units, kinds, bounds)
    labels: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    group_kinds: list[Kind] = []
    of_token: list[int] = []
    last_key: object = object()
    for s, (token, kind, (start, end), key) in enumerate(zip(tokens, kinds, units, keys, strict=True)):
        if kind == "text" and key == last_key:
            ends[-1] = max(ends[-1], end)
            starts[-1] = min(starts[-1], start)
        else:
            labels.append(token)
            starts.append(start)
            ends.append(end)
            group_kinds.append(kind)
            last_key = key if kind == "text" else ("own", s)
        of_token.append(len(labels) - 1)
    for g, kind in enumerate(group_kinds):
        shared = unit == "token" and g > 0 and (starts[g], ends[g]) == (starts[g - 1], ends[g - 1])
        if kind == "text" and ends[g] > starts[g] and not shared:
            labels[g] = text[starts[g] : ends[g]]
    return Groups(unit, tuple(labels), tuple(starts), tuple(ends), tuple(group_kinds), tuple(of_token))


def encodable(text: str) -> bool:
    """Whether a text can be written as UTF-8: half a surrogate pair is no character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def word_spans(text: str) -> list[Span]:
    """Character ranges of words, numbers and single punctuation marks, the same for every tokenizer.

    Apostrophes stay inside words and decimal marks inside numbers; hyphens separate. Runs of a script without
    spaces are not covered: there every token counts as a word.
    """
    if text.isascii():
        return [match.span() for match in _ASCII_WORD.finditer(text)]
    spans: list[Span] = []
    start: int | None = None
    for at, char in enumerate(text):
        if _is_word_char(char) or (start is not None and _joins(text, at)):
            start = at if start is None else start
            continue
        if start is not None:
            spans.append((start, at))
            start = None
        if not char.isspace() and not _is_unspaced(char) and unicodedata.category(char) not in ("Cf", "Cc"):
            spans.append((at, at + 1))
    if start is not None:
        spans.append((start, len(text)))
    return spans


def sentence_spans(text: str) -> list[Span]:
    """Character ranges of sentences: ended by . ! ? … or their full-width forms, or by a blank line."""
    spans: list[Span] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        before = text[start : match.start()].rsplit(None, 1)
        last = before[-1].lower().lstrip("(\"'") if before else ""
        single_initial = len(last) == 1 and last.isalpha() and match.group() == "."
        if match.group() == "." and (last in _ABBREVIATIONS or single_initial):
            continue
        spans.append((start, match.end()))
        start = match.end()
    if text[start:].strip():
        spans.append((start, len(text)))
    return [span for span in spans if text[span[0] : span[1]].strip()]


def _visible(text: str, span: Span) -> Span:
    """The span without surrounding white space (SentencePiece counts the space before a word as part of it)."""
    start, end = max(span[0], 0), min(span[1], len(text))
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _keys_by_overlap(units: Sequence[Span], kinds: Sequence[Kind], bounds: Sequence[Span]) -> list[int | None]:
    """For every text token the bound it overlaps, a key of its own (negative) outside all bounds, None if invisible.

    A token that reaches over several bounds ties them together under the first one's key.
    """
    root = list(range(len(bounds)))
    lows: list[int | None] = []
    at = 0
    for s, ((start, end), kind) in enumerate(zip(units, kinds, strict=True)):
        if kind != "text" or end <= start:
            lows.append(None)
            continue
        while at < len(bounds) and bounds[at][1] <= start:
            at += 1
        if at == len(bounds) or bounds[at][0] >= end:
            lows.append(-1 - s)
            continue
        lows.append(at)
        reached = at + 1
        while reached < len(bounds) and bounds[reached][0] < end:
            root[reached] = root[at]
            reached += 1
    keys = [low if low is None or low < 0 else root[low] for low in lows]
    return _join_invisible(keys, kinds)


def _join_invisible(keys: list[int | None], kinds: Sequence[Kind]) -> list[int | None]:
    """Give every text token without visible characters the key of the next text token, or of the one before."""
    following: int | None = None
    for s in range(len(keys) - 1, -1, -1):
        if kinds[s] != "text":
            following = None
        elif keys[s] is None:
            keys[s] = following
        else:
            following = keys[s]
    previous: int | None = None
    for s, kind in enumerate(kinds):
        if kind != "text":
            previous = None
            continue
        if keys[s] is None:
            keys[s] = previous if previous is not None else -1 - s
        previous = keys[s]
    return keys


def _is_unspaced(char: str) -> bool:
    return any(low <= ord(char) <= high for low, high in _UNSPACED)


def _is_word_char(char: str) -> bool:
    if _is_unspaced(char):
        return False
    return char == "_" or unicodedata.category(char)[0] in "LNM"


def _joins(text: str, at: int) -> bool:
    """Whether the mark at ``at`` holds a word or a number together (don't, l’été, 3.5)."""
    if at + 1 >= len(text):
        return False
    before, after = text[at - 1], text[at + 1]
    if text[at] in "'’":
        return before.isalpha() and after.isalpha()
    return text[at] in ".," and before.isdigit() and after.isdigit()

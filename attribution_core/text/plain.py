"""Groups of many plain texts at once, with array operations.

A text is plain where each character is visible by itself or white space, and its tokens follow one another: then its
groups are runs of tokens that touch the same words. :func:`group_plain` gives the same groups as
:func:`~attribution_core.text.grouping.group_tokens` and says which texts are not plain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from attribution_core.text.characters import Span, has_clusters, is_invisible
from attribution_core.text.grouping import KINDS, Unit
from attribution_core.text.words import sentence_spans, word_spans

Ints = NDArray[np.int32]
Places = NDArray[np.int64]
Bools = NDArray[np.bool_]

TEXT, SPECIAL, PROMPT = (KINDS.index(kind) for kind in ("text", "special", "prompt"))
# Of ASCII characters; the last entry stands for all others.
_SEEN = np.array([not is_invisible(chr(code)) for code in range(128)] + [False])
_SPACE = np.array([chr(code).isspace() for code in range(128)] + [False])


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of many texts one after another: text n has those from ``at_N[n]`` to ``at_N[n + 1]``.

    ``at_N`` has one entry more than there are texts. ``special_T`` marks tokens that the tokenizer added, ``start_T``
    and ``end_T`` are character offsets in the prompt and the text behind it. ``types_T`` is None where the model takes
    no types.
    """

    at_N: Places
    ids_T: Ints
    types_T: Ints | None
    special_T: Bools
    start_T: Places
    end_T: Places


@dataclass(frozen=True, eq=False)
class PlainGroups:
    """The groups of many texts one after another: text n has those from ``at_N[n]`` to ``at_N[n + 1]``.

    ``of_token_T`` counts from 0 in each text. ``kind_T`` and ``kind_G`` are places in ``KINDS``, and ``share_G`` is
    what :attr:`Groups.token_shares` says. ``plain_N`` says for which texts all this holds.
    """

    plain_N: Bools
    at_N: Places
    kind_T: NDArray[np.int8]
    of_token_T: Ints
    kind_G: NDArray[np.int8]
    start_G: Ints
    end_G: Ints
    share_G: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Characters:
    """All texts in one row of characters, each text followed by a line feed.

    ``base_N`` is where each text begins, ``next_C[c]`` the first visible character at or behind c, ``behind_C[c]`` the
    end of the last visible one before c. ``plain_N`` leaves out texts with clusters or invisible characters that are
    no white space.
    """

    base_N: Places
    length_N: Places
    next_C: Places
    behind_C: Places
    ascii_N: Bools
    plain_N: Bools


def group_plain(texts: Sequence[str], tokens: Tokens, prompt: str, unit: Unit, limit: int | None) -> PlainGroups:
    """Groups of all texts that are plain.

    ``limit`` is how many tokens the model reads, if known. A text that it did not read to its end is not plain.
    """
    size_N = np.diff(tokens.at_N)
    of_text_T = np.repeat(np.arange(len(texts)), size_N)
    read = _characters(texts)
    plain_N = read.plain_N & (size_N > 0)

    start_T, end_T = tokens.start_T - len(prompt), tokens.end_T - len(prompt)
    kind_T = np.where(tokens.special_T, SPECIAL, np.where((end_T <= 0) & bool(prompt), PROMPT, TEXT)).astype(np.int8)
    text_T = kind_T == TEXT
    base_T, length_T = read.base_N[of_text_T], read.length_N[of_text_T]
    # The first token may begin with the prompt's last space.
    start_T = np.clip(start_T, 0, length_T)
    end_T = base_T + np.maximum(np.minimum(end_T, length_T), start_T)
    start_T = base_T + start_T
    low_T = np.minimum(read.next_C[start_T], end_T)
    high_T = np.maximum(read.behind_C[end_T], low_T)
    seen = np.flatnonzero(text_T & (high_T > low_T))

    # A full row alone does not tell: the text may just fit. A tokenizer of bytes may stop inside a character.
    reached_N = np.zeros(len(texts), np.int64)
    reached_N[of_text_T[seen]] = high_T[seen]  # that of the last token
    full_N = size_N >= limit if limit is not None else np.full(len(texts), True)
    plain_N &= ~full_N | (read.ascii_N & (read.behind_C[read.base_N + read.length_N] <= reached_N))
    plain_N[np.bincount(of_text_T[seen], minlength=len(texts)) == 0] = False

    same = of_text_T[seen[1:]] == of_text_T[seen[:-1]]
    if unit == "token":
        new_T = np.full(len(text_T), True)
        unordered = low_T[seen[1:]] < high_T[seen[:-1]]
        low, high, own = low_T[text_T], high_T[text_T], np.flatnonzero(text_T)
    else:
        spans = word_spans if unit == "word" else sentence_spans
        of_plain = [spans(text) if plain else () for text, plain in zip(texts, plain_N.tolist(), strict=True)]
        low_W, high_W = _flat(of_plain, read)
        first, last, covered = _touched(low_T[seen], high_T[seen], low_W, high_W)
        plain_N[of_text_T[seen[~covered]]] = False
        unordered = first[1:] < last[:-1]
        new_T, shown_T = _begins(of_text_T, text_T, seen, first[1:] != last[:-1])
        plain_N[of_text_T[~shown_T]] = False
        low, high, own = low_W[first], high_W[last], seen
    plain_N[of_text_T[seen[1:]][unordered & same]] = False

    group_T = np.cumsum(new_T) - 1
    of_text_G, kind_G = of_text_T[new_T], kind_T[new_T]
    at_N = np.concatenate(([0], np.cumsum(np.bincount(of_text_G, minlength=len(texts)))))
    start_G, end_G = read.base_N[of_text_G], read.base_N[of_text_G]
    start_G[group_T[own[::-1]]] = low[::-1]  # that of a group's first token
    end_G[group_T[own]] = high
    tokens_G = np.where(kind_G == TEXT, np.bincount(group_T, minlength=len(kind_G)), 0)
    return PlainGroups(
        plain_N=plain_N,
        at_N=at_N,
        kind_T=kind_T,
        of_token_T=(group_T - at_N[of_text_T]).astype(np.int32),
        kind_G=kind_G,
        start_G=(start_G - read.base_N[of_text_G]).astype(np.int32),
        end_G=(end_G - read.base_N[of_text_G]).astype(np.int32),
        share_G=tokens_G / np.maximum(np.bincount(of_text_G, tokens_G, len(texts)), 1)[of_text_G],
    )


def _characters(texts: Sequence[str]) -> _Characters:
    whole = "".join(f"{text}\n" for text in texts)
    length_N = np.fromiter(map(len, texts), np.int64, len(texts))
    base_N = np.cumsum(length_N + 1) - (length_N + 1)
    code_C = np.frombuffer(whole.encode("utf-32-le"), np.uint32)
    seen_C, space_C = _SEEN[np.minimum(code_C, 128)], _SPACE[np.minimum(code_C, 128)]
    beyond = np.flatnonzero(code_C > 127)
    if len(beyond):
        codes, of_code = np.unique(code_C[beyond], return_inverse=True)
        seen_C[beyond] = np.array([not is_invisible(chr(code)) for code in codes.tolist()])[of_code]
        space_C[beyond] = np.array([chr(code).isspace() for code in codes.tolist()])[of_code]
    ascii_N = np.array([text.isascii() for text in texts])
    plain_N = ascii_N if not len(beyond) else np.array([not has_clusters(text) for text in texts])
    odd = np.flatnonzero(~(seen_C | space_C))
    plain_N[np.searchsorted(base_N, odd, "right") - 1] = False
    place_C = np.arange(len(whole))
    next_C = np.where(seen_C, place_C, len(whole))
    behind_C = np.concatenate(([0], np.where(seen_C, place_C + 1, 0)))
    return _Characters(
        base_N, length_N, np.minimum.accumulate(next_C[::-1])[::-1], np.maximum.accumulate(behind_C), ascii_N, plain_N
    )


def _flat(spans: Sequence[Sequence[Span]], read: _Characters) -> tuple[Places, Places]:
    """Starts and ends of the spans of all texts in the row of characters, with an empty one behind them."""
    count_N = np.fromiter(map(len, spans), np.int64, len(spans))
    each = np.fromiter(chain.from_iterable(chain.from_iterable(spans)), np.int64, 2 * int(count_N.sum()))
    base_W = np.repeat(read.base_N, count_N)
    end = len(read.next_C)
    return np.append(each[::2] + base_W, end), np.append(each[1::2] + base_W, end)


def _touched(low: Places, high: Places, low_W: Places, high_W: Places) -> tuple[Places, Places, Bools]:
    """The first and the last span that each token touches, and whether the two cover it."""
    first, last = np.searchsorted(high_W, low, "right"), np.searchsorted(low_W, high, "left") - 1
    return first, last, (first <= last) & (low_W[first] <= low) & (high_W[last] >= high)


def _begins(of_text_T: Places, text_T: Bools, seen: Places, apart: Bools) -> tuple[Bools, Bools]:
    """Which tokens begin a group, and which are special, of a prompt, or in a run with a token that shows something.

    Tokens ``seen`` show something; ``apart`` says for each but the first whether it is of other words than the one
    before. A token that shows nothing joins the next one that does, at the end of a run the one before.
    """
    # A run is tokens of kind text next to each other, or one token of another kind.
    new_T = ~text_T
    new_T[1:] |= ~text_T[:-1] | (of_text_T[1:] != of_text_T[:-1])
    new_T[:1] = True
    run_T = np.cumsum(new_T) - 1
    shows_R = np.bincount(run_T[seen], minlength=len(run_T)) > 0
    fresh = apart & (run_T[seen[1:]] == run_T[seen[:-1]])
    new_T[seen[:-1][fresh] + 1] = True  # with the tokens between, which show nothing
    return new_T, ~text_T | shows_R[run_T]

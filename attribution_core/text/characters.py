"""Which characters a reader sees, and which of them form one visible character: Unicode's grapheme clusters.

White space, control and format characters, and those that Unicode calls default-ignorable (joiners, soft hyphens,
variation selectors, fillers) are invisible. The tags of a flag's emoji are seen: without them it is another flag.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import regex

Span = tuple[int, int]

_INVISIBLE = regex.compile(r"[\s\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}]")
# A black flag and the tags that say whose it is.
_TAGGED_FLAG = regex.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f")
_LAST_TAG = "\U000e007f"
# Every cluster of more than one character has one of these, apart from "\r\n".
_CLUSTERED = regex.compile(
    r"[\p{GCB=Extend}\p{GCB=ZWJ}\p{GCB=SpacingMark}\p{GCB=Prepend}\p{GCB=Regional_Indicator}"
    r"\p{GCB=L}\p{GCB=V}\p{GCB=T}]"
)
_CLUSTER = regex.compile(r"\X")


@lru_cache(maxsize=4096)
def is_invisible(character: str) -> bool:
    """Whether a reader sees nothing of ``character``."""
    return character.isspace() or _INVISIBLE.match(character) is not None


def trimmed(text: str, start: int, end: int) -> Span:
    """The range without invisible characters at either end; empty, at ``end``, where there are no others."""
    while start < end and is_invisible(text[start]):
        start += 1
    while end > start and is_invisible(text[end - 1]):
        if text[end - 1] == _LAST_TAG and any(last == end for _, last in tagged_flags(text[start:end], start)):
            break
        end -= 1
    return start, end


def tagged_flags(text: str, offset: int = 0) -> list[Span]:
    """The ranges of flags with tags, such as that of Scotland, ``offset`` characters further than in ``text``."""
    if _LAST_TAG not in text:
        return []
    return [(offset + match.start(), offset + match.end()) for match in _TAGGED_FLAG.finditer(text)]


def with_unseen(text: str, start: int, end: int) -> Span:
    """The range of a word with the invisible characters next to it that are not white space.

    Those before a word belong to it where white space or nothing is before them, else to what they follow.
    """
    low = start
    while low > 0 and _is_unseen(text[low - 1]):
        low -= 1
    if low == 0 or text[low - 1].isspace():
        start = low
    while end < len(text) and _is_unseen(text[end]):
        end += 1
    return start, end


@dataclass(frozen=True)
class Clusters:
    """The grapheme clusters of a text: ``first[at]`` and ``end[at]`` are the borders of that of character ``at``."""

    first: list[int]
    end: list[int]

    def around(self, start: int, end: int) -> Span:
        """The range made so large that it splits no cluster; an empty one stays as it is."""
        return (self.first[start], self.end[end - 1]) if end > start else (start, end)


def has_clusters(text: str) -> bool:
    """Whether some visible characters of ``text`` may consist of several; most texts have none."""
    return not text.isascii() and _CLUSTERED.search(text) is not None


def clusters_of(text: str) -> Clusters | None:
    """The clusters of ``text``; None where each visible character is one of its own, as in most texts."""
    if not has_clusters(text):
        return None
    first: list[int] = []
    end: list[int] = []
    for match in _CLUSTER.finditer(text):
        low, high = match.span()
        first += [low] * (high - low)
        end += [high] * (high - low)
    return Clusters(first, end)


def _is_unseen(character: str) -> bool:
    return is_invisible(character) and not character.isspace()

"""Where words and sentences are in a text, the same for every tokenizer, and which words count as the same."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import regex

from attribution_core.text.characters import Span, clusters_of, trimmed

_ASCII_WORD = re.compile(r"\d+(?:[.,]\d+)+|[A-Za-z0-9_]+(?:'[A-Za-z]+)*|[^\s\x00-\x1f\x7fA-Za-z0-9_]")

# Scripts written without spaces between words: there a token is the best word there is.
_UNSPACED = (
    r"\u0E00-\u0EFF"  # Thai, Lao
    r"\u1000-\u109F\uA9E0-\uA9FF\uAA60-\uAA7F"  # Myanmar
    r"\u1780-\u17FF"  # Khmer
    r"\u1950-\u19DF\u1A20-\u1AAF"  # Tai Le, New Tai Lue, Tai Tham
    r"\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303B\u3040-\u312F\u31A0-\u31BF\u31F0-\u31FF\uFF66-\uFF9F"
    r"\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF\U0001AFF0-\U0001B16F\U00020000-\U000323AF"  # kana, bopomofo, Han
)
# Joiners, soft hyphens, marks of direction and the like neither end nor begin a word. The zero-width space ends one.
_UNSEEN = r"[[\p{Cf}\p{Default_Ignorable_Code_Point}]--[\u200B]]"
_INSIDE = rf"[[\p{{L}}\p{{N}}\p{{M}}_]--[{_UNSPACED}]--\p{{Default_Ignorable_Code_Point}}]"
_LETTER = rf"[[\p{{L}}\p{{M}}]--[{_UNSPACED}]--\p{{Default_Ignorable_Code_Point}}]"
_DIGITS = rf"[\p{{Nd}}--[{_UNSPACED}]]+"
# The first branch matches what is in no word; the others are those of _ASCII_WORD, with marks and unseen characters.
_WORD = regex.compile(
    rf"(?=[{_UNSPACED}])\X"
    rf"|({_DIGITS}(?:[.,]{_DIGITS})+(?:{_UNSEEN}*\p{{M}})*"
    rf"|{_INSIDE}(?:{_UNSEEN}*{_INSIDE})*(?:{_UNSEEN}*['’]{_UNSEEN}*(?=\p{{L}}){_LETTER}(?:{_UNSEEN}*{_LETTER})*)*"
    rf"|(?![\s\p{{Cc}}\p{{Cf}}\p{{Default_Ignorable_Code_Point}}])\X)",
    regex.V1,
)
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+[”’」』）]*|\n\s*\n")
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st vs etc e.g i.e cf fig figs eq eqs no vol pp al inc ltd co jr sr approx dept est".split()  # noqa: SIM905
)


@lru_cache(maxsize=1 << 16)
def word_key(word: str) -> str:
    """A key that is equal for words that count as the same: composed (NFC) and without letter case.

    Only this function decides which words are equal: "Café" and "cafe" with a combining accent are, "cafe" is
    another word. Folding can leave letters apart that compose, so the result is composed again.
    """
    if word.isascii():
        return word.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", word).casefold())


def word_spans(text: str) -> list[Span]:
    """Character ranges of words, numbers and single marks, symbols and emoji, the same for every tokenizer.

    Apostrophes stay inside words and decimal marks inside numbers; hyphens separate. Combining marks and invisible
    characters do not. No range begins or ends with an invisible character. Runs of a script without spaces are not
    covered: there every token counts as a word.
    """
    if text.isascii():
        return [match.span() for match in _ASCII_WORD.finditer(text)]
    return [trimmed(text, *match.span(1)) for match in _WORD.finditer(text) if match.start(1) >= 0]


def sentence_spans(text: str) -> list[Span]:
    """Character ranges of sentences: ended by . ! ? … or their full-width forms, or by a blank line."""
    clusters = clusters_of(text)
    spans: list[Span] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        before = text[start : match.start()].rsplit(None, 1)
        last = before[-1].lower().lstrip("(\"'") if before else ""
        single_initial = len(last) == 1 and last.isalpha() and match.group() == "."
        if match.group() == "." and (last in _ABBREVIATIONS or single_initial):
            continue
        end = match.end() if clusters is None else clusters.end[match.end() - 1]
        spans.append((start, end))
        start = end
    spans.append((start, len(text)))
    ranges = (trimmed(text, *span) for span in spans)
    return [(start, end) for start, end in ranges if end > start]

"""Edits of a document by script, each with a control: a benign edit of similar size at the same place.

An edit is a function of :class:`Source` that returns the edited text and its control, or None where the document offers
nothing to edit: no auxiliary to negate, no number, no word of the list. All of it is English; a document in another
language is skipped where it has none of the words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from attribution_core.text.words import sentence_spans
from jobs.analysis.statistics.texts import NEGATIONS

# "not" goes behind one of these; its control is "indeed" at the same place.
AUXILIARIES = "is are was were am can could will would shall should may might must has have had does do did"
ANTONYMS = (
    "increase/decrease increases/decreases increased/decreased increasing/decreasing high/low higher/lower "
    "highest/lowest large/small larger/smaller largest/smallest positive/negative more/less most/least greater/lesser "
    "above/below upper/lower before/after strong/weak stronger/weaker early/late earlier/later fast/slow faster/slower "
    "long/short longer/shorter hot/cold thick/thin inside/outside internal/external inner/outer maximum/minimum "
    "good/bad better/worse best/worst presence/absence present/absent activate/inhibit activates/inhibits "
    "activated/inhibited activation/inhibition promote/prevent promotes/prevents promoted/prevented "
    "improve/worsen improves/worsens improved/worsened gain/loss rise/fall accelerate/decelerate stable/unstable "
    "stability/instability compressible/incompressible laminar/turbulent steady/unsteady linear/nonlinear old/young "
    "older/younger male/female men/women heavy/light deep/shallow wide/narrow dry/wet open/closed "
    "always/never all/none many/few possible/impossible dependent/independent success/failure safe/dangerous "
    "protect/harm protects/harms acute/chronic benign/malignant up/down"
)
OPPOSITE = {a: b for pair in ANTONYMS.split() for a, b in (pair.split("/"), reversed(pair.split("/")))}
# Function words that can be exchanged with little change of the meaning: the control of a changed word.
EXCHANGED = {"the": "this", "which": "that", "a": "one", "upon": "on", "within": "in", "since": "because", "thus": "so"}
EXCHANGED |= {
    "also": "too",
    "however": "but",
    "in": "within",
    "these": "those",
    "by": "through",
    "for": "in",
    "and": "&",
}
TITLE_COPIES = 3

_AUXILIARY = re.compile(rf"\b({'|'.join(AUXILIARIES.split())})\b", re.IGNORECASE)
_ANTONYM = re.compile(rf"\b({'|'.join(OPPOSITE)})\b", re.IGNORECASE)
_FUNCTION = re.compile(rf"\b({'|'.join(EXCHANGED)})\b", re.IGNORECASE)
# A number that is no part of a name: "12", "0.35", not "CO2" or "B-12".
_NUMBER = re.compile(r"(?<![\w.,-])\d+(?:[.,]\d+)*(?![\w-]|[.,]\d)")


@dataclass(frozen=True)
class Source:
    """A document to edit.

    ``best`` is the sentence that scores highest against the query, by its place; ``order`` are the places of all
    sentences in the order in which they are tried for an edit, the best one first; ``other`` is a place drawn among the
    sentences that are not the best one (None in a text of one sentence), and ``appended`` a sentence of another
    query's document.
    """

    text: str
    sentences: tuple[tuple[int, int], ...]
    best: int
    order: tuple[int, ...]
    other: int | None
    appended: str | None

    def sentence(self, at: int) -> str:
        """Return the sentence at a place."""
        start, end = self.sentences[at]
        return self.text[start:end]


@dataclass(frozen=True)
class Edited:
    """An edited text and its control."""

    text: str
    control: str


@dataclass(frozen=True)
class Edit:
    """One edit. ``title`` and ``control`` say what is done; ``contradicts`` whether the edited text says something else
    than the true one, so that it should not score higher."""

    name: str
    title: str
    control: str
    make: Callable[[Source], Edited | None]
    contradicts: bool = False


def source(text: str, scores: list[float], draw: Callable[[int], int], appended: str | None) -> Source:
    """Return a document with its sentences, whose ``scores`` are those of each sentence encoded by itself; ``draw(n)``
    returns a number below n."""
    sentences = tuple(sentence_spans(text))
    assert len(sentences) == len(scores), "one score a sentence"
    order = tuple(sorted(range(len(scores)), key=lambda at: -scores[at]))
    rest = order[1:]
    return Source(text, sentences, order[0], order, rest[draw(len(rest))] if rest else None, appended)


def _negated(source: Source) -> Edited | None:
    for at in source.order:
        start, end = source.sentences[at]
        words = {word.lower() for word in re.findall(r"[\w']+", source.text[start:end])}
        auxiliary = _AUXILIARY.search(source.text, start, end)
        if auxiliary and not words & NEGATIONS:
            here = auxiliary.end()
            return Edited(*(f"{source.text[:here]} {word}{source.text[here:]}" for word in ("not", "indeed")))
    return None


def _changed_word(pattern: re.Pattern[str], change: Callable[[str], str]) -> Callable[[Source], Edited | None]:
    """Change the first match of ``pattern`` in the best sentence that has one beside a function word, which the control
    exchanges."""

    def make(source: Source) -> Edited | None:
        for at in source.order:
            start, end = source.sentences[at]
            word, function = (one.search(source.text, start, end) for one in (pattern, _FUNCTION))
            if word and function:
                return Edited(_put(source.text, word, change), _put(source.text, function, lambda old: EXCHANGED[old]))
        return None

    return make


def _put(text: str, match: re.Match[str], change: Callable[[str], str]) -> str:
    old = match.group()
    new = change(old.lower())
    return text[: match.start()] + (new.capitalize() if old[:1].isupper() else new) + text[match.end() :]


def other_number(number: str) -> str:
    """Return another number of as many digits: its first digit changed, never to 0."""
    digit = (int(number[0]) + 4) % 9 + 1
    return f"{digit}{number[1:]}"


def _moved(source: Source) -> Edited | None:
    last = len(source.sentences) - 1
    others = [at for at in range(last) if at != source.best]
    if source.best == last or not others:
        return None
    other = source.other if source.other in others else others[len(others) // 2]
    assert other is not None, "there are others"
    return Edited(_to_the_end(source, source.best), _to_the_end(source, other))


def _to_the_end(source: Source, at: int) -> str:
    start, end = source.sentences[at]
    return f"{source.text[:start].rstrip()} {source.text[end:].strip()} {source.text[start:end]}".strip()


def _repeated(source: Source) -> Edited | None:
    others = [at for at in source.order if at != 0]
    if not others:
        return None
    other = source.other if source.other in others else others[0]
    assert other is not None, "there are others"
    return Edited(*(f"{' '.join([source.sentence(at)] * TITLE_COPIES)} {source.text}" for at in (0, other)))


def _appended(source: Source) -> Edited | None:
    if source.appended is None or source.other is None:
        return None
    return Edited(f"{source.text} {source.appended}", f"{source.text} {source.sentence(source.other)}")


EDITS = (
    Edit("negated", "negates a sentence (not)", "indeed in place of not", _negated, contradicts=True),
    Edit(
        "number",
        "changes a number",
        "exchanges a function word in that sentence (the, this)",
        _changed_word(_NUMBER, other_number),
        contradicts=True,
    ),
    Edit(
        "antonym",
        "swaps a word for its antonym",
        "exchanges a function word in that sentence (the, this)",
        _changed_word(_ANTONYM, lambda old: OPPOSITE[old]),
        contradicts=True,
    ),
    Edit("moved", "moves the best sentence to the end", "moves another sentence to the end", _moved),
    Edit(
        "title",
        f"repeats its first sentence {TITLE_COPIES} times",
        "repeats another sentence as often",
        _repeated,
    ),
    Edit("appended", "appends a sentence of another document", "appends one of its own sentences once more", _appended),
)

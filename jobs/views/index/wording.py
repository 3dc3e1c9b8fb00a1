"""What the terminal and the page say of highlights, and the pieces that both draw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attribution_core.display.view import step
from jobs.index.fragments import fragments, strength
from jobs.index.highlights import Highlight, Span
from jobs.index.snapshot import Facts

# An error of a score that is worth a word.
LARGE_ERROR = 5e-3


@dataclass(frozen=True)
class Passage:
    """A passage of a document: what its highlights lift together, and its text in pieces, highlights with a strength.

    ``value`` is for dot what the highlights add; ``before`` and ``after`` say whether the text has more there.
    """

    value: float
    pieces: tuple[tuple[str, Span | None], ...]
    before: bool = False
    after: bool = False


def passages(hit: Highlight) -> list[Passage]:
    """The passages of a document, strongest first; of an index without texts the offsets of each highlight."""
    if hit.text is None:
        return [Passage(strength(one), ((f"characters {one.start} to {one.end}", one),)) for one in hit.spans]
    return [
        Passage(sum(map(strength, one.spans)), tuple(one.pieces(hit.text)), one.before, one.after)
        for one in fragments(hit)
    ]


def whole(hit: Highlight) -> Iterator[tuple[str, Span | None]]:
    """All of a document's text in pieces."""
    assert hit.text is not None, "an index with texts"
    at = 0
    for span in sorted(hit.spans):
        yield hit.text[at : span.start], None
        yield hit.text[max(at, span.start) : span.end], span
        at = max(at, span.end)
    yield hit.text[at:], None


def colour_step(hit: Highlight, span: Span, steps: int) -> int:
    """How strong a highlight is, from -``steps`` to ``steps``, beside the strongest of its document."""
    return step(strength(span), max(abs(strength(one)) for one in hit.spans), steps)


def legend(facts: Facts) -> str:
    """What the numbers before passages are."""
    unit = facts.groups
    if facts.similarity == "cosine":
        return (
            f"Before each passage: how much its marked {unit}s lift the score, which is what they add beyond an "
            "average part of their document."
        )
    return f"Before each passage: how much its marked {unit}s add to the score."


def document_facts(hit: Highlight) -> list[str]:
    """What is known of a document beside its text, a few words each."""
    large = abs(hit.error) > LARGE_ERROR * max(1.0, abs(hit.score))
    return [f"score {hit.score:.3f}", *([f"numerical error {hit.error:+.3f}"] if large else [])]


def document_note(hit: Highlight) -> str:
    """What a reader must know of a document; "" for nothing."""
    return "Truncated: the document is longer than the model reads; its beginning alone is explained." * hit.truncated


def footer(facts: Facts, model: str) -> str:
    """What computed the numbers."""
    return f"Model {model}, layer {facts.layer}, {facts.similarity}."

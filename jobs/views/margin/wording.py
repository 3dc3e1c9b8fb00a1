"""The sentences and tables of a margin, the same in a terminal and on a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from attribution_core.display.view import text_notes
from attribution_core.text.words import word_key
from jobs.analysis.margin.result import ERROR, Margin, PairPart, WordPart
from jobs.analysis.query.result import QueryDocument
from jobs.views.kit.table import Table, column

# Below this a number is 0.000.
LEAST_SHOWN = 5e-4
# The sentence names words with at least this part of the difference.
NAMED_SHARE, MOST_NAMED = 0.1, 3
QUERY_WORDS, DOCUMENT_WORDS, PAIRS = 12, 8, 8


@dataclass(frozen=True)
class Line:
    """A line of a table: a word with all its occurrences, a word pair, or a rest.

    ``a`` and ``b`` are what it adds to the two scores, None where a document lacks the word or the run stored nothing;
    ``indices`` are the groups of the query that it stands for, and lines with one ``key`` are about one word.
    """

    label: str
    value: float
    a: float | None
    b: float | None
    indices: tuple[int, ...] = ()
    is_word: bool = True
    key: str = ""


def query_lines(margin: Margin, most: int = QUERY_WORDS) -> list[Line]:
    """Return the query's words, those with the largest differences first, then what is left; they sum to the
    difference."""
    lines = [
        replace(line, label=f"{line.label} ×{len(line.indices)}") if len(line.indices) > 1 else line
        for line in _by_word(margin.query_words)
    ]
    return _limited(lines, most, margin.query.groups.unit)


def document_lines(margin: Margin, most: int = DOCUMENT_WORDS) -> list[Line]:
    """Return the words of both documents, each with all its occurrences, likewise."""
    of_a, of_b = (
        {(line.is_word, line.key): line for line in _by_word(words)} for words in (margin.a_words, margin.b_words)
    )
    lines = []
    for key in {**of_a, **of_b}:
        one, other = of_a.get(key), of_b.get(key)
        line = _added([line for line in (one, other) if line is not None])
        # A document that lacks the word has no number.
        lines.append(replace(line, a=None if one is None else one.a, b=None if other is None else other.b))
    return _limited(_sorted(lines), most, margin.documents[0].explained.groups.unit)


def pair_lines(margin: Margin, most: int = PAIRS) -> list[Line]:
    """Return the word pairs that differ most, likewise."""
    words = _together([_pair_line(part) for part in margin.pairs if part.index is not None])
    rest = [_pair_line(part) for part in margin.pairs if part.index is None]
    hidden = words[most:]
    if hidden:
        rest[0] = _added([rest[0], *hidden])
    return [*words[:most], *filter(_shown, rest)]


def _pair_line(part: PairPart) -> Line:
    if part.index is None:
        return Line(part.label, part.value, part.a, part.b, is_word=False)
    key = f"{word_key(part.label)} {word_key(part.word)}"
    return Line(f"{part.label} → {part.word}", part.value, part.a, part.b, (part.index,), key=key)


def _by_word(parts: Sequence[WordPart]) -> list[Line]:
    """Return a line a distinct word, the largest first, and the lines that are no word behind them."""
    lines = []
    for part in parts:
        is_word = part.index is not None
        indices = () if part.index is None else (part.index,)
        key = word_key(part.label) if is_word else part.label
        lines.append(Line(part.label, part.value, part.a, part.b, indices, is_word, key))
    return _together(lines)


def _together(lines: Sequence[Line]) -> list[Line]:
    """Return lines with the same key as one."""
    by_key: dict[tuple[bool, str], list[Line]] = {}
    for line in lines:
        by_key.setdefault((line.is_word, line.key), []).append(line)
    return _sorted([_added(same) for same in by_key.values()])


def _added(lines: Sequence[Line]) -> Line:
    """Return the sum of some lines, called as the first of them."""
    a, b = (None if all(getattr(line, side) is None for line in lines) else _sum(lines, side) for side in ("a", "b"))
    indices = tuple(index for line in lines for index in line.indices)
    return replace(lines[0], value=_sum(lines, "value"), a=a, b=b, indices=indices)


def _sorted(lines: Sequence[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: (not line.is_word, -abs(line.value) if line.is_word else 0.0))


def _sum(lines: Sequence[Line], name: str) -> float:
    return float(sum(getattr(line, name) or 0.0 for line in lines))


def _limited(lines: Sequence[Line], most: int, unit: str) -> list[Line]:
    words = [line for line in lines if line.is_word]
    hidden = words[most:]
    shown = words[:most]
    if len(hidden) == 1:
        shown, hidden = words, []
    rest = [line for line in lines if not line.is_word and _shown(line)]
    if hidden:
        rest.insert(0, replace(_added(hidden), label=f"{len(hidden)} other {unit}s", is_word=False))
    return [*shown, *rest]


def _shown(line: Line) -> bool:
    """Return whether a line that is no word says anything; the numerical error of both scores may cancel."""
    sides = () if line.label == ERROR else (line.a, line.b)
    return any(abs(value or 0.0) >= LEAST_SHOWN for value in (line.value, *sides))


def tables(margin: Margin) -> list[Table]:
    """Return the tables: by the query's words, by word pairs where the run has them, by the documents' words."""
    unit, unit_b = margin.query.groups.unit, margin.documents[0].explained.groups.unit
    return [
        _table(margin, f"What each {unit} of the query adds to the scores of A and B", unit, query_lines(margin)),
        *(
            [_table(margin, f"{unit.capitalize()} pairs that differ most", "word pair", pair_lines(margin))]
            if margin.pairs
            else []
        ),
        _table(
            margin,
            f"What the {unit_b}s of the documents add, all occurrences together",
            unit_b,
            document_lines(margin),
        ),
    ]


def _table(margin: Margin, title: str, head: str, lines: Sequence[Line]) -> Table:
    """Return lines as a table with their sum; the bars are the differences."""
    total = Line("sum", margin.difference, margin.score_a, margin.score_b, is_word=False)
    every = [*lines, total]

    def text(value: float | None, sign: str) -> str:
        return "" if value is None else f"{value:{sign}.3f}"

    columns = [
        column(head, every, lambda line: line.label, label=True),
        column("A", every, lambda line: text(line.a, "")),
        column("B", every, lambda line: text(line.b, "")),
        column("A - B", every, lambda line: text(line.value, "+")),
    ]
    return Table(title, columns, [line.value if line.is_word else None for line in every])


def verdict(margin: Margin) -> list[str]:
    """Return which document is above, by how much, whether it should be, and which words of the query decide it."""
    first, second = margin.documents
    gap, above, below, sign = margin.difference, first, second, 1
    if gap < 0:
        gap, above, below, sign = -gap, second, first, -1
    if gap < LEAST_SHOWN:
        return [f"{first.id} and {second.id} have the same score, {first.score:.3f}."]
    said = [f"{above.id} is above {below.id} by {gap:.3f} (score {above.score:.3f} against {below.score:.3f})."]
    if (below.relevance or 0) > 0 and not (above.relevance or 0) > 0:
        if above.relevance is None:
            said.append(
                f"{below.id} is {judged(below)}, and {above.id} is {judged(above)}: if it is not relevant, it should "
                "be below."
            )
        else:
            said.append(f"It should be below: {below.id} is {judged(below)}, and {above.id} is {judged(above)}.")
    words = [line for line in _by_word(margin.query_words) if line.is_word]
    made = _named([(line.label, sign * line.value) for line in words], gap)
    against = _named([(line.label, -sign * line.value) for line in words], gap)
    unit = margin.query.groups.unit
    if made:
        said.append(f"Query {unit}s that put it above: {_listed(made, '+')}.")
    else:
        said.append(f"No single query {unit} decides it: the difference is spread over all of them.")
    if against:
        said.append(f"Against it: {_listed(against, '-')}.")
    return said


def _named(words: Sequence[tuple[str, float]], gap: float) -> list[tuple[str, float]]:
    strongest = sorted(words, key=lambda word: -word[1])[:MOST_NAMED]
    return [word for word in strongest if word[1] >= max(NAMED_SHARE * gap, LEAST_SHOWN)]


def _listed(words: Sequence[tuple[str, float]], sign: str) -> str:
    return ", ".join(f"{label} {sign}{value:.3f}" for label, value in words)


def judged(document: QueryDocument) -> str:
    """Return the document's judgment in words."""
    if document.relevance is None:
        return "not judged"
    return f"relevant ({document.relevance:g})" if document.relevance > 0 else "not relevant"


def facts(margin: Margin, document: QueryDocument) -> list[str]:
    """Return what is known of a document beside its text."""
    words = [f"score {document.score:.3f}"]
    if document.pair_id and margin.query_id:
        words.append(f"rank {document.rank}")
    if document.log_score is not None:
        words.append(f"log score {document.log_score:.3f}")
    if any(one.relevance is not None for one in margin.documents):
        words.append(judged(document))
    return words


def notes(margin: Margin, spell: Callable[[str], str] = str) -> list[str]:
    """Return what a reader must know before trusting the numbers, one sentence each."""
    lines = [*margin.notes, *text_notes("the query", margin.query)]
    for name, document in zip("AB", margin.documents, strict=True):
        lines += text_notes(name, document.explained)
    if abs(margin.error) >= LEAST_SHOWN:
        lines.append(
            f"The numbers are exact to {abs(margin.error):.4f}, the numerical error of the integral; a smaller "
            "quadrature.tolerance makes it smaller."
        )
    return [spell(line) for line in lines]


def marks_legend(margin: Margin) -> tuple[str, str]:
    """Return what marked words of the documents do: those above zero and those below it."""
    if all(one.by == "lift" for one in margin.documents):
        return "lift its score most", "pull it down"
    return "add most to its sum", "lower it"

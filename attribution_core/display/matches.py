"""Where a late-interaction model matched: what is listed of a pair's matches, for terminals and pages."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from attribution_core.display.view import names, unit_words
from attribution_core.results import Match, PairAttribution

TITLE = "Where the model matched"


@dataclass(frozen=True)
class MatchLine:
    """One line: ``a`` met ``b`` and gave ``value``; ``share`` is its part of the score, None if that is not positive.

    ``i`` and ``j`` are the words' places, None in a line for several words.
    """

    a: str
    b: str
    value: float
    share: float | None
    i: int | None = None
    j: int | None = None


def match_lines(pair: PairAttribution, count: int, *, special: bool = False) -> list[MatchLine]:
    """Return where the model matched, as lines whose values sum to the score; none for a model without matches.

    Each of the ``count`` strongest pairs of words that met has a line; further lines are for all weaker ones, for the
    tokens that fill the query up, and for its other special and prompt tokens, which ``special`` lists like words.
    """
    by_words: dict[tuple[int, int], list[Match]] = defaultdict(list)
    others: dict[int, list[Match]] = defaultdict(list)
    for match in pair.matches or ():
        if special or pair.a.groups.kinds[match.i] == "text":
            by_words[match.i, match.j].append(match)
        else:
            others[match.i].append(match)
    ranked = sorted(by_words.items(), key=lambda item: (-abs(_sum(item[1])), item[0]))
    lines = [
        MatchLine(of[0].a, of[0].b, _sum(of), _share(pair, _sum(of)), i, j) for (i, j), of in ranked[: max(count, 0)]
    ]
    weaker = [match for _, of in ranked[len(lines) :] for match in of]
    if weaker:
        number = len(ranked) - len(lines)
        unit = unit_words(pair)
        lines.append(_line(pair, f"{number} weaker {unit} match{'es' if number > 1 else ''}", weaker))
    filled = {i for i, of in others.items() if len(of) > 1}
    lines += [_line(pair, f"{others[i][0].a} × {len(others[i])}", others[i]) for i in sorted(filled)]
    single = [match for i, of in sorted(others.items()) if i not in filled for match in of]
    if single:
        lines.append(_line(pair, " ".join(match.a for match in single), single))
    return lines


def expanded_part(pair: PairAttribution) -> float | None:
    """Return the part of the score that outputs of the tokens have that fill the query up, [MASK] mostly.

    None where there are none, or where the score is not positive.
    """
    tokens = Counter(match.i for match in pair.matches or () if pair.a.groups.kinds[match.i] == "special")
    filled = [match for match in pair.matches or () if tokens[match.i] > 1]
    return _share(pair, _sum(filled)) if filled else None


def match_meaning(pair: PairAttribution) -> str:
    """Return what the lines are, as a sentence."""
    a, b = (f"the {name}" if len(name) > 1 else name for name in names(pair))
    return (
        f"Each token of {a} is matched with its most similar token of {b}, as in the model; the values sum to the "
        f"score. The {unit_words(pair)}s above are what made these tokens similar."
    )


def _line(pair: PairAttribution, label: str, of: Sequence[Match]) -> MatchLine:
    """One line for several matches: ``b`` is the word that was met most, and how many others were."""
    met: dict[int, float] = defaultdict(float)
    for match in of:
        met[match.j] += match.value
    most = max(met, key=lambda j: (abs(met[j]), -j))
    others = len(met) - 1
    b = next(match.b for match in of if match.j == most)
    return MatchLine(
        label, f"{b} and {others} other{'s' if others > 1 else ''}" if others else b, _sum(of), _share(pair, _sum(of))
    )


def _sum(of: Sequence[Match]) -> float:
    return float(sum(match.value for match in of))


def _share(pair: PairAttribution, value: float) -> float | None:
    return value / pair.score if pair.score > 0 else None


def shown_share(line: MatchLine) -> str:
    """Return a line's part of the score as text."""
    return "" if line.share is None else f"{line.share:.0%}"

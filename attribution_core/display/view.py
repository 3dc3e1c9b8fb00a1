"""What every drawing of one pair has in common: what is shown, in which words, and text that is safe to print."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from attribution_core.results import Cell, ExplainedText, Floats, PairAttribution
from attribution_core.text.characters import tagged_flags

# A scale end below this is noise: such a matrix is drawn as all zeros instead of as a riot of colour.
SMALLEST_LIMIT = 1e-6
MISSING = "·"
NO_WORD_PAIRS = "No word pairs were computed (level: words): a word's number is what it adds to the whole sum."
# Characters at most of the words on either side of a repeated word, which say which one it is.
NEAR = 24
# Invisible where it stands alone; harmless to leave out. Everything else that is not printable is spelled out.
_INVISIBLE = frozenset("\u00ad\u200b\u2060\ufeff")
_JOINERS = frozenset("\u200c\u200d")
_SPACES = frozenset("\t\n\v\f\r\u0085\u2028\u2029")
_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_MARKS = 3


@dataclass(frozen=True)
class Term:
    """One line of the sum that makes the score: ``sign`` is "=", "+" or "-"."""

    sign: str
    words: str
    value: float


@dataclass(frozen=True)
class View:
    """The part of a pair that is drawn.

    ``rows`` [R] and ``cols`` [C] are indices into the pair's matrix in reading order; ``cells`` [R, C] are those
    cells, NaN where the run did not store one, with at least one stored cell in each row and column; ``limit`` is the
    end of the colour scale, the largest absolute value of every row and column that may be drawn, so that it does not
    depend on how many of them fit. ``unstored`` counts the rows and columns without a stored cell.
    """

    pair: PairAttribution
    rows: NDArray[np.intp]
    cols: NDArray[np.intp]
    cells: Floats
    limit: float
    special: bool
    unstored: tuple[int, int]

    def smaller(self, rows: int, cols: int) -> View:
        """The ``rows`` and ``cols`` with the largest sums of absolute values, in reading order."""
        sizes = np.abs(np.nan_to_num(self.cells))
        keep_rows = largest(sizes.sum(1), rows)
        keep_cols = largest(sizes[keep_rows].sum(0), cols)
        known = np.isfinite(self.cells[np.ix_(keep_rows, keep_cols)])
        keep_rows, keep_cols = keep_rows[known.any(1)], keep_cols[known.any(0)]
        cells = self.cells[np.ix_(keep_rows, keep_cols)]
        return replace(self, rows=self.rows[keep_rows], cols=self.cols[keep_cols], cells=cells)

    @property
    def left_out(self) -> str:
        """What the pair has and this view has not, as a sentence; "" when nothing is missing."""
        if not self.pair.has_word_pairs:
            return ""
        texts = self.pair.a, self.pair.b
        everything = [len(shown_groups(text, self.special)) for text in texts]
        drawn = len(self.rows), len(self.cols)
        weaker = [count - one - other for count, one, other in zip(everything, drawn, self.unstored, strict=True)]
        parts = []
        for counts, why in ((self.unstored, "without a stored pair"), (weaker, "with smaller numbers")):
            named = [
                f"{count:,} {text.groups.unit}{'s' if count > 1 else ''} of {name}"
                for count, text, name in zip(counts, texts, names(self.pair), strict=True)
                if count
            ]
            if named:
                parts.append(f"{' and '.join(named)} {why}")
        return f"Not shown: {'; '.join(parts)}." if parts else ""

    @property
    def row_labels(self) -> list[str]:
        return [printable(self.pair.a.groups.labels[i]) for i in self.rows]

    @property
    def col_labels(self) -> list[str]:
        return [printable(self.pair.b.groups.labels[j]) for j in self.cols]


def view_of(pair: PairAttribution, special: bool) -> View:
    """Everything of ``pair`` that may be drawn and has a stored cell: of all groups, or of those of kind "text"."""
    rows = shown_groups(pair.a, special)
    cols = shown_groups(pair.b, special)
    cells = pair.matrix[np.ix_(rows, cols)]
    known = np.isfinite(cells)
    has_row, has_col = known.any(1), known.any(0)
    limit = float(np.abs(cells[known]).max(initial=0.0))
    return View(
        pair,
        rows[has_row],
        cols[has_col],
        cells[np.ix_(has_row, has_col)],
        limit if limit > SMALLEST_LIMIT else 0.0,
        special,
        (int((~has_row).sum()), int((~has_col).sum())),
    )


def shown_groups(text: ExplainedText, special: bool) -> NDArray[np.intp]:
    """Indices of the groups that are drawn: special and prompt tokens only when asked for."""
    return np.array([g for g, kind in enumerate(text.groups.kinds) if special or kind == "text"], dtype=np.intp)


def step(value: float, limit: float, steps: int) -> int:
    """The position of ``value`` on a scale from -``limit`` to ``limit``: an integer from -``steps`` to ``steps``.

    The steps follow the square root: beside one large cell, as most pairs have one, equal steps would leave all the
    others in the weakest shade.
    """
    if not limit or not np.isfinite(value):
        return 0
    return int(np.sign(value) * np.rint(min(abs(value) / limit, 1.0) ** 0.5 * steps))


def decimals_for(limit: float) -> int:
    """Two decimals; three where two would leave one significant digit; fewer for the large values of a dot model."""
    if limit >= 99.5:
        return 0
    if limit >= 9.95:
        return 1
    return 3 if limit < 0.0995 else 2


def number(value: float, decimals: int) -> str:
    """A cell's number in as few characters as it takes: ".25", "-.03", "1.20"; "·" for a cell that is not stored."""
    if not np.isfinite(value):
        return MISSING
    if abs(value) >= 1e5:
        return f"{value:.0e}"
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def names(pair: PairAttribution) -> tuple[str, str]:
    """What the two texts are called: their roles in a retrieval pair, else a and b."""
    roles = printable(pair.a.role), printable(pair.b.role)
    return roles if roles[0] != roles[1] and all(roles) else ("a", "b")


def unit_words(pair: PairAttribution) -> str:
    """ "word", "token" or "sentence"; both, where the two texts are grouped differently."""
    units = pair.a.groups.unit, pair.b.groups.unit
    return units[0] if units[0] == units[1] else f"{units[0]} and {units[1]}"


def model_words(model: str) -> str:
    """The model's name; of a model that is a folder the last two parts of its path."""
    parts = model.replace("\\", "/").rstrip("/").split("/")
    return model if parts[0] and len(parts) <= 2 else "/".join(parts[-2:])


def terms(pair: PairAttribution) -> list[Term]:
    """The terms that sum to the score, in plain words."""
    a, b = names(pair)
    parts = [Term("=", f"{unit_words(pair)} pairs", pair.total)]
    special = special_sum(pair)
    if special is not None and kept_kinds(pair):
        parts = [
            Term("=", f"{unit_words(pair)} pairs", pair.total - special),
            Term("+", kept_kinds(pair), special),
        ]
    elif not pair.has_word_pairs:
        parts = [Term("=", f"{unit_words(pair)}s and {kept_kinds(pair)}", pair.total)]
    elif special is None:
        parts = [Term("=", f"all pairs of {unit_words(pair)}s and {kept_kinds(pair)}", pair.total)]
    if pair.sums_to == "difference":
        parts += [
            Term("+", f"{a} with the reference of {b}", pair.reference_a),
            Term("+", f"the reference of {a} with {b}", pair.reference_b),
            Term("-", "both references", pair.reference_ab),
        ]
    if pair.sums_to == "centred":
        parts.append(Term("+", "what average texts share", pair.score - pair.total))
    return parts


def beside(view: View, place: int) -> str:
    """Where a reader sees the numbers that the term at ``place`` is the sum of; "" for what no cell has."""
    pair = view.pair
    if place == 0 and not pair.has_word_pairs:
        return f"the strongest {unit_words(pair)}s are below"
    if place == 0 and not pair.complete:
        return "the strongest are below"
    if place == 0:
        return "the sum of the numbers below" + (", special ones aside" if view.special and kept_kinds(pair) else "")
    if place == 1 and kept_kinds(pair) and special_sum(pair) is not None:
        return "among the numbers below" if view.special else "not listed below"
    return ""


def kept_kinds(pair: PairAttribution) -> str:
    """The groups of a pair that are not words: "special tokens", "special and prompt tokens", or ""."""
    return other_kinds(pair.a, pair.b)


def other_kinds(*texts: ExplainedText) -> str:
    """The same of some texts."""
    kinds = {kind for text in texts for kind in text.groups.kinds} - {"text"}
    return f"{' and '.join(sorted(kinds, reverse=True))} tokens" if kinds else ""


def meaning(pair: PairAttribution) -> str:
    """What the sum of a pair's cells is, where that is not the score itself; "" where it is."""
    if pair.sums_to == "difference":
        return (
            "The pairs sum to what the score gains over references: the same texts with one token, such as padding, "
            "in place of every word."
        )
    if pair.sums_to == "centred":
        return "The pairs sum to what sets these texts apart from average ones: the run's mean embeddings are left out."
    return ""


def special_sum(pair: PairAttribution) -> float | None:
    """The sum over all cells in a special or prompt row or column; None where a run did not store enough."""
    if not kept_kinds(pair):
        return 0.0
    if pair.complete:
        rows, cols = shown_groups(pair.a, False), shown_groups(pair.b, False)
        return float(pair.matrix.sum(dtype=np.float64) - pair.matrix[np.ix_(rows, cols)].sum(dtype=np.float64))
    return pair.special


def notes(view: View) -> list[str]:
    """What a reader must know before trusting the numbers, one sentence each; empty for an ordinary pair."""
    pair = view.pair
    lines: list[str] = [meaning(pair)] if meaning(pair) else []
    if not pair.has_word_pairs:
        lines.append(NO_WORD_PAIRS)
    for name, text in zip(names(pair), (pair.a, pair.b), strict=True):
        lines += text_notes(name, text)
    if np.isnan(view.cells).any():
        lines.append(f'"{MISSING}" marks a cell that the run did not store.')
    return lines


def text_notes(name: str, text: ExplainedText) -> list[str]:
    """What a reader must know of one text, which the page calls ``name``: that it is approximate, or was cut."""
    lines = []
    if not text.converged:
        lines.append(
            f"Approximate: the integration of {name} missed its tolerance"
            f" (residual {text.residual:.1e} after {text.nodes} nodes)."
        )
    if text.truncated:
        where = "" if text.cut_at is None else f": characters 1 to {text.cut_at:,} of {len(text.text):,}"
        lines.append(f"Truncated: {name} is longer than the model reads{where} are explained.")
    return lines


def numerical_error(pair: PairAttribution) -> float:
    """By how much the sum misses what it must be, in the unit of the score."""
    if pair.similarity == "cosine" or pair.sums_to == "centred":  # whose own unit that is, or whose target is not known
        return abs(pair.error)
    expected = pair.score
    if pair.sums_to == "difference":
        expected += pair.reference_ab - pair.reference_a - pair.reference_b
    return abs(pair.total - expected)


def warns(note: str) -> bool:
    """Whether a note is a warning about the numbers."""
    return note.startswith(("Approximate", "Truncated"))


# How word pairs of a late-interaction model are ranked.
BY_INTERACTION = (
    "Ranked by interaction, c_i · c_j without the references' shares. Interactions do not sum to the score."
)


def top_cells(view: View, count: int) -> list[Cell]:
    """The strongest stored cells that may be drawn."""
    return [cell for cell in view.pair.top(count, special=view.special) if np.isfinite(cell.value)]


def strength(cell: Cell) -> float:
    """What a cell is ranked by: its interaction where there is one, else its value."""
    return cell.value if cell.interaction is None else cell.interaction


@dataclass(frozen=True)
class WordSum:
    """What group ``index`` of a text, called ``label``, adds to the pair's sum."""

    index: int
    label: str
    value: float


def word_sums(view: View, count: int) -> list[tuple[str, ExplainedText, list[WordSum]]]:
    """Of a pair without word pairs each text, what it is called, and its ``count`` strongest words; [] for others."""
    pair = view.pair
    if pair.has_word_pairs:
        return []
    sides = zip(names(pair), (pair.a, pair.b), (pair.row_sums, pair.col_sums), strict=True)
    listed = []
    for name, text, sums in sides:
        shown = shown_groups(text, view.special)
        order = shown[np.argsort(-np.abs(sums[shown]), kind="stable")][: max(count, 0)]
        words = [WordSum(g, text.groups.labels[g], float(sums[g])) for g in order.tolist()]
        if words:
            listed.append((name, text, words))
    return listed


def surroundings(text: ExplainedText, index: int) -> list[str]:
    """The words around group ``index`` in its text, where that has the same group more than once; else nothing.

    The longest first: with a whole word before and behind it, with either, and none of more than ``NEAR`` characters
    on a side.
    """
    groups = text.groups
    if groups.kinds[index] != "text" or groups.labels.count(groups.labels[index]) < 2:
        return []
    start, end = groups.starts[index], groups.ends[index]
    # One character more shows whether the last word goes on.
    before = re.search(r"(?:^|(?<=\s))(\S+\s+)?\S*$", text.text[max(start - NEAR - 1, 0) : start])
    after = re.match(r"\S*(\s+\S+)?(?=\s|$)", text.text[end : end + NEAR + 1])
    left, right = (found[0] if found and len(found[0]) <= NEAR else "" for found in (before, after))
    word = text.text[start:end]
    tried = (f"{left}{word}{right}", f"{left}{word}", f"{word}{right}")
    return [one for one in dict.fromkeys(tried) if one != word]


def printable(text: str) -> str:
    """``text`` as one line that a terminal or a page cannot take for a command.

    Control characters, terminal escapes, direction overrides and lone surrogates are spelled out (``\\x1b``), white
    space becomes a space, invisible characters go, and a tower of combining marks is cut. A flag keeps its tags.
    """
    out: list[str] = []
    marks = 0
    flags = {at for start, end in tagged_flags(text) for at in range(start, end)}
    for at, character in enumerate(text):
        if character in _SPACES:
            out.append(" ")
            continue
        kind = unicodedata.category(character)
        marks = marks + 1 if kind in ("Mn", "Me") else 0
        if marks > _MARKS or character in _INVISIBLE:
            continue
        out.append(character if kind not in _HARMFUL or character in _JOINERS or at in flags else spelled(character))
    line = "".join(out)
    if not line.strip("\u200c\u200d"):
        return "".join(map(spelled, text[:1]))
    return "◌" + line if unicodedata.category(line[0]) in ("Mn", "Me") else line


def shortened(text: str, length: int) -> str:
    """``text`` in at most ``length`` characters, with an ellipsis where something was cut: between words, if it has
    some."""
    return text if len(text) <= length else whole_words(text[: length - 1], text[length - 1]) + "…"


def whole_words(start: str, following: str = "") -> str:
    """The beginning of a text without a word that goes on in ``following``; all of it where that would lose more than
    a third."""
    kept = start.rstrip()
    if following and not following[0].isspace() and kept == start:
        whole = re.sub(r"\s+\S*$", "", start)
        return whole if 3 * len(whole) >= 2 * len(start) else start
    return kept


def spelled(character: str) -> str:
    """The escape that Python would write for ``character``, visible and harmless."""
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def largest(sizes: NDArray[np.floating], count: int) -> NDArray[np.intp]:
    """Indices of the ``count`` largest, ascending; the earlier one of two equals."""
    return np.sort(np.argsort(-sizes, kind="stable")[: max(count, 0)])

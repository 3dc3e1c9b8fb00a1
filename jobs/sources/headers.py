"""Whether the first line of a table names its columns, or is a row like those below it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import median

NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?%?")
DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ]\d{1,2}:\d{2}(:\d{2}([.]\d+)?)?\s*(Z|[+-]\d{2}:?\d{2})?)?")
ADDRESS = re.compile(r"https?://\S+", re.I)
HEXADECIMAL = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}|[0-9a-f]{16,64}", re.I)
SENTENCE_END = re.compile(r"[.!?…。！？।؟][\"'”’»」』)]*$")
# Scripts written without spaces: a sign counts as half a word.
UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
# Names that columns of texts, ids and labels have; a line with one of them is a header.
USUAL_NAMES = frozenset(
    """_id id docid doc_id docno pid qid query_id corpus_id query-id corpus-id pair_id guid index idx split text
    text1 text2 text_a text_b texta textb sentence sentence1 sentence2 sentence_a sentence_b sentence_1 sentence_2 sent1
    sent2 query question question1 question2 answer context passage document positive negative anchor premise hypothesis
    title body content contents source target label labels score scores similarity similarity_score relevance gold_label
    is_duplicate relatedness_score""".split()  # noqa: SIM905
)
MOSTLY = 0.9
ROWS = 200


def looks_headerless(first: Sequence[str], below: Sequence[Sequence[str]], known: Sequence[str]) -> bool:
    """Whether ``first`` reads like a row of ``below`` and not like names of columns. ``known``: names that the job
    uses.

    In doubt it is a header: a column is evidence only where its first cell is of a kind (number, date, address, code)
    that all others are of as well or none is, or where it is a sentence among sentences.
    """
    if any(cell in known or cell.strip().lower() in USUAL_NAMES for cell in first) or _numbered(first):
        return False
    if sum(map(_speaks_of_one, first)) > 1:  # the query, the answer
        return False
    rows = [row for row in below[:ROWS] if len(row) == len(first)]
    columns = [[row[at].strip() for row in rows] for at in range(len(first))]
    said = [_says(cell.strip(), column) for cell, column in zip(first, columns, strict=True)]
    if "header" in said:
        return False
    texts = [one for one in said if one in ("sentence", "name", "text")]
    if "row" in said:
        return not texts or any(one != "name" for one in texts)
    return texts.count("sentence") > 1 or (texts.count("sentence") == 1 and len(texts) == 1 and len(first) > 1)


def surely_header(first: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Whether ``first`` names columns without doubt: by a usual name that no row has in that place."""
    usual = [at for at, cell in enumerate(first) if cell.strip().lower() in USUAL_NAMES and cell == cell.strip()]
    rows = [row for row in below[:ROWS] if len(row) == len(first)]
    return len(usual) > 1 and bool(rows) and not any(row[at] == first[at] for row in rows for at in usual)


def _says(cell: str, below: list[str]) -> str:
    """What a column shows about its first cell: row, header, sentence, name, text, or nothing."""
    filled = [one for one in below if one]
    if not cell:  # an index has no name, in pandas and in R
        counted = [[str(at + start) for at in range(len(below))] for start in (0, 1)]
        return "header" if below and below in counted else "nothing"
    kind = _kind(cell)
    if filled:
        same = sum(_kind(one) == kind for one in filled)
        if kind is not None:
            return "row" if same >= MOSTLY * len(filled) else "nothing"
        if not same or sum(_kind(one) is not None for one in filled) >= MOSTLY * len(filled):
            return "header"
        if any(sign.isdigit() for sign in cell) and any(one != cell for one in filled):
            shape = _shape(cell)
            if sum(_shape(one) == shape for one in filled) >= MOSTLY * len(filled):
                return "row"
    elif kind is not None:
        return "row"
    usual = median(map(_words, filled)) if filled else _words(cell)
    words = _words(cell)
    ends = SENTENCE_END.search(cell) is not None
    if (words >= 3 and ends) or words >= 6:
        return "sentence" if usual >= 3 else "header"
    return "name" if words <= 2 and not ends and usual >= 4 else "text"


def _kind(cell: str) -> str | None:
    patterns = {"number": NUMBER, "date": DATE, "address": ADDRESS, "code": HEXADECIMAL}
    return next((name for name, pattern in patterns.items() if pattern.fullmatch(cell)), None)


def _shape(cell: str) -> str:
    """The cell with every number replaced by 0, so that counted ids become equal."""
    return re.sub(r"\d+", "0", cell)


def _words(cell: str) -> float:
    return len(cell.split()) + len(UNSPACED.findall(cell)) / 2


def _speaks_of_one(cell: str) -> bool:
    """Whether a usual name is one of few words, as in ``Question (de)``."""
    words = re.findall(r"[^\W\d_]+", cell.lower())
    return len(words) <= 3 and any(word in USUAL_NAMES for word in words) and SENTENCE_END.search(cell) is None


def _numbered(first: Sequence[str]) -> bool:
    """Whether the cells are 0, 1, 2 … as pandas names columns that have no name, one of an index perhaps before."""
    cells = [cell.strip() for cell in first]
    plain = cells[1:] if cells and not cells[0] else cells
    return len(plain) > 1 and plain == [str(at) for at in range(len(plain))]

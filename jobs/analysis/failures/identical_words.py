"""A description of an inversion: the identical words that only the wrong document has, with their share of the margin.

It does not say that these words caused the inversion: a right document may say the same in other words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from attribution_core.results import ExplainedText
from attribution_core.text.words import word_key
from jobs.analysis.failures.result import IdenticalWord
from jobs.run.reader import Run
from jobs.storage.duckdb import temporary_database

# A margin below this is a tie, and has no shares.
TIE = 1e-4


def words_of_groups(text: ExplainedText) -> frozenset[str]:
    """Return the words of a text as the model read it, letter case aside."""
    groups = text.groups
    return frozenset(word_key(label) for label, kind in zip(groups.labels, groups.kinds, strict=True) if kind == "text")


def identical_words(
    query: ExplainedText,
    above: tuple[frozenset[str], Sequence[float], float],
    below: tuple[frozenset[str], Sequence[float], float],
    documents: Mapping[str, int],
    of: int,
) -> tuple[IdenticalWord, ...]:
    """Return the query's words that only the document above has, the largest share of the margin first.

    ``above`` and ``below`` are each document's words, its row's ``row_sums`` (one value a group of the query) and its
    score. ``documents`` says how many of the run's ``of`` documents have a word.
    """
    margin = above[2] - below[2]
    parts: dict[str, float] = {}
    groups = query.groups
    for at, (label, kind) in enumerate(zip(groups.labels, groups.kinds, strict=True)):
        word = word_key(label)
        if kind == "text" and any(sign.isalnum() for sign in word) and word in above[0] and word not in below[0]:
            parts[word] = parts.get(word, 0.0) + above[1][at] - below[1][at]
    words = [
        IdenticalWord(
            word=word,
            documents=(count := max(documents.get(word, 1), 1)),
            idf=math.log(max(of, count) / count),
            share=part / margin if margin > TIE else None,
        )
        for word, part in sorted(parts.items(), key=lambda item: (-item[1], item[0]))
    ]
    return tuple(words)


def document_counts(run: Run, words: Iterable[str]) -> tuple[dict[str, int], int]:
    """Return how many of the run's documents have each word, and how many documents there are, by one pass over
    ``texts``."""
    with temporary_database() as con:
        con.register("parts", run.dataset("texts"))
        with run.store.guard("read", "texts"):
            con.execute(
                "CREATE TABLE documents AS SELECT DISTINCT ON (text_id) text_id, groups FROM parts WHERE role = ?",
                [run.roles[1]],
            )
        con.execute("CREATE TABLE wanted AS SELECT unnest(?::VARCHAR[]) AS word", [sorted(set(words))])
        counts = con.execute(
            "SELECT word, count(DISTINCT text_id) FROM (SELECT text_id, lower(unnest(groups)) AS word FROM documents) "
            "WHERE word IN (SELECT word FROM wanted) GROUP BY 1"
        ).fetchall()
        (of,) = con.execute("SELECT count(*) FROM documents").fetchall()[0]
    return {str(word): int(count) for word, count in counts}, int(of)

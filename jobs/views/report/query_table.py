"""The table of a log's queries: how each was ranked, and what in it may explain that."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from attribution_core.display.view import printable, shortened
from jobs.analysis.ranking.result import Ranking, meaning_of
from jobs.run.reader import Run
from jobs.views.report.database import connected, one_row
from jobs.views.report.rows import Head, Row, Rows, number
from jobs.views.report.verdict import RANKINGS, one_order

# Rows that a page holds; of more queries as many are drawn at random.
MOST_QUERIES = 400
LONGEST_QUERY, LONGEST_WORDS = 120, 60
NO_WORDS = "–"


@dataclass(frozen=True)
class QueryFacts:
    """What the run's rows say of one query: its ``documents``, how many of them were ``cut``, the best ``score`` and
    by how much that is above the second."""

    id: str
    text: str
    documents: int
    cut: int
    score: float
    lead: float | None


def read_facts(run: Run, seed: int, wanted: Sequence[str], most: int = MOST_QUERIES) -> tuple[int, list[QueryFacts]]:
    """Return how many queries the run has, and facts of ``most`` of them: those ``wanted``, and others drawn at
    random."""
    if run.roles[0] != "query":
        return 0, []
    with _queries(run) as con:
        con.register("wanted", pa.table({"id": pa.array(list(wanted), pa.string())}))
        count = one_row(con, "SELECT count(*) AS n FROM queries")["n"]
        rows = con.execute(
            "SELECT id, documents, best, cut FROM queries ORDER BY id IN (SELECT id FROM wanted) DESC, "
            f"md5('{int(seed)}:' || id), id LIMIT {int(most)}"
        ).fetchall()
    texts = run.written_texts([row[0] for row in rows], "query")
    facts = [
        QueryFacts(id, texts.get(id, ""), documents, cut, best[0], best[0] - best[1] if len(best) > 1 else None)
        for id, documents, best, cut in rows
    ]
    return count, sorted(facts, key=lambda one: _in_order(one.id))


def most_cut(run: Run, most: int = 10) -> list[tuple[str, int, int]]:
    """Return the queries with the largest part of their documents cut: id, how many were cut, and of how many."""
    with _queries(run) as con:
        return list(
            con.execute(
                "SELECT id, cut, documents FROM queries WHERE cut > 0 "
                f"ORDER BY cut / documents DESC, cut DESC, id LIMIT {int(most)}"
            ).fetchall()
        )


@contextlib.contextmanager
def _queries(run: Run) -> Iterator[Any]:
    """A database with the table ``queries``: id, documents, the two ``best`` scores, how many documents were cut."""
    of_rows = ("text_a_id", "text_b_id", "score")
    with connected(run, {"attributions": of_rows, "texts": ("text_id", "role", "truncated")}) as con:
        con.execute("CREATE TABLE cut AS SELECT text_id FROM texts WHERE truncated AND role = 'document'")
        con.execute(
            "CREATE TABLE queries AS SELECT text_a_id AS id, count(*) AS documents, max(score, 2) AS best, "
            "count(*) FILTER (text_b_id IN (SELECT text_id FROM cut)) AS cut FROM attributions GROUP BY text_a_id"
        )
        yield con


def _in_order(id: str) -> tuple[int, int, str]:
    """Ids that are numbers by their number, then the others."""
    return (0, int(id), id) if id.isdecimal() and len(id) < 20 else (1, 0, id)


def without_effect(tables: Mapping[str, pa.Table]) -> dict[str, list[str]]:
    """Return the words without effect of each query, those that lower the scores most first."""
    words: dict[str, list[str]] = {}
    table = tables.get("words_without_effect")
    if table is not None:
        for query, word in zip(table["query_id"].to_pylist(), table["word"].to_pylist(), strict=True):
            own = words.setdefault(str(query), [])
            if (said := printable(str(word))) not in own:
                own.append(said)
    return words


def query_rows(
    facts: Sequence[QueryFacts],
    count: int,
    ranking: Ranking | None,
    lost: Mapping[str, Sequence[str]],
    opened: Mapping[str, Markup],
    links: Mapping[str, str],
) -> Rows:
    """Return the table of queries; ``lost`` are their words without effect, ``opened`` what some open to, and ``links``
    where on the page others are."""
    measured = _measured(ranking, {one.id for one in facts})
    shown = _metric_columns(ranking)
    heads = [Head("query", label=True), *(Head(head, meaning) for _, head, meaning in shown)]
    if ranking is not None:
        heads.append(Head("relevant", "documents judged relevant, those outside the run too"))
    heads += [
        Head("score", "the model's score of its first document"),
        Head("lead", "by how much the first document's score is above the second's"),
        Head("cut", "documents that are longer than the model reads"),
        Head("without effect", "words in none of the query's documents; the model gained nothing from them", True),
    ]
    rows = []
    for one in facts:
        own = measured.get(one.id)
        cells = [shortened(printable(one.text or one.id), LONGEST_QUERY)]
        cells += [number(own[name] if own else None) for name, _, _ in shown]
        if ranking is not None:
            cells.append(str(own["relevant"]) if own else NO_WORDS)
        cells += [number(one.score), number(one.lead, 3), f"{one.cut} of {one.documents}"]
        cells.append(shortened(", ".join(lost.get(one.id, ())), LONGEST_WORDS) or NO_WORDS)
        tags = [shortened(f"query {printable(one.id)}", LONGEST_WORDS)]
        rows.append(Row(fragment("query", one.id), cells, opened.get(one.id, ""), tags, links.get(one.id, "")))
    note = (
        "" if len(facts) == count else f"{len(facts):,} of {count:,} queries: the failing ones, and others at random."
    )
    return Rows("query-table", "All queries" if not note else "Queries", heads, rows, note=note)


def fragment(table: str, query_id: str) -> str:
    """Return the fragment of a query's row in a table."""
    return f"{table}={quote(query_id, safe='')}"


def _metric_columns(ranking: Ranking | None) -> list[tuple[str, str, str]]:
    """Column of ``per_query``, head and meaning of the metrics at the cutoff, of both rankings where they differ."""
    if ranking is None:
        return []
    same = one_order(ranking)
    own = [one for one in ranking.measures if one.name.endswith(f"@{ranking.cutoff}")]
    own = [one for one in own if not (same and one.ranking == "log")]
    # Both orders of one metric beside each other are enough to compare them.
    own = [one for one in own if same or one.ranking == "model" or one.name.startswith("nDCG")]
    return [
        (
            f"{one.ranking} {one.name}",
            one.name if same or not one.name.startswith("nDCG") else f"{one.name}, {one.ranking}",
            f"{meaning_of(one.name)}{'' if same else f'; {RANKINGS[one.ranking]}'}",
        )
        for one in own
    ]


def _measured(ranking: Ranking | None, ids: set[str]) -> dict[str, dict[str, Any]]:
    if ranking is None:
        return {}
    there = pc.is_in(ranking.per_query["query"], pa.array(sorted(ids), pa.string()))
    return {row["query"]: row for row in ranking.per_query.filter(there).to_pylist()}

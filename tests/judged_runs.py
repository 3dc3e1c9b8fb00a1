"""A log with judgments whose failures are planted: which document is first for which words is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from query_runs import LOG, Ranked, summing, write_run

from jobs.run.reader import Run, open_run

FAILING = (0, 1, 2)
WORDS = "shock wing heat flow plate cone jet wake".split()  # noqa: SIM905


def query(at: int) -> str:
    """Query number ``at``: three words."""
    return f"{WORDS[at % 8]} model {at}th"


def judged_log(
    place: Path, queries: int = 8, *, judged: Sequence[int] | None = None, backwards: bool = False, filler: str = ""
) -> Run:
    """A run of ``queries`` queries with three documents each, of which ``right`` is relevant.

    It is the first document but for the queries ``FAILING``: there "wrong" is first, by the query's first word.
    ``judged`` are the queries with judgments, all by default; without any there is no such column. ``backwards`` is a
    second run, whose first document is always "other". ``filler`` makes the documents longer. The query word "model"
    has no effect.
    """
    texts = {str(at): query(at) for at in range(queries)}
    schema = pa.schema([field for field in LOG if judged is None or judged or field.name != "relevance"])
    rows = []
    for at in range(queries):
        word = WORDS[at % 8]
        strong = {"wrong": 0.5 if at in FAILING else 0.1, "right": 0.3, "other": 0.7 if backwards else 0.05}
        ranks = sorted(strong, key=lambda name: -strong[name])
        for name, value in strong.items():
            kept = {"rank": ranks.index(name) + 1, "log_score": value, "tag": "t"}
            if "relevance" in schema.names:
                relevant = judged is None or at in judged
                kept["relevance"] = int(name == "right") if relevant else None  # type: ignore[assignment]
            cells = {(word, word): value, ("model", "of"): 0.02}
            lifts = {word: value / 10, "of": -0.02}
            text = f"{word} of the {name} document {at} {filler}".strip()
            row = Ranked(str(at), f"{name}{at}", text, 0.0, kept, cells, lifts, {word: 0.1, "model": -0.05})
            rows.append(summing(texts, row, len(rows)))
    store = write_run(place, texts, [rows[::2], rows[1::2]], schema=schema, sums_to="score")
    return open_run(store.url)

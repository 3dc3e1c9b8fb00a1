"""Runs of made-up pairs whose whole matrices are known, laid out in parts as a test asks.

``python tests/statistics_runs.py FOLDER`` writes one of a retrieval log and computes its statistics, to look at.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from display_pairs import explained
from row_tables import attribution_row, attribution_table, summarise, text_row, text_table

from attribution_core.results import ExplainedText, PairAttribution
from jobs.run.reader import Run, open_run
from jobs.run.tables import commit_shard, reject_table
from jobs.storage.store import Store

NOUNS = ["dog", "dogs", "cat", "wing", "wings", "layer", "bridge", "report", "reports", "answer", "river", "pilot"]
VERBS = ["walks", "walked", "walking", "flies", "opened", "opens", "writes", "wrote", "measures", "measured"]
OTHER = ["the", "a", "of", "not", "never", "quickly", "hot", "red", ",", ".", "3", "7", "12", "in", "and", "old", "n't"]


@dataclass(frozen=True)
class Made:
    """One pair, its ids, and its columns passed through."""

    pair_id: str
    a_id: str
    b_id: str
    pair: PairAttribution
    kept: dict[str, Any]


def made_pairs(
    seed: int, count: int = 50, *, texts: int = 24, retrieval: bool = False, sums_to: str = "difference"
) -> list[Made]:
    """Pairs of ``texts`` distinct texts a side; matrices with a strong diagonal of equal words, some cells negative.

    Where they sum to the score they have lifts, and of five pairs one has a total near zero and one a negative total,
    as unrelated texts have.
    """
    random = np.random.default_rng(seed)
    roles = ("query", "document") if retrieval else ("text", "text")
    sides: list[dict[str, ExplainedText]] = []
    for side, role in zip("ab", roles, strict=True):
        made = {f"{side}{n}": _text(random, role, n) for n in range(texts)}
        sides.append(made)
    pairs = []
    for n in range(count):
        a_id, b_id = (f"{side}{random.integers(texts)}" for side in "ab")
        a, b = sides[0][a_id], sides[1][b_id]
        matrix = _matrix(random, a, b)
        reference = random.normal(0, 0.1, 3)
        lifts: dict[str, Any] = {}
        if sums_to == "score":
            matrix -= np.float32(matrix.mean() * (0, 0.98, 1.5, 0, 0)[n % 5])
            reference[:] = 0
            lifts = {"row_lift": _lifts(random, a), "col_lift": _lifts(random, b)}
        total = float(matrix.sum())
        pair = PairAttribution(
            a=a,
            b=b,
            matrix=matrix,
            row_sums=matrix.sum(1),
            col_sums=matrix.sum(0),
            score=total + reference[0] + reference[1] - reference[2],
            reference_a=float(reference[0]),
            reference_b=float(reference[1]),
            reference_ab=float(reference[2]),
            total=total,
            error=float(random.normal(0, 1e-3)),
            sums_to=sums_to,
            **lifts,
        )
        kept: dict[str, Any] = {"rank": n % 7 + 1, "relevance": [None, 0, 1, 2][n % 4]}
        kept = kept if retrieval else {"label": round(float(random.uniform(0, 5)), 1)}
        pairs.append(Made(f"made:{n}", a_id, b_id, pair, kept))
    return pairs


def write_made(
    place: str | Path,
    pairs: Sequence[Made],
    parts: Sequence[Sequence[int]] | None = None,
    *,
    store: str = "top",
    top_k: int = 8,
    format: str = "parquet",
    finished: bool = True,
    groups: str = "word",
    sums_to: str | None = None,
    similarity: str = "cosine",
) -> Run:
    """A run whose parts hold those pairs, by their numbers; every text is in the first part that has a pair of it."""
    run = Store.open(str(place))
    retrieval = pairs[0].pair.a.role == "query"
    record = {"model": "some/model", "layer": 4, "similarity": similarity, "format": format, "store": store}
    record |= {"mode": "retrieval" if retrieval else "symmetric", "top_k": top_k, "groups": groups}
    record |= {} if sums_to is None else {"sums_to": sums_to}
    run.commit("job.yaml", yaml.safe_dump(record).encode())
    schema = pa.schema([("rank", pa.int32()), ("relevance", pa.int32())] if retrieval else [("label", pa.float64())])
    written: set[tuple[str, str]] = set()
    for index, part in enumerate(parts if parts is not None else [range(len(pairs))]):
        rows, texts = [], []
        for one in (pairs[at] for at in part):
            ids = {"pair_id": one.pair_id, "text_a_id": one.a_id, "text_b_id": one.b_id}
            rows.append(attribution_row(one.pair, summarise(one.pair, top_k), store=store, **ids))
            for text, text_id in ((one.pair.a, one.a_id), (one.pair.b, one.b_id)):
                if (text.role, text_id) not in written:
                    texts.append(text_row(text, text_id))
                    written.add((text.role, text_id))
        kept = pa.Table.from_pylist([pairs[at].kept for at in part], schema=schema)
        commit_shard(run, index, attribution_table(rows, kept, store), text_table(texts), reject_table([]), format)
    if finished:
        run.commit("_SUCCESS", b"")
    return open_run(str(place))


def _text(random: np.random.Generator, role: str, number: int) -> ExplainedText:
    words = [
        str(random.choice(pool))
        for pool in (OTHER, NOUNS, VERBS, OTHER, NOUNS, OTHER, NOUNS, OTHER, VERBS)[: random.integers(3, 10)]
    ]
    cut = number % 5 == 0
    text = " ".join([*words, "."])
    more = {"nodes": int(random.choice([6, 8, 12])), "residual": float(random.uniform(1e-4, 2e-3))}
    if cut:
        # What the model did not read is part of the text, and of no group.
        read = explained(text, role, truncated=True, cut_at=len(text), converged=False, way="partner", **more)
        return ExplainedText(**{**vars(read), "text": text + " and nobody walked on"})
    return explained(text, role, **more)


def _lifts(random: np.random.Generator, text: ExplainedText) -> np.ndarray[Any, np.dtype[np.float32]]:
    values = random.normal(0, 0.05, len(text.groups))
    return (values - values.mean()).astype(np.float32)


def _matrix(random: np.random.Generator, a: ExplainedText, b: ExplainedText) -> np.ndarray[Any, np.dtype[np.float32]]:
    words_a, words_b = (np.array([label.casefold() for label in text.groups.labels]) for text in (a, b))
    matrix = random.gamma(1.0, 0.02, (len(words_a), len(words_b))) - 0.008
    matrix += 0.3 * random.random(matrix.shape) * (words_a[:, None] == words_b[None, :])
    return matrix.astype(np.float32)


if __name__ == "__main__":
    from jobs.analysis.statistics.compute import compute_statistics
    from jobs.analysis.statistics.tagging import chosen_pipeline

    opened = write_made(sys.argv[1], made_pairs(0, 200, retrieval=True), [range(0, 90), range(90, 200)])
    compute_statistics(opened, pipeline=chosen_pipeline(None))
    print(f"{opened.url}: tokenpair stats {opened.url}")

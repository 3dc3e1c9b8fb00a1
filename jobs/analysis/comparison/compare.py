"""The comparison of two runs: match pairs, compare scores, compare attributions, find examples."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import duckdb

from jobs.analysis.comparison.agreement import MEASURES
from jobs.analysis.comparison.details import add_agreement
from jobs.analysis.comparison.examples import find_examples
from jobs.analysis.comparison.groups import compare_groups, correlate_columns
from jobs.analysis.comparison.matching import match_pairs
from jobs.analysis.comparison.rankings import compare_rankings
from jobs.analysis.comparison.result import Comparison
from jobs.analysis.comparison.scores import compare_scores, spread
from jobs.errors import JobError
from jobs.progress import Progress
from jobs.run.reader import Run
from jobs.run.tables import JOB_FILE
from jobs.storage.duckdb import connect, first_row
from jobs.storage.store import Store


def compare_runs(
    first: Run,
    second: Run,
    *,
    sample: int = 20_000,
    seed: int = 0,
    examples: int = 5,
    by: str | None = None,
    output: Store | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare the pairs that two runs share: scores of all of them, attributions of a random ``sample`` (0: of all).

    ``examples`` pairs are shown by score and as many by attribution; ``by`` names a column passed through, or "query",
    to tell groups apart by. With ``output`` the result and a row a pair are written there.

    Runs whose word pairs sum to different things are compared as well; the result says so (``Comparison.one_sum``).

    Raises:
        JobError: where there is no such column, or ``output`` is a run.
        RunError: where the runs share no pair.
    """
    if output is not None and output.exists(JOB_FILE):
        raise JobError(f"--output {output.url}: is a run; give another folder")
    with tempfile.TemporaryDirectory(prefix="tokenpair-") as room, contextlib.closing(connect(Path(room))) as con:
        return _compare(con, Path(room), first, second, sample, seed, examples, by, output, progress)


def _compare(
    con: duckdb.DuckDBPyConnection,
    room: Path,
    first: Run,
    second: Run,
    sample: int,
    seed: int,
    examples: int,
    by: str | None,
    output: Store | None,
    progress: Progress | None,
) -> Comparison:
    if progress is not None:
        progress.phase("matching pairs")
    matched = match_pairs(con, first, second)
    chosen = f"ORDER BY md5('{int(seed)}:' || pair_1), pair_1 LIMIT {int(sample)}" if sample else ""
    con.execute(f"CREATE TABLE chosen AS SELECT n FROM matched {chosen}")
    if progress is not None:
        progress.phase("pairs to compare", min(sample, matched.pairs) if sample else matched.pairs)
    compared = add_agreement(con, first, second, progress)
    alone = first_row(con, "SELECT sum(alone), sum(words) FROM details")
    assert alone is not None
    of_score = parts_of_score(first, second)
    shown = tuple(find_examples(con, first, second, examples, parts_of_score=of_score))
    rankings, no_rankings = compare_rankings(con, first, second, examples, seed, parts_of_score=of_score)
    comparison = Comparison(
        first=facts_of(first),
        second=facts_of(second),
        matched=matched,
        scores=compare_scores(con),
        compared=compared,
        seed=seed,
        words_of_one_run=int(alone[0] or 0),
        words_of_both_runs=int(alone[1] or 0),
        agreement={name: spread(con, "details", name) for name in MEASURES},
        columns=correlate_columns(con, first),
        groups=compare_groups(con, first, second, by),
        examples=shown,
        rankings=rankings,
        no_rankings=no_rankings,
    )
    if output is not None:
        comparison.write(con, room, output)
    return comparison


def facts_of(run: Run) -> dict[str, Any]:
    """The facts about a run that a reader of its comparison needs."""
    plain = {name: run.setting(name) for name in ("model", "fingerprint", "layer", "similarity", "groups", "store")}
    return {
        "run": run.url,
        "finished": run.finished,
        **plain,
        "sums_to": run.sums_to,
        "level": "pairs" if run.has_word_pairs else "words",
        "reference": reference_of(run),
        "mode": "retrieval" if "query" in run.roles else "symmetric",
    }


def reference_of(run: Run) -> dict[str, str] | None:
    """The token that replaces every word in a reference, by role; None where the run does not say."""
    reference = run.setting("reference")
    return {str(role): str(token) for role, token in reference.items()} if isinstance(reference, dict) else None


def parts_of_score(first: Run, second: Run) -> bool:
    """Whether words' sums of both runs are parts of scores of one kind, so that they differ as the scores do."""
    similar = first.setting("similarity") == second.setting("similarity")
    return similar and first.sums_to == second.sums_to == "score"

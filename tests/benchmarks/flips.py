"""How many words go until the two documents of an inversion change places, by attributions and by other orders.

    python tests/benchmarks/flips.py RUN --sample 60 --orders 2
    python tests/benchmarks/flips.py RUN --sample 60 --orders 2 --words 60

RUN is a finished run of a log with judgments; it is only read. First the margins: the largest difference between what
the words sum to and the difference of the scores, over all inversions. Then the deletions, as `tokenpair why RUN
--prove` prints them. With ``--words`` the documents are cut to that many words, scored and attributed again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

sys.path[:0] = [str(Path(__file__).parents[2])]

if TYPE_CHECKING:
    from attribution_core.results import PairAttribution
    from jobs.analysis.faithfulness.judge import Judge
    from jobs.analysis.margin.inversions import Inversion
    from jobs.run.reader import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--sample", type=int, default=60, help="inversions whose words are deleted; 0 for none")
    parser.add_argument("--orders", type=int, default=3, help="random orders of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--words", type=int, help="cut the documents to so many words")
    asked = parser.parse_args()

    from jobs.cluster.environment import quiet_libraries

    quiet_libraries()
    from jobs.analysis.faithfulness.judge import Judge
    from jobs.analysis.faithfulness.sampling import draw
    from jobs.analysis.flips.prove import measure_flips, summarise_flips
    from jobs.analysis.margin.inversions import inversions
    from jobs.run.reader import open_run
    from jobs.views.margin.flips import flips_text

    run = open_run(asked.run)
    if asked.words is None:
        margins(run, inversions(run))
    judge = Judge(run)
    listed = inversions(run) if asked.words is None else cut_inversions(run, judge, asked.words)
    chosen = sorted(listed, key=lambda one: draw(asked.seed, one.query_id))[: asked.sample]
    if not chosen:
        return
    attributed = stored(run, chosen) if asked.words is None else computed(run, chosen, asked.words)
    measured = []
    started = time.perf_counter()
    for at in range(0, len(attributed), 4):
        measured += measure_flips(attributed[at : at + 4], judge, orders=asked.orders, seed=asked.seed)
        print(f"{len(measured)} inversions, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    flips = summarise_flips(run, judge, measured, of=len(listed), orders=asked.orders, seed=asked.seed)
    print(flips_text(flips, 110))


def margins(run: Run, listed: list[Inversion]) -> None:
    """Print by how much the lists of all margins miss the difference of the scores."""
    import numpy as np

    from jobs.analysis.margin.compute import margins_of
    from jobs.analysis.margin.result import ERROR

    started = time.perf_counter()
    every = margins_of(run, listed)
    seconds = time.perf_counter() - started
    missed = [
        abs(sum(part.value for part in parts) - one.difference)
        for one in every
        for parts in (one.query_words, one.pairs, (*one.a_words, *one.b_words))
    ]
    words = [abs(sum(part.value for part in one.query_words if part.label != ERROR) - one.difference) for one in every]
    print(
        f"{len(listed)} inversions, {1000 * seconds / max(len(listed), 1):.0f} ms a margin; the lists miss the "
        f"difference by {max(missed):.1e} at most; without their line of the numerical error by {np.median(words):.1e} "
        f"(median) and {max(words):.1e} (most)",
        flush=True,
    )


def stored(run: Run, chosen: list[Inversion]) -> list[tuple[Inversion, PairAttribution, PairAttribution]]:
    """The inversions with the run's own attributions."""
    pairs = run.pairs({pair_id for one in chosen for pair_id in (one.pair_above, one.pair_below)})
    return [(one, pairs[one.pair_above], pairs[one.pair_below]) for one in chosen]


def cut(text: str, words: int) -> str:
    return " ".join(text.split()[:words])


def cut_inversions(run: Run, judge: Judge, words: int) -> list[Inversion]:
    """The inversions of the run's queries when its documents have so many words."""
    import numpy as np

    from jobs.analysis.faithfulness.scores import units
    from jobs.analysis.margin.inversions import relevant_documents, worst_of

    rows = run.to_table(["pair_id", "text_a_id", "text_b_id"]).to_pylist()
    relevant = relevant_documents(run)
    assert relevant is not None, "the run has judgments"
    role_a, role_b = run.roles
    queries = run.written_texts({row["text_a_id"] for row in rows}, role_a)
    documents = run.written_texts({row["text_b_id"] for row in rows}, role_b)
    keys = [(role_a, text) for text in queries.values()]
    keys += [(role_b, cut(text, words)) for text in documents.values()]
    embeddings = judge.embed(keys)
    by_query = defaultdict(list)
    for row in rows:
        pair = [embeddings[role_a, queries[row["text_a_id"]]]]
        pair.append(embeddings[role_b, cut(documents[row["text_b_id"]], words)])
        query_D, document_D = units(np.stack(pair))
        row["score"] = float(query_D @ document_D)
        by_query[row["text_a_id"]].append(row)
    return [one for query, of in by_query.items() if (one := worst_of(query, of, relevant)) is not None]


def computed(run: Run, chosen: list[Inversion], words: int) -> list[tuple[Inversion, PairAttribution, PairAttribution]]:
    """The inversions with attributions of the cut documents, by the run's model, layer and tolerance."""
    from attribution_core import Attributor

    quadrature = run.setting("quadrature") or {}
    attributor = Attributor(
        str(run.setting("model")),
        layer=int(run.setting("layer")),
        mode="retrieval",
        tolerance=float(quadrature.get("tolerance", 2e-3)),
    )
    role_a, role_b = run.roles
    queries = run.written_texts({one.query_id for one in chosen}, role_a)
    documents = run.written_texts({id for one in chosen for id in (one.above, one.below)}, role_b)
    texts = [(queries[one.query_id], cut(documents[id], words)) for one in chosen for id in (one.above, one.below)]
    pairs = attributor.attribute_pairs(texts)
    return [(one, pairs[2 * at], pairs[2 * at + 1]) for at, one in enumerate(chosen)]


if __name__ == "__main__":
    main()

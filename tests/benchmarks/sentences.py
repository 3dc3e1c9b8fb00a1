"""Which way of choosing one sentence of a document finds the one whose deletion costs the score most.

    python tests/benchmarks/sentences.py --data scifact --queries 100 --output WORK
    python tests/benchmarks/sentences.py --python --output WORK
    python tests/benchmarks/sentences.py --run RUN

``--data`` is a folder in BEIR's layout (corpus.jsonl, queries.jsonl). The model ranks its documents for randomly drawn
queries; two jobs by sentences explain the best of them, once to the score and once to the paper's difference of four
scores, and stay in WORK. ``--python`` makes such a folder from the built-in example's questions and those documentation
strings of this Python's standard library that have three sentences or more. ``--run`` is a run by sentences that is
there already; it is only read.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path[:0] = [str(Path(__file__).parents[2])]

MOST_PAIRS = 10**6
# Words of a documentation string: more than the model reads.
MOST_WORDS = 400

if TYPE_CHECKING:
    from jobs.run.reader import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path)
    source.add_argument("--python", action="store_true")
    source.add_argument("--run")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--depth", type=int, default=5, help="documents a query")
    parser.add_argument("--layer", type=int, default=-1)
    parser.add_argument("--tolerance", type=float, default=0.02)
    parser.add_argument("--model", help="default: all-MiniLM-L6-v2, as the extra demo installs it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="where the two runs are written")
    asked = parser.parse_args()
    if asked.run is None and asked.output is None:
        parser.error("--data and --python need --output")

    from jobs.cluster.environment import quiet_libraries

    quiet_libraries()
    from jobs.run.reader import open_run

    if asked.run is not None:
        report([open_run(asked.run)], asked.seed)
        return
    asked.output.mkdir(parents=True, exist_ok=True)
    if asked.python:
        asked.data = asked.output
        write_documentation(asked.output)
    log = retrieve(asked)
    report([explained(asked, log, sums_to) for sums_to in ("score", "difference")], asked.seed)


def write_documentation(place: Path) -> None:
    """The questions and documentation strings as corpus.jsonl and queries.jsonl."""
    from attribution_core.text.words import sentence_spans
    from jobs.demo import documents
    from jobs.demo.questions import QUESTIONS

    documents.shortened.__defaults__ = (MOST_WORDS,)
    texts = [(one.id, one.text) for one in documents.standard_library_documents()]
    texts = [(name, text) for name, text in texts if len(list(sentence_spans(text))) >= 3]
    for file, rows in (("corpus.jsonl", texts), ("queries.jsonl", QUESTIONS)):
        lines = (json.dumps({"_id": name, "title": "", "text": text}) for name, text in rows)
        (place / file).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def retrieve(asked: Any) -> Path:
    """The model's best documents for the drawn queries, as a TREC run."""
    log: Path = asked.output / "log.trec"
    if log.exists():
        return log
    from sentence_transformers import SentenceTransformer

    from jobs.analysis.faithfulness.sampling import draw

    def rows(name: str) -> list[dict[str, Any]]:
        with open(asked.data / name, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    documents = {row["_id"]: f"{row['title']} {row['text']}".strip() for row in rows("corpus.jsonl")}
    documents = {name: text for name, text in documents.items() if text}
    queries = sorted(rows("queries.jsonl"), key=lambda row: draw(asked.seed, row["_id"]))[: asked.queries]
    model = SentenceTransformer(named(asked), device="cpu")
    texts = model.encode_document(list(documents.values()), convert_to_tensor=True, show_progress_bar=False)
    wanted = model.encode_query([row["text"] for row in queries], convert_to_tensor=True, show_progress_bar=False)
    scores, order = model.similarity(wanted, texts).topk(asked.depth, dim=1)
    names = list(documents)
    log.write_text(
        "".join(
            f"{row['_id']} Q0 {names[at]} {rank} {score:.6f} model\n"
            for row, of, places in zip(queries, scores.tolist(), order.tolist(), strict=True)
            for rank, (score, at) in enumerate(zip(of, places, strict=True), start=1)
        ),
        encoding="utf-8",
    )
    return log


def named(asked: Any) -> str:
    from jobs.demo.retrieval import demo_model

    return asked.model or str(demo_model())


def explained(asked: Any, log: Path, sums_to: str) -> Run:
    """The run of the log by sentences."""
    from jobs import run_job
    from jobs.config.job import parse_job
    from jobs.run.reader import open_run

    place = asked.output / sums_to
    started = time.perf_counter()
    if not (place / "_SUCCESS").exists():
        settings = {
            "model": named(asked),
            "log": str(log),
            "queries": str(asked.data / "queries.jsonl"),
            "corpus": str(asked.data / "corpus.jsonl"),
            "groups": "sentence",
            "layer": asked.layer,
            "sums_to": sums_to,
            "quadrature": {"tolerance": asked.tolerance},
            "workers": {"ray": False},
            "output": str(place),
        }
        run_job(parse_job(settings), quiet=True)
        print(f"{sums_to}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return open_run(str(place))


def report(runs: list[Run], seed: int) -> None:
    """Print the table of the first run's pairs, with what the attributions of other runs give the same sentences."""
    from dataclasses import replace

    from jobs.analysis.faithfulness.evaluate import fit_pairs, read_pairs
    from jobs.analysis.faithfulness.judge import Judge
    from jobs.analysis.faithfulness.perturbation import Side
    from jobs.analysis.faithfulness.sampling import sample_pairs
    from jobs.analysis.faithfulness.sentences import SUMS, attributed, delete_sentences, top_sentences

    started = time.perf_counter()
    run = runs[0]
    pair_ids = fit_pairs(run, sample_pairs(run, MOST_PAIRS, seed))
    measured = {one.pair_id: one for one in delete_sentences(read_pairs(run, pair_ids), Judge(run))}
    for other in runs[1:]:
        for pair, _ in read_pairs(other, sorted(measured)):
            one = measured[pair.pair_id]
            more = attributed(pair, Side.of(pair.b))
            # Its lift is the first run's but for the numerical error.
            measured[pair.pair_id] = replace(one, values={**one.values, SUMS[other.sums_to]: more[SUMS[other.sums_to]]})
    found = top_sentences(list(measured.values()), seed)
    assert found is not None, "too few queries"
    print(
        f"{found.pairs} documents of {found.draws} queries, {found.sentences / found.pairs:.1f} sentences each; the "
        f"sentence that costs most costs {found.best:.3f} of the score; {time.perf_counter() - started:.0f} s\n"
    )
    print("| sentence chosen by | mean drop | share of the best | lift ahead by |")
    print("|---|---|---|---|")
    for one in found.methods:
        share = f"{one.share.mean:.3f} [{one.share.low:.3f}, {one.share.high:.3f}]"
        print(f"| {one.method} | {one.drop:.4f} | {share} | {one.ahead or ''} |")


if __name__ == "__main__":
    main()

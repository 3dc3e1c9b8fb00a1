"""The built-in example: questions about Python, answered from its own documentation, with explanations of the scores.

It needs no network and no file: the documents are the documentation strings of the running Python.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from attribution_core.display.pair import terminal_pair
from attribution_core.display.view import printable
from jobs.config.job import load_job
from jobs.demo.documents import standard_library_documents
from jobs.demo.questions import QUESTIONS
from jobs.demo.retrieval import DEPTH, demo_model, retrieve, write_whole
from jobs.engine.driver import run_job
from jobs.run.reader import Run, open_run
from jobs.run.tables import SUCCESS
from jobs.run.totals import read_totals

if TYPE_CHECKING:
    import pyarrow as pa

    from jobs.engine.outcome import Outcome

FOLDER = "tokenpair-demo"
PAIRS = "pairs.parquet"
RUN = "run"
EXPLAINED = 3
# More shards than a job of this size gets by default, so that two workers end at about the same time.
SHARDS = 8
# A pair fits into 80 columns if its document has up to about this many words.
FEW_WORDS = 14


def run_demo(output: Path | None, quiet: bool) -> int:
    """Retrieve documents, run the job and print three of its pairs; returns the exit code of the command.

    ``output`` is the example's folder (default: ``tokenpair-demo`` in the working directory). It gets the retrieval
    log as ``pairs.parquet`` and the run in ``run/``; a run that is finished already is shown again. ``quiet`` prints
    no progress. Raises TokenpairError for errors that the user can fix.
    """
    console, stderr = Console(), Console(stderr=True)
    model = demo_model()
    folder = output if output is not None else Path(FOLDER)
    run = _finished_run(folder)
    if run is None:
        outcome = _compute(model, folder, quiet, stderr)
        summary = outcome.lines()
        run = _finished_run(folder) if outcome.complete else None
    else:
        summary = read_totals(run.store, "parquet", run.sums_to).lines()
        if not quiet:
            _say(stderr, f"The run in {folder} was finished before; --output with another folder runs it again.")
    for line in ("", *summary):
        _say(console, line, wrap=False)
    if run is None:
        return 1
    _show(console, run, folder, model)
    return 0


def _finished_run(folder: Path) -> Run | None:
    return open_run(str(folder / RUN)) if (folder / RUN / SUCCESS).exists() else None


def _compute(model: Path, folder: Path, quiet: bool, stderr: Console) -> Outcome:
    pairs = folder / PAIRS
    # An interrupted run is resumed with the pairs that it was planned for.
    if not pairs.exists():
        _write_pairs(model, pairs, quiet, stderr)
    job = load_job(
        None,
        {
            "model": str(model),
            "input": str(pairs),
            "output": str(folder / RUN),
            "columns": {
                "a": "question",
                "b": "document",
                "id": "pair_id",
                "a_id": "question_id",
                "b_id": "document_id",
            },
            "mode": "retrieval",
            "groups": "word",
            "store": "full",
            "shards": SHARDS,
        },
    )
    return run_job(job, quiet=quiet, echo=lambda line: _say(stderr, line, wrap=False))


def _write_pairs(model: Path, pairs: Path, quiet: bool, stderr: Console) -> None:
    documents = standard_library_documents()
    if not quiet:
        _say(
            stderr,
            f"Searching the {len(documents):,} documentation strings of this Python's standard library"
            f" for {len(QUESTIONS)} questions, the best {DEPTH} each …",
        )
    write_whole(retrieve(model, QUESTIONS, documents), pairs)


def _show(console: Console, run: Run, folder: Path, model: Path) -> None:
    table = run.to_table()
    chosen = example_pairs(table)
    _say(console, f"\n{len(chosen)} of them: which words of the documentation matched which words of the question.")
    for pair_id in chosen:
        _explain(console, run, pair_id)
    console.print()
    _rule(console)
    _say(console, f"The dataset is {folder / RUN / 'attributions'}, one row a pair; its texts are beside it in texts.")
    _say(console, f"The retrieved pairs are in {folder / PAIRS}. Commands to try next:")
    where = shlex.quote(str(folder / RUN))
    for command in (
        f"tokenpair show {where} {shlex.quote(_another(table, chosen))}",
        f"tokenpair show {where} --query {shlex.quote(_question(table, chosen[0]))}",
        f"tokenpair why {where}",
        f"tokenpair report {where}",
        f'tokenpair explain "The coffee is bad." "This is not a good coffee." --model {shlex.quote(str(model))}',
        f"tokenpair run {where}/job.yaml --layer 5 --sample 8 --output {where}-layer-5",
    ):
        _say(console, f"  {command}", wrap=False)


def _explain(console: Console, run: Run, pair_id: str) -> None:
    console.print()
    _rule(console)
    terminal_pair(run.pair(pair_id), console, top=3, compact=True)


def _rule(console: Console) -> None:
    console.rule(style="dim", characters="-" if console.options.ascii_only else "─")


def example_pairs(table: pa.Table, count: int = EXPLAINED) -> list[str]:
    """Return the ids of ``count`` pairs to print: short documents that the model ranked first with a high score."""
    rows = table.select(["pair_id", "rank", "score", "cols"]).to_pylist()
    rows.sort(key=lambda row: (row["rank"] > 1, row["cols"] > FEW_WORDS, -row["score"], row["pair_id"]))
    return [row["pair_id"] for row in rows[:count]]


def _another(table: pa.Table, shown: list[str]) -> str:
    """Return the id of a pair that was not printed."""
    ids = sorted(table["pair_id"].to_pylist())
    return next(pair_id for pair_id in ids if pair_id not in shown)


def _question(table: pa.Table, pair_id: str) -> str:
    """Return the id of a pair's question."""
    return str(dict(zip(table["pair_id"].to_pylist(), table["text_a_id"].to_pylist(), strict=True))[pair_id])


def _say(console: Console, line: str, *, wrap: bool = True) -> None:
    # Paths and names are neither markup nor escape sequences. A command is printed on one line, to be copied.
    line = "\n".join(printable(part) if part else "" for part in line.split("\n"))
    console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=not wrap)

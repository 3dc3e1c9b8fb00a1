"""The built-in example: questions about Python answered from its own documentation, and why the model thought so.

Needs no network and no file: the documents are the documentation strings of the running Python.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console

    from jobs.engine.driver import Outcome
    from jobs.run.reader import Run

FOLDER = "tokenpair-demo"
PAIRS = "pairs.parquet"
RUN = "run"
EXPLAINED = 3
# More than such a small job would get by itself, so that two workers end at about the same time.
SHARDS = 8
# A pair is shown whole within 80 columns up to about this many words of its document.
FEW_WORDS = 14


def run_demo(output: Path | None, quiet: bool) -> int:
    """Retrieves, runs the job and shows three of its pairs; returns the exit code of the command.

    ``output`` is the example's folder (``tokenpair-demo`` in the working directory unless given): it gets the
    retrieval log as ``pairs.parquet`` and the run in ``run/``, and a finished run that is there is shown again.
    ``quiet`` leaves the lines about progress out. Raises TokenpairError for what the user can mend.
    """
    from rich.console import Console

    from jobs.demo.retrieval import demo_model
    from jobs.run.totals import read_totals

    console, told = Console(), Console(stderr=True)
    model = demo_model()
    folder = output if output is not None else Path(FOLDER)
    run = _finished_run(folder)
    if run is None:
        outcome = _compute(model, folder, quiet, told)
        summary = outcome.lines()
        run = _finished_run(folder) if outcome.complete else None
    else:
        summary = read_totals(run.store, "parquet", run.sums_to).lines()
        if not quiet:
            _say(told, f"Finished before, and shown again from {folder}; --output another folder runs it anew.")
    for line in ("", *summary):
        _say(console, line, wrap=False)
    if run is None:
        return 1
    _show(console, run, folder, model)
    return 0


def _finished_run(folder: Path) -> Run | None:
    from jobs.run.reader import open_run
    from jobs.run.tables import SUCCESS

    return open_run(str(folder / RUN)) if (folder / RUN / SUCCESS).exists() else None


def _compute(model: Path, folder: Path, quiet: bool, told: Console) -> Outcome:
    from jobs.config.job import load_job
    from jobs.engine.driver import run_job

    pairs = folder / PAIRS
    # An interrupted run goes on with the pairs that it was planned for.
    if not pairs.exists():
        _write_pairs(model, pairs, quiet, told)
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
    return run_job(job, quiet=quiet, echo=lambda line: _say(told, line, wrap=False))


def _write_pairs(model: Path, pairs: Path, quiet: bool, told: Console) -> None:
    from jobs.demo.documents import standard_library_documents
    from jobs.demo.questions import QUESTIONS
    from jobs.demo.retrieval import DEPTH, retrieve, write_whole

    documents = standard_library_documents()
    if not quiet:
        _say(
            told,
            f"Searching the {len(documents):,} documentation strings of this Python's standard library"
            f" for {len(QUESTIONS)} questions, the best {DEPTH} each …",
        )
    write_whole(retrieve(model, QUESTIONS, documents), pairs)


def _show(console: Console, run: Run, folder: Path, model: Path) -> None:
    table = run.to_table()
    chosen = telling_pairs(table)
    _say(console, f"\n{len(chosen)} of them: which words of the documentation answered which words of the question.")
    for pair_id in chosen:
        _explain(console, run, pair_id)
    console.print()
    _rule(console)
    _say(console, f"The dataset is {folder / RUN / 'attributions'}, one row a pair; its texts are beside it in texts.")
    _say(console, f"The pairs it was made from are in {folder / PAIRS}. To go on:")
    where = shlex.quote(str(folder / RUN))
    for command in (
        f"tokenpair show {where} {shlex.quote(_another(table, chosen))}",
        f"tokenpair show {where} --query {shlex.quote(_question(table, chosen[0]))}",
        f"tokenpair report {where}",
        f'tokenpair explain "The coffee is bad." "This is not a good coffee." --model {shlex.quote(str(model))}',
        f"tokenpair run {where}/job.yaml --layer 5 --sample 8 --output {where}-layer-5",
    ):
        _say(console, f"  {command}", wrap=False)


def _explain(console: Console, run: Run, pair_id: str) -> None:
    from attribution_core.display.pair import terminal_pair

    console.print()
    _rule(console)
    terminal_pair(run.pair(pair_id), console, top=3, compact=True)


def _rule(console: Console) -> None:
    console.rule(style="dim", characters="-" if console.options.ascii_only else "─")


def telling_pairs(table: pa.Table, count: int = EXPLAINED) -> list[str]:
    """The ids of the ``count`` pairs that are shown: short documents that the model ranked first with a high score."""
    rows = table.select(["pair_id", "rank", "score", "cols"]).to_pylist()
    rows.sort(key=lambda row: (row["rank"] > 1, row["cols"] > FEW_WORDS, -row["score"], row["pair_id"]))
    return [row["pair_id"] for row in rows[:count]]


def _another(table: pa.Table, shown: list[str]) -> str:
    """A pair that has not been shown, for the reader to look at."""
    ids = sorted(table["pair_id"].to_pylist())
    return next((pair_id for pair_id in ids if pair_id not in shown), ids[0])


def _question(table: pa.Table, pair_id: str) -> str:
    """The id of the question of a pair."""
    return str(dict(zip(table["pair_id"].to_pylist(), table["text_a_id"].to_pylist(), strict=True))[pair_id])


def _say(console: Console, line: str, *, wrap: bool = True) -> None:
    from attribution_core.display.view import printable

    # Paths and names are text, neither markup nor escapes; a command comes out in one line, to be copied.
    line = "\n".join(printable(part) if part else "" for part in line.split("\n"))
    console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=not wrap)

"""The worst inversions of a run as terminal text."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from jobs.analysis.margin.inversions import Inversion
from jobs.progress import counted
from jobs.views.kit.sheet import TableSheet
from jobs.views.kit.table import Column, Table

# The texts of queries get what the other columns leave, at least this much.
LEAST_TEXT = 12


def terminal_inversions(
    inversions: Sequence[Inversion],
    queries: Mapping[str, str],
    console: Console,
    run: Sequence[str],
    *,
    top: int,
    judged: bool,
) -> None:
    """Print the ``top`` first inversions, with the texts of their ``queries``; the words ``run`` name the run.

    ``judged`` is whether the run has judgments at all.
    """
    sheet = TableSheet(console)

    def command(*words: str) -> Text:
        return Text(sheet.safe(shlex.join(["tokenpair", "why", *run, *words])))

    if not inversions:
        why = "No irrelevant document is above a relevant one." if judged else "The run has no judgments."
        sheet.line(f"{why} Two documents of a query are explained by their ids:")
        console.print(command("QUERY", "DOC_A", "DOC_B"), soft_wrap=True, highlight=False)
        return
    sheet.line(
        f"{counted(len(inversions), 'query')} with a document that is not relevant (or not judged) above a relevant "
        "one, by the model's score. " + (f"The {top} largest margins:" if top < len(inversions) else "By margin:"),
        "bold",
    )
    sheet.blank()
    some = inversions[:top]
    columns = [
        Column("query", [one.query_id for one in some], label=True),
        Column("text", [queries.get(one.query_id, "") for one in some], label=True),
        Column("above", [f"{one.above} (rank {one.rank_above})" for one in some]),
        Column("relevant", [f"{one.below} (rank {one.rank_below})" for one in some]),
        Column("margin", [f"{one.margin:.3f}" for one in some]),
    ]
    others = [column for column in columns if column.head != "text"]
    taken = sum(max(map(cell_len, [column.head, *column.texts])) + 2 for column in others)
    sheet.table(Table("", columns), max(sheet.width - taken, LEAST_TEXT))
    sheet.blank()
    named = Text.assemble(("Which words put it there  ", "dim"), command(some[0].query_id))
    console.print(named, soft_wrap=True, highlight=False)

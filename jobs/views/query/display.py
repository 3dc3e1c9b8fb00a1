"""A query of a run as terminal text and as HTML: the public door of its display."""

from __future__ import annotations

import io

from rich.console import Console

from attribution_core.display.sheet import plain_console
from jobs.analysis.query.result import QueryResult
from jobs.views.query.page import html_of
from jobs.views.query.terminal import QuerySheet

DOCUMENTS = 10


def terminal_query(
    result: QueryResult, console: Console | None = None, *, top: int = DOCUMENTS, special: bool = False
) -> None:
    """Prints how much each word of the query adds to the score of each of the ``top`` best documents, as small bars,
    and the part of each document that lifts the score most (or adds most to it, as ``result.by`` says), its words
    marked by strength. What each row sums to is said beside it.

    Written to standard output, or to ``console``; within 80 columns, wider where the terminal is, and readable
    without colour. ``special`` shows special and prompt tokens of the query too. Texts are printed literally.
    """
    QuerySheet(console or Console()).print_query(result, top, special)


def query_text(result: QueryResult, *, top: int = DOCUMENTS) -> str:
    """What ``terminal_query`` prints as plain text, without colour and without a line feed at the end, at most 100
    columns wide, the same everywhere."""
    file = io.StringIO()
    terminal_query(result, plain_console(file), top=top)
    return file.getvalue().rstrip("\n")


def query_html(result: QueryResult, *, top: int = DOCUMENTS, special: bool = False) -> str:
    """The same as a self-contained HTML fragment with the whole documents folded away: no scripts, its own style, light
    and dark, all text escaped."""
    return html_of(result, top, special)

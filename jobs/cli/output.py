"""Prints pairs and queries, and writes them as pages and figures."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.cli.messages import say
from jobs.errors import StoreError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from attribution_core.results import PairAttribution
    from jobs.analysis.corpus.result import CorpusStatistics
    from jobs.analysis.flips.result import Proof
    from jobs.analysis.margin.result import Margin
    from jobs.analysis.query.result import QueryResult
    from jobs.index.highlights import Highlight
    from jobs.index.snapshot import Facts
    from jobs.run.reader import Run

Echo = Callable[[str], None]


def check_targets(*paths: Path | None) -> None:
    """Raise StoreError if one of the files cannot be written; called before anything is computed for them."""
    for path in paths:
        if path is None:
            continue
        if not path.parent.is_dir():
            raise StoreError(f"cannot write {path}: there is no folder {path.parent}")
        if path.is_dir():
            raise StoreError(f"cannot write {path}: it is a folder")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise StoreError(f"cannot write {path}: permission denied")


def show_pair(
    pair: PairAttribution, *, special: bool, top: int, html: Path | None, png: Path | None, echo: Echo
) -> None:
    """Print ``pair``, and write its page and figure if asked for; raises StoreError if that fails.

    ``echo`` gets a line for each file written.
    """
    from rich.console import Console

    from attribution_core.display.pair import pair_html, plot_pair, terminal_pair

    terminal_pair(pair, Console(), top=top, special=special)
    if html is not None:
        _write(html, _page(pair_html(pair, special=special)), echo)
    if png is not None:
        write_figure(plot_pair(pair, special=special)[0], png, echo)


def write_figure(figure: Figure, path: Path, echo: Echo) -> None:
    """Write a figure as PNG, and pass a line about that to ``echo``; raises StoreError if it fails."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150, bbox_inches="tight")
    _write(path, picture.getvalue(), echo)


def show_query(result: QueryResult, *, special: bool, top: int, html: Path | None, echo: Echo) -> None:
    """Print the ``top`` best documents of a query, and write its page if asked for; raises StoreError if that fails.

    ``echo`` gets a line for each file written.
    """
    from rich.console import Console

    from jobs.views.query.page import query_html
    from jobs.views.query.terminal import terminal_query

    terminal_query(result, Console(), top=top, special=special)
    if html is not None:
        _write(html, _page(query_html(result, top=top, special=special)), echo)


def show_margin(margin: Margin, proof: Proof | None, *, html: Path | None, json: bool, echo: Echo) -> None:
    """Print a margin, as JSON if asked for, and write its page; raises StoreError if that fails.

    ``proof`` is what deletions showed of it, if it was tested.
    """
    from rich.console import Console

    from jobs.views.margin.page import margin_html
    from jobs.views.margin.terminal import terminal_margin

    # Before anything is printed: a reader such as head may end the command.
    if html is not None:
        _write(html, _page(margin_html(margin, proof=proof)), echo)
    if json:
        say(dumps(margin.to_dict() | ({} if proof is None else {"proof": proof.to_dict()}), ensure_ascii=True))
    else:
        terminal_margin(margin, Console(), proof=proof)


def show_highlights(
    query: str, hits: Sequence[Highlight], facts: Facts, *, html: Path | None, printed: bool, echo: Echo
) -> None:
    """Print highlights of an index where ``printed``, and write their page; raises StoreError if that fails."""
    from rich.console import Console

    from jobs.views.index.page import highlights_html
    from jobs.views.index.terminal import terminal_highlights

    if html is not None:
        _write(html, _page(highlights_html(query, hits, facts)), echo)
    if printed:
        terminal_highlights(query, hits, facts, Console())


def show_inversions(run: Run, top: int, arguments: Sequence[str], *, json: bool) -> None:
    """Print the ``top`` worst inversions of a run, and how one is explained; ``arguments`` name the run."""
    from dataclasses import asdict

    from rich.console import Console

    from jobs.analysis.margin.inversions import inversions, relevant_documents
    from jobs.views.margin.inversions import terminal_inversions

    listed = inversions(run)
    if json:
        say(dumps({"run": run.url, "inversions": [asdict(one) for one in listed]}, ensure_ascii=True))
        return
    queries = run.written_texts({one.query_id for one in listed[:top]}, run.roles[0]) if listed else {}
    terminal_inversions(listed, queries, Console(), arguments, top=top, judged=relevant_documents(run) is not None)


def show_corpus(found: CorpusStatistics, *, html: Path | None, json: bool, echo: Echo) -> None:
    """Print statistics over a corpus, as JSON if asked for, and write their page; raises StoreError if that fails."""
    from rich.console import Console

    from jobs.views.corpus.page import corpus_html
    from jobs.views.corpus.terminal import terminal_corpus

    if html is not None:
        _write(html, _page(corpus_html(found)), echo)
    if json:
        say(dumps(found.plain(), ensure_ascii=True))
    else:
        terminal_corpus(found, Console())


def _page(fragment: str) -> bytes:
    """Return an HTML page with the fragment, which fits the width of a phone."""
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>tokenpair</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark"></head>\n<body>\n'
        f"{fragment}\n</body></html>\n"
    )
    return page.encode("utf-8", "backslashreplace")


def _write(path: Path, data: bytes, echo: Echo) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {(error.strerror or type(error).__name__).lower()}") from None
    echo(f"wrote {path}")

"""Lists of a run's pairs and of its rejected rows as terminal text, and rejected rows as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from attribution_core.display.sheet import Sheet
from attribution_core.display.view import printable
from jobs.analysis.listing import COLUMNS, PairList, Rejects
from jobs.progress import counted

# Ids wider than this get a line of their own, so that both texts have room.
WIDEST_ID = 32
REASONS_SHOWN = 20


class ListSheet(Sheet):
    """A sheet for lists. Ids and places are never cut, so that they can be copied."""

    def print_pairs(self, pairs: PairList, run: Sequence[str]) -> None:
        """The pairs of ``pairs``, and how one is shown; ``run`` names the run on the command line, with its flags."""
        count = counted(pairs.pairs, "pair") + ("" if pairs.finished else " so far, the run is not finished")
        self.line(
            f"{count}:" if len(pairs.first) == pairs.pairs else f"{count}. The first {len(pairs.first):,}:", "bold"
        )
        self.blank()
        ids = [self.safe(pair.pair_id) for pair in pairs.first]
        width = max(map(cell_len, [*ids, "pair_id"]))
        beside = width <= WIDEST_ID
        left = width + 2 if beside else 2
        each = (self.width - left - len("0.000  ") - 2) // 2
        self._row("pair_id" if beside else "", left, "score", "first text", "second text", each, "dim")
        for pair, id in zip(pairs.first, ids, strict=True):
            if not beside:
                self._whole(Text(id, "bold"))
            a, b = (self._start(text or "(not written yet)", each) for text in (pair.a, pair.b))
            self._row(id if beside else "", left, f"{pair.score:.3f}", a, b, each, "")
        self.blank()
        # An id that had to be spelled out could not be typed.
        one = next((pair.pair_id for pair in pairs.first if printable(pair.pair_id) == pair.pair_id), "PAIR_ID")
        words = ("--", one) if one.startswith("-") else (one,)
        self._whole(Text.assemble(("One pair   ", "dim"), self._command("show", *run, *words)))
        if pairs.query_id is not None:
            query = self._command("show", *run, f"--query={pairs.query_id}")
            self._whole(Text.assemble(("One query  ", "dim"), query))

    def print_rejects(
        self, rejects: Rejects, rows: Iterable[dict[str, Any]], *, finished: bool, run: Sequence[str]
    ) -> None:
        """How many rows were rejected, why, and ``rows`` of them with their places."""
        more = "" if finished else " so far, the run is not finished"
        if not rejects.reasons:
            self.line(f"No row was rejected{more}.", "")
            return
        self.line(f"{counted(rejects.count, 'row')} rejected{more}.", "bold")
        for reason, count in list(rejects.reasons.items())[:REASONS_SHOWN]:
            self.line(f"{count:,} × {reason}", "")
        if len(rejects.reasons) > REASONS_SHOWN:
            left = list(rejects.reasons.values())[REASONS_SHOWN:]
            self.line(f"{sum(left):,} × {counted(len(left), 'other reason')}", "")
        shown = 0
        for row in rows:
            self.blank()
            shown += 1
            place = f"{row['file'] or ''}:{row['row']}" if row["row"] is not None else str(row["file"] or "")
            # A pair without an id of its own is called by its place.
            named = "" if row["pair_id"] in (None, "", place) else f"  id {self.safe(row['pair_id'])}"
            self._whole(Text.assemble((self.safe(place), "bold"), named))
            self.line(f"   {row['reason'] or ''}", "")
            if row["row_text"]:
                self.put(Text(f"   {self._start(row['row_text'], self.width - 3)}", "dim"))
        if shown == 0:
            self.blank()
            self.line("No rejected row has these words in its reason.", "")
        elif shown < rejects.count:
            self.blank()
            every = self._command("rejects", *run, "--format", "csv")
            self._whole(Text.assemble(("All of them  ", "dim"), every))

    def _row(self, id: str, left: int, score: str, a: str, b: str, each: int, style: str) -> None:
        """A line of the list of pairs: ``id`` in ``left`` cells, two texts in at most ``each``."""
        line = Text(style=style)
        line.append(id + " " * (left - cell_len(id)), style or "bold")
        line.append(f"{score:<5}  {a}{' ' * (each + 2 - cell_len(a))}{b}")
        line.rstrip()
        self._whole(line)

    def _start(self, text: str, width: int) -> str:
        """The first words of a text, in ``width`` cells."""
        return self.shorten(self.safe(text[: 4 * width]), width)

    def _command(self, *words: str) -> str:
        return self.safe(shlex.join(["tokenpair", *words]))

    def _whole(self, text: Text) -> None:
        """A line that is not cut, however long."""
        self.console.print(text, soft_wrap=True, highlight=False)


def terminal_pairs(pairs: PairList, console: Console, run: Sequence[str]) -> None:
    """Print the first pairs of the run that the words ``run`` name on the command line."""
    ListSheet(console).print_pairs(pairs, run)


def terminal_rejects(
    rejects: Rejects, rows: Iterable[dict[str, Any]], console: Console, *, finished: bool, run: Sequence[str]
) -> None:
    """Print why rows of the run that the words ``run`` name were rejected, and ``rows`` of them."""
    ListSheet(console).print_rejects(rejects, rows, finished=finished, run=run)


def json_rejects(rejects: Rejects, rows: Iterable[dict[str, Any]], run: str) -> Iterator[str]:
    """One JSON object in pieces: run, rejected, reasons and rows. Plain ASCII, so nothing in it steers a terminal."""
    head = {"run": run, "rejected": rejects.count, "reasons": rejects.reasons}
    yield json.dumps(head, ensure_ascii=True)[:-1] + ', "rows": ['
    comma = ""
    for row in rows:
        yield f"{comma}\n{json.dumps(row, ensure_ascii=True)}"
        comma = ","
    yield "\n]}\n"


def csv_rejects(rows: Iterable[dict[str, Any]], *, safe: bool) -> Iterator[str]:
    """``rows`` as CSV with a header; ``safe`` spells out what could steer a terminal."""
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        cells = [row[name] for name in COLUMNS]
        writer.writerow([printable(cell) if safe and isinstance(cell, str) and cell else cell for cell in cells])
        yield line.getvalue()
        line.seek(0)
        line.truncate()
    yield line.getvalue()

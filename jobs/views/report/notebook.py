"""A run as a piece of HTML for notebooks: what it is, its state, and its first pairs."""

from __future__ import annotations

from typing import Any

from attribution_core.display.page import style_of
from attribution_core.display.view import model_words, printable, shortened
from jobs.run.reader import Run
from jobs.run.totals import read_totals
from jobs.views.kit.page import html_table, render
from jobs.views.kit.table import Table, column

FIRST = 5
LONGEST = 60

STYLE = """\
& td,& tbody th{border-bottom:1px solid var(--rule)}
"""
TEMPLATE = """\
<section class="tokenpair-run" aria-label="A run of tokenpair">
<style>
{{ style | safe }}
</style>
<p><strong><bdi>{{ url }}</bdi></strong>{% if model %} <span class="faint"><bdi>{{ model }}</bdi>, layer {{ layer }},
 {{ similarity }}</span>{% endif %}</p>
{% if unfinished %}<p role="note"><strong>{{ unfinished }}</strong></p>
{% endif -%}
{% for line in totals %}<p>{{ line }}</p>
{% endfor -%}
{% if first.rows %}{{ table(first) }}
<p class="faint">One of them: <code>run.pair(…)</code>{% if log %}; a query with its documents:
 <code>run.query(…)</code>{% endif %}; all as a table: <code>run.to_table()</code>.</p>
{% endif -%}
</section>
"""


def run_html(run: Run) -> str:
    """``run`` as one ``<section>`` with its own style, light and dark; every piece of text in it is escaped."""
    head = run.dataset().head(FIRST, columns=["pair_id", "score", "top"]).to_pylist()
    context: dict[str, Any] = {
        "style": style_of("tokenpair-run", STYLE),
        "url": printable(run.url),
        "model": printable(model_words(str(run.setting("model") or ""))) if run.setting("model") else "",
        "layer": run.setting("layer"),
        "similarity": printable(str(run.setting("similarity") or "cosine")),
        "unfinished": run.unfinished,
        "totals": [printable(line) for line in read_totals(run.store, run.format, run.sums_to).lines()],
        "first": html_table(_first_pairs(run, head), LONGEST),
        "log": run.roles[0] == "query",
    }
    return render(TEMPLATE, context)


def _first_pairs(run: Run, rows: list[dict[str, Any]]) -> Table:
    unit = run.units
    aim = "score" if run.sums_to == "score" else "sum"
    columns = [
        column("pair_id", rows, lambda row: str(row["pair_id"]), label=True),
        column("score", rows, lambda row: f"{row['score']:.3f}"),
    ]
    if run.has_word_pairs:
        columns.append(column(f"strongest {unit} pair, and what it adds to the {aim}", rows, _strongest, label=True))
    return Table("The first pairs", columns)


def _strongest(row: dict[str, Any]) -> str:
    if not row["top"]:
        return ""
    best = row["top"][0]
    a, b = (shortened(printable(best[side]), LONGEST // 3) for side in "ab")
    return f"{a} → {b} {best['value']:+.3f}"

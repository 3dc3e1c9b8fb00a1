"""A run as a piece of HTML for notebooks: what it is, its state, and its first pairs."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from attribution_core.display.colours import style_of
from attribution_core.display.view import model_words, printable, shortened
from jobs.run.reader import Run
from jobs.run.totals import read_totals

SCOPE = "tokenpair-run"
FIRST = 5
LONGEST = 60

TEMPLATE = """\
<section class="tokenpair-run" aria-label="A run of tokenpair">
<style>
{{ style | safe }}
.tokenpair-run{background:var(--paper);color:var(--ink);font:14px/1.5 system-ui,sans-serif;padding:12px;max-width:100%;
 box-sizing:border-box;text-align:left;overflow-wrap:anywhere}
.tokenpair-run p{margin:4px 0}
.tokenpair-run .faint{color:var(--faint)}
.tokenpair-run .scroll{overflow:auto;margin:8px 0}
.tokenpair-run table{border-collapse:collapse;margin:0;font-size:13px;color:inherit}
.tokenpair-run tr,.tokenpair-run tbody tr:nth-child(odd),.tokenpair-run tr:hover{background:none}
.tokenpair-run th,.tokenpair-run td{text-align:left;padding:2px 8px;border:0;border-bottom:1px solid var(--rule);
 color:inherit;white-space:nowrap}
</style>
<p><strong><bdi>{{ url }}</bdi></strong>{% if model %} <span class="faint"><bdi>{{ model }}</bdi>, layer {{ layer }},
 {{ similarity }}</span>{% endif %}</p>
{% if unfinished %}<p role="note"><strong>{{ unfinished }}</strong></p>
{% endif -%}
{% for line in totals %}<p>{{ line }}</p>
{% endfor -%}
{% if rows %}<div class="scroll" tabindex="0" role="region" aria-label="The first pairs">
<table><thead><tr><th scope="col">pair_id</th><th scope="col">score</th>
<th scope="col">strongest {{ unit }} pair, and what it adds to the {{ aim }}</th></tr></thead>
<tbody>
{% for row in rows %}<tr><td><bdi>{{ row.id }}</bdi></td><td>{{ row.score }}</td><td>
{%- if row.a is not none %}<bdi>{{ row.a }}</bdi> → <bdi>{{ row.b }}</bdi> {{ row.value }}{% endif %}</td></tr>
{% endfor -%}
</tbody></table></div>
<p class="faint">One of them: <code>run.pair(…)</code>{% if log %}; a query with its documents:
 <code>run.query(…)</code>{% endif %}; all as a table: <code>run.to_table()</code>.</p>
{% endif -%}
</section>
"""


def run_html(run: Run) -> str:
    """``run`` as one ``<section>`` with its own style, light and dark; every piece of text in it is escaped."""
    head = run.dataset().head(FIRST, columns=["pair_id", "score", "top"]).to_pylist()
    context: dict[str, Any] = {
        "style": style_of(SCOPE),
        "url": printable(run.url),
        "model": printable(model_words(str(run.setting("model") or ""))) if run.setting("model") else "",
        "layer": run.setting("layer"),
        "similarity": printable(str(run.setting("similarity") or "cosine")),
        "unfinished": run.unfinished,
        "totals": [printable(line) for line in read_totals(run.store, run.format, run.sums_to).lines()],
        "rows": [_row(row) for row in head],
        "log": run.roles[0] == "query",
        "unit": str(run.setting("groups") or "word"),
        "aim": "score" if run.sums_to == "score" else "sum",
    }
    return _template().render(context)


def _row(row: dict[str, Any]) -> dict[str, Any]:
    best = row["top"][0] if row["top"] else None
    return {
        "id": shortened(printable(row["pair_id"]), LONGEST),
        "score": f"{row['score']:.3f}",
        "a": shortened(printable(best["a"]), LONGEST) if best else None,
        "b": shortened(printable(best["b"]), LONGEST) if best else None,
        "value": f"{best['value']:+.3f}" if best else "",
    }


@cache
def _template() -> Template:
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(TEMPLATE)

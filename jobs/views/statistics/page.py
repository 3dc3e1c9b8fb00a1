"""Statistics as a self-contained piece of HTML: for notebooks, without scripts, light and dark, all text escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pyarrow as pa
from jinja2 import Environment, StrictUndefined, Template

from attribution_core.display.colours import style_of
from attribution_core.display.view import printable, shortened
from jobs.analysis.statistics.schema import FOLDER, NAMES, RunFacts, Statistic, Summary
from jobs.views.statistics.view import Shown, head_lines, shown_figures, shown_tables

LONGEST = 60

TEMPLATE = """\
<section class="tokenpair-statistics" aria-label="Statistics of a run">
<style>
{{ colours | safe }}
.tokenpair-statistics{background:var(--paper);color:var(--ink);font:14px/1.5 system-ui,sans-serif;padding:12px;
 max-width:100%;box-sizing:border-box;text-align:left}
.tokenpair-statistics p,.tokenpair-statistics li{margin:4px 0;overflow-wrap:anywhere;max-width:52em}
.tokenpair-statistics h3{margin:18px 0 2px;font-size:1.1em}
.tokenpair-statistics .faint{color:var(--faint)}
.tokenpair-statistics .scroll{overflow:auto;margin:10px 0}
.tokenpair-statistics table{border-collapse:separate;border-spacing:0;margin:0;color:inherit;font-size:13px}
.tokenpair-statistics caption{text-align:left;font-weight:600;padding:0 0 4px;color:inherit}
.tokenpair-statistics tr,.tokenpair-statistics tbody tr:nth-child(odd),.tokenpair-statistics tr:hover{background:none}
.tokenpair-statistics th,.tokenpair-statistics td{padding:2px 8px;border:0;text-align:right;white-space:nowrap;
 font-variant-numeric:tabular-nums;background:var(--paper);color:inherit}
.tokenpair-statistics th{font-weight:600}
.tokenpair-statistics .left{text-align:left}
.tokenpair-statistics .bar{width:9em;text-align:left}
.tokenpair-statistics .bar span{display:block;height:.7em;min-width:1px}
</style>
{% for line in head -%}
<p{% if loop.first %}><strong>{{ line }}</strong>{% else %} class="faint">{{ line }}{% endif %}</p>
{% endfor -%}
{% for note in notes %}<p role="note"><strong>{{ note }}</strong></p>
{% endfor -%}
{% for one in statistics -%}
<h3>{{ one.title }}</h3>
<p class="faint">{{ one.meaning }}</p>
{% if one.figures %}<ul>
{% for meaning, value in one.figures %}<li>{{ meaning }}: <strong>{{ value }}</strong></li>
{% endfor %}</ul>
{% endif -%}
{% for table in one.tables -%}
<div class="scroll" tabindex="0" role="region" aria-label="{{ table.title }}">
<table><caption>{{ table.title }}</caption>
<thead><tr>{% for column in table.columns %}<th scope="col"{% if column.label %} class="left"{% endif %}>
{{- column.head }}</th>{% endfor %}{% if table.bars %}<td></td>{% endif %}</tr></thead>
<tbody>{% for row in table.rows %}
<tr>{% for cell in row.cells %}{% if loop.first %}<th scope="row" class="left"><bdi>{{ cell.text }}</bdi></th>
{%- else %}<td{% if cell.label %} class="left"{% endif %}><bdi>{{ cell.text }}</bdi></td>{% endif %}{% endfor %}
{%- if table.bars %}<td class="bar"><span class="{{ row.colour }}" style="width:{{ row.width }}%"></span></td>
{%- endif %}</tr>
{%- endfor %}</tbody></table></div>
{% endfor -%}
{% for note in one.notes %}<p class="faint">{{ note }}</p>
{% endfor -%}
{% if one.files %}<p class="faint">Tables: {{ one.files }}</p>
{% endif -%}
{% endfor -%}
</section>
"""


def html_of(summary: Summary, tables: Mapping[str, pa.Table], only: Sequence[str] = ()) -> str:
    """The statistics named in ``only`` (all by default) as HTML; ``tables`` are their tables by name."""
    shown = [summary.statistics[name] for name in NAMES if name in summary.statistics and (not only or name in only)]
    return _template().render(
        colours=style_of("tokenpair-statistics"),
        head=head_lines(summary),
        notes=summary.notes,
        statistics=[_statistic(one, tables, summary.run) for one in shown],
    )


@cache
def _template() -> Template:
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(TEMPLATE)


def _statistic(one: Statistic, tables: Mapping[str, Any], facts: RunFacts) -> dict[str, Any]:
    return {
        "title": one.title,
        "meaning": one.meaning,
        "figures": shown_figures(one),
        "tables": [_table(shown) for shown in shown_tables(one, tables, facts)],
        "notes": one.notes,
        "files": ", ".join(f"{FOLDER}/{info.name}.parquet" for info in one.tables),
    }


def _table(shown: Shown) -> dict[str, Any]:
    columns = [column for column in shown.columns if any(column.texts)]
    limit = max((abs(value) for value in shown.drawn if value is not None), default=0.0)
    rows = []
    for at in range(len(shown)):
        value = shown.drawn[at] if shown.drawn else None
        rows.append(
            {
                "cells": [{"text": shortened(printable(c.texts[at]), LONGEST), "label": c.label} for c in columns],
                "colour": "n8" if value is not None and value < 0 else "p8",
                "width": round(100 * abs(value) / limit, 1) if value is not None and limit else 0,
            }
        )
    return {"title": shown.title, "columns": columns, "rows": rows, "bars": limit > 0}

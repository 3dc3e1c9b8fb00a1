"""Statistics as a self-contained piece of HTML: for notebooks, without scripts, light and dark, all text escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from attribution_core.display.page import style_of
from jobs.analysis.statistics.schema import FOLDER, NAMES, RunFacts, Statistic, Summary
from jobs.views.kit.page import html_table, render
from jobs.views.statistics.view import head_lines, shown_figures, shown_tables

LONGEST = 60
STYLE = """\
& p,& li{max-width:52em}
& h3{margin:18px 0 2px;font-size:1.1em}
"""
TEMPLATE = """\
<section class="tokenpair-statistics" aria-label="Statistics of a run">
<style>
{{ style | safe }}
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
{% for shown in one.tables %}{{ table(shown) }}
{% endfor -%}
{% for note in one.notes %}<p class="faint">{{ note }}</p>
{% endfor -%}
{% if one.files %}<p class="faint">Tables: {{ one.files }}</p>
{% endif -%}
{% endfor -%}
</section>
"""


def statistics_html(summary: Summary, tables: Mapping[str, pa.Table], only: Sequence[str] = ()) -> str:
    """The statistics named in ``only`` (all by default) as HTML; ``tables`` are their tables by name."""
    shown = [summary.statistics[name] for name in NAMES if name in summary.statistics and (not only or name in only)]
    return render(
        TEMPLATE,
        {
            "style": style_of("tokenpair-statistics", STYLE),
            "head": head_lines(summary),
            "notes": summary.notes,
            "statistics": [_statistic(one, tables, summary.run) for one in shown],
        },
    )


def _statistic(one: Statistic, tables: Mapping[str, Any], facts: RunFacts) -> dict[str, Any]:
    return {
        "title": one.title,
        "meaning": one.meaning,
        "figures": shown_figures(one),
        "tables": [html_table(shown, LONGEST) for shown in shown_tables(one, tables, facts)],
        "notes": one.notes,
        "files": ", ".join(f"{FOLDER}/{info.name}.parquet" for info in one.tables),
    }

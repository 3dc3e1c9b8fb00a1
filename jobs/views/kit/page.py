"""Pages: the template and the style that all of them share, and tables in HTML."""

from __future__ import annotations

from typing import Any

from attribution_core.display import page
from attribution_core.display.view import printable, shortened
from jobs.views.kit.table import Table

# A table of :func:`html_table`, which scrolls by itself where the page is narrow.
TABLE = """\
{% macro table(one) -%}
<div class="scroll" tabindex="0" role="region" aria-label="{{ one.title }}">
<table class="plain"><caption>{{ one.title }}</caption>
<thead><tr>{% for column in one.columns %}<th scope="col"{% if column.label %} class="left"{% endif -%}
{% if column.meaning %} title="{{ column.meaning }}"{% endif %}>{{ column.head }}</th>{% endfor -%}
{% if one.bars %}<td></td>{% endif %}</tr></thead>
<tbody>
{% for row in one.rows %}<tr>{% for cell in row.cells %}
{%- set tag = "th" if loop.first and cell.label else "td" -%}
<{{ tag }}{% if tag == "th" %} scope="row"{% endif %}{% if cell.label %} class="left"{% endif %}>
{%- if cell.link %}<a href="{{ cell.link }}">{{ text(cell.words) }}</a>{% else %}{{ text(cell.words) }}{% endif -%}
</{{ tag }}>{% endfor %}{% if one.bars %}<td class="bar">
{%- if row.width %}<span class="{{ row.colour }}" style="width:{{ row.width }}%"></span>{% endif %}</td>{% endif %}</tr>
{% endfor %}</tbody></table></div>
{% if one.note %}<p class="faint">{{ one.note }}</p>{% endif %}
{%- endmacro -%}
"""


def render(template: str, context: dict[str, Any], *, trim: bool = False) -> str:
    """A template filled in, every piece of text in it escaped; it may use ``text(words)``, and ``table(one)`` for what
    :func:`html_table` gives."""
    return page.render(TABLE + template, context, trim=trim)


def html_table(table: Table, longest: int = 80) -> dict[str, Any]:
    """What the template draws of a table: columns with something in them, texts of at most ``longest`` characters."""
    columns = [column for column in table.columns if any(column.texts)]
    rows = []
    for at in range(len(table)):
        value = table.drawn[at] if table.drawn else None
        cells = [
            {
                "words": shortened(printable(column.texts[at]), longest),
                "label": column.label,
                "link": column.links[at] if column.links else "",
            }
            for column in columns
        ]
        width = round(100 * abs(value) / table.largest, 1) if value is not None and table.largest else 0
        rows.append({"cells": cells, "colour": "n8" if value is not None and value < 0 else "p8", "width": width})
    return {"title": table.title, "columns": columns, "rows": rows, "bars": table.largest > 0, "note": table.note}

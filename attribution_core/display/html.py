"""One pair as a self-contained piece of HTML: for notebooks and pages, without scripts, in light and dark."""

from __future__ import annotations

from typing import Any

from attribution_core.display.colours import STEPS, level
from attribution_core.display.matches import TITLE, MatchLine, match_lines, match_meaning, shown_share
from attribution_core.display.page import render, style_of
from attribution_core.display.view import (
    BY_INTERACTION,
    View,
    WordSum,
    beside,
    decimals_for,
    model_words,
    names,
    notes,
    number,
    numerical_error,
    printable,
    shortened,
    step,
    strength,
    surroundings,
    terms,
    top_cells,
    unit_words,
    warns,
    word_sums,
)
from attribution_core.results import ExplainedText, PairAttribution

MOST_ROWS, MOST_CELLS, MOST_TEXT = 120, 6000, 4000
LONGEST_LABEL = 60
STYLE = """\
& .scroll{max-height:36em}
& table{margin:12px 0}
& .scroll table{margin:0}
& caption{white-space:nowrap}
& caption span{font-weight:400;color:var(--faint)}
& th{max-width:16em;overflow:hidden;text-overflow:ellipsis}
& th.left{font-weight:400}
& .matrix td,& .matrix thead th{text-align:center}
& .matrix thead th{position:sticky;top:0;z-index:1}
& .matrix tbody th{position:sticky;left:0}
& .sum td{border-top:1px solid var(--rule)}
& .bar{width:14em}
& .matrix td.p8,& .matrix td.n8{font-weight:600}
"""
TEMPLATE = """\
<section class="tokenpair-pair" aria-label="Attribution of one pair of texts">
<style>
{{ style | safe }}
</style>
{% for name, words in texts %}<p dir="auto"><strong>{{ name }}</strong>&ensp;{{ text(words) }}</p>
{% endfor -%}
<div class="wide"><table><caption>What the score is made of</caption>
<tbody>
<tr><th scope="row" class="left"><strong>score ({{ similarity }})</strong></th>
 <td><strong>{{ "%.3f" | format(score) }}</strong></td><td></td></tr>
{% for term, beside in terms %}<tr>
 <th scope="row" class="left">{{ "−" if term.sign == "-" else term.sign }} {{ term.words }}</th>
 <td>{{ "%.3f" | format(term.value) }}</td><td class="left faint">{{ beside }}</td></tr>
{% endfor -%}
<tr class="sum"><th scope="row" class="left faint">numerical error</th>
 <td class="faint">{{ "%.0e" | format(error) }}</td><td></td></tr>
</tbody></table></div>
{% for note in notes %}<p role="note"{% if not warns(note) %} class="faint"{% endif %}>{{ note }}</p>
{% endfor -%}
{% if model %}<p class="faint">Model {{ text(model) }}, layer {{ layer }}.</p>
{% endif -%}
{% if rows -%}
<div class="scroll" tabindex="0" role="region" aria-label="Matrix of {{ unit }} pairs">
<table class="matrix"><caption>{{ "All" if complete else "Stored" }} {{ unit }} pairs
 <span>rows: {{ names[0] }}, columns: {{ names[1] }}; blue <span class="p6">&ensp;+&ensp;</span> raises the score,
 orange <span class="n6">&ensp;−&ensp;</span> lowers it</span></caption>
<thead><tr><td></td>{% for col in cols %}<th scope="col"{% if col.other %} class="other"{% endif -%}
{% if col.full %} title="{{ col.full }}"{% endif %}>{{ text(col.label) }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}<tr><th scope="row"{% if row.head.other %} class="other"{% endif -%}
{% if row.head.full %} title="{{ row.head.full }}"{% endif %}>{{ text(row.head.label) }}</th>
{%- for cell in row.cells %}<td{% if cell.level %} class="{{ cell.level }}"{% endif %} title="{{ cell.title }}">
{{- cell.number }}</td>{% endfor %}</tr>
{% endfor -%}
</tbody></table></div>
{% if left_out %}<p class="faint">{{ left_out }}</p>{% endif %}
{%- endif %}
{% if strongest -%}
<div class="wide"><table><caption>Strongest {{ unit }} pairs</caption>
<thead><tr><th scope="col" class="left">{{ names[0] }}</th><th scope="col" class="left">{{ names[1] }}</th>
<th scope="col">value</th>{% if interactions %}<th scope="col">interaction</th>{% endif %}<td></td></tr></thead>
<tbody>
{% for cell in strongest %}<tr><th scope="row" class="left">{{ text(cell.a) }}
{%- if cell.near_a %} <span class="faint">({{ text(cell.near_a) }})</span>{% endif %}</th>
<td class="left">{{ text(cell.b) }}
{%- if cell.near_b %} <span class="faint">({{ text(cell.near_b) }})</span>{% endif %}</td>
<td>{{ cell.number }}</td>{% if interactions %}<td>{{ cell.interaction }}</td>{% endif %}
<td class="bar"><span class="{{ cell.level }}" style="width:{{ cell.share }}%"></span></td></tr>
{% endfor -%}
</tbody></table></div>
{% if interactions %}<p class="faint">{{ interactions }}</p>
{% endif -%}
{% endif -%}
{% for one in summed -%}
<div class="wide"><table><caption>Strongest {{ one.unit }}s of {{ one.name }}</caption>
<thead><tr><th scope="col" class="left">{{ one.unit }}</th><th scope="col">adds</th><td></td></tr></thead>
<tbody>
{% for word in one.words %}<tr><th scope="row" class="left">{{ text(word.label) }}
{%- if word.near %} <span class="faint">({{ text(word.near) }})</span>{% endif %}</th>
<td>{{ word.number }}</td>
<td class="bar"><span class="{{ word.level }}" style="width:{{ word.share }}%"></span></td></tr>
{% endfor -%}
</tbody></table></div>
{% endfor -%}
{% if matches -%}
<div class="wide"><table><caption>{{ matched }}</caption>
<thead><tr><th scope="col" class="left">{{ names[0] }}</th><th scope="col" class="left">{{ names[1] }}</th>
<th scope="col">value</th><th scope="col">of the score</th><td></td></tr></thead>
<tbody>
{% for line in matches %}<tr><th scope="row" class="left{{ "" if line.word else " other" }}">{{ text(line.a) }}
{%- if line.near_a %} <span class="faint">({{ text(line.near_a) }})</span>{% endif %}</th>
<td class="left{{ "" if line.word else " other" }}">{{ text(line.b) }}
{%- if line.near_b %} <span class="faint">({{ text(line.near_b) }})</span>{% endif %}</td>
<td>{{ line.number }}</td><td>{{ line.share }}</td>
<td class="bar"><span class="{{ line.level }}" style="width:{{ line.width }}%"></span></td></tr>
{% endfor -%}
</tbody></table></div>
<p class="faint">{{ matched_meaning }}</p>
{% endif -%}
</section>
"""


def html_of(view: View) -> str:
    """``view`` as one ``<section>`` with its own style; every piece of text in it is escaped."""
    pair = view.pair
    rows = min(len(view.rows), MOST_ROWS)
    drawn = view.smaller(rows, MOST_CELLS // max(rows, 1))
    decimals = decimals_for(view.limit)
    heads = [_head(label, pair.a.groups.kinds[i]) for label, i in zip(drawn.row_labels, drawn.rows, strict=True)]
    cols = [_head(label, pair.b.groups.kinds[j]) for label, j in zip(drawn.col_labels, drawn.cols, strict=True)]
    table = []
    for head, values in zip(heads, drawn.cells, strict=True):
        cells = [
            {
                "level": level(step(float(value), view.limit, STEPS)),
                "number": number(float(value), decimals),
                "title": f"{head['label']} × {col['label']}: {_exactly(float(value))}",
            }
            for col, value in zip(cols, values, strict=True)
        ]
        table.append({"head": head, "cells": cells})
    strongest = top_cells(view, 10)
    largest = max((abs(strength(cell)) for cell in strongest), default=0.0) or 1.0
    context: dict[str, Any] = {
        "style": pair_style(),
        "texts": [
            (name, shortened(printable(text.text), MOST_TEXT))
            for name, text in zip(names(pair), (pair.a, pair.b), strict=True)
        ],
        "names": names(pair),
        "unit": unit_words(pair),
        "score": pair.score,
        "similarity": printable(pair.similarity),
        "terms": [(term, beside(view, place)) for place, term in enumerate(terms(pair))],
        "error": numerical_error(pair),
        "model": printable(model_words(pair.model)),
        "layer": pair.layer,
        "notes": notes(view),
        "warns": warns,
        "rows": table if cols else [],
        "cols": cols,
        "left_out": drawn.left_out,
        "complete": pair.complete,
        "interactions": "" if pair.interactions is None else BY_INTERACTION,
        "strongest": [
            {
                "a": shortened(printable(cell.a), LONGEST_LABEL),
                "b": shortened(printable(cell.b), LONGEST_LABEL),
                "near_a": _near(pair.a, cell.i),
                "near_b": _near(pair.b, cell.j),
                "number": f"{cell.value:+.{max(decimals, 2) + 1}f}",
                "interaction": f"{strength(cell):+.{max(decimals, 2) + 1}f}",
                "share": f"{100 * abs(strength(cell)) / largest:.1f}",
                "level": "p6" if strength(cell) >= 0 else "n6",
            }
            for cell in strongest
        ],
        "summed": [_summed(*one) for one in word_sums(view, 10)],
        "matched": TITLE,
        "matched_meaning": match_meaning(pair),
        "matches": _matches(pair, match_lines(pair, 10, special=view.special)),
    }
    return render(TEMPLATE, context)


def _summed(name: str, text: ExplainedText, words: list[WordSum]) -> dict[str, Any]:
    """The strongest words of one text of a pair without word pairs."""
    largest = max(abs(word.value) for word in words) or 1.0
    decimals = max(decimals_for(largest), 2) + 1
    rows = [
        {
            "label": shortened(printable(word.label), LONGEST_LABEL),
            "near": _near(text, word.index),
            "number": f"{word.value:+.{decimals}f}",
            "share": f"{100 * abs(word.value) / largest:.1f}",
            "level": "p6" if word.value >= 0 else "n6",
        }
        for word in words
    ]
    return {"name": name, "unit": text.groups.unit, "words": rows}


def _matches(pair: PairAttribution, lines: list[MatchLine]) -> list[dict[str, Any]]:
    """Where a late-interaction model matched."""
    largest = max((abs(line.value) for line in lines), default=0.0) or 1.0
    decimals = max(decimals_for(largest), 2) + 1
    return [
        {
            "a": shortened(printable(line.a), LONGEST_LABEL),
            "b": shortened(printable(line.b), LONGEST_LABEL),
            "near_a": "" if line.i is None else _near(pair.a, line.i),
            "near_b": "" if line.j is None else _near(pair.b, line.j),
            "word": line.i is not None,
            "number": f"{line.value:+.{decimals}f}",
            "share": shown_share(line),
            "width": f"{100 * abs(line.value) / largest:.1f}",
            "level": "p6" if line.value >= 0 else "n6",
        }
        for line in lines
    ]


def pair_style() -> str:
    """The CSS of everything inside the class ``tokenpair-pair``, colours included."""
    return style_of("tokenpair-pair", STYLE)


def _head(label: str, kind: str) -> dict[str, Any]:
    short = shortened(label, LONGEST_LABEL)
    return {"label": short, "full": shortened(label, 400) if short != label else "", "other": kind != "text"}


def _near(text: ExplainedText, index: int) -> str:
    return next(map(printable, surroundings(text, index)), "")


def _exactly(value: float) -> str:
    return "not stored" if value != value else f"{value:+.4g}"

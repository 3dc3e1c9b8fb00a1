"""A query and its documents as a self-contained piece of HTML: for notebooks and pages, without scripts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from attribution_core.display_colours import STEPS, level, style_of
from attribution_core.display_view import decimals_for, model_words, number, printable, shortened, step, warns
from jobs.query.result import QueryDocument, QueryResult
from jobs.query.snippet import Snippet, snippet, whole
from jobs.query.view import Bars, bars_of, document_notes, facts, heading, query_notes, strongest

if TYPE_CHECKING:
    from jinja2 import Template

BAR_EM = 4.5
SNIPPET, MOST_TEXT, LONGEST_LABEL, LONGEST_ID = 320, 20_000, 40, 80

STYLE = """\
.tokenpair-query{background:var(--paper);color:var(--ink);font:14px/1.5 system-ui,sans-serif;padding:12px;
 max-width:100%;box-sizing:border-box;text-align:left}
.tokenpair-query p,.tokenpair-query article{margin:4px 0;overflow-wrap:anywhere;max-width:52em}
.tokenpair-query article{border-top:1px solid var(--rule);padding:10px 0 6px}
.tokenpair-query .faint{color:var(--faint);font-weight:400}
.tokenpair-query .piece{display:inline-block;max-width:100%}
.tokenpair-query .scroll{overflow:auto;margin:12px 0}
.tokenpair-query table{border-collapse:separate;border-spacing:0;margin:0;color:inherit;font-size:13px}
.tokenpair-query caption{text-align:left;font-weight:600;padding:0 0 6px;color:inherit}
.tokenpair-query tr,.tokenpair-query tbody tr:nth-child(odd),.tokenpair-query tr:hover{background:none}
.tokenpair-query th,.tokenpair-query td{padding:3px 6px;border:0;text-align:right;white-space:nowrap;
 font-variant-numeric:tabular-nums;background:var(--paper);color:inherit;vertical-align:bottom}
.tokenpair-query th{font-weight:600}
.tokenpair-query .word{text-align:left;max-width:9em;overflow:hidden;text-overflow:ellipsis}
.tokenpair-query .value{text-align:left;padding:4px 6px}
.tokenpair-query .value span{display:block;height:.4em;min-width:1px;margin-top:1px}
.tokenpair-query tbody th{position:sticky;left:0}
.tokenpair-query .other{font-weight:400;font-style:italic}
.tokenpair-query mark{border-radius:2px;padding:0 1px}
.tokenpair-query details{margin:4px 0}
.tokenpair-query summary{cursor:pointer;color:var(--faint)}
.tokenpair-query a{color:inherit}
.tokenpair-query .hidden{position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden;white-space:nowrap}
"""

TEMPLATE = """\
{% macro text(words) %}<bdi>{{ words }}</bdi>{% endmacro -%}
{% macro passage(shown) %}{% if shown.before %}… {% endif %}
{%- for piece in shown.pieces %}{% if piece.level %}<mark class="{{ piece.level }}" title="{{ piece.title }}">
{{- piece.text }}</mark>{% else %}{{ piece.text }}{% endif %}{% endfor %}
{%- if shown.after %} …{% endif %}{% endmacro -%}
<section class="tokenpair-query" aria-label="A query and its documents">
{% if style %}<style>
{{ style | safe }}
</style>
{% endif -%}
<p dir="auto"><strong>query</strong>&ensp;{{ text(query) }}</p>
{% for note in notes %}<p role="note"><strong>{{ note }}</strong></p>
{% endfor -%}
{% if rows and words -%}
<div class="scroll" tabindex="0" role="region" aria-label="What each word of the query brought">
<table><caption>{{ heading }}</caption>
<thead><tr><th scope="col">rank</th><th scope="col">score</th>
{%- if judged %}<th scope="col">relevance</th>{% endif %}
{%- for word in words %}<th scope="col" class="word{% if word.other %} other{% endif %}"
{%- if word.full %} title="{{ word.full }}"{% endif %}>{{ text(word.label) }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}<tr><th scope="row">{{ row.rank }}</th><td>{{ row.score }}</td>
{%- if judged %}<td>{{ row.relevance }}</td>{% endif %}
{%- for cell in row.cells %}<td class="value">{{ cell.number }}
{{- ""}}<span class="{{ cell.level }}" style="width:{{ cell.width }}em"></span></td>{% endfor %}</tr>
{% endfor -%}
</tbody></table></div>
<p class="faint">How much each word of the query brought to the score: blue raises it{% if negative %}, orange lowers it
{%- endif %}.</p>
{%- else %}<p><strong>{{ heading }}</strong></p>
{%- endif %}
{% for one in documents %}<article>
<p><strong>{{ one.rank }}&ensp;{{ text(one.id) }}</strong>&ensp;
{%- for fact in one.facts %} <span class="faint piece">{{ fact }}{% if not loop.last %},{% endif %}</span>
{%- endfor %}
{%- if one.link %} <a class="piece" href="{{ one.link }}">all word pairs<span class="hidden"> of {{ one.id }}</span></a>
{%- endif %}</p>
{% for note in one.notes %}<p role="note" class="faint">{{ note }}</p>
{% endfor -%}
<p dir="auto">{{ passage(one.snippet) }}</p>
{% if one.pairs %}<p class="faint">{% for pair in one.pairs %}<span class="piece">
{{- text(pair.a) }} → {{ text(pair.b) }} {{ pair.number }}{% if not loop.last %},{% endif %}</span> {% endfor %}</p>
{% endif -%}
{% if one.whole %}<details><summary>the whole document</summary><p dir="auto">{{ passage(one.whole) }}</p></details>
{% endif -%}
</article>
{% endfor -%}
{% if documents %}<p class="faint">In the documents, marked words brought most: the stronger the colour, the more, on a
 scale of the document's own.{% if model %} Model {{ text(model) }}, layer {{ layer }}, {{ similarity }}.{% endif %}</p>
{% endif -%}
</section>
"""


def html_of(
    result: QueryResult, top: int, special: bool, *, links: Mapping[str, str] | None = None, styled: bool = True
) -> str:
    """The ``top`` first documents of ``result`` as one ``<section>``; every piece of text in it is escaped.

    ``links`` has addresses by pair id, for the documents that have a page of their own; without ``styled`` the page
    around it brings :func:`query_style`.
    """
    documents = result.documents[: max(top, 0)]
    bars = bars_of(result.query, documents, special)
    groups = result.query.groups
    heads = []
    for i in bars.words:
        label = printable(groups.labels[i])
        short = shortened(label, LONGEST_LABEL)
        full = shortened(label, 400) if short != label else ""
        heads.append({"label": short, "full": full, "other": groups.kinds[i] != "text"})
    context: dict[str, Any] = {
        "style": query_style() if styled else "",
        "query": printable(result.text or " ".join(groups.labels[i] for i in bars.words)),
        "notes": query_notes(result),
        "heading": heading(result, len(documents)),
        "words": heads,
        "negative": bool((bars.values < 0).any()),
        "judged": any(one.relevance is not None for one in documents),
        "rows": [_row(one, bars, at) for at, one in enumerate(documents)],
        "documents": [_article(one, (links or {}).get(one.pair_id, "")) for one in documents],
        "model": printable(model_words(result.model)),
        "layer": result.layer,
        "similarity": printable(result.similarity),
    }
    return _template().render(context)


def query_style() -> str:
    """The CSS of everything inside the class ``tokenpair-query``, colours included."""
    return f"{style_of('tokenpair-query')}\n{STYLE}"


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    return Environment(autoescape=True, undefined=StrictUndefined).from_string(TEMPLATE)


def _row(document: QueryDocument, bars: Bars, at: int) -> dict[str, Any]:
    decimals = max(decimals_for(bars.limit), 2)
    cells = [
        {
            "number": number(float(value), decimals),
            # In a unit of its own: a share of the column's width would draw equal values unequal.
            "width": f"{BAR_EM * abs(float(value)) / (bars.limit or 1.0):.2f}",
            "level": "p6" if value >= 0 else "n6",
        }
        for value in bars.values[at]
    ]
    judged = "–" if document.relevance is None else f"{document.relevance:g}"
    return {"rank": document.rank, "score": f"{document.score:.3f}", "relevance": judged, "cells": cells}


def _article(document: QueryDocument, link: str) -> dict[str, Any]:
    shown = snippet(document, SNIPPET)
    cut = shown.cut_before or shown.cut_after
    notes = document_notes(document)
    return {
        "rank": document.rank,
        "id": shortened(printable(document.id), LONGEST_ID),
        "facts": facts(document),
        "link": link,
        "notes": [note for note in notes if warns(note)] + [note for note in notes if not warns(note)],
        "snippet": _passage(shown),
        "whole": _passage(whole(document)) if cut and len(document.text) <= MOST_TEXT else None,
        "pairs": [
            {
                "a": shortened(printable(cell.a), LONGEST_LABEL),
                "b": shortened(printable(cell.b), LONGEST_LABEL),
                "number": f"{cell.value:+.3f}",
            }
            for cell in strongest(document)
        ],
    }


def _passage(shown: Snippet) -> dict[str, Any]:
    pieces = []
    for piece in shown.pieces:
        mark = piece.span is not None and shown.marks(piece.span)
        pieces.append({"text": printable(piece.text), "level": "", "title": ""})
        if piece.span is not None and mark:
            answered = "" if piece.span.query_word is None else f", most for “{printable(piece.span.query_word)}”"
            pieces[-1]["level"] = level(step(piece.span.value, shown.limit, STEPS))
            pieces[-1]["title"] = f"{piece.span.value:+.3f}{answered}"
    return {"pieces": pieces, "before": shown.cut_before, "after": shown.cut_after}

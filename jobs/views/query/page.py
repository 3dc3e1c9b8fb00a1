"""A query and its documents as a self-contained piece of HTML: for notebooks and pages, without scripts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attribution_core.display.colours import STEPS, level
from attribution_core.display.page import render, style_of
from attribution_core.display.view import decimals_for, model_words, number, printable, shortened, step, warns
from jobs.analysis.query.result import QueryDocument, QueryResult, Span
from jobs.analysis.query.snippet import Snippet, snippet, whole
from jobs.views.query.terminal import DOCUMENTS
from jobs.views.query.view import Bars, bars_of, document_notes, heading, query_notes, strongest
from jobs.views.query.wording import aim, facts, kept_kinds, marks, more_on_marks, row_sums_to, special_sum

BAR_EM = 4.5
SNIPPET, MOST_TEXT, LONGEST_LABEL, LONGEST_ID = 320, 20_000, 40, 80

STYLE = """\
& p,& article{max-width:52em}
& article{margin:4px 0;border-top:1px solid var(--rule);padding:10px 0 6px}
& .piece{display:inline-block;max-width:100%}
& th,& td{padding:3px 6px;vertical-align:bottom}
& .word{text-align:left;max-width:9em;overflow:hidden;text-overflow:ellipsis}
& .value{text-align:left;padding:4px 6px}
& .value span{display:block;height:.4em;min-width:1px;margin-top:1px}
& tbody th{position:sticky;left:0}
& mark{border-radius:2px;padding:0 1px}
& details{margin:4px 0}
& summary{cursor:pointer;color:var(--faint)}
& a{color:inherit}
& .hidden{position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden;white-space:nowrap}
"""
TEMPLATE = """\
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
<div class="scroll" tabindex="0" role="region" aria-label="What each {{ unit }} of the query adds">
<table><caption>{{ heading }}</caption>
<thead><tr><th scope="col">rank</th><th scope="col">score</th>
{%- if judged %}<th scope="col">relevance</th>{% endif %}
{%- for word in words %}<th scope="col" class="word{% if word.other %} other{% endif %}"
{%- if word.full %} title="{{ word.full }}"{% endif %}>{{ text(word.label) }}</th>{% endfor %}
{%- if others %}<th scope="col" class="other">{{ others }}</th>{% endif %}</tr></thead>
<tbody>
{% for row in rows %}<tr><th scope="row">{{ row.rank }}</th><td>{{ row.score }}</td>
{%- if judged %}<td>{{ row.relevance }}</td>{% endif %}
{%- for cell in row.cells %}<td class="value">{{ cell.number }}
{{- ""}}<span class="{{ cell.level }}" style="width:{{ cell.width }}em"></span></td>{% endfor %}
{%- if others %}<td>{{ row.others }}</td>{% endif %}</tr>
{% endfor -%}
</tbody></table></div>
<p class="faint">How much each {{ unit }} of the query adds to {{ aim }}: blue raises it{% if negative %}, orange
 lowers it{% endif %}. {{ sum }}</p>
{%- else %}<p><strong>{{ heading }}</strong></p>
{%- endif %}
{% if documents %}<p class="faint">In the documents, marked {{ unit_b }}s {{ above }}{% if below %}; orange ones
 {{ below }}{% endif %}. The stronger the colour, the more, on a scale of each document's own. {{ more }}</p>
{% endif -%}
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
{% if documents and model %}<p class="faint">Model {{ text(model) }}, layer {{ layer }}, {{ similarity }}.</p>
{% endif -%}
</section>
"""


def query_html(
    result: QueryResult,
    *,
    top: int = DOCUMENTS,
    special: bool = False,
    links: Mapping[str, str] | None = None,
    styled: bool = True,
) -> str:
    """The ``top`` first documents of ``result`` as one ``<section>``, whole documents folded away: no scripts, light
    and dark, all text escaped. ``special`` shows special and prompt tokens of the query too.

    ``links`` has addresses by pair id, for the documents that have a page of their own; without ``styled`` the page
    around it has :func:`query_style`.
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
    others = "" if special else kept_kinds(result)
    above, below = marks(result)
    negative = any(span.value < 0 for one in documents for span in whole(one).marked)
    context: dict[str, Any] = {
        "style": query_style() if styled else "",
        "query": printable(result.text or " ".join(groups.labels[i] for i in bars.words)),
        "notes": query_notes(result),
        "heading": heading(result, len(documents)),
        "words": heads,
        "negative": bool((bars.values < 0).any()),
        "judged": any(one.relevance is not None for one in documents),
        "others": others,
        "rows": [_row(result, one, bars, at) for at, one in enumerate(documents)],
        "documents": [_article(result, one, (links or {}).get(one.pair_id, "")) for one in documents],
        "unit": groups.unit,
        "unit_b": documents[0].explained.groups.unit if documents else "",
        "aim": aim(result),
        "sum": row_sums_to(result, special),
        "above": above,
        "below": below if negative else "",
        "more": more_on_marks(result) if documents else "",
        "model": printable(model_words(result.model)),
        "layer": result.layer,
        "similarity": printable(result.similarity),
    }
    return render(TEMPLATE, context)


def query_style() -> str:
    """The CSS of everything inside the class ``tokenpair-query``, colours included."""
    return style_of("tokenpair-query", STYLE)


def _row(result: QueryResult, document: QueryDocument, bars: Bars, at: int) -> dict[str, Any]:
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
    return {
        "rank": document.rank,
        "score": f"{document.score:.3f}",
        "relevance": judged,
        "cells": cells,
        "others": number(special_sum(result, document), decimals),
    }


def _article(result: QueryResult, document: QueryDocument, link: str) -> dict[str, Any]:
    shown = snippet(document, SNIPPET)
    cut = shown.cut_before or shown.cut_after
    notes = document_notes(document)
    return {
        "rank": document.rank,
        "id": shortened(printable(document.id), LONGEST_ID),
        "facts": facts(result, document),
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
            pieces[-1]["level"] = level(step(piece.span.value, shown.limit, STEPS))
            pieces[-1]["title"] = span_title(piece.span)
    return {"pieces": pieces, "before": shown.cut_before, "after": shown.cut_after}


def span_title(span: Span) -> str:
    """The numbers of a marked word."""
    words = [] if span.lift is None else [f"lift {span.lift:+.3f}"]
    words.append(f"share {span.share:+.3f}")
    if span.query_word is not None:
        words.append(f"strongest pair with “{printable(span.query_word)}”")
    return ", ".join(words)

"""Highlights of an index as a self-contained piece of HTML, without scripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attribution_core.display.colours import level
from attribution_core.display.page import style_of
from attribution_core.display.view import model_words, printable, shortened
from jobs.index.fragments import raising
from jobs.index.highlights import Highlight, Span
from jobs.index.snapshot import Facts
from jobs.views.index.wording import colour_step, document_facts, document_note, footer, legend, passages, whole
from jobs.views.kit.page import render

MOST_TEXT, LONGEST_ID = 20_000, 80
# Whole sentences are read on lighter grounds than words.
STEPS = 5

STYLE = """\
& p,& article{max-width:52em}
& article{margin:4px 0;border-top:1px solid var(--rule);padding:10px 0 6px}
& .passage{display:grid;grid-template-columns:4em 1fr;gap:0 8px;line-height:1.6;margin:6px 0}
& .number{text-align:right;font-variant-numeric:tabular-nums;color:var(--faint)}
& mark{border-radius:2px;padding:0 1px}
& mark:not([class]){background:none;color:inherit}
& details{margin:4px 0}
& summary{cursor:pointer;color:var(--faint)}
"""
TEMPLATE = """\
{% macro marked(pieces) %}{% for piece in pieces %}{% if piece.title %}<mark
{%- if piece.level %} class="{{ piece.level }}"{% endif %} title="{{ piece.title }}">{{ piece.text }}</mark>
{%- else %}{{ piece.text }}{% endif %}{% endfor %}{% endmacro -%}
<section class="tokenpair-highlights" aria-label="A query's highlights">
<style>
{{ style | safe }}
</style>
<p dir="auto"><strong>query</strong>&ensp;{{ text(query) }}</p>
<p class="faint">{{ legend }} The stronger the colour, the more, on a scale of each document's own.</p>
{% for one in documents %}<article>
<p><strong>{{ text(one.id) }}</strong>&ensp;<span class="faint">{{ one.facts }}</span></p>
{% if one.note %}<p role="note">{{ one.note }}</p>
{% endif -%}
{% for passage in one.passages %}<div class="passage"><span class="number">{{ passage.number }}</span>
<span dir="auto">{% if passage.before %}…&nbsp;{% endif %}{{ marked(passage.pieces) }}
{%- if passage.after %}&nbsp;…{% endif %}</span></div>
{% endfor -%}
{% if one.whole %}<details><summary>the whole document</summary><p dir="auto">{{ marked(one.whole) }}</p></details>
{% endif -%}
</article>
{% endfor -%}
<p class="faint">{{ footer }}</p>
</section>
"""


def highlights_html(query: str, hits: Sequence[Highlight], facts: Facts) -> str:
    """Return the highlights of documents for a query as one ``<section>``: light and dark, all text escaped, whole
    documents folded away."""
    context: dict[str, Any] = {
        "style": style_of("tokenpair-highlights", STYLE),
        "query": printable(query),
        "legend": legend(facts),
        "documents": [_document(raising(hit)) for hit in hits],
        "footer": footer(facts, printable(model_words(facts.model))),
    }
    return render(TEMPLATE, context)


def _document(hit: Highlight) -> dict[str, Any]:
    folded = hit.text is not None and len(hit.text) <= MOST_TEXT
    return {
        "id": shortened(printable(hit.id), LONGEST_ID),
        "facts": ", ".join(document_facts(hit)),
        "note": document_note(hit),
        "passages": [
            {
                "number": f"{passage.value:+.3f}",
                "pieces": _pieces(hit, passage.pieces),
                "before": passage.before,
                "after": passage.after,
            }
            for passage in passages(hit)
        ],
        "whole": _pieces(hit, whole(hit)) if folded else [],
    }


def _pieces(hit: Highlight, pieces: Iterable[tuple[str, Span | None]]) -> list[dict[str, str]]:
    return [
        {
            "text": printable(words),
            "level": "" if span is None else level(colour_step(hit, span, STEPS)),
            "title": "" if span is None else _title(span),
        }
        for words, span in pieces
    ]


def _title(span: Span) -> str:
    lift = "" if span.lift is None else f"lift {span.lift:+.3f}, "
    return f"{lift}share {span.share:+.3f}"

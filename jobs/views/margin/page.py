"""A margin as a self-contained piece of HTML: two documents side by side, linked hovering, no scripts."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from attribution_core.display.colours import STEPS, level
from attribution_core.display.page import style_of
from attribution_core.display.view import model_words, printable, shortened, step, warns
from jobs.analysis.flips.result import Proof
from jobs.analysis.margin.result import Margin
from jobs.analysis.query.result import QueryDocument
from jobs.analysis.query.snippet import Snippet, snippet, whole
from jobs.views.kit.page import html_table, render
from jobs.views.margin.flips import proof_lines
from jobs.views.margin.wording import facts, marks_legend, notes, tables, verdict
from jobs.views.query.page import span_title

WINDOW, MOST_TEXT, LONGEST_ID = 1200, 20_000, 80
# Query words beyond these are not linked with the documents: each needs rules of its own.
MOST_LINKED = 64

STYLE = """\
& .answer{font-size:16px;font-weight:600;margin-top:10px}
& .prose{max-width:60em}
& .documents,& .tables{display:grid;gap:4px 28px;grid-template-columns:repeat(auto-fit,minmax(min(100%,24em),1fr))}
& .documents{margin:12px 0;border-top:1px solid var(--rule);padding-top:8px}
& .tables .scroll{margin:8px 0}
& .tables .left{white-space:normal;overflow-wrap:break-word;min-width:6em}
& .tables .bar{width:5em;min-width:3em}
& .passage{line-height:1.7}
& mark{border-radius:2px;padding:0 1px}
& mark:not([class^="p"],[class^="n"]){background:none;color:inherit}
& .word{border-radius:3px;padding:1px 2px;cursor:default}
& .word:focus-visible{outline:2px solid var(--ink)}
& .piece{display:inline-block;max-width:100%}
& details{margin:4px 0}
& summary{cursor:pointer;color:var(--faint)}
"""


def _linked() -> str:
    """Pointing at a query word outlines the words of both documents that it met, and
    pointing at one of these outlines the query's."""
    to_documents = ",".join(f"&:has(.q{i}:is(:hover,:focus)) .m{i}" for i in range(MOST_LINKED))
    to_query = ",".join(f"&:has(.m{i}:hover) .q{i}" for i in range(MOST_LINKED))
    return f"{to_documents},{to_query}{{outline:2px solid var(--ink);outline-offset:0}}\n"


TEMPLATE = """\
{% macro passage(shown) %}{% if shown.before %}… {% endif %}
{%- for piece in shown.pieces %}{% if piece.classes %}<mark class="{{ piece.classes }}" title="{{ piece.title }}">
{{- piece.text }}</mark>{% else %}{{ piece.text }}{% endif %}{% endfor %}
{%- if shown.after %} …{% endif %}{% endmacro -%}
<section class="tokenpair-margin" aria-label="Why one document is above another">
{% if style %}<style>
{{ style | safe }}
</style>
{% endif -%}
<p class="answer prose">{{ answer }}</p>
{% if more %}<p class="prose">{{ more }}</p>
{% endif -%}
{% for note in notes %}<p role="note" class="prose{% if not note.warns %} faint{% endif %}">{{ note.text }}</p>
{% endfor -%}
{% for line in proof %}<p class="prose">{{ line }}</p>
{% endfor -%}
<p dir="auto" class="passage"><strong>query</strong>&ensp;{% for piece in query %}{% if piece.word -%}
<span class="word {{ piece.classes }}" tabindex="0" title="{{ piece.title }}">{{ piece.text }}</span>
{%- else %}{{ piece.text }}{% endif %}{% endfor %}</p>
<p class="faint prose">Blue {{ unit }}s of the query speak for A, orange ones for B.
 {%- if word_pairs %} Point at one, or reach it by Tab:
 the {{ unit_b }}s of both documents that it met most are outlined.{% endif %}
 In each document, blue {{ unit_b }}s {{ above }}
 {%- if below %}, orange ones {{ below }}{% endif %}.</p>
<div class="documents">
{% for one in documents %}<article>
<p><strong>{{ one.name }}{% if one.id %}&ensp;{{ text(one.id) }}{% endif %}</strong>&ensp;
{%- for fact in one.facts %} <span class="faint piece">{{ fact }}{% if not loop.last %},{% endif %}</span>
{%- endfor %}</p>
<p dir="auto" class="passage">{{ passage(one.snippet) }}</p>
{% if one.whole %}<details><summary>the whole document</summary>
<p dir="auto" class="passage">{{ passage(one.whole) }}</p></details>
{% endif -%}
</article>
{% endfor -%}
</div>
<div class="tables">
{% for one in tables %}<div>{{ table(one) }}</div>
{% endfor -%}
</div>
{% if model %}<p class="faint">Model {{ text(model) }}, layer {{ layer }}, {{ similarity }}.</p>
{% endif -%}
</section>
"""


def margin_html(margin: Margin, *, styled: bool = True, proof: Proof | None = None) -> str:
    """Return a margin as one ``<section>``: no scripts, light and dark, one column where it is narrow, all text
    escaped.

    Without ``styled`` the page around it has :func:`margin_style`; ``proof`` is what deletions showed of the margin.
    """
    answer, *more = verdict(margin)
    unit = margin.query.groups.unit
    unit_b = margin.documents[0].explained.groups.unit
    above, below = marks_legend(margin)
    negative = any(span.value < 0 for one in margin.documents for span in whole(one).marked)
    context: dict[str, Any] = {
        "style": margin_style() if styled else "",
        "query": _query(margin),
        "answer": printable(answer),
        "more": printable(" ".join(more)) if more else "",
        "notes": [{"text": printable(note), "warns": warns(note)} for note in notes(margin)],
        "proof": [printable(line) for line in proof_lines(proof, unit_b)] if proof is not None else [],
        "unit": unit,
        "word_pairs": bool(margin.pairs),
        "unit_b": unit_b,
        "above": above,
        "below": below if negative else "",
        "documents": [_document(margin, name, one) for name, one in zip("AB", margin.documents, strict=True)],
        "tables": [html_table(one) for one in tables(margin)],
        "model": printable(model_words(margin.model)) if margin.model else "",
        "layer": margin.layer,
        "similarity": printable(margin.similarity),
    }
    return render(TEMPLATE, context)


def margin_style() -> str:
    """Return the CSS of everything inside the class ``tokenpair-margin``, colours included."""
    return style_of("tokenpair-margin", STYLE + _linked())


def _query(margin: Margin) -> list[dict[str, Any]]:
    """Return the query in pieces: its words, coloured by which document they speak for, and what stands between
    them."""
    groups, text = margin.query.groups, margin.text
    parts = {part.index: part for part in margin.query_words if part.index is not None}
    limit = max((abs(part.value) for part in parts.values()), default=0.0)
    pieces: list[dict[str, Any]] = []
    at = 0
    for index, part in parts.items():
        start, end = groups.starts[index], groups.ends[index]
        if end <= start or start < at:
            # Without a place of its own, such as a word that an unfinished run has no text for.
            continue
        pieces.append({"word": False, "text": printable(text[at:start]) if start > at else ""})
        link = f"q{index} " if index < MOST_LINKED else ""
        title = f"adds {part.a:+.3f} to A and {part.b:+.3f} to B: {part.value:+.3f}"
        classes = link + level(step(part.value, limit, STEPS))
        pieces.append({"word": True, "text": printable(text[start:end]), "classes": classes.strip(), "title": title})
        at = end
    pieces.append({"word": False, "text": printable(text[at:]) if at < len(text) else ""})
    return pieces


def _document(margin: Margin, name: str, document: QueryDocument) -> dict[str, Any]:
    shown = snippet(document, WINDOW)
    cut = shown.cut_before or shown.cut_after
    met = _met(document)
    return {
        "name": name,
        "id": shortened(printable(document.id), LONGEST_ID) if document.id != name else "",
        "facts": facts(margin, document),
        "snippet": _passage(shown, met),
        "whole": _passage(whole(document), met) if cut and len(document.text) <= MOST_TEXT else None,
    }


def _met(document: QueryDocument) -> dict[int, set[int]]:
    """By the start of a word of the document: the query words with which it made a stored pair above zero."""
    met: dict[int, set[int]] = defaultdict(set)
    for cell in document.cells:
        if cell.value > 0 and cell.i < MOST_LINKED:
            met[document.explained.groups.starts[cell.j]].add(cell.i)
    return met


def _passage(shown: Snippet, met: dict[int, set[int]]) -> dict[str, Any]:
    pieces = []
    for piece in shown.pieces:
        classes, title = [], ""
        if piece.span is not None:
            if shown.marks(piece.span):
                classes.append(level(step(piece.span.value, shown.limit, STEPS)))
            words = sorted({i for start in range(piece.span.start, piece.span.end) for i in met.get(start, ())})
            classes += [f"m{i}" for i in words]
            title = span_title(piece.span) if classes else ""
        pieces.append({"text": printable(piece.text), "classes": " ".join(filter(None, classes)), "title": title})
    return {"pieces": pieces, "before": shown.cut_before, "after": shown.cut_after}

"""Statistics over a corpus as a self-contained piece of HTML: no scripts, light and dark, all text escaped."""

from __future__ import annotations

from typing import Any

from attribution_core.display.page import style_of
from attribution_core.display.view import printable
from jobs.analysis.corpus.result import CorpusStatistics
from jobs.views.corpus.wording import Section, head, sections
from jobs.views.kit.page import html_table, render

STYLE = """\
& p,& li{max-width:56em}
& h2{margin:26px 0 4px;font-size:1.15em}
& h2:first-of-type{margin-top:16px}
& ol{margin:8px 0;padding-left:2.2em}
& li{margin:8px 0}
& .tables{display:grid;gap:4px 28px;grid-template-columns:repeat(auto-fit,minmax(min(100%,40em),1fr))}
& .tables .bar{min-width:9em}
"""
TEMPLATE = """\
<section class="tokenpair-corpus" aria-label="Statistics over a corpus">
<style>
{{ style | safe }}
</style>
<p><strong>{{ head }}</strong></p>
{% for note in notes %}<p role="note"><strong>{{ note }}</strong></p>
{% endfor -%}
{% for one in sections -%}
<h2>{{ one.title }}</h2>
{% for said in one.says %}<p>{{ said }}</p>
{% endfor -%}
{% if one.act %}<p><strong>{{ one.act }}</strong></p>
{% endif -%}
{% if one.cases %}<ol>
{% for case in one.cases %}<li><span class="faint">{{ text(case.lead) }}</span>
{%- for one in case.texts %}<br>{{ text(one) }}{% endfor %}</li>
{% endfor %}</ol>
{% endif -%}
{% if one.tables %}<div class="tables">
{% for shown in one.tables %}<div>{{ table(shown) }}</div>
{% endfor %}</div>
{% endif -%}
{% endfor -%}
</section>
"""


def corpus_html(found: CorpusStatistics) -> str:
    """Return statistics over a corpus as one ``<section>``."""
    return render(
        TEMPLATE,
        {
            "style": style_of("tokenpair-corpus", STYLE),
            "head": printable(head(found)),
            "notes": [printable(note) for note in found.notes],
            "sections": [_section(one) for one in sections(found)],
        },
    )


def _section(section: Section) -> dict[str, Any]:
    return {
        "title": section.title,
        "says": section.says,
        "act": section.act,
        "cases": [
            {"lead": printable(one.lead), "texts": [printable(words) for words in one.texts]} for one in section.cases
        ],
        "tables": [html_table(one) for one in section.tables],
    }

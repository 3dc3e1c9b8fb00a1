"""What every page and piece of HTML shares: its style, and its template with all text escaped. No scripts."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from attribution_core.display.colours import colour_rules

# "&" stands for the scope. Notebooks style tables of their own: what they would change is said here.
BASE = """\
&{background:var(--paper);color:var(--ink);font:14px/1.5 system-ui,sans-serif;padding:12px;max-width:100%;
 box-sizing:border-box;text-align:left;overflow-wrap:anywhere}
& p,& li{margin:4px 0}
& .faint{color:var(--faint);font-weight:400}
& .scroll{overflow:auto;margin:12px 0}& .wide{overflow-x:auto}
& table{border-collapse:separate;border-spacing:0;margin:0;color:inherit;font-size:13px}
& caption{text-align:left;font-weight:600;padding:0 0 6px;color:inherit}
& tr,& tbody tr:nth-child(odd),& tr:hover{background:none}
& th,& td{padding:3px 7px;border:0;text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums;
 background:var(--paper);color:inherit}
& th{font-weight:600}
& .left{text-align:left}
& .other{font-weight:400;font-style:italic}
& .bar{width:9em;text-align:left}
& .bar span{display:block;height:.7em;min-width:1px}
"""
# Of texts in any script and direction, so that one does not turn what stands beside it.
TEXT = "{% macro text(words) %}<bdi>{{ words }}</bdi>{% endmacro -%}\n"


def style_of(scope: str, more: str = "") -> str:
    """The CSS of everything inside the class ``scope``: colours, the base that all pages share, and ``more``, in which
    "&" stands for the scope. It touches nothing outside."""
    return "\n".join([*colour_rules(scope), (BASE + more).replace("&", f".{scope}")])


def render(template: str, context: dict[str, Any], *, trim: bool = False) -> str:
    """A template filled in, every piece of text in it escaped; ``text(words)`` in it sets words apart from those around
    them. ``trim`` leaves out the lines that hold a statement alone."""
    return _compiled(TEXT + template, trim).render(context)


@cache
def _compiled(template: str, trim: bool) -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=trim, lstrip_blocks=trim)
    return environment.from_string(template)

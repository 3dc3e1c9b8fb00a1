"""The page as one string: everything that was gathered, in the template, with the style and the script inside."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from attribution_core.display.colours import style_of
from attribution_core.display.html import pair_style
from jobs.views.query.page import query_style

SCOPE = "tokenpair-report"


def page(context: dict[str, Any]) -> str:
    """The whole page; ``context`` has what the template names beside the style, the script and the policy."""
    style = "\n".join((style_of(SCOPE), pair_style(), query_style(), _file("report.css")))
    script = _file("explorer.js")
    return _template().render(**context, style=style, script=script, policy=policy(script))


def policy(script: str) -> str:
    """What the page may load and run: this script, its own style, and nothing from anywhere."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _file(name: str) -> str:
    return resources.files("jobs.views.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_file("report.html.j2"))

"""The page as one string: everything that was gathered, in the template, with the style and the script inside."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from attribution_core.display.html import pair_style
from attribution_core.display.page import style_of
from jobs.views.kit.page import render
from jobs.views.margin.page import margin_style
from jobs.views.query.page import query_style


def page(context: dict[str, Any]) -> str:
    """The whole page; ``context`` has what the template names beside the style, the script and the policy."""
    style = "\n".join((style_of("tokenpair-report"), pair_style(), query_style(), margin_style(), _file("report.css")))
    # One script, because the policy names it by its hash.
    script = _file("tables.js") + _file("explorer.js")
    given = context | {"style": style, "script": script, "policy": policy(script)}
    return render(_file("report.html.j2"), given, trim=True)


def policy(script: str) -> str:
    """What the page may load and run: this script, its own style, and nothing from anywhere."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _file(name: str) -> str:
    return resources.files("jobs.views.report").joinpath(name).read_text(encoding="utf-8")

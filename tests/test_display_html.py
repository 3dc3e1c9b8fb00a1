"""One pair as HTML: complete, readable aloud, and harmless whatever the texts hold."""

from __future__ import annotations

import re
from dataclasses import replace

from display_pairs import HOSTILE, HOSTILE_TOO, Page, explained, pair_of

from attribution_core.display.pair import pair_html
from attribution_core.results import PairAttribution


def test_html_escapes_every_text_and_runs_nothing() -> None:
    """Would catch a text, a role or a model's name that becomes part of the page."""
    pair = pair_of(explained(HOSTILE, role="<b>query</b>"), explained(HOSTILE_TOO, role='"document'))
    page = Page(pair_html(replace(pair, model="<script>m</script>", similarity="<i>")))
    allowed = {"section", "style", "p", "strong", "bdi", "table", "caption", "tbody", "thead", "tr", "th", "td"}
    assert {tag for tag, _ in page.tags} <= allowed | {"div", "span"}
    names = {name for _, attributes in page.tags for name in attributes}
    assert names <= {"class", "style", "title", "scope", "role", "tabindex", "aria-label", "dir"}
    assert all(re.fullmatch(r"width:[\d.]+%", a["style"] or "") for _, a in page.tags if "style" in a)
    assert "<script>alert(1)</script>" in "".join(page.words)
    assert "{{7*7}}" in "".join(page.words)
    pair_html(pair).encode()


def test_html_tables_speak_to_screen_readers(coffee: PairAttribution) -> None:
    """Would catch header cells without a scope, tables without a caption, texts without direction isolation."""
    page = Page(pair_html(coffee))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("caption") == tags.count("table") == 3
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in page.tags if tag == "th")
    assert tags.count("bdi") >= 2 + 4 + 6
    assert "coffee × coffee: +0.24" in [attributes.get("title") for _, attributes in page.tags]


def test_html_of_a_huge_pair_stays_small_and_says_what_is_missing() -> None:
    """Would catch a page of tens of megabytes for two long documents."""
    pair = pair_of(" ".join(f"a{n}" for n in range(400)), " ".join(f"b{n}" for n in range(500)))
    source = pair_html(pair)
    assert len(source) < 1_500_000
    assert "Not shown: 280 words of a and 450 words of b" in source


def test_html_style_touches_nothing_outside_the_fragment(coffee: PairAttribution) -> None:
    """Would catch a notebook whose other tables change their look."""
    style = re.sub(r"@media [^{]*\{", "", pair_html(coffee).split("<style>")[1].split("</style>")[0])
    for selectors in re.findall(r"([^{}]+)\{", style):
        assert all(".tokenpair-pair" in selector for selector in selectors.split(",")), selectors

"""The report in a real browser: nothing complains or calls out, words are linked, hostile text stays text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from chromium import Browser, browser, program
from judged_runs import FAILING, WORDS, judged_log, query
from report_runs import HOSTILE, LONG, pairs_of, write_run

from attribution_core.display.colours import STEPS, level
from attribution_core.display.view import printable, shown_groups, step
from attribution_core.results import PairAttribution
from jobs.analysis.statistics.compute import compute_statistics
from jobs.run.reader import Run
from jobs.views.report.report import make_report

if TYPE_CHECKING:
    from tiny_models import TinyModels

CHROMIUM = program()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")

TEXTS = [
    ("The coffee is bad", "This is not a good coffee."),
    ("rain falls", "A red dog and the rain in the station."),
    ("how do I open a file", "Open the file with a reader, or write it."),
    (HOSTILE, 'The hostile <b>one</b> & "its" answer'),
    ("the other way", HOSTILE),
    ("a long one", LONG),
]
IDS = [(f"p{at}", f"a{at}", f"b{at}") for at in range(len(TEXTS) - 1)] + [(HOSTILE, HOSTILE + "a", HOSTILE + "b")]
LISTED = 5


@pytest.fixture(scope="module")
def run(tiny: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Run:
    pairs = pairs_of(tiny.load("bert"), TEXTS)
    rejects = [{"pair_id": "r", "file": HOSTILE, "row": 3, "reason": f"bad {HOSTILE}", "row_text": HOSTILE}]
    kept = {"label": [float(at) for at in range(len(TEXTS))], f"<i>{HOSTILE}": [HOSTILE] * len(TEXTS)}
    place = tmp_path_factory.mktemp("report") / "a 'run' <b>"
    made = write_run(place, pairs, IDS, kept=kept, rejects=rejects, model=f"models/{HOSTILE}")
    # Tagging would load a spaCy pipeline, and takes longer than all the rest.
    compute_statistics(made, pipeline=None, resamples=50)
    return made


@pytest.fixture(scope="module")
def page(run: Run) -> Path:
    file = Path(run.url) / "report.html"
    file.write_text(make_report(run, lambda line: None, called=run.url), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    assert CHROMIUM is not None
    with browser(CHROMIUM) as opened:
        yield opened


@pytest.fixture
def shown(tab: Browser, page: Path) -> Browser:
    """The page in a desktop's window, freshly loaded."""
    tab.size(1200, 900)
    tab.scheme("light")
    tab.open(page)
    return tab


def choose(tab: Browser, pair_id: str) -> None:
    tab.value(
        f"location.hash = 'pair=' + encodeURIComponent({json.dumps(pair_id)}); new Promise(r => setTimeout(r, 60))"
    )


def listed(tab: Browser) -> list[dict[str, Any]]:
    """What the page says the word under the pointer met: group, number as printed, exact value."""
    return list(
        tab.value(
            "[...document.querySelectorAll('#readout li')].map(li => ({g: Number(li.dataset.g), word: "
            "li.querySelector('.met').textContent, told: li.querySelector('.value').textContent, "
            "value: Number(li.dataset.value)}))"
        )
    )


def classes(tab: Browser, side: int) -> dict[int, str]:
    found = tab.value(
        f"[...document.querySelectorAll('#text-{side} .word')].map(word => [Number(word.dataset.g), word.className])"
    )
    return {g: name.replace("word", "").replace("chosen", "").strip() for g, name in found}


def test_nothing_complains_and_nothing_is_fetched(shown: Browser, page: Path) -> None:
    """Would catch a script error, a policy that blocks the page's own parts, or a font from somewhere."""
    for pair_id, *_ in IDS:
        choose(shown, pair_id)
    assert shown.complaints() == []
    assert [url for url in shown.requests() if not url.startswith("data:")] == [page.as_uri()]
    assert len(page.read_bytes()) < 1_000_000


def test_the_policy_forbids_other_scripts_and_every_request(shown: Browser) -> None:
    """Should a text ever slip through as markup, it must not run or call out."""
    shown.value(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    assert shown.value("typeof window.ran") == "undefined"
    assert shown.value("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'blocked')") == "blocked"
    assert shown.value("new Promise(r => { const i = new Image(); i.onerror = () => r('blocked'); i.onload = "
                       "() => r('sent'); i.src = 'http://127.0.0.1:9/x.png'; })") == "blocked"  # fmt: skip
    assert all("Content Security Policy" in line for line in shown.complaints())


@pytest.mark.parametrize("side", [0, 1])
def test_pointing_at_a_word_links_it_to_what_it_met(shown: Browser, run: Run, side: int) -> None:
    """Would catch a transposed matrix, an index shifted by the special tokens, or a wrong scale."""
    pair = run.pair("p0")
    choose(shown, "p0")
    matrix = pair.matrix if side == 0 else pair.matrix.T
    own, other = (shown_groups(text, False) for text in ((pair.a, pair.b) if side == 0 else (pair.b, pair.a)))
    limit = float(np.abs(pair.matrix[np.ix_(shown_groups(pair.a, False), shown_groups(pair.b, False))]).max())
    labels = (pair.b if side == 0 else pair.a).groups.labels
    for g in own:
        shown.point_at(f'#text-{side} .word[data-g="{g}"]')
        found = listed(shown)
        best = sorted(other, key=lambda h: -abs(matrix[g, h]))[:LISTED]
        assert [one["word"] for one in found] == [labels[h] for h in best]
        for one, h in zip(found, best, strict=True):
            assert one["g"] == h
            assert one["value"] == pytest.approx(float(matrix[g, h]), abs=limit / 30_000)
            assert float(one["told"].replace("−", "-")) == pytest.approx(float(matrix[g, h]), abs=6e-4)
        marked = classes(shown, 1 - side)
        assert marked == {int(h): level(step(float(matrix[g, h]), limit, STEPS)) for h in other}
        assert shown.value(f"document.querySelectorAll('#text-{side} .word.chosen').length") == 1


def test_the_matrix_is_the_run_s_and_links_both_words(shown: Browser, run: Run) -> None:
    """Would catch cells in another order than their heads."""
    pair = run.pair("p1")
    choose(shown, "p1")
    rows, cols = shown_groups(pair.a, False), shown_groups(pair.b, False)
    texts = shown.value(
        "[...document.querySelectorAll('#matrix tbody tr')].map(tr => [...tr.cells].map(c => c.textContent))"
    )
    assert [row[0] for row in texts] == [pair.a.groups.labels[i] for i in rows]
    heads = shown.value("[...document.querySelectorAll('#matrix thead th[data-g]')].map(th => th.textContent)")
    assert heads == [pair.b.groups.labels[j] for j in cols]
    for row, i in zip(texts, rows, strict=True):
        for text, j in zip(row[1:], cols, strict=True):
            assert float(text) == pytest.approx(float(pair.matrix[i, j]), abs=6e-3)
    i, j = int(rows[1]), int(cols[2])
    shown.point_at(f'#matrix td[data-i="{i}"][data-j="{j}"]')
    chosen = shown.value("[...document.querySelectorAll('#explorer .word.chosen')].map(word => word.textContent)")
    assert chosen == [pair.a.groups.labels[i], pair.b.groups.labels[j]]
    told = shown.value("document.querySelector('#readout').textContent")
    number = float(told.split(": ")[1].replace("−", "-"))
    assert number == pytest.approx(float(pair.matrix[i, j]), abs=6e-4)
    assert "−" in told or number >= 0


@pytest.mark.parametrize("side", [0, 1])
def test_until_a_word_is_pointed_at_the_colours_are_lifts(shown: Browser, run: Run, side: int) -> None:
    """Would catch colours by the share, those of the other text, and a number that is given as another."""
    pair = run.pair("p2")
    choose(shown, "p2")
    text, lifts, sums = ((pair.a, pair.row_lift, pair.row_sums), (pair.b, pair.col_lift, pair.col_sums))[side]
    assert lifts is not None
    words = [int(g) for g in shown_groups(text, False)]
    limit = max(2e-3, *(abs(float(lifts[g])) for g in words))
    shown.value("document.querySelector('#explorer').dispatchEvent(new PointerEvent('pointerleave'))")
    for g, name in classes(shown, side).items():
        steps = abs(float(lifts[g])) / limit * STEPS
        assert name in {level(int(np.sign(lifts[g]) * near)) for near in (np.rint(steps - 0.01), np.rint(steps + 0.01))}
    assert np.argsort(lifts[words]).tolist() != np.argsort(sums[words]).tolist(), "the share gives the same order"
    for g in words:
        shown.point_at(f'#text-{side} .word[data-g="{g}"]')
        told = shown.value("document.querySelector('#readout p').textContent").replace("−", "-")
        found = re.search(r" adds ([+-][\d.]+) to the score in all; its lift is ([+-][\d.]+)\. ", told)
        assert found is not None, told
        assert float(found[1]) == pytest.approx(float(sums[g]), abs=6e-4)
        assert float(found[2]) == pytest.approx(float(lifts[g]), abs=6e-4)


@pytest.mark.parametrize(("pair_id", "side", "given"), [("p3", 0, HOSTILE), ("p4", 1, HOSTILE), (HOSTILE, 1, LONG)])
def test_a_hostile_text_is_shown_as_text(shown: Browser, pair_id: str, side: int, given: str) -> None:
    """Would catch markup, a script or a direction override that takes effect, and text that is lost."""
    choose(shown, pair_id)
    text = shown.value(f"document.querySelector('#text-{side}').textContent")
    assert text.replace(" ", "") == printable(given).replace(" ", "")
    assert shown.value("document.querySelectorAll('script').length") == 2
    assert shown.value("document.querySelectorAll('.page img, .page b, .page i, .page iframe').length") == 0
    assert shown.value("document.body.dataset.hacked === undefined")
    assert "49" not in shown.value("document.querySelector('h1').textContent")
    assert "{{ 7 * 7 }}" in shown.value("document.body.textContent")
    assert shown.complaints() == []


@pytest.mark.parametrize("pair_id", ["p0", "p3", HOSTILE])
def test_a_telephone_needs_no_sideways_scrolling(shown: Browser, pair_id: str) -> None:
    """Would catch a table, a plot or an unbroken word that is wider than 360 pixels."""
    shown.size(360, 740)
    shown.value("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    choose(shown, pair_id)
    assert shown.value("document.documentElement.scrollWidth") <= 360
    wide = shown.value(
        "[...document.querySelectorAll('.page *')].filter(n => n.getBoundingClientRect().right > 361 && "
        "!n.closest('.scroll') && !n.closest('svg') && !n.closest('.text')).map(n => n.tagName + n.id + n.className)"
    )
    assert wide == []


def test_dark_light_and_print_have_their_colours(shown: Browser) -> None:
    """Would catch white text on white paper, or a page that stays light."""
    body = "getComputedStyle(document.body).backgroundColor + getComputedStyle(document.body).color"
    light = shown.value(body)
    shown.scheme("dark")
    dark = shown.value(body)
    assert light == "rgb(255, 255, 255)rgb(27, 27, 27)"
    assert dark == "rgb(22, 22, 22)rgb(236, 236, 236)"
    shown.scheme("dark", "print")
    assert shown.value(body) == light
    assert shown.value("getComputedStyle(document.querySelector('#explorer .choice')).display") == "none"
    assert shown.call("Page.printToPDF")["data"]


def test_the_keyboard_reaches_everything(shown: Browser, run: Run) -> None:
    """Would catch words that only a pointer reaches, and focus that is lost on the way."""
    choose(shown, "p0")
    pair = run.pair("p0")
    shown.value("document.querySelector('#after').focus()")
    active = "document.activeElement.closest('.word') ? Number(document.activeElement.dataset.g) : -1"
    shown.press("Tab")
    first = shown.value(active)
    assert first == int(shown_groups(pair.a, False)[0])
    shown.press("ArrowRight")
    second = shown.value(active)
    assert second == int(shown_groups(pair.a, False)[1])
    assert pair.a.groups.labels[second] in shown.value("document.querySelector('#readout').textContent")
    shown.press("Enter")
    pressed = "document.querySelectorAll('#explorer [aria-pressed=true]').length"
    assert shown.value(pressed) == 1
    told = shown.value("document.querySelector('#readout').textContent")
    shown.point_at(f'#text-1 .word[data-g="{int(shown_groups(pair.b, False)[0])}"]')
    assert shown.value("document.querySelector('#readout').textContent") == told, (
        "a held word was let go by the pointer"
    )
    shown.press("Escape")
    assert shown.value(pressed) == 0
    for _ in range(6):
        shown.press("Tab")
        if shown.value("document.activeElement.tagName") == "TD":
            break
    assert shown.value("document.activeElement.tagName") == "TD"
    shown.press("ArrowRight")
    shown.press("ArrowDown")
    at = shown.value("[Number(document.activeElement.dataset.i), Number(document.activeElement.dataset.j)]")
    assert at == [int(shown_groups(pair.a, False)[1]), int(shown_groups(pair.b, False)[1])]


def test_everything_that_can_be_used_has_a_name(shown: Browser) -> None:
    """Would catch a button, a plot or a table that a screen reader only calls by its kind."""
    nodes = shown.call("Accessibility.getFullAXTree")["nodes"]
    named = ("button", "link", "combobox", "image", "img", "region", "table", "grid", "gridcell", "heading")
    nameless = [
        node["backendDOMNodeId"]
        for node in nodes
        if node.get("role", {}).get("value") in (*named, "columnheader")
        and not node.get("ignored")
        and not node.get("name", {}).get("value", "").strip()
    ]
    assert [shown.call("DOM.describeNode", backendNodeId=one)["node"]["nodeName"] for one in nameless] == []
    live = shown.value("document.querySelector('#readout').getAttribute('aria-live')")
    assert live == "polite"


def test_a_link_of_a_statistic_leads_to_its_pair(shown: Browser) -> None:
    """A reader goes from a number to the rows behind it."""
    link = "document.querySelector('.statistic a[href^=\"#pair=\"]')"
    assert shown.value(f"{link} !== null")
    wanted = shown.value(f"decodeURIComponent({link}.getAttribute('href').slice(6))")
    shown.value(f"{link}.click(); new Promise(r => setTimeout(r, 60))")
    assert (
        wanted[:20] in shown.value("document.querySelector('#command').textContent").replace("'", "")
        or wanted == HOSTILE
    )


def test_stored_cells_alone_are_enough_to_link(tiny: TinyModels, tmp_path: Path, tab: Browser) -> None:
    """Of a run that keeps only the strongest cells the others are said to be missing, and not drawn as zero."""
    pairs: list[PairAttribution] = pairs_of(tiny.load("bert"), TEXTS[:3])
    run = write_run(tmp_path / "run", pairs, IDS[:3], store="top")
    compute_statistics(run, pipeline=None, resamples=50)
    file = tmp_path / "report.html"
    file.write_text(make_report(run, lambda line: None, called="run"), encoding="utf-8")
    tab.size(1200, 900)
    tab.open(file, "#pair=p1")
    pair = run.pair("p1")
    kept = pair.top(100)
    assert 0 < len(kept) < len(shown_groups(pair.a, False)) * len(shown_groups(pair.b, False))
    tab.point_at(f'#text-0 .word[data-g="{kept[0].i}"]')
    of_word = sorted((cell for cell in kept if cell.i == kept[0].i), key=lambda cell: -abs(cell.value))
    assert [(one["g"], one["word"]) for one in listed(tab)] == [(cell.j, cell.b) for cell in of_word[:LISTED]]
    assert (
        tab.value("[...document.querySelectorAll('#matrix td[data-i]')].filter(td => td.textContent === '·').length")
        > 0
    )
    assert tab.complaints() == []


@pytest.fixture(scope="module")
def log_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = judged_log(tmp_path_factory.mktemp("log") / "run")
    compute_statistics(run, pipeline=None, resamples=50)
    file = Path(run.url) / "report.html"
    file.write_text(make_report(run, lambda line: None, called="runs/log"), encoding="utf-8")
    return file


@pytest.fixture
def log(tab: Browser, log_page: Path) -> Browser:
    """The page of a judged log in a desktop's window, freshly loaded."""
    tab.size(1200, 900)
    tab.scheme("light")
    tab.open(log_page)
    return tab


def first_cells(tab: Browser, table: str) -> list[str]:
    """The queries of the rows, in their order on the page."""
    every = f"[...document.querySelectorAll('#{table} tr.row')]"
    return list(tab.value(f"{every}.map(one => one.querySelector('bdi').textContent)"))


def opened(tab: Browser, table: str) -> list[bool]:
    return list(tab.value(f"[...document.querySelectorAll('#{table} tr.more')].map(one => one.checkVisibility())"))


def test_a_click_on_a_head_sorts_the_queries_and_keeps_what_they_open_to(log: Browser) -> None:
    """Would catch numbers sorted as text, and rows that leave their margin behind."""
    queries = [query(at) for at in range(8)]
    assert first_cells(log, "query-table") == queries
    head = "#query-table thead th:nth-child(2) button"
    values = "[...document.querySelectorAll('#query-table tr.row td:nth-child(2)')].map(one => Number(one.textContent))"
    for order, backwards in (("ascending", False), ("descending", True)):
        log.point_at(head, click=True)
        assert log.value("document.querySelector('#query-table thead th:nth-child(2)').ariaSort") == order
        found = log.value(values)
        assert found == sorted(found, reverse=backwards)
        assert len(set(found)) > 1
    log.point_at("#failing-table thead th:first-child button", click=True)
    log.point_at("#failing-table thead th:first-child button", click=True)
    shown = first_cells(log, "failing-table")
    assert shown == sorted((query(at) for at in FAILING), reverse=True)
    log.point_at("#failing-table tr.row button.opener", click=True)
    below = log.value("document.querySelector('#failing-table tr.row').nextElementSibling.textContent")
    assert f"wrong{queries.index(shown[0])} is above" in below
    assert log.complaints() == []


def test_a_query_opens_to_its_margin_by_click_keyboard_and_link(log: Browser) -> None:
    """Would catch a row that only a mouse opens, or a verdict whose link leads to a closed row."""
    assert opened(log, "failing-table") == [False] * len(FAILING)
    button = "#failing-table tr.row button.opener"
    log.point_at(button, click=True)
    assert opened(log, "failing-table") == [True, False, False]
    assert log.value(f"document.querySelector('{button}').ariaExpanded") == "true"
    log.point_at(button, click=True)
    assert opened(log, "failing-table") == [False] * len(FAILING)
    log.value(f"document.querySelectorAll('{button}')[1].focus()")
    log.press("Enter")
    assert opened(log, "failing-table") == [False, True, False]
    link = f"#query-table tr.row a[href='#failing={FAILING[2]}']"
    log.point_at(link, click=True)
    log.value("new Promise(r => setTimeout(r, 60))")
    assert opened(log, "failing-table") == [False, True, True]
    assert log.value("document.activeElement.closest('tr').id") == f"failing={FAILING[2]}"
    assert log.value("document.activeElement.getBoundingClientRect().top") < 900


def test_pointing_at_a_query_word_outlines_the_words_that_it_met_in_both_documents(log: Browser) -> None:
    """Would catch a margin whose words are not linked, or are linked to those of another margin."""
    log.point_at("#failing-table tr.row button.opener", click=True)
    outlined = (
        "[...document.querySelectorAll('#failing-table mark, #failing-table .word')]"
        ".filter(one => getComputedStyle(one).outlineStyle === 'solid').map(one => one.textContent)"
    )
    assert log.value(outlined) == []
    log.point_at("#failing-table .tokenpair-margin .word")
    found = log.value(outlined)
    assert found.count(WORDS[FAILING[0]]) == 2, "once in each document"
    both = (
        "[...document.querySelectorAll('#failing-table tr.more:not([hidden]) article')].map(one => "
        f"[...one.querySelectorAll('mark')].filter(m => m.textContent === '{WORDS[FAILING[0]]}').length)"
    )
    assert log.value(both) == [1, 1]
    boxes = log.value(
        "[...document.querySelectorAll('#failing-table tr.more:not([hidden]) article')].map(one => "
        "one.getBoundingClientRect().top)"
    )
    assert boxes[0] == boxes[1], "side by side"
    log.size(400, 800)
    boxes = log.value(
        "[...document.querySelectorAll('#failing-table tr.more:not([hidden]) article')].map(one => "
        "one.getBoundingClientRect().top)"
    )
    assert boxes[0] < boxes[1], "one below the other"


def test_the_page_of_a_log_fits_a_telephone_and_a_desktop(log: Browser) -> None:
    """Would catch a table that needs sideways scrolling, and a desktop that is used by half."""
    log.value("document.querySelectorAll('button.opener').forEach(one => one.click())")
    for width in (400, 360):
        log.size(width, 800)
        assert log.value("document.documentElement.scrollWidth") <= width
        wide = log.value(
            f"[...document.querySelectorAll('.page *')].filter(n => n.getBoundingClientRect().right > {width + 1} && "
            "!n.closest('.scroll') && !n.closest('svg') && !n.closest('.text')).map(n => n.tagName + n.className)"
        )
        assert wide == []
    for width in (800, 1100, 1160, 1400):
        log.size(width, 900)
        assert log.value("document.documentElement.scrollWidth") <= width
    log.size(1600, 900)
    assert log.value("document.querySelector('#query-table').getBoundingClientRect().width") > 1400
    left, right = log.value(
        "['.sentences', '.facts'].map(one => document.querySelector(one).getBoundingClientRect().left)"
    )
    assert right > left + 400, "the metrics stand beside the sentences"


def test_without_scripts_every_query_is_open(log: Browser, log_page: Path) -> None:
    """Would catch margins that nobody can reach where scripts are off, as in a mail program."""
    log.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        log.open(log_page)
        waiting, rows = [log.call("DOM.getDocument", depth=-1)["root"]], []
        while waiting:
            node = waiting.pop()
            waiting += node.get("children", [])
            rows += [node["attributes"]] if "more" in node.get("attributes", []) else []
        assert len(rows) > len(FAILING)
        assert not any("hidden" in attributes for attributes in rows)
    finally:
        log.call("Emulation.setScriptExecutionDisabled", value=False)


def test_the_tables_of_a_log_have_names_and_heads_for_screen_readers(log: Browser) -> None:
    log.value("document.querySelectorAll('button.opener').forEach(one => one.click())")
    nodes = log.call("Accessibility.getFullAXTree")["nodes"]
    kinds = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n.get("ignored")]
    assert {("table", "Failing queries"), ("table", "All queries")} <= set(kinds)
    nameless = [
        kind for kind, name in kinds if kind in ("button", "link", "table", "columnheader") and not name.strip()
    ]
    assert nameless == []

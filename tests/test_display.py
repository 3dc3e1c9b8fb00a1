"""One pair as terminal text: readable, complete, and harmless whatever the texts hold."""

from __future__ import annotations

import io
import random
import re
from dataclasses import replace

import numpy as np
import pytest
from display_pairs import COFFEE, HOSTILE, HOSTILE_TOO, SEQUENCE, Page, drawn, explained, pair_of
from rich.cells import cell_len
from rich.color import Color
from rich.console import Console

from attribution_core.display.colours import (
    DARK,
    LIGHT,
    NEGATIVE_16,
    NEGATIVE_256,
    POSITIVE_16,
    POSITIVE_256,
    TERMINAL_INK,
    TERMINAL_NEGATIVE,
    TERMINAL_POSITIVE,
    TERMINAL_STEPS,
)
from attribution_core.display.colours import STEPS as HTML_STEPS
from attribution_core.display.pair import pair_html, pair_text, plot_pair, terminal_pair
from attribution_core.display.view import number, printable, step
from attribution_core.results import PairAttribution


def printed(
    pair: PairAttribution,
    *,
    width: int = 80,
    colour: bool | str = False,
    encoding: str = "utf-8",
    **options: object,
) -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    console = Console(
        file=file,
        width=width,
        force_terminal=bool(colour),
        color_system=("truecolor" if colour is True else colour) if colour else None,  # type: ignore[arg-type]
        _environ={},
    )
    terminal_pair(pair, console, **options)  # type: ignore[arg-type]
    file.flush()
    return raw.getvalue().decode(encoding)


def rows_of(text: str) -> dict[str, list[str]]:
    """The lines of the first block of the matrix: label → numbers."""
    lines = text.split("\nRows: ")[1].split("Strongest")[0].splitlines()
    return {words[0]: words[1:] for line in lines if len(words := line.split()) > 1}


TERMS = {
    "score": ["= word pairs", "+ special tokens"],
    "difference": [
        "= word pairs",
        "+ special tokens",
        "+ a with the reference of b",
        "+ the reference of a with b",
        "- both references",
    ],
    "centred": ["= word pairs", "+ special tokens", "+ what average texts share"],
}


@pytest.mark.parametrize("sums_to", TERMS)
def test_terminal_shows_score_terms_and_cells(sums_to: str) -> None:
    """Would catch a term left out or with the wrong sign, and numbers under the wrong word."""
    coffee = pair_of("The coffee is bad", "This is not a good coffee", COFFEE, sums_to=sums_to)
    text = printed(coffee)
    assert re.findall(r"^([=+-] .*?)  ", text, re.MULTILINE) == TERMS[sums_to]
    assert "numerical error" in text
    assert ("references" in text) == (sums_to == "difference")
    signs = re.findall(r"^([=+-]) .*?  (-?\d\.\d{3})", text, re.MULTILINE)
    said = sum(-float(value) if sign == "-" else float(value) for sign, value in signs)
    assert said == pytest.approx(coffee.score, abs=3e-3)
    rows = rows_of(text)
    assert rows["This"] == ["is", "not", "a", "good", "coffee"]
    assert rows["coffee"][5] == ".24"
    assert rows["bad"][2:4] == [".11", "-.06"]


def test_strongest_pairs_are_listed_in_order_with_bars(coffee: PairAttribution) -> None:
    """Would catch a list in another order, or bars that are not in proportion."""
    lines = printed(coffee, top=3).split("Strongest word pairs\n")[1].splitlines()[1:]
    assert [line.split()[:3] for line in lines] == [
        ["coffee", "coffee", "+0.240"],
        ["bad", "not", "+0.110"],
        ["bad", "a", "-0.060"],
    ]
    bars = [line.count("█") for line in lines]
    assert bars[0] > 20
    assert bars[1] == pytest.approx(bars[0] * 0.11 / 0.24, abs=1)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
@pytest.mark.parametrize("compact", [False, True])
def test_no_line_is_wider_than_the_terminal(width: int, compact: bool, rng: random.Random) -> None:
    """Would catch tables that wrap, in narrow terminals, with wide characters or with many columns."""
    words = ["file", "destination", "日本語", "a", "unbelievably-long-compound-word", "é", "שלום", "."]
    a, b = (" ".join(rng.choices(words, k=count)) for count in (30, 150))
    for pair in (
        pair_of(a, b),
        pair_of(a, "coffee"),
        pair_of("日本語日本語日本語日本語日本語", b),
        pair_of(HOSTILE, HOSTILE_TOO),
    ):
        for colour in (False, True):
            lines = SEQUENCE.sub("", printed(pair, width=width, compact=compact, colour=colour)).splitlines()
            assert max(map(cell_len, lines)) <= width


def test_wide_terminals_show_more_columns() -> None:
    """Would catch a layout that is fixed at 80 columns."""
    pair = pair_of("query words", " ".join(f"document{n}" for n in range(60)))
    shown = [printed(pair, width=width).count("document") for width in (80, 160)]
    assert shown[1] > shown[0]


def test_left_out_columns_are_the_weakest_and_counted() -> None:
    """Would catch a long document of which the important word is not shown, or a silent cut."""
    words = [f"w{n}" for n in range(300)]
    pair = pair_of("query words", " ".join(words), {("query", "w250"): 0.9, ("words", "w7"): -0.8})
    text = printed(pair)
    heads = re.findall(r"\bw\d+\b", text.split("Rows: ")[1].split("Not shown")[0])
    assert {"w7", "w250"} <= set(heads)
    assert heads == sorted(heads, key=words.index)
    assert f"Not shown: {300 - len(heads)} words of b" in text


def test_only_words_with_stored_pairs_are_drawn_in_reading_order_and_the_others_counted() -> None:
    """Would catch a matrix of a long text that is nearly all dots, and words called small whose numbers are unknown."""
    pair = pair_of("find a hot wing", " ".join(f"w{n}" for n in range(300)))
    stored = np.full_like(pair.matrix, np.nan)
    for row, word, value in ((4, "w7", 0.3), (1, "w250", -0.2), (1, "w40", 0.1)):
        stored[row, pair.b.groups.labels.index(word)] = value
    partial = replace(pair, matrix=stored)
    said = "Not shown: 2 words of a and 297 words of b without a stored pair."
    text = printed(partial, width=100)
    rows = [line.split() for line in text.split("lower it.\n")[1].split("Not shown")[0].splitlines()]
    assert rows == [["w7", "w40", "w250"], ["find", "·", ".10", "-.20"], ["wing", ".30", "·", "·"]]
    assert said in text
    page = Page(pair_html(partial))
    assert [attributes["title"] for tag, attributes in page.tags if tag == "td" and "title" in attributes] == [
        *("find × w7: not stored", "find × w40: +0.1", "find × w250: -0.2"),
        *("wing × w7: +0.3", "wing × w40: not stored", "wing × w250: not stored"),
    ]
    assert said in page.words
    axes = drawn(partial)[1]
    ticks = [[label.get_text() for label in labels] for labels in (axes.get_yticklabels(), axes.get_xticklabels())]
    assert ticks == [["find", "wing"], ["w7", "w40", "w250"]]
    assert said in axes.get_xlabel().replace("\n", " ")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_contexts_and_texts_are_cut_between_words(width: int, rng: random.Random) -> None:
    """Would catch "(rothermoelastic similarity" and "heat co…", which are not words of the text."""
    words = ["aerothermoelastic", "nondimensionalization", "heat", "of", "similarity", "configurations"]
    text = " ".join(rng.choices(words, k=200))
    for shown in (printed(pair_of("heat of similarity", text), width=width), pair_html(pair_of("heat", text))):
        contexts = re.findall(r"\(((?:[a-z]+ )*[a-z]+)\)", re.sub("<[^>]+>", "", shown.split("Strongest")[1]))
        assert contexts
        assert {word for context in contexts for word in context.split()} <= set(words)
    first = printed(pair_of("heat", text), width=width).split("score")[0]
    assert set(first.replace("…", "").split()) <= {*words, "a", "b"}
    title = drawn(pair_of("heat", text))[1].get_title(loc="left").split("b: ")[1]
    assert set(title.replace("…", "").split()) <= set(words)


def test_special_tokens_are_shown_only_when_asked_for(coffee: PairAttribution) -> None:
    """Would catch special tokens that crowd out the words, or that cannot be looked at."""
    for plain, asked in (
        (printed(coffee), printed(coffee, special=True)),
        (pair_html(coffee), pair_html(coffee, special=True)),
    ):
        assert "[CLS]" not in plain
        assert "not listed below" in plain
        assert "[CLS]" in asked
    ticks = [label.get_text() for label in plot_pair(coffee)[1].get_xticklabels()]
    assert "[CLS]" not in ticks
    assert "[CLS]" in [label.get_text() for label in plot_pair(coffee, special=True)[1].get_xticklabels()]


def test_cells_that_a_run_did_not_store_are_marked(coffee: PairAttribution) -> None:
    """Would catch a missing cell drawn as a zero, or a crash on NaN."""
    kept = np.where(np.abs(coffee.matrix) > 0.05, coffee.matrix, np.nan).astype(np.float32)
    partial = replace(coffee, matrix=kept)
    assert any("·" in numbers for numbers in rows_of(printed(partial)).values())
    assert "did not store" in printed(partial)
    assert "not stored" in pair_html(partial)
    nothing = replace(coffee, matrix=np.full_like(kept, np.nan))
    assert "Strongest word pairs" not in printed(nothing)
    assert "Strongest word pairs" not in pair_html(nothing)


def test_a_pair_without_word_pairs_has_bars_of_its_words(coffee: PairAttribution) -> None:
    """Would catch an empty matrix, a sum of NaN, and words of the other text."""
    words = replace(coffee, matrix=np.full_like(coffee.matrix, np.nan))
    for shown in (printed(words), printed(words, compact=True), pair_html(words)):
        assert "nan" not in shown
        assert "·" not in shown
        assert "Strongest words of a" in shown
        assert f"{coffee.row_sums[np.argmax(np.abs(coffee.row_sums[1:-1])) + 1]:+.3f}" in shown
        assert f"{coffee.col_sums[np.argmax(np.abs(coffee.col_sums[1:-1])) + 1]:+.3f}" in shown
    assert "No word pairs were computed" in printed(words)
    assert "No word pairs were computed" in pair_html(words)
    ax = drawn(words)[1]
    text = [kind == "text" for kind in coffee.a.groups.kinds], [kind == "text" for kind in coffee.b.groups.kinds]
    assert len(ax.patches) == sum(map(sum, text))
    assert sorted(bar.get_width() for bar in ax.patches) == pytest.approx(
        sorted([*coffee.row_sums[text[0]], *coffee.col_sums[text[1]]]), abs=1e-6
    )


def test_texts_that_missed_the_tolerance_or_were_cut_are_told_of(coffee: PairAttribution) -> None:
    """Would catch approximate numbers that look like exact ones."""
    a = explained("The coffee is bad", converged=False, residual=0.0123, nodes=256)
    b = explained("This is not a good coffee", truncated=True, cut_at=12)
    pair = replace(coffee, a=a, b=b)
    for text in (printed(pair), printed(pair, compact=True), pair_html(pair)):
        flat = " ".join(text.split())
        assert "Approximate: the integration of a missed its tolerance" in flat
        assert "256 nodes" in flat
        assert "Truncated: b is longer than the model reads" in flat
    assert "Approximate" in drawn(pair)[1].get_title(loc="left")
    assert "Approximate" not in printed(coffee) + pair_html(coffee)


def test_hostile_texts_reach_a_terminal_as_plain_text() -> None:
    """Would catch escape sequences, direction overrides or rich markup that take effect."""
    pair = replace(pair_of(explained(HOSTILE), explained(HOSTILE_TOO)), model="\x1b[2Jm", similarity="cosine")
    for text in (printed(pair), printed(pair, special=True, compact=True)):
        assert not [character for character in text if not character.isprintable() and character not in "\n\u200d"]
        assert "[red]boo[/red]" in text
        assert "\\x1b[31mred" in text
        assert "\\u202e" in text
    coloured = printed(pair, colour=True)
    assert not [c for c in SEQUENCE.sub("", coloured) if not c.isprintable() and c not in "\n\u200d"]
    assert "\x1b[31m" not in coloured
    assert "\x1b]" not in coloured


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_encoding_that_lacks_a_character_is_no_error(encoding: str) -> None:
    """Would catch a UnicodeEncodeError where output is piped in a C locale."""
    text = printed(pair_of("日本語 café coffee", HOSTILE_TOO), encoding=encoding)
    assert "coffee" in text
    assert ("\\u65e5" in text) == (encoding != "utf-8")


def test_piped_output_has_no_colour_and_says_what_a_sign_means(coffee: PairAttribution) -> None:
    """Would catch escape sequences in a file, or an explanation that needs colours."""
    assert "\x1b" not in printed(coffee)
    assert "Positive numbers raise the score" in " ".join(printed(coffee).split())
    assert "\x1b[" in printed(coffee, colour=True)


def test_repeated_words_come_with_their_neighbours() -> None:
    """Would catch a list in which two different places in a text look the same."""
    pair = pair_of("copy", "the file and another file here")
    text = printed(pair)
    assert "(the file and)" in text
    assert "(another file here)" in text


def test_numbers_are_short_and_honest() -> None:
    """Would catch a negative zero, a lost sign or a missing cell shown as a number."""
    assert [number(value, 2) for value in (0.254, -0.03, -0.001, 1.2, -12.0, float("nan"))] == [
        ".25",
        "-.03",
        ".00",
        "1.20",
        "-12.00",
        "·",
    ]
    assert [number(value, 0) for value in (-0.4, 123.4, 1e9)] == ["0", "123", "1e+09"]


def test_the_colour_scale_is_symmetric_about_zero(rng: random.Random) -> None:
    """Would catch colours that exaggerate one sign."""
    for _ in range(100):
        value = rng.uniform(-2, 2)
        assert step(value, 1.0, 4) == -step(-value, 1.0, 4)
    assert [step(value, 1.0, 4) for value in (0.0, 0.01, 1.0, -1.0, 3.0, float("nan"))] == [0, 0, 4, -4, 4, 0]
    image = drawn(pair_of("a few words", "some more words", {("few", "more"): -0.5}))[1].get_images()[0]
    assert image.get_clim() == pytest.approx((-0.5, 0.5))


@pytest.mark.parametrize("steps", [HTML_STEPS, TERMINAL_STEPS])
def test_weak_cells_beside_one_strong_cell_have_shades_of_their_own(steps: int) -> None:
    """Would catch the second-strongest cells in the same shade as noise, as with steps of equal size."""
    places = [step(value, 0.45, steps) for value in (0.001, 0.04, 0.07, 0.11, 0.45)]
    assert places[0] == 0
    assert len(set(places)) == len(places)
    scales = [scale.split() for theme in (LIGHT, DARK) for scale in (theme.positive, theme.negative)]
    assert all(len(set(scale)) == steps for scale in scales)


@pytest.mark.parametrize("system", ["truecolor", "256", "standard"])
def test_signs_and_strengths_differ_in_every_terminal(system: str) -> None:
    """Would catch weak positive and weak negative cells that share a colour where a terminal has few."""
    cells = {
        ("u", "x"): 0.04,
        ("u", "y"): 0.07,
        ("u", "z"): 0.11,
        ("v", "x"): -0.04,
        ("v", "y"): -0.07,
        ("v", "z"): 0.45,
    }
    pair = pair_of("u v", "x y z", cells)
    found = re.findall(r"\x1b\[([0-9;]+)m *(-?\.\d\d) *\x1b\[0m", printed(pair, colour=system))
    style = {value: codes for codes, value in found}
    assert set(style) == {".04", ".07", ".11", "-.04", "-.07", ".45"}
    if system == "standard":  # weak and strong cyan and blue, yellow and red
        assert [style[value] for value in (".04", ".45", "-.04")] == ["30;46", "97;44", "30;43"]
    else:
        assert len(set(style.values())) == len(style)


def test_every_ink_is_readable_on_its_background() -> None:
    """Would catch a colour on which the number can hardly be read (contrast below 4.5)."""
    pairs = [f"{colour} {TERMINAL_INK}" for colour in (*TERMINAL_POSITIVE, *TERMINAL_NEGATIVE)]
    pairs += [f"{Color.from_ansi(place).get_truecolor().hex} #ffffff" for place in (*POSITIVE_256, *NEGATIVE_256)]
    for theme in (LIGHT, DARK):
        for scale in (theme.positive, theme.negative):
            pairs += [f"{colour} {ink}" for colour, ink in zip(scale.split(), theme.inks.split(), strict=True)]
    for pair in pairs:
        brighter, darker = sorted((_luminance(colour) for colour in pair.split()), reverse=True)
        assert (brighter + 0.05) / (darker + 0.05) >= 4.5, pair


def test_palettes_of_a_terminal_are_as_long_as_its_steps() -> None:
    """Would catch an index error for the strongest cell of a terminal with few colours."""
    palettes = (TERMINAL_POSITIVE, TERMINAL_NEGATIVE, POSITIVE_256, NEGATIVE_256, POSITIVE_16, NEGATIVE_16)
    assert {len(palette) for palette in palettes} == {TERMINAL_STEPS - 1}
    assert not {*TERMINAL_POSITIVE, *POSITIVE_256, *POSITIVE_16} & {*TERMINAL_NEGATIVE, *NEGATIVE_256, *NEGATIVE_16}


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_negative_terms_turn_their_sign_in_a_sentence() -> None:
    """Would catch "+ (-0.053)" and "- -0.02", or a sum that no longer adds up."""
    coffee = pair_of("The coffee is bad", "This is not a good coffee", COFFEE, sums_to="difference")
    pair = replace(coffee, reference_a=-0.053, reference_ab=-0.02, score=coffee.total - 0.053 + 0.25 + 0.02)
    text = " ".join(pair_text(pair).split())
    assert "- a with the reference of b 0.053 + the reference of a with b 0.250 + both references 0.020" in text
    assert "(-" not in text


def test_what_numbers_sum_to_is_said_beside_them(coffee: PairAttribution) -> None:
    """Would catch a sum that a reader checks against numbers that are not on the screen."""
    lines = printed(coffee).splitlines()
    assert any(line.startswith("= word pairs") and line.endswith("the sum of the numbers below") for line in lines)
    assert any(line.startswith("+ special tokens") and line.endswith("not listed below") for line in lines)
    special = next(float(line.split()[3]) for line in lines if line.startswith("+ special tokens"))
    inner = float(coffee.matrix[1:-1, 1:-1].sum())
    assert special == pytest.approx(coffee.total - inner, abs=1e-3)
    everything = printed(coffee, special=True)
    assert "special ones aside" in everything
    assert "among the numbers below" in everything
    stored = replace(coffee, matrix=np.where(np.abs(coffee.matrix) > 0.05, coffee.matrix, np.nan), special=0.25)
    text = printed(stored)
    assert re.search(r"= word pairs +-?\d\.\d{3}   the strongest are below", text)
    assert re.search(r"\+ special tokens +0\.250   not listed below", text)
    unknown = printed(replace(stored, special=None))
    assert "= all pairs of words and special tokens" in unknown


def test_pair_text_is_the_same_everywhere(coffee: PairAttribution, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch colours, or a width that depends on where a program runs."""
    plain = pair_text(coffee)
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "30"), ("TERM", "xterm-256color"), ("JPY_PARENT_PID", "1")):
        monkeypatch.setenv(name, value)
    assert pair_text(coffee) == plain == printed(coffee, width=100, compact=True, top=5).rstrip("\n")
    assert pair_text(coffee, top=1).count("█") < plain.count("█")
    assert max(map(cell_len, pair_text(pair_of("many words " * 40, "tea " * 90)).splitlines())) <= 100


def test_displays_of_extreme_pairs_aredrawn() -> None:
    """Would catch a division by zero or an empty table: all zeros, one cell, no text group at all, huge values."""
    base = pair_of("a", "b")
    empty = pair_of("", "b")
    for pair in (
        base,
        replace(base, matrix=np.zeros_like(base.matrix)),
        replace(base, matrix=base.matrix * np.float32(1e12), score=1e12),
        replace(base, score=float("nan"), total=float("nan"), error=float("nan")),
        empty,
        pair_of(HOSTILE, HOSTILE_TOO),
    ):
        assert "score" in printed(pair)
        assert "score" in printed(pair, compact=True, top=0)
        Page(pair_html(pair))
        drawn(pair)


def test_printable_leaves_ordinary_text_alone() -> None:
    """Would catch mangled accents, scripts or joined emoji."""
    for text in ("naïve café", "日本語", "שלום", "👩‍💻 ok", "می‌خواهم", "e\u0301"):
        assert printable(text) == text
    assert printable("a\tb\nc") == "a b c"
    assert printable("") == ""
    assert printable("\u200b") == "\\u200b"
    assert printable("\u0301") == "◌\u0301"

"""One pair as a figure: drawn without a screen, of bounded size, every word as it stands."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
from display_pairs import drawn, pair_of

from attribution_core.display.pair import plot_pair
from attribution_core.results import PairAttribution


def test_the_figure_is_drawn_without_pyplot_and_without_a_screen() -> None:
    """Would catch figures that pile up in pyplot or need a display."""
    code = (
        "import sys, io; sys.path.insert(0, 'tests')\nfrom display_pairs import pair_of\n"
        "pair_of('good coffee', 'bad tea').plot()[0].savefig(io.BytesIO())\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={"PATH": ""})
    assert done.returncode == 0, done.stderr


def test_the_figure_draws_on_given_axes() -> None:
    """Would catch a second figure where one was given."""
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots(1, 2)
    assert plot_pair(pair_of("good coffee", "bad tea"), ax=axes[1]) == (figure, axes[1])
    assert axes[1].get_images()
    assert not axes[0].get_images()


def test_formulas_in_words_are_drawn_as_they_stand() -> None:
    """Would catch a pair of dollar signs that matplotlib takes for a formula, and fails at."""
    _, axes = drawn(pair_of("$\\frac$ costs $5", "a $\\nonsense{$ and _x^"))
    assert "$\\frac$" in [label.get_text() for label in axes.get_yticklabels()]  # type: ignore[attr-defined]


def test_characters_that_no_font_has_are_drawn_as_boxes() -> None:
    """Would catch a warning per missing glyph when the figure is saved, and words that vanish."""
    _, axes = drawn(pair_of("plain \U0010fffd", "tea\U0010fffd e\u0301t\u00e9"))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["plain", "□"]  # type: ignore[attr-defined]
    assert axes.get_xticklabels()[0].get_text() == "tea□"  # type: ignore[attr-defined]
    drawn(pair_of("👩‍💻 👍🏽 ❤️ 😀", "שלום 日本語 नमस्ते"))


def test_the_figure_names_its_texts_and_its_grey_cells(coffee: PairAttribution) -> None:
    """Would catch a figure that says neither which texts it is of nor what grey means, or that prints a whole book."""
    axes = drawn(coffee)[1]
    assert "a: The coffee is bad\nb: This is not a good coffee" in axes.get_title(loc="left")  # type: ignore[attr-defined]
    assert "grey" not in axes.get_xlabel()  # type: ignore[attr-defined]
    partial = replace(coffee, matrix=np.where(coffee.matrix > 0.05, coffee.matrix, np.nan).astype(np.float32))
    assert "grey: not stored" in drawn(partial)[1].get_xlabel()  # type: ignore[attr-defined]
    title = drawn(pair_of("\x1b[31m" + "word " * 500, "tea"))[1].get_title(loc="left")  # type: ignore[attr-defined]
    assert "a: \\x1b[31mword word" in title
    assert "…" in title
    assert len(title) < 250


def test_the_figure_of_two_long_texts_is_of_bounded_size_and_shows_the_strongest() -> None:
    """Would catch a figure of several metres, and a cut that loses what matters or is not told of."""
    cells = {("a7", "b250"): 0.5, ("a199", "b3"): -0.4}
    pair = pair_of(" ".join(f"a{n}" for n in range(200)), " ".join(f"b{n}" for n in range(300)), cells)
    figure, axes = plot_pair(pair)
    assert max(figure.get_size_inches()) <= 22
    assert {"a7", "a199"} <= {label.get_text() for label in axes.get_yticklabels()}
    assert {"b250", "b3"} <= {label.get_text() for label in axes.get_xticklabels()}
    assert "Not shown: 140 words of a and 240 words of b" in axes.get_xlabel().replace("\n", " ")
    assert not axes.texts
    assert len(plot_pair(pair_of("1 2 3 4 5 6 7 8 9 10 11 12", "a b c d e f g h i j k l m n"))[1].texts) == 12 * 14

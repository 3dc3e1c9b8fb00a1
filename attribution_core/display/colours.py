"""The colours of every display: one diverging scale, blue above zero and orange below it, and the paper around it.

Blue against orange can be distinguished with every common colour blindness. Steps go from weak to strong.
"""

from __future__ import annotations

from dataclasses import dataclass

# --- pages

# Equal distances for the eye from one step to the next, and a contrast of 4.5 or more between each step and its ink.
STEPS = 8


@dataclass(frozen=True)
class Theme:
    """Colours of a page: ``positive`` and ``negative`` are backgrounds by step, ``inks`` is the text on both."""

    paper: str
    ink: str
    faint: str
    rule: str
    positive: str
    negative: str
    inks: str

    def variables(self) -> str:
        """The colours as CSS variables: --paper … --rule, and --p1, --p1i … --n8, --n8i for steps and their inks."""
        pieces = [f"--{name}:{getattr(self, name)}" for name in ("paper", "ink", "faint", "rule")]
        for sign, backgrounds in (("p", self.positive), ("n", self.negative)):
            for place, (background, ink) in enumerate(zip(backgrounds.split(), self.inks.split(), strict=True), 1):
                pieces += [f"--{sign}{place}:{background}", f"--{sign}{place}i:{ink}"]
        return ";".join(pieces)


LIGHT = Theme(
    paper="#ffffff",
    ink="#1b1b1b",
    faint="#5c5c5c",
    rule="#d5d5d5",
    positive="#e9f2fc #c6d9ee #a4c1e0 #80a8d5 #5a8fcd #3074c7 #0b5ab5 #004395",
    negative="#faefe3 #ead2ba #dcb591 #d09666 #c47637 #b25701 #944202 #772e00",
    inks="#101010 #101010 #101010 #101010 #101010 #ffffff #ffffff #ffffff",
)
DARK = Theme(
    paper="#161616",
    ink="#ececec",
    faint="#a8a8a8",
    rule="#444444",
    positive="#1c2430 #273952 #314f76 #39669c #3b7fc6 #4a98e7 #6fb3f6 #9acdfe",
    negative="#2c2219 #473420 #644729 #835b2f #a56e2f #c9832c #e79b3d #ffb764",
    inks="#ffffff #ffffff #ffffff #ffffff #0a0a0a #0a0a0a #0a0a0a #0a0a0a",
)


def level(strength: int) -> str:
    """The class for a value ``strength`` steps away from zero; "" for zero."""
    return "" if not strength else f"{'p' if strength > 0 else 'n'}{abs(strength)}"


def colour_rules(scope: str) -> list[str]:
    """CSS that gives everything inside the class ``scope`` its colours, and the classes p1 … p8 and n1 … n8 to mark
    strengths with; it touches nothing outside."""
    light, dark = LIGHT.variables(), DARK.variables()
    # Notebooks have a theme of their own, which the system's preference says nothing about: their marks come last.
    rules = [
        f".{scope}{{{light}}}",
        f"@media (prefers-color-scheme:dark){{.{scope}{{{dark}}}}}",
        f"[data-jp-theme-light=true] .{scope},.vscode-light .{scope}{{{light}}}",
        f"[data-jp-theme-light=false] .{scope},.vscode-dark .{scope}{{{dark}}}",
    ]
    for name in (f"{sign}{step}" for sign in "pn" for step in range(1, STEPS + 1)):
        rules.append(f".{scope} .{name}{{background:var(--{name});color:var(--{name}i)}}")
    # Paper is white whatever the screen is, and the strengths are the message.
    themed = f".{scope},[data-jp-theme-light=false] .{scope},.vscode-dark .{scope}"
    return [*rules, f"@media print{{{themed}{{{light}}}.{scope} *{{print-color-adjust:exact}}}}"]


# --- figures

# Darker is stronger also in grey print.
HEATMAP = ("#7f3b08", "#c9660f", "#f5b870", "#fafafa", "#92c0ea", "#2b76c2", "#0b3c78")
HEATMAP_MISSING = "#d9d9d9"
# Curves beside each other, which differ in their dashes too: for print and colour-blind readers.
CURVES = ("#0b5fa5", "#b35900", "#3d7a1f", "#8a8a8a", "#222222")

# --- terminals

# Background per step away from zero; the first step, hardly more than nothing, has none. All of about the same
# lightness, so that a cell stands out from a white and from a black terminal alike, and strength shows in saturation
# and hue; white text has a contrast of 4.5 or more on each.
TERMINAL_POSITIVE = ("#5f767e", "#4b758d", "#39729d", "#2a6dac", "#1d67bb", "#185ecd", "#2351de")
TERMINAL_NEGATIVE = ("#7a705e", "#826b49", "#8d6334", "#995721", "#a44914", "#ae3815", "#b71a18")
TERMINAL_STEPS = len(TERMINAL_POSITIVE) + 1
TERMINAL_INK = "#ffffff"
# The same for 256 colours, as numbers in that palette, where rounding would make neighbours equal; 231 is white.
POSITIVE_256 = (60, 24, 25, 26, 26, 27, 21)
NEGATIVE_256 = (95, 94, 130, 124, 124, 160, 160)
INK_256 = 231
# The same for the basic 16: names, because each terminal has its own idea of what they look like.
POSITIVE_16 = (*["black on cyan"] * 3, *["bright_white on blue"] * 4)
NEGATIVE_16 = (*["black on yellow"] * 3, *["bright_white on red"] * 4)
# Text and bars in these are readable on white and on black: above zero, below it.
BARS, BARS_16 = ("#2f7fd0", "#d0661a"), ("bright_blue", "red")

"""Colours of the HTML displays, light and dark: one scale on either side of zero, and the page around it."""

from __future__ import annotations

from typing import Any

STEPS = 8
# (background, ink) from weak to strong: equal distances for the eye from one step to the next, and a contrast of 4.5
# or more between each background and its ink. Blue against orange.
LIGHT = {
    "p": [
        "#e9f2fc #101010",
        "#c6d9ee #101010",
        "#a4c1e0 #101010",
        "#80a8d5 #101010",
        "#5a8fcd #101010",
        "#3074c7 #ffffff",
        "#0b5ab5 #ffffff",
        "#004395 #ffffff",
    ],
    "n": [
        "#faefe3 #101010",
        "#ead2ba #101010",
        "#dcb591 #101010",
        "#d09666 #101010",
        "#c47637 #101010",
        "#b25701 #ffffff",
        "#944202 #ffffff",
        "#772e00 #ffffff",
    ],
}
DARK = {
    "p": [
        "#1c2430 #ffffff",
        "#273952 #ffffff",
        "#314f76 #ffffff",
        "#39669c #ffffff",
        "#3b7fc6 #0a0a0a",
        "#4a98e7 #0a0a0a",
        "#6fb3f6 #0a0a0a",
        "#9acdfe #0a0a0a",
    ],
    "n": [
        "#2c2219 #ffffff",
        "#473420 #ffffff",
        "#644729 #ffffff",
        "#835b2f #ffffff",
        "#a56e2f #0a0a0a",
        "#c9832c #0a0a0a",
        "#e79b3d #0a0a0a",
        "#ffb764 #0a0a0a",
    ],
}
PAGE = {
    "light": {"paper": "#ffffff", "ink": "#1b1b1b", "faint": "#5c5c5c", "rule": "#d5d5d5", "scale": LIGHT},
    "dark": {"paper": "#161616", "ink": "#ececec", "faint": "#a8a8a8", "rule": "#444444", "scale": DARK},
}


def style_of(scope: str) -> str:
    """CSS that gives everything inside the class ``scope`` its colours, and the classes p1 … p8 and n1 … n8 to mark
    strengths with; it touches nothing outside."""
    light, dark = _variables(PAGE["light"]), _variables(PAGE["dark"])
    # Notebooks have a theme of their own, which the system's preference says nothing about: their marks come last.
    rules = [
        f".{scope}{{{light}}}",
        f"@media (prefers-color-scheme:dark){{.{scope}{{{dark}}}}}",
        f"[data-jp-theme-light=true] .{scope},.vscode-light .{scope}{{{light}}}",
        f"[data-jp-theme-light=false] .{scope},.vscode-dark .{scope}{{{dark}}}",
    ]
    for sign in "pn":
        for level in range(1, STEPS + 1):
            name = f"{sign}{level}"
            rules.append(f".{scope} .{name}{{background:var(--{name});color:var(--{name}i)}}")
    # Paper is white whatever the screen is, and the strengths are the message.
    themed = f".{scope},[data-jp-theme-light=false] .{scope},.vscode-dark .{scope}"
    rules.append(f"@media print{{{themed}{{{light}}}.{scope} *{{print-color-adjust:exact}}}}")
    return "\n".join(rules)


def level(strength: int) -> str:
    """The class for a value ``strength`` steps away from zero; "" for zero."""
    return "" if not strength else f"{'p' if strength > 0 else 'n'}{abs(strength)}"


def _variables(page: dict[str, Any]) -> str:
    pieces = [f"--{name}:{page[name]}" for name in ("paper", "ink", "faint", "rule")]
    for sign, steps in page["scale"].items():
        for place, pair in enumerate(steps, start=1):
            background, ink = pair.split()
            pieces += [f"--{sign}{place}:{background}", f"--{sign}{place}i:{ink}"]
    return ";".join(pieces)

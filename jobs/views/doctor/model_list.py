"""The list of well-known hub models as terminal text, as lines for other programs, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from attribution_core.display.sheet import Sheet
from jobs.doctor.model_list import ListedModel, ModelList

COLUMNS = ("name", "kind", "architecture", "pooling", "verdict", "query prefix", "document prefix", "set by", "note")
HEADINGS = {
    "one vector": "One vector a text",
    "late interaction": "Late interaction: one vector a token; the model sets its marker tokens",
    "sparse": "Sparse: one weight for each token of the vocabulary",
    "static": "Static: the mean of one vector a token, without layers",
}
OWNER = "sentence-transformers/"
# Longer names get a line of their own.
WIDEST_NAME = 48
INDENT = "    "


def terminal_models(models: ModelList, console: Console) -> None:
    """Print the list in sections by kind."""
    ModelSheet(console).models(models)


def plain_models(models: ModelList) -> str:
    """The list as a line for each model below a line of heads, with tabs between the columns.

    Prefixes are quoted as in Python, so that a line end inside one ends no line.
    """
    return "\n".join("\t".join(cells) for cells in (COLUMNS, *map(_cells, models.models)))


def json_models(models: ModelList) -> str:
    """The list as JSON."""
    return json.dumps(models.model_dump(mode="json"), indent=2, ensure_ascii=False)


class ModelSheet(Sheet):
    """A sheet for the list. Names are never cut, so that they can be copied."""

    def models(self, models: ModelList) -> None:
        """Print every model below the heading of its kind, and then what the columns are."""
        listed = models.models
        widths = [max(map(cell_len, column)) for column in zip(*map(_beside, listed), strict=True)]
        room = min(self.width - sum(widths) - 2 * len(widths), WIDEST_NAME)
        for kind, heading in HEADINGS.items():
            self.line(heading, "bold")
            for one in listed:
                if one.kind == kind:
                    self._model(one, room, widths)
            self.blank()
        self.line(
            f"{len(listed)} models of the hub by architecture (model_type), with their pooling and verdict, as of "
            f"{models.written}. Names without an owner are of {OWNER.rstrip('/')}. Other models of an architecture "
            "that works may work too: examine them with tokenpair doctor MODEL."
        )

    def _model(self, one: ListedModel, room: int, widths: list[int]) -> None:
        name = self.safe(one.name.removeprefix(OWNER))
        if cell_len(name) > room:
            self.put(Text(name))
            name = ""
        cells = (f"  {text:<{width}}" for text, width in zip(_beside(one), widths, strict=True))
        self.put(Text("".join((name, " " * (room - cell_len(name)), *cells))))
        for text in _below(one):
            for piece in Text(self.safe(text), "dim").wrap(self.console, self.width - len(INDENT)):
                self.put(Text.assemble(INDENT, piece))


def _beside(one: ListedModel) -> tuple[str, ...]:
    """What is on the line of the name."""
    return one.architecture, one.pooling, "works" if one.verdict == "flag" else one.verdict


def _below(one: ListedModel) -> Iterator[str]:
    """What is below the name."""
    if one.flags:
        yield f"needs {' and '.join(one.options)}"
    if one.note:
        yield one.note
    if one.prefixes:
        prefixes = ", ".join(f"{role} {text!r}" for role, text in one.prefixes.items())
        flags = " and ".join(f"--{role}-prompt" for role in one.prefixes)
        yield f"prefix: {prefixes} ({'set by the model' if one.prefix_set_by == 'model' else f'set {flags}'})"


def _cells(one: ListedModel) -> tuple[str, ...]:
    verdict = " ".join(("works with", *one.options)) if one.flags else one.verdict
    prefixes = (repr(text) if text else "" for text in (one.query, one.document))
    return one.name, one.kind, one.architecture, one.pooling, verdict, *prefixes, one.prefix_set_by or "", one.note

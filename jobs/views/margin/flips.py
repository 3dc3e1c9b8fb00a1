"""Deletions until two documents change places, as terminal text: of one margin, and over a run's inversions."""

from __future__ import annotations

from rich.console import Console

from attribution_core.display.sheet import plain_text
from attribution_core.display.view import model_words
from jobs.analysis.faithfulness.orders import ATTRIBUTIONS, EMBEDDINGS, LEXICAL, RANDOM
from jobs.analysis.flips.contest import DOCUMENT, RULES, TEXTS
from jobs.analysis.flips.result import Deletions, Flips, Proof
from jobs.analysis.resampling import Mean, few_draws
from jobs.progress import counted
from jobs.views.kit.sheet import TableSheet
from jobs.views.kit.table import Table, table_of

MOST_DELETED = 8
NAMES = {ATTRIBUTIONS: "attributions", EMBEDDINGS: "token embeddings", LEXICAL: "identical words", RANDOM: "chance"}
OF_TEXT = {DOCUMENT: "the higher document", "query": "the query"}


def proof_lines(proof: Proof, unit: str = "word") -> list[str]:
    """Return what deletions showed of a margin, a sentence or two for each of the two texts."""
    judge = "" if proof.own_judge else f", by {model_words(proof.judge)}"
    return [f"Tested by deletion{judge}: {_of_text(proof, one, unit)}" for one in (proof.document, proof.query)]


def _of_text(proof: Proof, one: Deletions, unit: str) -> str:
    source = f"{proof.above}" if one.text == DOCUMENT else "the query"
    if one.count == 0:
        return f"{proof.above} is not above {proof.below} for this model, so no {unit} has to go."
    random = f"{one.random:.1f} in random order (mean of {one.orders})"
    if one.random_never:
        random += f", where {one.random_never} of {one.orders} orders never did it"
    if one.count is None:
        return (
            f"no deletion of up to {one.words - 1} of the {one.words} {unit}s of {source}, largest first, puts "
            f"{proof.above} below {proof.below}; it takes {random}."
        )
    shown = ", ".join(one.deleted[:MOST_DELETED]) + (", …" if len(one.deleted) > MOST_DELETED else "")
    said = (
        f"without {one.count} of the {one.words} {unit}s of {source} ({shown}) {proof.above} falls below "
        f"{proof.below}. It takes {random}"
    )
    if one.best is not None:
        return said + f"; the fewest possible: {one.best}."
    if one.tried:
        return said + f"; no set of up to {counted(one.tried, unit)} does it."
    return said + "."


def flips_text(flips: Flips, width: int = 100) -> str:
    """Return what :func:`terminal_flips` prints, as plain text."""
    return plain_text(lambda console: terminal_flips(flips, console), width)


def terminal_flips(flips: Flips, console: Console) -> None:
    """Print how many words go by each rule."""
    sheet = TableSheet(console)
    sheet.line(
        f"{flips.inversions:,} of {counted(flips.of, 'inversion')}, one a query, {model_words(flips.model)}, "
        f"layer {flips.layer}" + ("" if flips.own_judge else f", tested by {model_words(flips.judge)}")
    )
    sheet.blank()
    sheet.line(flips_verdict(flips), "bold")
    if caveat := few_draws(flips.inversions):
        sheet.line(caveat, "yellow")
    for table in flip_tables(flips):
        sheet.blank()
        sheet.table(table)
    sheet.blank()
    sheet.line(
        "In brackets: 95 % intervals over queries. Fewer is better; the last two columns compare within an inversion. "
        "An order that never turns it counts with all words.",
        "dim",
    )


def flips_verdict(flips: Flips) -> str:
    """Return whether the attributions name the words that matter more directly than what costs nothing, in a
    sentence."""
    own = flips.mean(DOCUMENT, ATTRIBUTIONS).deletions.mean
    others = [rule for rule in RULES if rule != ATTRIBUTIONS]
    ahead = [NAMES[rule] for rule in others if flips.lead(DOCUMENT, rule).fewer.low > 0]
    behind = [NAMES[rule] for rule in others if flips.lead(DOCUMENT, rule).fewer.low <= 0]
    said = (
        f"To turn an inversion, {own:.1f} of the higher document's {flips.words[DOCUMENT]:.0f} words go in the order "
        f"of the attributions"
    )
    if ahead:
        said += f", fewer than by {_and(ahead)}"
    if behind:
        said += f"; not clearly fewer than by {_and(behind)}"
    return f"{said}."


def words_decide(flips: Flips) -> bool:
    """Return whether fewer words go by the attributions than by every other order, for documents."""
    return all(flips.lead(DOCUMENT, rule).fewer.low > 0 for rule in RULES if rule != ATTRIBUTIONS)


def flip_tables(flips: Flips) -> list[Table]:
    """Return a table for each text that words are deleted from."""
    tables = []
    for text in TEXTS:
        rows = []
        for rule in RULES:
            one = flips.mean(text, rule)
            row = [NAMES[rule], _number(one.deletions), f"{one.turned:.0%}"]
            if rule == ATTRIBUTIONS:
                row += ["", ""]
            else:
                lead = flips.lead(text, rule)
                row += [_number(lead.fewer, "+"), f"{lead.wins:.0%}"]
            rows.append(row)
        heads = ("order", "words deleted", "turned", "more than attributions", "attributions win")
        words = f"Words deleted from {OF_TEXT[text]} ({flips.words[text]:.0f} on average) until the order turns"
        tables.append(table_of(heads, rows, words))
    return tables


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _number(value: Mean, sign: str = "") -> str:
    return f"{value.mean:{sign}.2f} [{value.low:{sign}.2f}, {value.high:{sign}.2f}]"

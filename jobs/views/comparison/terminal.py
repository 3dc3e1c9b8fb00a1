"""A comparison as terminal text."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from attribution_core.display.sheet import plain_text
from attribution_core.display.view import model_words, shortened
from jobs.analysis.comparison.examples import SCORE, Example
from jobs.analysis.comparison.rankings import MovedDocument, QueryChange, RankingChange
from jobs.analysis.comparison.result import Comparison
from jobs.analysis.comparison.scores import ROUNDING, Scores
from jobs.progress import counted
from jobs.views.kit.sheet import TableSheet
from jobs.views.kit.table import table_of

LONGEST = 160
TEXT_WIDTH = 110
MOST_GROUPS = 10
MEANINGS = {
    "distance": "distance of the words' shares, 0 to 1",
    "cosine_a": "cosine of the words' sums, a",
    "cosine_b": "cosine of the words' sums, b",
    "spearman_a": "rank correlation of the words' sums, a",
    "spearman_b": "rank correlation of the words' sums, b",
    "overlap": "ten strongest word pairs in common",
    "cosine_cells": "cosine of all word pairs",
    "spearman_cells": "rank correlation of all word pairs",
}
SUMS = {
    "score": "the score",
    "difference": "what the score gains over references, texts with one token in place of every word",
    "centred": "what sets a pair apart from an average one",
}
# Printed with the table, to explain it.
SHARES = (
    "A word's sum is that of its pairs with all words and special tokens of the other text. Its share is its sum "
    "divided by the sum of the absolute values of all words' sums, so it keeps its sign and is finite for any score. "
    "Distance is half the sum of the differences between the two runs' shares: 0 where they are the same, 1 where "
    "nothing is."
)
PARTS = (
    "(a: and b: words of the two texts, with their sums in either run. Sums are parts of the score: over all words and "
    "special tokens of a text their changes add up to the change of the score.)"
)
GAPS = (
    "words: what each adds to the relevant documents less what it adds to the others, on average over the documents in "
    "both runs. This gap decides the order."
)
SHARED = "(a: and b: words of the two texts, with their shares in either run.)"


def comparison_text(comparison: Comparison) -> str:
    """The comparison as plain text, 110 characters wide."""
    return plain_text(lambda console: terminal_comparison(comparison, console), TEXT_WIDTH)


def terminal_comparison(comparison: Comparison, console: Console) -> None:
    """Print a comparison."""
    ComparisonSheet(console).comparison(comparison)


class ComparisonSheet(TableSheet):
    """A sheet for a comparison."""

    def comparison(self, one: Comparison) -> None:
        """The runs, their scores, their attributions, groups and examples."""
        self._runs(one)
        self.blank()
        self._rankings(one)
        self.line("Scores", "bold")
        if one.scores.absolute.most <= ROUNDING:
            self.line(f"The same in both: no two differ by more than {one.scores.absolute.most:.0e}.")
        else:
            self._scores(one.scores)
        self.blank()
        self.line(f"Attributions of {one.compared:,} pairs", "bold")
        rows = [
            (MEANINGS[name], *(f"{value:.3f}" for value in (spread.mean, *spread.quantiles[::2])))
            for name, spread in one.agreement.items()
            if spread is not None
        ]
        self.table(table_of(("", "mean", "5 %", "median", "95 %"), rows))
        self.blank()
        self.line(SHARES)
        if one.words_of_one_run:
            self.line(
                f"{one.words_of_one_run:,} words were read by only one run and are left out "
                f"({one.words_of_both_runs:,} by both)."
            )
        for column in one.columns:
            self.line(
                f"Rank correlation of {column.name} with the score: {_number(column.first)} first, "
                f"{_number(column.second)} second"
            )
        self._groups(one)
        for by in ("score", "attribution"):
            chosen = [example for example in one.examples if example.by == by]
            if chosen:
                self.blank()
                self.line(f"Pairs whose {by}s differ most", "bold")
                self.line(PARTS if chosen[0].unit == SCORE else SHARED)
            for example in chosen:
                self._example(example)

    def _runs(self, one: Comparison) -> None:
        for name, facts in (("first", one.first), ("second", one.second)):
            self.line(f"{name:<7}{facts['run']}")
            self.line(
                f"       {model_words(str(facts['model'] or '?'))}, layer {facts['layer']}, {facts['groups']} groups, "
                f"{facts['similarity']}, sums to {facts['sums_to']}{_reference(one, facts)}"
            )
        matched = one.matched
        by = "id and texts" if matched.by == "pair_id" else "texts alone (no id is shared)"
        pairs = f"{matched.pairs:,} pairs in both by {by}, of {matched.first:,} and {matched.second:,}"
        for count, why in ((matched.other_texts, "with other texts"), (matched.unwritten, "not written yet")):
            pairs += f"; {count:,} {why}" if count else ""
        self.line(pairs)
        if one.first["similarity"] != one.second["similarity"]:
            self.line("The runs have different similarities: their scores cannot be compared.", "yellow")
        if not one.one_sum:
            first, second = (SUMS.get(str(facts["sums_to"]), facts["sums_to"]) for facts in (one.first, one.second))
            self.line(
                f"Word pairs sum to different things: in the first run to {first}; in the second to {second}. "
                "Attributions differ for that reason too, not only by model and layer.",
                "yellow",
            )
        without = [name for name, facts in (("first", one.first), ("second", one.second)) if facts["level"] == "words"]
        if without:
            runs = "both runs have" if len(without) == 2 else f"the {without[0]} run has"
            self.line(f"Word pairs are not compared: {runs} none (level: words).")

    def _rankings(self, one: Comparison) -> None:
        """The change of the metric, and the queries that lost and gained most."""
        change = one.rankings
        if change is None:
            if "retrieval" in (one.first["mode"], one.second["mode"]):
                self.line(f"Rankings are not compared. {one.no_rankings}")
                self.blank()
            return
        better, worse, count = change.better, change.worse, len(change.queries)
        self.line(f"Rankings by the models' scores: {change.name} over {counted(count, 'judged query')}", "bold")
        interval = "" if change.low is None else f" ({change.low:+.3f} to {change.high:+.3f})"
        self.line(
            f"{change.first:.3f} → {change.second:.3f}, {change.difference:+.3f}{interval}: {len(better):,} better, "
            f"{len(worse):,} worse, {count - len(better) - len(worse):,} the same"
        )
        if not better and not worse:
            self.line(f"No query has another {change.name}: both runs rank alike.")
        elif change.low is not None and change.high is not None and change.low <= 0 <= change.high:
            self.line("The interval contains 0: which run is better cannot be said from these queries.", "yellow")
        for note in change.notes:
            self.line(note, "dim")
        if any(query.words for query in change.queries):
            self.line(GAPS)
        for title, queries in (("Queries that got worse", worse), ("Queries that got better", better)):
            shown = [query for query in queries if query.documents]
            if shown:
                self.blank()
                self.line(title, "bold")
            for query in shown:
                self._query(query, change)
        self.blank()

    def _query(self, one: QueryChange, change: RankingChange) -> None:
        self.line(f"{one.query}  {change.name} {one.first:.3f} → {one.second:.3f}  {_short(one.text)}", "cyan")
        moves = [
            f"{_judged(document)} {_rank(document.rank_1)} → {_rank(document.rank_2)}" for document in one.documents
        ]
        self.line(f"  ranks {', '.join(moves)}")
        form = "+.2f" if change.unit == SCORE else "+.0%"
        words = ", ".join(f"{word.word} {word.first:{form}} → {word.second:{form}}" for word in one.words)
        if words:
            self.line(f"  words {words}{'' if one.against else ' (added to all documents in both runs)'}")

    def _scores(self, scores: Scores) -> None:
        rows = []
        for name, spread in (("first", scores.first), ("second", scores.second), ("second − first", scores.difference)):
            numbers = (spread.mean, *spread.quantiles[::2], spread.least, spread.most)
            rows.append((name, *(f"{number:+.3f}" if "−" in name else f"{number:.3f}" for number in numbers)))
        self.table(table_of(("", "mean", "5 %", "median", "95 %", "least", "most"), rows))
        self.blank()
        self.line(
            f"|second − first| is {scores.absolute.mean:.4f} on average; correlation {_number(scores.pearson)}, of "
            f"ranks {_number(scores.spearman)}"
        )
        most = max(scores.histogram)
        bars = "".join(self.spark([count], 0, most) if count else " " for count in scores.histogram)
        self.line(f"{scores.edges[0]:+.2f} {bars} {scores.edges[-1]:+.2f}")

    def _groups(self, one: Comparison) -> None:
        for by in dict.fromkeys(group.by for group in one.groups):
            rows = [
                (
                    _short(group.value, 40),
                    f"{group.pairs:,}",
                    f"{group.difference:+.3f}",
                    f"{group.absolute:.3f}",
                    _number(group.distance),
                )
                for group in one.groups
                if group.by == by
            ]
            self.blank()
            self.table(table_of((by, "pairs", "second − first", "|second − first|", "distance"), rows[:MOST_GROUPS]))

    def _example(self, one: Example) -> None:
        distance = "" if one.distance is None else f", distance {one.distance:.2f}"
        other = "" if one.pair_2 == one.pair_1 else f" (second: {one.pair_2})"
        self.line(f"{one.pair_1}{other}  score {one.score_1:.3f} → {one.score_2:.3f}{distance}", "cyan")
        self.line(f"  a  {_short(one.a)}")
        self.line(f"  b  {_short(one.b)}")
        form = "+.2f" if one.unit == SCORE else "+.0%"
        for name, words in (("up", one.up), ("down", one.down)):
            moves = ", ".join(f"{word.side}:{word.word} {word.first:{form}} → {word.second:{form}}" for word in words)
            if words:
                self.line(f"  {name:<5}{moves}")


def _reference(comparison: Comparison, facts: dict[str, Any]) -> str:
    """The token that replaces every word in a run's references, where the two runs have different ones."""
    if comparison.first["reference"] == comparison.second["reference"]:
        return ""
    by_role = facts["reference"] or {}
    tokens = list(dict.fromkeys(by_role.values()))
    if len(tokens) == 1:
        return f", reference {tokens[0]}"
    named = ", ".join(f"{by_role[role]} for a {role}" for role in sorted(by_role, reverse=True))
    return f", reference {named or 'not recorded'}"


def _judged(one: MovedDocument) -> str:
    """A document's id with its judgment."""
    if one.relevance is None:
        return f"{one.document} (not judged)"
    return f"{one.document} (relevance {one.relevance})" if one.relevance > 0 else f"{one.document} (not relevant)"


def _rank(rank: int | None) -> str:
    return "none" if rank is None else str(rank)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _short(text: str, longest: int = LONGEST) -> str:
    return shortened(" ".join(text.split()), longest)

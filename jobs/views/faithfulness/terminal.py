"""An evaluation as terminal text: the verdict, agreement with deletion, a table of advantages, small curves."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from attribution_core.display.sheet import plain_text
from attribution_core.display.view import model_words
from jobs.analysis.faithfulness.agreement import AGREEMENTS, PEARSON, SPEARMAN, WORDS_A, WORDS_B
from jobs.analysis.faithfulness.curves import BOTH_SHARE, PAIRS, measures_of
from jobs.analysis.faithfulness.orders import (
    ATTRIBUTIONS,
    EMBEDDINGS,
    LEXICAL,
    MARGINS,
    MATCHED,
    RANDOM,
    SHUFFLED,
)
from jobs.analysis.faithfulness.result import Faithfulness
from jobs.analysis.faithfulness.sentences import FEWEST_SENTENCES, TopSentences
from jobs.analysis.resampling import Mean, few_draws
from jobs.views.kit.sheet import TableSheet
from jobs.views.kit.table import table_of

HEADINGS = {
    ATTRIBUTIONS: "attributions",
    EMBEDDINGS: "embeddings",
    LEXICAL: "same words",
    MATCHED: "matched",
    MARGINS: "margins",
    SHUFFLED: "shuffled",
}
KINDS = {SPEARMAN: "ranks", PEARSON: "values"}
SUMS = {
    "score": "word pairs that sum to the score",
    "difference": "word pairs that sum to the score's difference from reference texts (sums_to: difference)",
    "centred": "word pairs that sum to what sets a pair apart from an average one (sums_to: centred)",
}
MATCHES = (
    "matched: the similarities of matched tokens, a word of a by its own tokens, one of b by the tokens that match it. "
    "margins: of a word of b the same, less the best match with another word."
)
OF_PAIRS = "One of pairs is what their words contribute together."
OF_BOTH = (
    f"That of both texts ends at {BOTH_SHARE:.0%} of the words: two texts without the words that mean something are "
    "alike."
)


def faithfulness_text(result: Faithfulness, width: int = 110) -> str:
    """What :func:`terminal_faithfulness` prints, as plain text."""
    return plain_text(lambda console: terminal_faithfulness(result, console), width)


def terminal_faithfulness(result: Faithfulness, console: Console) -> None:
    """Print an evaluation."""
    FaithfulnessSheet(console).faithfulness(result)


class FaithfulnessSheet(TableSheet):
    """A sheet for an evaluation."""

    def faithfulness(self, result: Faithfulness) -> None:
        """The verdict, then what it follows from."""
        self.line(
            f"{result.pairs:,} of {result.of:,} pairs, {model_words(result.model)}, layer {result.layer}, "
            f"{result.groups} groups"
        )
        judge = "" if result.own_judge else f", by {model_words(result.judge)}"
        sums = SUMS[result.sums_to]
        if result.level == "words" or result.late:
            sums = sums.replace("word pairs", "words")
        pairs = ", and word pairs by their interactions" if result.late and result.level == "pairs" else ""
        self.line(f"What is judged: {sums}{pairs}{judge}.")
        self.blank()
        self.line(result.verdict.text, "bold")
        if caveat := few_draws(result.draws):
            self.line(caveat, "yellow")
        self.blank()
        if result.sentences is not None:
            self._sentences(result.sentences)
            self.blank()
        self._agreement(result)
        self.blank()
        self._advantages(result)
        self.blank()
        self._curves(result)

    def _sentences(self, found: TopSentences) -> None:
        first = found.methods[0]
        self.line(
            f"Top sentence: each sentence is deleted in turn. Without the one that costs most the score drops by "
            f"{found.best:.3f} on average; without the one that the attributions choose (by {first.method}), by "
            f"{first.share.mean:.0%} of that ({found.pairs:,} documents of {FEWEST_SENTENCES} sentences or more)."
        )
        rows = [
            (one.method, _with_half(one.share), "" if one.ahead is None else _with_half(one.ahead))
            for one in found.methods
        ]
        self.table(table_of(("sentence chosen by", "share of the largest", f"{first.method} ahead by"), rows))

    def _agreement(self, result: Faithfulness) -> None:
        what = "score" if result.late else "embedding"
        self.line(
            f"Agreement with deletion: correlation, within a pair, with what the {what} loses when words are deleted "
            f"(Shapley values, {result.shapley_orders} orders). 1 is perfect, 0 is chance."
        )
        rows = []
        # The two texts play different parts in late interaction.
        shown = [(level, kind) for level, kind in AGREEMENTS if result.late or level not in (WORDS_A, WORDS_B)]
        for level, kind in shown:
            agreed = [one for rule in result.rules if (one := result.agreed(level, kind, rule)) is not None]
            if agreed:
                rows.append((f"{level}, {KINDS[kind]}", *(_with_half(one.value) for one in agreed)))
        for level, kind in shown:
            leads = [lead for rule in result.rules if (lead := result.lead(level, kind, rule)) is not None]
            if kind == SPEARMAN and leads:
                rows.append((f"ahead by, {level}", "", *(_with_half(lead.difference) for lead in leads)))
        self.table(table_of(_heads(result), rows))
        if result.late:
            self.line(MATCHES, "dim")
        if result.level == "words":
            self.blank()
            self.line("Word pairs are not judged: the run has no word pairs (level: words).")
        elif result.whole < result.pairs:
            self.blank()
            self.line(
                f"Word pairs are judged where all of them were stored: {result.whole:,} of {result.pairs:,} pairs "
                "(store: full stores all)."
            )

    def _advantages(self, result: Faithfulness) -> None:
        self.line("Advantage over random order: area between the curves, in units of the score.")
        rows = []
        for level, operation in measures_of(result.sums_to):
            curves = [result.curve(level, operation, rule) for rule in result.rules]
            rows.append((f"{operation}, {level}", *(_with_half(one.advantage) for one in curves)))
        rows.append(("together", *(_with_half(result.against(rule, RANDOM).advantage) for rule in result.rules)))
        ahead = [result.against(ATTRIBUTIONS, rule).advantage for rule in result.rules if rule != ATTRIBUTIONS]
        rows.append(("ahead by", "", *map(_with_half, ahead)))
        self.table(table_of(_heads(result), rows))
        self.blank()
        wins = result.against(ATTRIBUTIONS, RANDOM).wins
        self.line(f"The attributions do better than random order in {wins:.0%} of the pairs.")

    def _curves(self, result: Faithfulness) -> None:
        self.line("Curves, from no word to all; a fast fall (deletion) or rise (insertion) is good.")
        measures = measures_of(result.sums_to)
        width = max(len(f"{operation}, {level}") for level, operation in measures)
        for level, operation in measures:
            own, random = (result.curve(level, operation, method).values for method in (ATTRIBUTIONS, RANDOM))
            low, high = min(*own, *random), max(*own, *random)
            name = f"{operation}, {level}"
            drawn = (self.spark(own, low, high), "cyan" if self.coloured else "")
            ends = f"  {self.safe(f'{own[0]:.2f} → {own[-1]:.2f}')}"
            self.put(Text.assemble(f"{name:<{width}}  {ATTRIBUTIONS}  ", drawn, ends))
            self.put(Text.assemble(f"{'':<{width}}  {RANDOM:<12}  ", (self.spark(random, low, high), "dim")))
        self.line(f"A curve of words is the score. {OF_PAIRS if measures[-1][0] == PAIRS else OF_BOTH}", "dim")


def _heads(result: Faithfulness) -> tuple[str, ...]:
    return ("", *(HEADINGS[rule] for rule in result.rules))


def _with_half(value: Mean) -> str:
    """A mean and half its interval, without the zeros before the points: four of them fit into 80 columns."""
    return f"{value.mean:+.3f} ±{(value.high - value.low) / 2:.3f}".replace("0.", ".")

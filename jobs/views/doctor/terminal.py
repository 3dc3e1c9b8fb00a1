"""An examination of a model as terminal text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from attribution_core.model.inspection import LATE_SIMILARITIES
from attribution_core.results import unit_of_errors
from jobs.doctor.findings import Diagnosis, LayerCheck, Outputs, Side
from jobs.doctor.job_lines import job_lines, plain
from jobs.progress import counted, duration
from jobs.views.kit.sheet import TableSheet
from jobs.views.kit.table import Table, table_of

WIDTH_OF_NAMES = 12
HEADS = ("layer", "nodes", "residual", "|error|", "largest", "special", "s a pair", "converged")


def terminal_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """Print the examination."""
    sheet = DiagnosisSheet(console)
    sheet.facts(("model", diagnosis.model), *_what(diagnosis))
    sheet.blank()
    sheet.facts(
        ("scores", _scores(diagnosis)),
        ("sums", _sums(diagnosis)),
        ("batches", _company(diagnosis)),
        ("speed", _speed(diagnosis)),
        ("memory", _memory(diagnosis)),
    )
    sheet.blank()
    sheet.layers(diagnosis)
    for heading, lines in (("Worth knowing", diagnosis.notices), ("Wrong", diagnosis.problems)):
        if lines:
            sheet.blank()
            sheet.line(heading, "bold")
        for line in lines:
            sheet.line(f"- {line}")
    sheet.blank()
    sheet.line("For the job file", "bold")
    for line in job_lines(diagnosis):
        # Not cut and not wrapped: these are to be copied.
        console.print(Text(line), soft_wrap=True)


def json_diagnosis(diagnosis: Diagnosis) -> str:
    """The examination as JSON."""
    return json.dumps(plain(diagnosis), indent=2, ensure_ascii=False)


class DiagnosisSheet(TableSheet):
    """A sheet for an examination."""

    def facts(self, *rows: tuple[str, str]) -> None:
        """Print values behind their names, further lines of a value below its first."""
        for name, value in rows:
            lines = Text(self.safe(value)).wrap(self.console, self.width - WIDTH_OF_NAMES - 2)
            for place, line in enumerate(lines):
                self.put(Text.assemble((f"{'' if place else name:<{WIDTH_OF_NAMES}}  ", "bold"), line))

    def layers(self, diagnosis: Diagnosis) -> None:
        """Print nodes by layer with bars, and residuals and errors beside them."""
        rows = [
            (
                f"{check.layer}{'*' if check.layer == diagnosis.speed.layer else ''}",
                f"{check.nodes_median}–{check.nodes_largest}",
                f"{check.residual_largest:.0e}",
                f"{check.error_median:.0e}",
                f"{check.error_largest:.0e}",
                f"{check.special_median:.2g}",
                f"{check.seconds_a_pair:.2g}",
                _share(check),
            )
            for check in diagnosis.layers
        ]
        title = "Nodes that the default tolerance (2e-3 of ‖e‖) takes, by layer"
        drawn = [float(check.nodes_median) for check in diagnosis.layers]
        self.table(Table(title, table_of(HEADS, rows).columns, drawn))
        unit = (
            ""
            if diagnosis.similarity == "cosine"
            else f", in units of {unit_of_errors(late=diagnosis.similarity in LATE_SIMILARITIES)}"
        )
        self.line(
            "Nodes: median and largest of the sample's texts; bars show the median. Residual: the largest. |error|: by "
            f"how much the sum of a pair misses its score, median and largest{unit}. Special: what pairs with a "
            "special token sum to, the median size. * is the layer that a job takes."
        )


def _what(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    for side in diagnosis.sides:
        whose = "" if len(diagnosis.sides) == 1 else f"{side.role}: "
        yield "family", f"{whose}{_layers_of(side)}"
        yield "modules", f"{whose}{' → '.join(side.modules)}"
        if side.outputs is None:
            yield "pooling", f"{whose}{' and '.join(side.pooling)}, {side.width} values"
        else:
            yield "pooling", f"{whose}none (late interaction), {side.width} values for each token"
            yield from _outputs(side.outputs, whose)
        yield "reads", whose + ("any length" if side.reads is None else f"{side.reads:,} tokens")
        yield "reference", whose + _reference(side)
        if side.prompt:
            yield "prompt", f"{whose}{side.prompt!r}"
    others = [name for name in diagnosis.prompts if name not in ("query", "document")]
    if others:
        yield "prompts", f"others: {', '.join(others)}"
    yield "similarity", f"{diagnosis.similarity}, {diagnosis.mode} pairs"


def _outputs(outputs: Outputs, whose: str) -> Iterator[tuple[str, str]]:
    """What becomes of each token's output in a late-interaction model."""
    if outputs.projection:
        yield "projection", whose + " → ".join(map(str, outputs.projection))
    if outputs.expansion is not None:
        attended = "other tokens attend to it" if outputs.attended else "no other token attends to it"
        share = (
            "" if outputs.expanded_share is None else f"; its outputs have {outputs.expanded_share:.0%} of the score"
        )
        yield "expansion", f"{whose}{outputs.expansion} up to {outputs.length} tokens, {attended}{share}"
    if outputs.skipped:
        yield "skip list", f"{whose}{counted(len(outputs.skipped), 'token')} not scored: {' '.join(outputs.skipped)}"


def _reference(side: Side) -> str:
    """What a text of the side is compared with."""
    return f"{side.reference} in place of every word" if side.layers else side.reference


def _layers_of(side: Side) -> str:
    if not side.layers:
        return f"{side.family}: no layers, so the cut is at the embeddings"
    how = "linearised by hand" if side.fast else "through torch.func"
    return f"{side.family}, {side.layers} layers ({how}), cut at layer 0 … {side.layers - 1}"


def _scores(diagnosis: Diagnosis) -> str:
    scores = diagnosis.scores
    verdict = "equal" if scores.same else "DIFFER FROM"
    whose = "model.similarity" if scores.loaded_type == "float32" else "model.similarity of the float32 copy"
    line = f"{verdict} {whose} to {scores.copy_difference:.0e} ({scores.pairs} built-in pairs)"
    if scores.loaded_type == "float32":
        return line
    return f"{line}; the {scores.loaded_type} checkpoint's own differ by up to {scores.loaded_difference:.1e}"


def _company(diagnosis: Diagnosis) -> str:
    sensitivity = diagnosis.sensitivity
    verdict = "change nothing" if sensitivity.clean else "CHANGE RESULTS"
    return (
        f"padding and other texts of a batch {verdict}: embeddings to {sensitivity.embedding:.0e}, contributions to "
        f"{sensitivity.contributions:.0e} of ‖e‖"
    )


def _sums(diagnosis: Diagnosis) -> str:
    """What a pair's cells sum to, by how much they miss it, and what of it special tokens have."""
    check, references = diagnosis.default, diagnosis.references
    off = f"(off by {check.error_median:.0e} at the median, {check.error_largest:.0e} at most)"
    line = f"word pairs sum to the score {off}"
    if any(side.layers for side in diagnosis.sides):
        others = f"special{' and prompt' if any(side.prompt for side in diagnosis.sides) else ''} tokens"
        line = (
            f"word pairs and {others} sum to the score {off}; {others} have {check.special_median:.2g} of it "
            "(median size)"
        )
    if references.exact:
        line += (
            f"; an exact model: references embed to zero (to {references.largest:.0e}), so sums_to: difference is the "
            "same"
        )
    return line


def _speed(diagnosis: Diagnosis) -> str:
    speed = diagnosis.speed
    layer = f"layer {speed.layer}" + (f", level: {speed.level}" if diagnosis.late else "")
    where = f"{speed.device}, {speed.threads} thread{'s' if speed.threads > 1 else ''}"
    return (
        f"{speed.pairs_a_second:.1f} pairs/s, {speed.texts_a_second:.1f} texts/s at {layer} ({where}; "
        f"{speed.pairs} pairs of {speed.tokens_a:.0f} and {speed.tokens_b:.0f} tokens, for {duration(speed.seconds)})"
    )


def _memory(diagnosis: Diagnosis) -> str:
    speed = diagnosis.speed
    whose = "this process" if speed.device == "CPU" else "the device"
    return f"weights {speed.model_bytes / 2**20:,.0f} MiB; {whose} at its peak {speed.peak_bytes / 2**20:,.0f} MiB"


def _share(check: LayerCheck) -> str:
    return "all" if check.converged == check.texts else f"{check.converged} of {check.texts}"

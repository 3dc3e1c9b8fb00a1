"""An examination as a page in the terminal, and the lines of a job file that follow from it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from attribution_core.display.view import printable
from jobs.doctor.findings import Diagnosis, LayerCheck, Side
from jobs.doctor.job_lines import job_lines, plain
from jobs.progress import duration

BAR = 8
WIDTH_OF_NAMES = 12


def terminal_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """Print the page."""
    console.print(_facts([("model", diagnosis.model), *_what(diagnosis)]))
    console.print()
    console.print(_facts([("scores", _scores(diagnosis)), ("sums", _sums(diagnosis))]))
    console.print(_facts([("batches", _company(diagnosis)), ("speed", _speed(diagnosis))]))
    console.print(_facts([("memory", _memory(diagnosis))]))
    console.print()
    for block in _layers(diagnosis):
        console.print(block)
    for heading, lines in (("Worth knowing", diagnosis.notices), ("Wrong", diagnosis.problems)):
        if lines:
            console.print()
            console.print(Text(heading, style="bold"))
        for line in lines:
            console.print(Text(f"- {printable(line)}"))
    console.print()
    console.print(Text("For the job file", style="bold"))
    for line in job_lines(diagnosis):
        console.print(Text(line), soft_wrap=True)


def json_diagnosis(diagnosis: Diagnosis) -> str:
    """The same for machines."""
    return json.dumps(plain(diagnosis), indent=2, ensure_ascii=False)


def _facts(rows: list[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=WIDTH_OF_NAMES)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name, style="bold"), Text(printable(value)))
    return table


def _what(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    for side in diagnosis.sides:
        whose = "" if len(diagnosis.sides) == 1 else f"{side.role}: "
        yield "family", f"{whose}{_layers_of(side)}"
        yield "modules", f"{whose}{' → '.join(side.modules)}"
        yield "pooling", f"{whose}{' and '.join(side.pooling)}, {side.width} values"
        yield "reads", whose + ("any length" if side.reads is None else f"{side.reads:,} tokens")
        yield "reference", whose + _reference(side)
        if side.prompt:
            yield "prompt", f"{whose}{side.prompt!r}"
    others = [name for name in diagnosis.prompts if name not in ("query", "document")]
    if others:
        yield "prompts", f"also there: {', '.join(others)}"
    yield "similarity", f"{diagnosis.similarity}, {diagnosis.mode} pairs"


def _reference(side: Side) -> str:
    """What a text of the side is compared with."""
    return f"{side.reference} in place of every word" if side.layers else side.reference


def _layers_of(side: Side) -> str:
    if not side.layers:
        return f"{side.family}: no layers, so the cut is at the embeddings"
    way = "linearised by hand" if side.fast else "through torch.func"
    return f"{side.family}, {side.layers} layers ({way}), cut at layer 0 … {side.layers - 1}"


def _scores(diagnosis: Diagnosis) -> str:
    scores = diagnosis.scores
    verdict = "equal" if scores.same else "DIFFER FROM"
    whose = "model.similarity" if scores.loaded_type == "float32" else "model.similarity of the float32 copy"
    line = f"{verdict} {whose} to {scores.copy_difference:.0e} ({scores.pairs} built-in pairs)"
    if scores.loaded_type == "float32":
        return line
    return f"{line}; the {scores.loaded_type} checkpoint's own differ by up to {scores.loaded_difference:.1e}"


def _company(diagnosis: Diagnosis) -> str:
    found = diagnosis.sensitivity
    verdict = "change nothing" if found.clean else "CHANGE RESULTS"
    return (
        f"padding and other texts of a batch {verdict}: embeddings to {found.embedding:.0e}, contributions to "
        f"{found.contributions:.0e} of ‖e‖"
    )


def _sums(diagnosis: Diagnosis) -> str:
    """What a pair's cells sum to, by how much they miss it, and what of it special tokens have."""
    check, found = diagnosis.default, diagnosis.references
    off = f"(off by {check.error_median:.0e} at the median, {check.error_largest:.0e} at most)"
    line = f"word pairs sum to the score {off}"
    if any(side.layers for side in diagnosis.sides):
        others = f"special{' and prompt' if any(side.prompt for side in diagnosis.sides) else ''} tokens"
        line = (
            f"word pairs and {others} sum to the score {off}; {others} have {check.special_median:.2g} of it "
            "(median size)"
        )
    if found.exact:
        line += (
            f"; an exact model: references embed to zero (to {found.largest:.0e}), so sums_to: difference is the same"
        )
    return line


def _speed(diagnosis: Diagnosis) -> str:
    speed = diagnosis.speed
    where = f"{speed.device}, {speed.threads} thread{'s' if speed.threads > 1 else ''}"
    return (
        f"{speed.pairs_a_second:.1f} pairs/s, {speed.texts_a_second:.1f} texts/s at layer {speed.layer} ({where}; "
        f"{speed.pairs} pairs of {speed.tokens_a:.0f} and {speed.tokens_b:.0f} tokens, for {duration(speed.seconds)})"
    )


def _memory(diagnosis: Diagnosis) -> str:
    speed = diagnosis.speed
    whose = "this process" if speed.device == "CPU" else "the device"
    return f"weights {speed.model_bytes / 2**20:,.0f} MiB; {whose} at its peak {speed.peak_bytes / 2**20:,.0f} MiB"


def _layers(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    """Nodes by layer as bars, with residuals and errors beside them."""
    yield Text("Nodes that the default tolerance (2e-3 of ‖e‖) takes, by layer", style="bold")
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for name in ("layer", "nodes", "", "residual", "|error|", "largest", "special", "s a pair", "converged"):
        table.add_column(name, justify="left" if name == "" else "right", no_wrap=True)
    most = max(check.nodes_median for check in diagnosis.layers)
    for check in diagnosis.layers:
        marked = f"{check.layer}*" if check.layer == diagnosis.speed.layer else f"{check.layer} "
        table.add_row(
            marked,
            f"{check.nodes_median}–{check.nodes_largest}",
            "█" * max(1, round(BAR * check.nodes_median / most)),
            f"{check.residual_largest:.0e}",
            f"{check.error_median:.0e}",
            f"{check.error_largest:.0e}",
            f"{check.special_median:.2g}",
            f"{check.seconds_a_pair:.2g}",
            _share(check),
        )
    yield table
    unit = "" if diagnosis.similarity == "cosine" else ", in units of ‖e(a)‖‖e(b)‖"
    yield Text(
        "Nodes: median and largest of the sample's texts. Residual: the largest. |error|: by how much the sum of a "
        f"pair misses its score, median and largest{unit}. Special: what pairs with a special token sum to, the median "
        "size. * is the layer that a job takes."
    )


def _share(check: LayerCheck) -> str:
    return "all" if check.converged == check.texts else f"{check.converged} of {check.texts}"

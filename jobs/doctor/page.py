"""An examination as a page in the terminal, and the lines of a job file that follow from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jobs.commands import printable
from jobs.doctor.findings import Diagnosis, LayerCheck, Side
from jobs.progress import duration

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

BAR = 16
WIDTH_OF_NAMES = 12


def show(diagnosis: Diagnosis, console: Console) -> None:
    """Print the page."""
    from rich.text import Text

    console.print(_facts([("model", diagnosis.model), *_what(diagnosis)]))
    console.print()
    console.print(_facts([("scores", _scores(diagnosis)), ("company", _company(diagnosis))]))
    console.print(_facts([("reference", _references(diagnosis)), ("speed", _speed(diagnosis))]))
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


def as_json(diagnosis: Diagnosis) -> str:
    """The same for machines."""
    return json.dumps(diagnosis.plain(), indent=2, ensure_ascii=False)


def job_lines(diagnosis: Diagnosis) -> list[str]:
    """What to write into the job file: what is not a default, and where the pairs and the result go."""
    import yaml

    job: dict[str, object] = {"model": diagnosis.model, "mode": diagnosis.mode, "similarity": diagnosis.similarity}
    if diagnosis.cuts != (0,) or any(side.layers for side in diagnosis.sides):
        job["layer"] = diagnosis.speed.layer - len(diagnosis.cuts)
    job |= {"input": "pairs.csv", "columns": {"a": "…", "b": "…"}, "output": "runs/first"}
    text = yaml.safe_dump(job, sort_keys=False, allow_unicode=True, width=1000, default_flow_style=None)
    return [printable(line) for line in text.splitlines()]


def _facts(rows: list[tuple[str, str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

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
        yield "blank word", f"{whose}{side.reference}"
        if side.prompt:
            yield "prompt", f"{whose}{side.prompt!r}"
    others = [name for name in diagnosis.prompts if name not in ("query", "document")]
    if others:
        yield "prompts", f"also there: {', '.join(others)}"
    yield "similarity", f"{diagnosis.similarity}, {diagnosis.mode} pairs"


def _layers_of(side: Side) -> str:
    if not side.layers:
        return f"{side.family}: no layers, so the cut is at the embeddings"
    way = "linearised by hand" if side.fast else "through torch.func"
    return f"{side.family}, {side.layers} layers ({way}), cut at layer 0 … {side.layers - 1}"


def _scores(diagnosis: Diagnosis) -> str:
    scores = diagnosis.scores
    verdict = "equal" if scores.same else "DIFFER FROM"
    return f"{verdict} model.similarity to {scores.copy_difference:.0e} ({scores.pairs} built-in pairs)"


def _company(diagnosis: Diagnosis) -> str:
    found = diagnosis.sensitivity
    verdict = "change nothing" if found.clean else "CHANGE RESULTS"
    return (
        f"padding and batch-mates {verdict}: embeddings to {found.embedding:.0e}, contributions to "
        f"{found.contributions:.0e} of ‖e‖"
    )


def _references(diagnosis: Diagnosis) -> str:
    found = diagnosis.references
    if found.exact:
        return f"exact model: the reference terms vanish (to {found.largest:.0e}), attributions sum to the score"
    return (
        f"not an exact model: a pair with one text blank scores {found.a_with_blank:.2f} and {found.blank_with_b:.2f}, "
        f"blank with blank {found.blank_with_blank:.2f} (medians of sizes)"
    )


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
    from rich.table import Table
    from rich.text import Text

    yield Text("Nodes that the default tolerance (2e-3 of ‖e‖) takes, by layer", style="bold")
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for name in ("layer", "nodes", "", "residual", "|error|", "largest", "s a pair", "converged"):
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
            f"{check.seconds_a_pair:.2g}",
            _share(check),
        )
    yield table
    yield Text("Nodes: median and largest of the sample's texts. Residual: the largest. |error|: of pairs, the median")
    yield Text("and the largest. * is the layer that a job takes.")


def _share(check: LayerCheck) -> str:
    return "all" if check.converged == check.texts else f"{check.converged} of {check.texts}"

"""The lines of a job file that follow from an examination."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import yaml

from attribution_core.display.view import printable
from jobs.doctor.findings import Diagnosis


def job_lines(diagnosis: Diagnosis) -> list[str]:
    """What to write into the job file: what is not a default, and where the pairs and the result go."""
    job: dict[str, object] = {"model": diagnosis.model, "mode": diagnosis.mode, "similarity": diagnosis.similarity}
    if diagnosis.cuts != (0,) or any(side.layers for side in diagnosis.sides):
        job["layer"] = diagnosis.speed.layer - len(diagnosis.cuts)
    if diagnosis.late:
        job["level"] = diagnosis.speed.level
    if diagnosis.reference != "pad":
        job["reference"] = diagnosis.reference
    job |= {"input": "pairs.csv", "columns": {"a": "…", "b": "…"}, "output": "runs/first"}
    text = yaml.safe_dump(job, sort_keys=False, allow_unicode=True, width=1000, default_flow_style=None)
    return [printable(line) for line in text.splitlines()]


def plain(diagnosis: Diagnosis) -> dict[str, Any]:
    """An examination as plain values for JSON, with its verdicts and the lines of a job file."""
    verdicts = {
        "scores_match": diagnosis.scores.same,
        "exact": diagnosis.references.exact,
        "company_changes_nothing": diagnosis.sensitivity.clean,
        "healthy": not diagnosis.problems,
    }
    return asdict(diagnosis) | verdicts | {"job": "\n".join(job_lines(diagnosis))}

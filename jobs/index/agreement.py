"""Whether a run of a log can take its documents from an index: their settings must be the same."""

from __future__ import annotations

from jobs.config.job import JobConfig
from jobs.index.snapshot import Facts


def differing_facts(job: JobConfig, facts: Facts, layer: int | None, similarity: str | None) -> list[str]:
    """Return a line for each setting of a job that differs from those with which an index was built.

    ``layer`` counts from 0, and ``similarity`` is the model's own where the job has none; None: not known yet.
    """
    now = {
        "layer": layer,
        "similarity": similarity if similarity is not None else job.similarity,
        "groups of a document": job.unit("document"),
        "reference": job.reference,
        "prompts.document": job.prompts.document,
    }
    then = {
        "layer": facts.layer,
        "similarity": facts.similarity,
        "groups of a document": facts.groups,
        "reference": facts.reference,
        "prompts.document": facts.prompts.get("document"),
    }
    unknown = {name for name in ("layer", "similarity") if now[name] is None}
    return [
        f"{name}: {then[name]!r} there, {now[name]!r} now"
        for name in now
        if name not in unknown and then[name] != now[name]
    ]

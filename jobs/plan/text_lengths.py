"""From characters to tokens and groups: rates measured on a sample of the job's own texts with the model's tokenizer.

This needs only the tokenizer's file, and no torch. Where the planner does not have it (a model that only the cluster's
workers have), usual rates of English are assumed, and the plan says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attribution_core.model.inspection import WIDTHS, ModelFiles
from attribution_core.text.words import sentence_spans, word_spans
from jobs.config.job import JobConfig
from jobs.config.model_folder import folder_at_hand
from jobs.run.manifest import ASSUMED_LIMIT, ASSUMED_WIDTH, Calibration, Rate

SAMPLE = 1000
# Longer than any model reads: characters of one text that are tokenised for a rate.
SAMPLED_CHARACTERS = 1 << 16
ROLES = {"retrieval": ("query", "document"), "symmetric": ("text",)}


def calibrate(job: JobConfig, samples: Mapping[str, Sequence[str]]) -> Calibration:
    """Return rates of the job's model on ``samples`` of its texts by role; assumed ones where the tokenizer is not on
    this machine."""
    folder = folder_at_hand(job.model)
    if folder is None:
        return Calibration({role: Rate() for role in samples})
    files = ModelFiles(folder)
    rates = {role: _rate(job, files, role, list(texts)) for role, texts in samples.items()}
    width = max((files.size(role, WIDTHS) or 0 for role in samples), default=0)
    return Calibration(rates, width or ASSUMED_WIDTH)


def _rate(job: JobConfig, files: ModelFiles, role: str, texts: list[str]) -> Rate:
    tokenizer = files.tokenizer(role)
    limit = files.most_tokens(role) or ASSUMED_LIMIT
    if tokenizer is None or not texts:
        return Rate(limit=limit)
    prompt = files.prompt(role, getattr(job.prompts, role))
    extra = len(tokenizer.encode(prompt).ids)
    cut = [text[:SAMPLED_CHARACTERS] for text in texts]
    lengths = [len(one.ids) for one in tokenizer.encode_batch([prompt + text for text in cut])]
    tokens = sum(max(length - extra, 1) for length in lengths)
    return Rate(
        characters=max(100 * sum(map(len, cut)) // tokens, 1),
        groups=max(min(100 * _groups(job.unit(role), cut) // tokens, 100), 1) if job.unit(role) != "token" else 100,
        extra=extra,
        limit=limit,
        sampled=len(texts),
        truncated=sum(length > limit for length in lengths),
    )


def _groups(unit: str, texts: Sequence[str]) -> int:
    spans = word_spans if unit == "word" else sentence_spans
    return sum(max(len(spans(text)), 1) for text in texts)

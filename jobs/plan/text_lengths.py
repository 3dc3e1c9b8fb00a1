"""From characters to tokens and groups: rates measured on a sample of the job's own texts with the model's tokenizer.

Needs the tokenizer's file alone and no torch. Where a planner cannot see it (a model that only the cluster's workers
have), usual rates of English are assumed, and the plan says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.config.job import JobConfig
from jobs.config.model_folder import folder_at_hand
from jobs.run.manifest import ASSUMED_LIMIT, ASSUMED_WIDTH, Calibration, Rate

SAMPLE = 1000
# Longer than any model reads: characters of one text that are tokenised for a rate.
SAMPLED_CHARACTERS = 1 << 16
# A tokenizer without a limit of its own says so with a number as large as this.
NO_LIMIT = 1 << 20
ROLES = {"retrieval": ("query", "document"), "symmetric": ("text",)}
SETTINGS = "config_sentence_transformers.json"
PROMPT_NAMES: dict[str, tuple[str, ...]] = {
    "text": (),
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}


def calibrate(job: JobConfig, samples: Mapping[str, Sequence[str]]) -> Calibration:
    """Rates of the job's model on ``samples`` of its texts by role; assumed ones where its tokenizer is not at hand."""
    folder = folder_at_hand(job.model)
    if folder is None:
        return Calibration({role: Rate() for role in samples})
    width = 0
    rates: dict[str, Rate] = {}
    for role, texts in samples.items():
        module = _module(folder, role)
        config = read_object(module / "config.json")
        width = max(width, _whole(config.get("hidden_size") or config.get("dim") or config.get("d_model")) or 0)
        rates[role] = _rate(job, folder, module, role, list(texts))
    return Calibration(rates, width or ASSUMED_WIDTH)


def model_description(job: JobConfig, role: str) -> dict[str, Any]:
    """The configuration of the transformer that reads texts of ``role``; empty where it is not at hand."""
    folder = folder_at_hand(job.model)
    return {} if folder is None else read_object(_module(folder, role) / "config.json")


def _rate(job: JobConfig, folder: Path, module: Path, role: str, texts: list[str]) -> Rate:
    tokenizer = _tokenizer(module, folder)
    limit = _limit(module, folder, role)
    if tokenizer is None or not texts:
        return Rate(limit=limit)
    prompt = prompt_of(job, folder, role)
    extra = len(tokenizer.encode(prompt).ids)
    cut = [text[:SAMPLED_CHARACTERS] for text in texts]
    lengths = [len(found.ids) for found in tokenizer.encode_batch([prompt + text for text in cut])]
    tokens = sum(max(length - extra, 1) for length in lengths)
    return Rate(
        characters=max(100 * sum(map(len, cut)) // tokens, 1),
        groups=max(min(100 * _groups(job.groups, cut) // tokens, 100), 1) if job.groups != "token" else 100,
        extra=extra,
        limit=limit,
        sampled=len(texts),
        truncated=sum(length > limit for length in lengths),
    )


def _groups(unit: str, texts: Sequence[str]) -> int:
    from attribution_core.text.words import sentence_spans, word_spans

    spans = word_spans if unit == "word" else sentence_spans
    return sum(max(len(spans(text)), 1) for text in texts)


def prompt_of(job: JobConfig, folder: Path, role: str) -> str:
    """The prompt before a text of ``role``, by the rules of encode, encode_query and encode_document."""
    asked = getattr(job.prompts, role)
    return own_prompt(folder, role) if asked is None else _known_prompts(folder).get(asked, asked)


def own_prompt(folder: Path, role: str) -> str:
    """The prompt that a model's configuration has for a text of ``role``; empty where it has none."""
    known = _known_prompts(folder)
    for name in PROMPT_NAMES[role]:
        if name in known:
            return known[name]
    return known.get(str(read_object(folder / SETTINGS).get("default_prompt_name")), "")


def _known_prompts(folder: Path) -> dict[str, str]:
    prompts = read_object(folder / SETTINGS).get("prompts")
    return {str(name): str(text or "") for name, text in prompts.items()} if isinstance(prompts, dict) else {}


def _module(folder: Path, role: str) -> Path:
    """The folder of the transformer that reads texts of ``role``."""
    modules = _listed(folder / "modules.json")
    first = folder / str(modules[0].get("path") or "") if modules and isinstance(modules[0], dict) else folder
    router = read_object(first / "router_config.json")
    structure = router.get("structure")
    if not isinstance(structure, dict) or not structure:
        return first
    parameters = router.get("parameters")
    default = parameters.get("default_route") if isinstance(parameters, dict) else None
    route = structure.get(role) or structure.get(default or "") or next(iter(structure.values()))
    return first / str(route[0]) if route else first


def tokenizer_of(folder: Path, role: str) -> Any:
    """The tokenizer of texts of ``role``, of the library tokenizers; None where the model's folder has none."""
    return _tokenizer(_module(folder, role), folder)


def _tokenizer(*folders: Path) -> Any:
    for folder in folders:
        path = folder / "tokenizer.json"
        if path.is_file():
            from tokenizers import Tokenizer

            try:
                tokenizer = Tokenizer.from_file(str(path))
            except Exception:  # the library raises nothing narrower
                return None
            tokenizer.no_truncation()
            tokenizer.no_padding()
            return tokenizer
    return None


def _limit(module: Path, folder: Path, role: str) -> int:
    """The most tokens that the model reads of a text of ``role``."""
    settings = read_object(module / "sentence_bert_config.json")
    own = {"query": settings.get("query_length"), "document": settings.get("document_length")}.get(role)
    found = [
        own or settings.get("max_seq_length"),
        read_object(module / "tokenizer_config.json").get("model_max_length"),
        read_object(module / "config.json").get("max_position_embeddings"),
    ]
    limits = [one for one in map(_whole, found) if one is not None and 0 < one < NO_LIMIT]
    return min(limits, default=ASSUMED_LIMIT)


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value < 1e15 else None


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model; empty where there is none that can be read."""
    found = _read(path)
    return found if isinstance(found, dict) else {}


def _listed(path: Path) -> list[Any]:
    found = _read(path)
    return found if isinstance(found, list) else []


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None

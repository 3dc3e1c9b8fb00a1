"""Notes about models that were trained with a prefix on their texts but whose configuration does not set it.

Without its prefix such a model is not used as it was trained. ``known_prompts.json`` lists the prefixes of families,
with the model cards that document them.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from attribution_core.model.inspection import CONFIG, ModelFiles
from jobs.config.job import JobConfig
from jobs.config.model_folder import folder_at_hand

CARD_BYTES = 1 << 20
# Fields of a configuration and lines of a card that say which model a folder holds, or was fine-tuned from.
CARD_NAMES = (r"^#\s+(?P<name>\S[^\n]*)$", r"^base_model:[ \t]*(?:\n[ \t]*-[ \t]*)?(?P<name>\S+)")
EXTRA = r"(-(onnx|gguf|fp16|bf16|st|sentence-transformers|hf|finetuned?|ft))*"


@dataclass(frozen=True)
class Family:
    """Models that need a prefix: a pattern of their names, their model types, and the prefix of queries and documents.

    ``in_configuration`` says that the configurations of the published models set it.
    """

    family: str
    names: str
    model_types: list[str]
    query: str
    document: str
    in_configuration: bool
    source: str


@cache
def families() -> tuple[Family, ...]:
    """The families that are known."""
    return tuple(Family(**one) for one in json.loads(Path(__file__).with_name("known_prompts.json").read_text("utf-8")))


def missing_prompts(job: JobConfig) -> list[str]:
    """A note where a retrieval job's model wants a prefix that neither the job nor the model's configuration has."""
    if job.mode != "retrieval":
        return []
    asked = {role: getattr(job.prompts, role) for role in ("query", "document")}
    return prompt_notes(job.model, folder_at_hand(job.model), asked)


def prompt_notes(model: str, folder: Path | None, asked: dict[str, str | None]) -> list[str]:
    """The same for a model's name and its folder, where that is at hand; ``asked`` are prompts that the user set."""
    family = family_of(model, folder)
    if family is None or (folder is None and family.in_configuration):
        return []
    wanted = {"query": family.query, "document": family.document}
    missing = {
        role: text
        for role, text in wanted.items()
        if text and asked[role] is None and not (folder is not None and ModelFiles(folder).prompt(role))
    }
    if not missing:
        return []
    wants = " and ".join(
        f"{text!r} before {'queries' if role == 'query' else 'documents'}" for role, text in missing.items()
    )
    flags = " ".join(f"--{role}-prompt {_quoted(text)}" for role, text in missing.items())
    return [
        f"{family.family} models are trained with {wants}, and neither the model's configuration nor the job has that: "
        f"set prompts in the job file, or {flags} ('' for none, which hides this note)"
    ]


def family_of(model: str, folder: Path | None) -> Family | None:
    """The family that a model's name, configuration or card names, where its architecture is one of the family's."""
    config = ModelFiles(folder).object(CONFIG) if folder is not None else {}
    kind = config.get("model_type")
    for name in _names(model, folder, config):
        plain = re.sub(r"[\s_]+", "-", name.strip().rstrip("/").rpartition("/")[2].lower())
        for family in families():
            if re.fullmatch(family.names + EXTRA, plain) and (kind is None or kind in family.model_types):
                return family
    return None


def _names(model: str, folder: Path | None, config: dict[str, Any]) -> Iterator[str]:
    yield model
    if folder is None:
        return
    yield folder.name
    if isinstance(config.get("_name_or_path"), str):
        yield config["_name_or_path"]
    with contextlib.suppress(OSError), (folder / "README.md").open("rb") as file:
        card = file.read(CARD_BYTES).decode("utf-8", "replace")
        for pattern in CARD_NAMES:
            match = re.search(pattern, card, re.MULTILINE)
            if match is not None:
                yield match["name"]


def _quoted(text: str) -> str:
    """A prompt for a shell's command line; one with a line end needs the shell's own spelling of it."""
    return (
        "$'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
        if "\n" in text
        else shlex.quote(text)
    )

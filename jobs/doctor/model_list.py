"""The list of well-known hub models: what tokenpair does with each, and which prefixes their texts need."""

from __future__ import annotations

import datetime
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

FILE = Path(__file__).with_name("models.yaml")


class ListedModel(BaseModel):
    """One model of ``models.yaml``, whose head explains the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["one vector", "late interaction", "sparse", "static"]
    architecture: str
    class_name: str = ""
    pooling: str = ""
    weights: Literal["safetensors", "pickled"] = "safetensors"
    own_code: bool = False
    verdict: Literal["works", "flag", "refused"]
    flags: tuple[Literal["trust_remote_code", "pickled_weights"], ...] = ()
    query: str = ""
    document: str = ""
    prefix_set_by: Literal["model", "you"] | None = None
    note: str = ""

    @property
    def options(self) -> tuple[str, ...]:
        """The flags as they are written on the command line."""
        return tuple(f"--{flag.replace('_', '-')}" for flag in self.flags)

    @property
    def prefixes(self) -> dict[str, str]:
        """The prefix before a query and before a document, by role; without roles that have none."""
        return {role: text for role, text in (("query", self.query), ("document", self.document)) if text}


class ModelList(BaseModel):
    """All of them, and the day on which the list was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    written: datetime.date
    models: tuple[ListedModel, ...]


@cache
def model_list() -> ModelList:
    """The list as the package holds it."""
    return ModelList.model_validate(yaml.safe_load(FILE.read_text("utf-8")))

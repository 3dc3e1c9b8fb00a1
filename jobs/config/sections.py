"""The sections of a job file, and the types of its settings.

The ``description`` of a field is what error messages say is allowed there, so that the rule and its explanation are
in one place.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictBool,
    StrictInt,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from jobs.storage.s3 import holds_login

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY_UNITS = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_size(text: str | int) -> int:
    """Return the bytes of a size such as ``2GiB``, ``512MB`` or a plain number; raises ValueError for other text."""
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([kmgt]i?)?b?\s*", str(text), re.IGNORECASE | re.ASCII)
    if match is None:
        raise ValueError(f"not a size: {text!r}")
    unit = (match[2] or "").lower()
    return int(float(match[1]) * (_BINARY_UNITS | _UNITS)[unit])


def parse_share(text: str | int) -> float | None:
    """Return the share of a percentage such as ``60%``, or None if the text is no percentage from 1 to 95."""
    match = re.fullmatch(r"\s*(\d{1,2}(?:\.\d{1,3})?)\s*%\s*", str(text), re.ASCII)
    share = float(match[1]) / 100 if match is not None else 0.0
    return share if 0.01 <= share <= 0.95 else None


def _no_bool(value: object) -> object:
    # pydantic would accept YAML's `yes` and `true` as 1.
    if isinstance(value, bool):
        raise PydanticCustomError("bool", "a truth value")
    return value


def no_secret(value: object) -> object:
    """Return ``value``; raises an error, without repeating it, for an address with credentials."""
    if isinstance(value, str) and holds_login(value):
        raise PydanticCustomError("secret", "an address with credentials in it")
    return value


def absolute(place: str) -> str:
    """Return a local path as an absolute one, so that a rerun from another folder is the same job; addresses as is."""
    return place if "://" in place else os.path.abspath(os.path.expanduser(place))


def _place(value: object) -> object:
    return absolute(value) if isinstance(value, str) and value.strip() else value


Text = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"\A[^\x00]*\S[^\x00]*\z")]
Place = Annotated[Text, BeforeValidator(_place), BeforeValidator(no_secret)]
Real = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Column = StrictInt | Text
Prompt = Annotated[str, Field(max_length=4096, pattern=r"\A[^\x00]*\z")]
Share = Annotated[Real, Field(ge=0, le=1)]
# Null: the reader checks whether the first line is a header. job.yaml has true then.
Header = Annotated[bool | None, Field(strict=True), PlainSerializer(lambda value: value is not False, return_type=bool)]
Delimiter = Annotated[str, Field(pattern=r'\A(tab|comma|semicolon|pipe|[^\r\n"\x00])\z')]
Unit = Literal["token", "word", "sentence"]
Quotes = Literal["csv", "none"]
DELIMITER = "tab, comma, semicolon, pipe or one character, or null to detect it"
QUOTES = "csv (cells may be in quotes), none (quotes are ordinary characters), or null to detect it"


class Settings(BaseModel):
    """Base class of settings: immutable, without unknown fields, and without values in pydantic's errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, hide_input_in_errors=True)


class Columns(Settings):
    """The columns of a row's texts and ids: names, or numbers from 1 if the input has no header."""

    a: Column | None = Field(None, description="the name of the first text's column, or its number from 1")
    b: Column | None = Field(None, description="the name of the second text's column, or its number from 1")
    id: Column | None = Field(None, description="the name of the column with the pair's id, or its number from 1")
    a_id: Column | None = Field(None, description="the name of the column with the first text's id, or its number")
    b_id: Column | None = Field(None, description="the name of the column with the second text's id, or its number")

    def given(self) -> dict[str, str | int]:
        """Return the columns that are set, by field name."""
        return {role: column for role, column in self if column is not None}


class TextColumns(Settings):
    """The columns of ids and texts in a file of queries or documents; by default those with the usual names."""

    id: Column | None = Field(None, description="the name of the column with the text's id, or its number from 1")
    text: Column | None = Field(None, description="the name of the column with the text, or its number from 1")
    title: Column | None = Field(None, description="the name of the column with a document's title, or its number")
    header: bool | None = Field(
        None, strict=True, description="true or false (a CSV or TSV names its columns), or null to detect it"
    )
    delimiter: Delimiter | None = Field(None, description=DELIMITER)
    quotes: Quotes | None = Field(None, description=QUOTES)


class Prompts(Settings):
    """The prompts before the texts: the name of one of the model's prompts, or its text; null for the model's own."""

    query: Prompt | None = Field(None, description="a prompt's name or text for queries, '' for none, or null")
    document: Prompt | None = Field(None, description="a prompt's name or text for documents, '' for none, or null")
    text: Prompt | None = Field(
        None, description="a prompt's name or text for both texts of symmetric pairs, '' for none, or null"
    )


class GroupsByRole(Settings):
    """What is attributed as one in queries, and what in documents."""

    query: Unit = Field("word", description="token, word or sentence")
    document: Unit = Field("word", description="token, word or sentence")


class Quadrature(Settings):
    """How the path integral is computed, see ``attribution_core.quadrature.rules``."""

    rule: Literal["gauss", "riemann"] = Field("gauss", description="gauss or riemann")
    tolerance: Real = Field(2e-3, gt=0, le=1, description="a residual in units of ‖e‖, above 0 and at most 1")
    nodes: StrictInt | None = Field(
        None, ge=1, le=100_000, description="a whole number from 1 to 100000, or null to choose it for every text"
    )
    max_nodes: StrictInt = Field(256, ge=1, le=100_000, description="a whole number from 1 to 100000")


class Workers(Settings):
    """The number of worker processes and their resources; null for what the machine or cluster has at the time."""

    count: StrictInt | None = Field(None, ge=1, le=10_000, description="a whole number of at least 1, or null")
    min: StrictInt | None = Field(None, ge=1, le=10_000, description="the fewest workers to ask for, or null (1)")
    max: StrictInt | None = Field(
        None,
        ge=1,
        le=10_000,
        description="the most workers to ask for, at least min, or null for as many as there is room for",
    )
    gpus: Real | None = Field(
        None, ge=0, le=64, description="GPUs of each worker (0 for none, fractions allowed), or null"
    )
    cpus: StrictInt | None = Field(
        None, ge=1, le=1024, description="cores (and threads) of each worker, at least 1, or null"
    )
    ray: StrictBool | None = Field(
        None,
        description="true to start workers with Ray, false to run in the command's own process, or null: false for a "
        "small job without other settings of workers",
    )

    @field_validator("gpus")
    @classmethod
    def _whole_above_one(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise PydanticCustomError("fraction", "a fraction above 1")
        return gpus

    @field_validator("max")
    @classmethod
    def _not_below_min(cls, most: int | None, given: ValidationInfo) -> int | None:
        least = given.data.get("min")
        if most is not None and least is not None and most < least:
            raise PydanticCustomError("range", "below min")
        return most


class StorageOptions(Settings):
    """The address of an object store. Credentials are never settings; they come from the usual AWS environment."""

    endpoint_url: Annotated[Text, BeforeValidator(no_secret)] | None = Field(
        None,
        pattern=r"\Ahttps?://[^\s/]+/?\S*\z",
        description="an address such as http://127.0.0.1:8333 without credentials, or null",
    )
    region: Text | None = Field(None, description="the name of a region, or null")
    profile: Text | None = Field(None, description="the name of a profile in the AWS configuration, or null")

"""The validated settings of a job, from a job file or the flags of ``tokenpair run``.

The ``description`` of a field is what error messages say is allowed there, so that the rule and its explanation are
in one place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    StrictInt,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from attribution_core.model.inspection import LATE_SIMILARITIES
from jobs.config.model_folder import is_late
from jobs.config.sections import (
    DELIMITER,
    QUOTES,
    Column,
    Columns,
    Delimiter,
    GroupsByRole,
    Header,
    Place,
    Prompts,
    Quadrature,
    Quotes,
    Settings,
    Share,
    StorageOptions,
    Text,
    TextColumns,
    Unit,
    Workers,
    absolute,
    no_secret,
    parse_share,
    parse_size,
)
from jobs.config.validation import columns_by_header, one_line, read_settings, shown, validated
from jobs.errors import JobError

__all__ = ["Columns", "JobConfig", "StorageOptions", "Workers", "absolute", "load_job", "parse_job", "parse_size"]

_SMALLEST_MEMORY = 16 << 20
_MEANS = {"output", "workers", "memory", "storage", "max_removed"}
MOST_ROWS = 10**15
# Deeper layers cost two to three times as much and choose the same sentences (tests/benchmarks/RESULTS.md).
INDEX_LAYER, INDEX_TOLERANCE = -1, 2e-2
# Settings of an index, which plans and runs of pairs do not have.
_INDEX_ONLY = {"values": "int8", "texts": True, "max_removed": 0.2, "update_of": None}
# Settings that earlier versions did not have, with the values that describe what their jobs did.
_LATER = {"task": "pairs", "level": "pairs"} | _INDEX_ONLY
_NOT_OF_AN_INDEX = ("input", "log", "queries", "qrels", "depth", "log_part", "index")


class JobConfig(Settings):
    """The settings of a job. :meth:`identity` are those that decide the rows of its result."""

    model: Annotated[Text, BeforeValidator(no_secret)] = Field(
        description="the name of a sentence-transformers model, or a folder that holds one"
    )
    task: Literal["pairs", "index"] = Field("pairs", description="pairs (attributions of pairs) or index (of a corpus)")
    input: list[Place] | None = Field(
        None, min_length=1, description="a file, folder or glob (local or s3://bucket/…), or a list of them"
    )
    log: list[Place] | None = Field(
        None, min_length=1, description="a retrieval log's file (local or s3://bucket/…), or a list of them"
    )
    log_format: Literal["auto", "trec", "msmarco", "scores", "predictions", "mteb"] = Field(
        "auto",
        description="auto, trec, msmarco (query, document, rank), scores (query, document, score), predictions "
        "(sentence-transformers) or mteb",
    )
    log_part: Text | None = Field(
        None, description="the subset/split to take of MTEB predictions, or null for the only one"
    )
    queries: list[Place] | None = Field(
        None, min_length=1, description="the file of the log's queries (JSONL, Parquet, Arrow, TSV, CSV), or a list"
    )
    query_columns: TextColumns = Field(
        default_factory=TextColumns, description="settings id, text, header, delimiter, quotes"
    )
    corpus: list[Place] | None = Field(
        None, min_length=1, description="the file or folder of the log's documents (JSONL, Parquet, Arrow, TSV, CSV)"
    )
    corpus_columns: TextColumns = Field(
        default_factory=TextColumns, description="settings id, text, title, header, delimiter, quotes"
    )
    titles: bool = Field(True, strict=True, description="true (title, a space, text) or false (the text alone)")
    index: Place | None = Field(
        None, description="an index of the corpus (tokenpair index), whose documents are not computed again, or null"
    )
    qrels: list[Place] | None = Field(
        None, min_length=1, description="the file of relevance judgments (TREC, or BEIR's TSV), a list, or null"
    )
    depth: StrictInt | None = Field(
        None, ge=1, le=1_000_000, description="how many documents a query, from 1 to 1000000, or null for all"
    )
    max_rejects: Share | None = Field(
        None, description="the largest accepted share of unreadable rows, from 0 to 1, or null (0.01 for a log)"
    )
    max_missing: Share | None = Field(
        None, description="the largest accepted share of rows without a text, from 0 to 1, or null for any"
    )
    columns: Columns = Field(default_factory=Columns, description="settings a, b, id, a_id, b_id")
    header: Header = Field(None, description="true or false")
    delimiter: Delimiter | None = Field(None, description=DELIMITER)
    quotes: Quotes | None = Field(None, description=QUOTES)
    keep: Literal["all"] | list[Column] = Field("all", description="all, or a list of column names")
    output: Place = Field(description="a folder for the run, local or s3://bucket/…")
    mode: Literal["symmetric", "retrieval"] = Field("symmetric", description="symmetric or retrieval")
    prompts: Prompts = Field(default_factory=Prompts, description="settings query, document, text")
    layer: StrictInt = Field(
        -2, ge=-1000, le=1000, description="a layer's number, from 0, or from the top as -1, -2, …"
    )
    groups: Unit | GroupsByRole = Field(
        "word", description="token, word or sentence; in retrieval mode also {query: …, document: …} with one for each"
    )
    similarity: Literal["cosine", "dot", "maxsim", "meanmaxsim"] | None = Field(
        None,
        description="cosine, dot, maxsim, meanmaxsim, or null for the model's own",
    )
    sums_to: Literal["score", "difference", "centred"] = Field(
        "score", description="score, difference (from texts of the reference's token alone, the paper's) or centred"
    )
    level: Literal["pairs", "words"] = Field(
        "pairs",
        description="pairs, or words: what each word adds to the whole score, without word pairs (top_k is then not "
        "used), for about half the time, and the default of a late-interaction model",
    )
    reference: Text = Field(
        "pad", description="pad, unk, mask, or a word that is one token: it replaces each word in a reference text"
    )
    quadrature: Quadrature = Field(default_factory=Quadrature, description="settings rule, tolerance, nodes, max_nodes")
    precision: Literal["auto", "float32", "tf32", "fp16", "bf16"] = Field(
        "auto", description="auto, float32, tf32, fp16 or bf16"
    )
    top_k: StrictInt = Field(32, ge=1, le=100_000, description="a whole number from 1 to 100000")
    store: Literal["top", "full"] = Field("top", description="top or full")
    format: Literal["parquet", "arrow"] = Field("parquet", description="parquet or arrow")
    values: Literal["int8", "float16", "float32"] = Field(
        "int8", description="int8 (with a scale for each row), float16 or float32: the values that an index stores"
    )
    texts: bool = Field(True, strict=True, description="true or false (an index stores offsets without the texts)")
    max_removed: Share = Field(
        0.2, description="the largest accepted share of an index's documents that the corpus no longer has, from 0 to 1"
    )
    update_of: Place | None = Field(
        None, description="the snapshot of an index whose unchanged documents are not computed again, or null"
    )
    shards: StrictInt | None = Field(
        None, ge=1, le=1_000_000, description="a whole number from 1 to 1000000, or null to choose it by the cost"
    )
    limit: StrictInt | None = Field(
        None, ge=1, le=MOST_ROWS, description=f"a whole number from 1 to {MOST_ROWS}, or null for every pair"
    )
    sample: StrictInt | None = Field(
        None,
        ge=1,
        le=MOST_ROWS,
        description=f"how many queries (first texts) to sample at random, from 1 to {MOST_ROWS}, or null for all",
    )
    seed: StrictInt = Field(0, ge=0, le=2**63 - 1, description="a whole number of at least 0, the seed of the sample")
    memory: str = Field("2GiB", description="a size from 16MiB, such as 2GiB or 500MB, or a share such as 60%")
    workers: Workers = Field(default_factory=Workers, description="settings count, min, max, gpus, cpus, ray")
    storage: StorageOptions = Field(
        default_factory=StorageOptions, description="settings endpoint_url, region, profile"
    )
    trust_remote_code: bool = Field(False, strict=True, description="true or false")
    pickled_weights: bool = Field(
        False, strict=True, description="true (pickled weights can run code when they are opened) or false"
    )

    @field_validator("model", mode="after")
    @classmethod
    def _local_model_is_absolute(cls, model: str) -> str:
        # A worker may run in another folder. A name on the hub is not changed.
        folder = Path(model).expanduser()
        return str(folder.resolve()) if folder.is_dir() else model

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_an_index(cls, given: Any) -> Any:
        """An index, and a run that takes its documents from one, have other defaults than pairs."""
        if not isinstance(given, dict) or (given.get("task") != "index" and given.get("index") is None):
            return given
        quadrature = given.get("quadrature") or {}
        if isinstance(quadrature, dict):
            quadrature = {"tolerance": INDEX_TOLERANCE} | quadrature
        groups = "sentence" if given.get("task") == "index" else {"query": "word", "document": "sentence"}
        defaults = {"mode": "retrieval", "layer": INDEX_LAYER, "groups": groups}
        return (
            defaults | {name: value for name, value in given.items() if value is not None} | {"quadrature": quadrature}
        )

    @model_validator(mode="before")
    @classmethod
    def _a_log_is_retrieval(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("log") is not None and given.get("mode") is None:
            return given | {"mode": "retrieval"}
        return given

    @field_validator("input", "log", "queries", "corpus", "qrels", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("memory", mode="before")
    @classmethod
    def _memory_is_a_size(cls, value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise PydanticCustomError("size", "not a size")
        if parse_share(value) is not None:
            return str(value)
        try:
            size = parse_size(value)
        except ValueError:
            raise PydanticCustomError("size", "not a size") from None
        if not _SMALLEST_MEMORY <= size < 2**50:
            raise PydanticCustomError("size", "out of range")
        return str(value)

    @property
    def memory_bytes(self) -> int | None:
        """The memory budget of a worker's computation in bytes; None if it is a share."""
        return parse_size(self.memory) if self.memory_share is None else None

    @property
    def memory_share(self) -> float | None:
        """The share of a GPU's or a machine's memory that its workers divide among them; None if it is in bytes."""
        return parse_share(self.memory)

    def unit(self, role: str) -> Unit:
        """Return what is attributed as one in texts of a role: token, word or sentence."""
        if isinstance(self.groups, GroupsByRole):
            return self.groups.query if role == "query" else self.groups.document
        return self.groups

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide the rows of the result: all but those of ``_MEANS``."""
        return self.model_dump(mode="json", exclude=_MEANS)

    def digest(self) -> str:
        """Return a hash of :meth:`identity` without settings that are null, which a plan records of its job."""
        settings = self.model_dump(mode="json", exclude=_MEANS, exclude_none=True) | {
            "header": self.header is not False
        }
        # Plans of earlier versions have no such settings.
        settings = {name: value for name, value in settings.items() if _LATER.get(name, ...) != value}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]


def load_job(path: str | Path | None, overrides: Mapping[str, Any] | None = None) -> JobConfig:
    """Return the job of a YAML file, or of none, with ``overrides`` in place of its settings.

    Nested mappings are merged; an override of None is ignored. Raises JobError with one line for each invalid field:
    the field, its value, what is allowed.
    """
    return parse_job(read_settings(path, overrides), where=str(path) if path is not None else "")


def index_job(path: str | Path | None, overrides: Mapping[str, Any] | None = None) -> JobConfig:
    """Return the job of an index, as :func:`load_job` does.

    A retrieval log's job file works unchanged: only its corpus is read.
    """
    settings = read_settings(path, overrides)
    settings = {name: value for name, value in settings.items() if name not in (*_NOT_OF_AN_INDEX, "level", "store")}
    return parse_job(settings | {"task": "index"}, where=str(path) if path is not None else "")


def parse_job(settings: Mapping[str, Any], where: str = "") -> JobConfig:
    """Return the validated job of plain settings; raises JobError as :func:`load_job` does."""
    job = _with_defaults_of_late(validated(JobConfig, settings, where))
    _check_together(job, where)
    columns = columns_by_header(job.columns, job.header is not False, where)
    dialect = {name: getattr(job, name) for name in ("delimiter", "quotes") if getattr(job, name) is not None}
    update: dict[str, Any] = {"columns": Columns.model_validate(columns)}
    for name in ("query_columns", "corpus_columns") if dialect and job.log is not None else ():
        given = getattr(job, name)
        update[name] = given.model_copy(update=dialect | given.model_dump(exclude_none=True, include=set(dialect)))
    return job.model_copy(update=update)


def _with_defaults_of_late(job: JobConfig) -> JobConfig:
    """Return the job with its model's defaults where it is a late-interaction model.

    MaxSim is of a query and a document; words' sums are most of what it has to say, at a third of the cost.
    """
    defaults = {"mode": "retrieval"} | ({"level": "words"} if job.store == "top" else {})
    missing = {name: value for name, value in defaults.items() if name not in job.model_fields_set}
    if not missing or job.task == "index" or job.index is not None:
        return job
    late = job.similarity in LATE_SIMILARITIES or is_late(job.model)
    return job.model_copy(update=missing) if late else job


def _check_together(job: JobConfig, where: str) -> None:
    """Raise JobError for settings that are each allowed but contradict each other."""
    wrong: list[str] = []
    if job.task == "index":
        wrong += _not_an_index(job)
    elif job.input is None and job.log is None:
        wrong.append(f"input: is missing; give {_allowed('input')}; or, for a retrieval log, log, queries and corpus")
    elif job.input is not None and job.log is not None:
        wrong.append("log: found beside input; allowed: one of the two")
    if job.log is not None and job.corpus is None and job.index is None:
        wrong.append(f"corpus: is missing; give {_allowed('corpus')}")
    if job.log is not None and job.queries is None and job.log_format not in ("auto", "predictions"):
        wrong.append(f"queries: is missing; give {_allowed('queries')}")
    if job.task == "pairs":
        wrong += [
            f"{name}: found {shown(getattr(job, name))}; it belongs to an index (tokenpair index, or task: index)"
            for name, usual in _INDEX_ONLY.items()
            if getattr(job, name) != usual
        ]
    if job.log is None and job.task == "pairs":
        wrong += [
            f"{name}: found without log; it belongs to a retrieval log"
            for name in ("queries", "corpus", "qrels", "depth", "log_part", "index")
            if getattr(job, name) is not None
        ]
    if job.log is not None and job.mode != "retrieval":
        wrong.append("mode: found 'symmetric'; allowed for a log: retrieval (prompts has the text before each text)")
    if job.level == "words" and job.store == "full":
        wrong.append("store: full stores all word pairs, and level: words has none; leave one of the two out")
    several = any((number or 1) > 1 for number in (job.workers.count, job.workers.min, job.workers.max))
    if job.workers.ray is False and several:
        wrong.append("workers.ray: false computes in this process alone; leave it out, or ask for one worker")
    if job.workers.count is not None and (job.workers.min is not None or job.workers.max is not None):
        wrong.append("workers.count: found beside min or max; allowed: either a fixed number, or min and max")
    if isinstance(job.groups, GroupsByRole) and job.mode != "retrieval":
        wrong.append("groups: found one for each role; allowed in symmetric mode: one for both texts")
    roles = ("query", "document") if job.mode == "retrieval" else ("text",)
    wrong += [
        f"prompts.{name}: found {shown(prompt)}; allowed in {job.mode} mode: {' and '.join(roles)}"
        for name, prompt in job.prompts
        if prompt is not None and name not in roles
    ]
    if wrong:
        prefix = f"{one_line(where)}: " if where else ""
        raise JobError("\n".join(prefix + line for line in wrong))


def _not_an_index(job: JobConfig) -> list[str]:
    """Return a line for each setting that the job of an index must not have, or lacks."""
    wrong = [f"corpus: is missing; give {_allowed('corpus')}"] if job.corpus is None else []
    wrong += [
        f"{name}: found with task index; an index is built from the corpus, so leave it out"
        for name in _NOT_OF_AN_INDEX
        if getattr(job, name) is not None
    ]
    if job.mode != "retrieval":
        wrong.append("mode: found 'symmetric'; allowed for an index: retrieval (its texts are documents)")
    if job.sums_to != "score":
        wrong.append(f"sums_to: found {job.sums_to!r}; allowed for an index: score")
    return wrong


def _allowed(name: str) -> str:
    return JobConfig.model_fields[name].description or ""

"""One validated training job: what the job file or the flags of ``tokenpair train`` may say, and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictInt, field_validator

from jobs.config.sections import Column, Header, Place, Prompt, Real, Settings, Share, StorageOptions, Text, no_secret
from jobs.config.validation import columns_by_header, read_settings, validated
from jobs.errors import JobError

# Columns of a file that does not name them.
BY_NUMBER = {"a": 1, "b": 2, "score": 3}


class LabelColumns(Settings):
    """Where a row has its two texts and its score; numbers (from 1) where the input has no header."""

    a: Column | None = Field(None, description="the name of the first text's column, or its number from 1")
    b: Column | None = Field(None, description="the name of the second text's column, or its number from 1")
    score: Column = Field("score", description="the name of the column with the pair's score, or its number from 1")


class TrainWorkers(Settings):
    """How many processes share every batch: one is this process, several are Ray Train's."""

    count: StrictInt = Field(1, ge=1, le=1000, description="a whole number from 1 to 1000")
    gpus: Real | None = Field(None, ge=0, le=1, description="GPUs a worker (0 for none, fractions allowed), or null")
    cpus: StrictInt | None = Field(None, ge=1, le=1024, description="cores (and threads) a worker, at least 1, or null")


class TrainConfig(Settings):
    """Everything that decides a training job. ``identity()`` is the part that decides the model."""

    model: Annotated[Text, BeforeValidator(no_secret)] = Field(
        description="the name of a sentence-transformers model, or a folder that holds one"
    )
    train: list[Place] = Field(min_length=1, description="a file, folder or glob of labelled pairs, or a list of them")
    dev: list[Place] | None = Field(
        None, min_length=1, description="a file, folder or glob of labelled pairs to measure on, or null"
    )
    columns: LabelColumns = Field(
        default_factory=lambda: LabelColumns.model_validate({}), description="settings a, b, score"
    )
    header: Header = Field(None, description="true or false")
    scale: tuple[Real, Real] = Field(
        description="the lowest and the highest possible score, such as [0, 5]: for texts of different and of the "
        "same meaning"
    )
    output: Place = Field(description="a folder for the model and its checkpoints, local or s3://bucket/…")
    shift: bool = Field(True, strict=True, description="true (an exact model) or false (the model as it is)")
    prompt: Prompt | None = Field(None, description="a prompt's name or text for both texts, '' for none, or null")
    loss: Literal["cosine", "dot"] = Field("cosine", description="cosine or dot")
    epochs: StrictInt = Field(5, ge=1, le=1000, description="a whole number from 1 to 1000")
    batch: StrictInt = Field(16, ge=2, le=100_000, description="pairs a step, a whole number from 2")
    learning_rate: Real = Field(2e-5, gt=0, le=1, description="a number above 0, such as 2.0e-5")
    warmup: Share = Field(0.1, description="a share from 0 to 1 of the steps")
    weight_decay: Real = Field(0.01, ge=0, le=1, description="a number from 0 to 1")
    keep: Literal["best", "last"] | None = Field(
        None, description="best (on the dev set) or last, or null: best where there is a dev set"
    )
    seed: StrictInt = Field(0, ge=0, le=2**31 - 1, description="a whole number of at least 0")
    max_rejects: Share = Field(0.01, description="the share of unreadable rows that is tolerated, from 0 to 1")
    checkpoint_minutes: Real = Field(5.0, gt=0, le=1440, description="minutes between checkpoints, above 0")
    workers: TrainWorkers = Field(
        default_factory=lambda: TrainWorkers.model_validate({}), description="settings count, gpus, cpus"
    )
    storage: StorageOptions = Field(
        default_factory=lambda: StorageOptions.model_validate({}), description="settings endpoint_url, region, profile"
    )
    trust_remote_code: bool = Field(False, strict=True, description="true or false")

    @field_validator("model", mode="after")
    @classmethod
    def _local_model_is_absolute(cls, model: str) -> str:
        folder = Path(model).expanduser()
        return str(folder.resolve()) if folder.is_dir() else model

    @field_validator("train", "dev", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @property
    def kept(self) -> Literal["best", "last"]:
        """Which epoch's weights the model has."""
        return self.keep or ("last" if self.dev is None else "best")

    def identity(self) -> dict[str, Any]:
        """The settings that decide the model: all but those of where and with which resources it is computed."""
        return self.model_dump(mode="json", exclude={"output", "workers", "storage", "checkpoint_minutes"})


def load_training(path: str | Path | None, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """The training job of a YAML file (or of none), with ``overrides`` laid over it.

    Raises:
        JobError: with one line a wrong field: the field, what was found, what is allowed.
    """
    where = str(path) if path is not None else ""
    settings = read_settings(path, overrides)
    if settings.get("header") is False:
        named = settings.get("columns")
        settings["columns"] = BY_NUMBER | (named if isinstance(named, dict) else {})
    job = validated(TrainConfig, settings, where)
    prefix = f"{where}: " if where else ""
    if job.scale[0] >= job.scale[1]:
        raise JobError(f"{prefix}scale: found {list(job.scale)}; allowed: the lowest score, then a higher one")
    if job.keep == "best" and job.dev is None:
        raise JobError(f"{prefix}keep: found 'best' without dev; allowed without a dev set: last")
    if job.workers.count > job.batch:
        raise JobError(
            f"{prefix}workers.count: found {job.workers.count}; allowed with batch: {job.batch}: a whole number from 1 "
            f"to {job.batch}, because the workers share every batch"
        )
    columns = columns_by_header(job.columns, job.header is not False, where)
    return job.model_copy(update={"columns": LabelColumns.model_validate(columns)})

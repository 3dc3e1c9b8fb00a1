"""Reads settings from YAML and flags and validates them, with one line of explanation for each invalid field."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from jobs.config.sections import Settings
from jobs.config.yaml import read_yaml
from jobs.errors import JobError

_MAX_JOB_FILE = 1 << 20  # bytes; a job file is a page, and YAML of unknown size is not read
S = TypeVar("S", bound=Settings)


def read_settings(path: str | Path | None, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings of a YAML file, or of none, with ``overrides`` in place of its values, not validated.

    Raises JobError if the file cannot be read as settings.
    """
    settings = _read_yaml(Path(path)) if path is not None else {}
    # The section `run` of a job.yaml has results of a run, and no settings.
    settings = {name: value for name, value in settings.items() if name != "run" or not isinstance(value, dict)}
    return _merged(settings, overrides or {})


def validated(schema: type[S], settings: Mapping[str, Any], where: str = "") -> S:
    """Return settings validated by ``schema``; raises JobError with one line for each invalid field."""
    try:
        return schema.model_validate(dict(settings))
    except ValidationError as error:
        lines = list(dict.fromkeys(_explain(error, settings, where, schema)))
        raise JobError("\n".join(lines)) from None
    except RecursionError:
        raise JobError(f"{where or 'the job'}: nested too deeply to be a job") from None


def columns_by_header(given: Settings, header: bool, where: str) -> dict[str, str | int | None]:
    """Return columns by field: numbers if there is no header, names if there is one.

    ``a: 2`` in YAML can mean either. Raises JobError for a name without a header.
    """
    columns: dict[str, str | int | None] = {}
    for role, column in given:
        if column is None or isinstance(column, bool):
            columns[role] = column
        elif header:
            columns[role] = str(column)
        elif str(column).isascii() and str(column).isdigit() and int(column) >= 1:
            columns[role] = int(column)
        else:
            prefix = f"{where}: " if where else ""
            raise JobError(
                f"{prefix}columns.{role}: found {shown(column)}; allowed: with header: false, a column's number from 1"
            )
    return columns


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        if path.is_dir():
            raise JobError(f"{path}: is a folder, not a job file")
        with open(path, "rb") as file:
            raw = file.read(_MAX_JOB_FILE + 1)
        if len(raw) > _MAX_JOB_FILE:
            raise JobError(f"{path}: is larger than 1 MiB; this is not a job file")
        settings = read_yaml(raw.decode("utf-8"))
    except FileNotFoundError:
        raise JobError(f"{path}: no such job file") from None
    except OSError as error:
        raise JobError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise JobError(f"{path}: is not UTF-8 text; a job file is YAML") from None
    except ValueError as error:
        raise JobError(f"{path}: is not valid YAML: {error}") from None
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise JobError(f"{path}: found {shown(settings)}; allowed: settings such as 'model: NAME', one a line")
    return {str(key): value for key, value in settings.items()}


def _merged(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(settings)
    for key, value in overrides.items():
        if isinstance(value, Mapping):
            below = merged.get(key)
            inner = _merged(below if isinstance(below, Mapping) else {}, value)
            if inner or isinstance(below, Mapping):
                merged[key] = inner
        elif value is not None:
            merged[key] = value
    return merged


def _explain(error: ValidationError, settings: Mapping[str, Any], where: str, schema: type[BaseModel]) -> Iterator[str]:
    """Yield one line for each invalid field, from pydantic's list of errors."""
    prefix = f"{one_line(where)}: " if where else ""
    for detail in error.errors(include_url=False, include_input=False):
        path, owner, allowed = _field_of(detail["loc"], schema)
        name = one_line(".".join(path))[:200]
        if detail["type"] == "extra_forbidden":
            section = _value_at(settings, path[:-1])
            given = section if isinstance(section, Mapping) else {}
            yield f"{prefix}{name}: is not a setting{_closest(path[-1], owner, given)}"
        elif detail["type"] == "missing":
            yield f"{prefix}{name}: is missing; give {allowed}"
        elif detail["type"] == "secret":
            yield f"{prefix}{name}: found an address with credentials in it (not repeated here); allowed: {allowed}"
        else:
            yield f"{prefix}{name}: found {shown(_value_at(settings, path))}; allowed: {allowed}"


def _field_of(location: tuple[int | str, ...], owner: type[BaseModel]) -> tuple[list[str], type[BaseModel], str]:
    """Return the path of the setting at an error's location, the section it belongs to, and what is allowed there.

    Pydantic's locations continue with list positions and union members; the path has only names of settings.
    """
    path: list[str] = []
    allowed = "settings such as 'model: NAME'"
    for step in location:
        path.append(str(step))
        field = owner.model_fields.get(str(step))
        if field is None:
            break
        allowed = field.description or ""
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, Settings)):
            break
        if len(location) > len(path):
            owner = field.annotation
    return path, owner, allowed


def _closest(name: str, owner: type[BaseModel], given: Mapping[str, object]) -> str:
    """Return a suggestion for an unknown setting: the most similar one, or a list of all."""
    known = list(owner.model_fields)
    near = get_close_matches(name, known, n=len(known))
    # A required setting that is missing is suggested first, even if another name is more similar.
    near.sort(key=lambda field: field in given or not owner.model_fields[field].is_required())
    return f"; did you mean {near[0]}?" if near else f"; the settings here are {', '.join(known)}"


def _value_at(settings: object, path: list[str]) -> object:
    for step in path:
        settings = settings.get(step) if isinstance(settings, Mapping) else None
    return settings


def shown(value: object) -> str:
    """Return a value for a message: short, on one line and without credentials."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    short = reprlib.Repr()
    short.maxstring, short.maxother, short.maxlevel = 60, 60, 2
    return re.sub(r"//[^/'\"\s]*@", "//…@", one_line(short.repr(value)))


def one_line(value: object) -> str:
    """Return the text of ``value`` on one line, with single spaces."""
    return " ".join(str(value).split())

"""A BEIR folder as settings: its queries, its corpus and the judgments of one split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.config.sections import StorageOptions, absolute
from jobs.config.validation import read_settings, validated
from jobs.errors import JobError, StoreError
from jobs.storage.s3 import checked_url, describe, endpoint_of, failure_of, open_s3

SUFFIXES = ("", ".gz", ".zst")
USUAL_SPLIT = "test"
SHOWN_SPLITS = 10


def with_beir(
    settings: Mapping[str, Any], job_file: Path | None = None, say: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """``settings`` with the files of the folder ``beir`` in place of it; settings that are already there are kept.

    Judgments are those of ``split``, else of the split test, else of the only split; ``say`` gets a line where this is
    not the usual choice. ``job_file`` may say how a store is reached. Raises JobError where the folder has
    no queries, no corpus, or no judgments of the split asked for.
    """
    merged = dict(settings)
    place, split = merged.pop("beir", None), merged.pop("split", None)
    if place is None:
        if split is not None:
            raise JobError("--split: needs --beir; without it, give the file of judgments with --qrels")
        return merged
    if split is not None and merged.get("qrels"):
        raise JobError("--split: cannot be combined with --qrels; give one of the two")
    folder = place.rstrip("/") if "://" in place else str(Path(absolute(place)))
    tell = say or (lambda line: None)
    try:
        names, judged = _listed(place, folder, settings, job_file)
    except StoreError as error:
        # The cluster may reach a store that this machine cannot.
        names, judged = ["queries.jsonl", "corpus.jsonl"], [f"{split}.tsv"] if split else []
        tell(
            f"--beir: cannot list {place} from here: {error}; {' and '.join(names)} are assumed there, and "
            f"{'judgments of that split' if split else 'no judgments are read (name them with --split or --qrels)'}"
        )
    files = {name: _file(names, f"{name}.jsonl") for name in ("queries", "corpus")}
    missing = [name for name, file in files.items() if file is None and not merged.get(name)]
    if missing:
        raise JobError(f"beir: {place} has no {' and no '.join(f'{name}.jsonl' for name in missing)}")
    for name, file in files.items():
        if not merged.get(name) and file is not None:
            merged[name] = f"{folder}/{file}"
    if not merged.get("qrels"):
        chosen = _judgments(place, judged, split, tell)
        merged["qrels"] = None if chosen is None else f"{folder}/qrels/{chosen}"
    return merged


def _judgments(place: str, files: Sequence[str], split: str | None, tell: Callable[[str], None]) -> str | None:
    """The file of judgments to take of those in the folder ``qrels``."""
    splits = sorted({name.split(".tsv")[0] for name in files if ".tsv" in name})
    shown = ", ".join(splits[:SHOWN_SPLITS]) + (" …" if len(splits) > SHOWN_SPLITS else "")
    if split is not None and split not in splits:
        there = f"there are {shown}" if splits else "there are none"
        raise JobError(f"--split: {place} has no judgments of {split!r} (qrels/{split}.tsv); {there}")
    if split is None and USUAL_SPLIT not in splits:
        if len(splits) > 1:
            tell(
                f"--beir: {place} has judgments of {shown} but none of {USUAL_SPLIT}, so none are read; choose with "
                f"--split {splits[0]}"
            )
            return None
        if splits:
            tell(f"--beir: judgments are those of {splits[0]}, the only split of {place}")
            return _file(files, f"{splits[0]}.tsv")
        return None
    return _file(files, f"{split or USUAL_SPLIT}.tsv")


def _file(names: Sequence[str], name: str) -> str | None:
    return next((name + suffix for suffix in SUFFIXES if name + suffix in names), None)


def _listed(place: str, folder: str, settings: Mapping[str, Any], job_file: Path | None) -> tuple[list[str], list[str]]:
    """Names of the files in the folder and in its folder ``qrels``."""
    if "://" in folder:
        return _in_store(place, folder, settings, job_file)
    if not Path(folder).is_dir():
        raise JobError(f"beir: there is no folder {place}")
    files = [[path.name for path in one.glob("*") if path.is_file()] for one in (Path(folder), Path(folder, "qrels"))]
    return files[0], files[1]


def _in_store(
    place: str, folder: str, settings: Mapping[str, Any], job_file: Path | None
) -> tuple[list[str], list[str]]:
    if not folder.startswith("s3://"):
        raise JobError(f"beir: {place}: give a folder on this machine, or s3://bucket/folder")
    whole = read_settings(job_file, {"storage": settings.get("storage") or {}})
    storage = validated(StorageOptions, whole.get("storage") or {}, "storage")
    key = checked_url(folder).removeprefix("s3://")
    levels: list[list[str]] = []
    for one in (key, f"{key}/qrels"):
        try:
            listed = open_s3(storage).ls(one, detail=True)
        except FileNotFoundError as error:
            if failure_of(error).kind == "bucket":
                raise StoreError(describe(failure_of(error), folder, "read", endpoint_of(storage))) from None
            listed = []
        except Exception as error:
            failure = failure_of(error)
            if failure.kind == "other" and not isinstance(error, OSError):
                raise
            raise StoreError(describe(failure, folder, "read", endpoint_of(storage))) from None
        levels.append([str(info["name"]).rsplit("/", 1)[-1] for info in listed if info["type"] == "file"])
    if not levels[0] and not levels[1]:
        raise JobError(f"beir: there is no folder {place}")
    return levels[0], levels[1]

"""Folders that the library ``datasets`` saved: which of their Arrow files hold the data.

``save_to_disk`` names its files in ``state.json``; ``map`` and ``filter`` leave ``cache-….arrow`` beside them later. A
``DatasetDict`` is a folder a split, named in ``dataset_dict.json``.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Sequence
from typing import Any

from jobs.errors import SourceError

STATE, SPLITS, INFO = "state.json", "dataset_dict.json", "dataset_info.json"
CACHED = re.compile(r"cache-[0-9a-f]{8,}(_\d+_of_\d+)?\.arrow")
SHOWN_SPLITS = 10

# The bytes of a small file, or None where there is none.
Reader = Callable[[str], bytes | None]


def data_files(paths: Sequence[str], read: Reader, folder: str | None) -> list[str]:
    """Those of ``paths`` that are data, in their order; paths have forward slashes.

    ``folder`` is the one that ``paths`` are all the files of, or None where they were chosen by a pattern. Raises
    SourceError where that folder has several splits, or lacks a file that its ``state.json`` names.
    """
    folders = {posixpath.dirname(path) for path in paths if path.endswith(".arrow")}
    if folder is not None:
        _check_one_split(folders, read, folder.rstrip("/"))
    # A folder is read without such files anyway; a pattern may match them.
    left_out = {path for path in paths if folder is None and _describes(path, folders, read)}
    for one in folders:
        there = {posixpath.basename(path) for path in paths if posixpath.dirname(path) == one}
        left_out |= {f"{one}/{name}" for name in there - _named(one, there, read, whole=folder is not None)}
    return [path for path in paths if path not in left_out]


def _describes(path: str, folders: set[str], read: Reader) -> bool:
    """Whether a file is a description that ``datasets`` wrote, not data."""
    where, name = posixpath.split(path)
    if name == STATE:
        return "_data_files" in _json(read(path))
    return (name == SPLITS and "splits" in _json(read(path))) or (name == INFO and where in folders)


def _named(folder: str, there: set[str], read: Reader, *, whole: bool) -> set[str]:
    """The files of one folder that are data."""
    state = _json(read(f"{folder}/{STATE}"))
    files = state.get("_data_files")
    if isinstance(files, list):
        named = {str(one.get("filename")) for one in files if isinstance(one, dict)}
        if state.get("_indices_data_files") or state.get("_indices_files"):
            raise SourceError(
                f"{folder}: was saved as a selection of rows by an old version of datasets; load it and save it again"
            )
        missing = sorted(named - there)
        if missing and whole:
            raise SourceError(f"{folder}/{STATE}: names {missing[0]}, which is not in the folder")
        # A pattern that matches none of the data was meant for the others.
        return there & named or there
    if _json(read(f"{folder}/{INFO}")):
        return {name for name in there if not CACHED.fullmatch(name)} or there
    return there


def _check_one_split(folders: set[str], read: Reader, root: str) -> None:
    """SourceError where a folder below ``root``, or itself, is a dictionary of several splits."""
    for above in sorted({posixpath.dirname(one) for one in folders}):
        if above != root and not above.startswith(f"{root}/"):
            continue  # one split was asked for by its own folder
        listed = _json(read(f"{above}/{SPLITS}")).get("splits")
        splits = [str(one) for one in listed if f"{above}/{one}" in folders] if isinstance(listed, list) else []
        if len(splits) > 1:
            shown = ", ".join(splits[:SHOWN_SPLITS]) + (" …" if len(splits) > SHOWN_SPLITS else "")
            raise SourceError(f"{above}: holds the splits {shown}; give the folder of one, such as {above}/{splits[0]}")


def _json(data: bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(data) if data else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}

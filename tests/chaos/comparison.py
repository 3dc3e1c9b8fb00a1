"""Whether a run directory holds what it must, the same as an undisturbed one, and nothing else."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.config.sections import StorageOptions
from jobs.run.reader import open_run
from jobs.run.tables import SUCCESS
from jobs.storage.store import Store

TOLERANCE = 1e-5
# Names that the protocol leaves behind, in a run that was killed and finished too.
ALLOWED = (
    r"job\.yaml|_SUCCESS",
    r"plan/(manifest|settings)\.json|plan/(pairs|texts)-[0-9a-f]+\.parquet",
    r"(attributions|texts|rejects)/part-\d{5}\.parquet|rejects/part-plan\.parquet",
    r"logs/.*",
)
# What a process was writing when it was killed; swept by a later run.
ALLOWED_AFTER_A_KILL = r"\.pending/[0-9a-f]{32}"
KEYS = {"attributions": "pair_id", "texts": "text_id", "rejects": "row"}


@dataclass(frozen=True)
class Contents:
    """The rows of a run by table and key, and the names of its files."""

    rows: dict[str, dict[Any, dict[str, Any]]]
    files: frozenset[str]
    finished: bool


def contents(url: str, storage: dict[str, str] | None = None, *, folder: Path | None = None) -> Contents:
    """What lies in a run directory. AssertionError where a key is there twice."""
    options = StorageOptions(**storage) if storage else None
    run = open_run(url, options)
    tables = {"attributions": run.to_table(), "texts": run.texts(), "rejects": run.rejects()}
    rows: dict[str, dict[Any, dict[str, Any]]] = {}
    for name, table in tables.items():
        table = getattr(table, "to_table", lambda table=table: table)()
        found = table.to_pylist()
        count = Counter(row[KEYS[name]] for row in found)
        twice = [key for key, times in count.items() if times > 1]
        assert not twice, f"{name}: {twice[:3]} stands there more than once"
        rows[name] = {row[KEYS[name]]: row for row in found}
    files = _files(Store.open(url, options), folder)
    return Contents(rows, files, SUCCESS in files)


def check_whole(found: Contents, undisturbed: Contents, *, killed: bool = True) -> None:
    """AssertionError, saying what differs, where a finished run is not as the undisturbed one."""
    assert found.finished, "there is no _SUCCESS"
    _check_files(found.files, killed)
    _check_rows(found, undisturbed, set())


def check_without(found: Contents, undisturbed: Contents, missing: set[str]) -> None:
    """The same for a run of which the pairs ``missing`` are not there, and which must say that it is not finished."""
    assert not found.finished, "there is a _SUCCESS although pairs are missing"
    _check_files(found.files, killed=True)
    _check_rows(found, undisturbed, missing)


def _check_files(files: frozenset[str], killed: bool) -> None:
    allowed = [*ALLOWED, ALLOWED_AFTER_A_KILL] if killed else list(ALLOWED)
    stray = sorted(name for name in files if not any(re.fullmatch(one, name) for one in allowed))
    assert not stray, f"files that no run should leave: {', '.join(stray[:5])}"


def _check_rows(found: Contents, undisturbed: Contents, missing: set[str]) -> None:
    for name, expected in undisturbed.rows.items():
        there = found.rows[name]
        if name == "attributions":
            lost = set(expected) - set(there)
            assert lost == missing, f"attributions: {sorted(lost ^ missing)[:5]} are missing, or there unexpectedly"
        elif not missing:
            assert set(expected) == set(there), f"{name}: {sorted(map(str, set(expected) ^ set(there)))[:5]}"
        added = set(there) - set(expected)
        assert not added, f"{name}: {sorted(map(str, added))[:5]} should not be there"
        for key in there:
            difference = _difference(there[key], expected[key])
            assert difference is None, f"{name} {key}: {difference}"


def _difference(found: Any, expected: Any) -> str | None:
    """The first thing in which two values differ, None where they are equal to the tolerance."""
    if isinstance(found, float) and isinstance(expected, float):
        near = math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        return None if near or (math.isnan(found) and math.isnan(expected)) else f"{found} and not {expected}"
    if isinstance(found, dict) and isinstance(expected, dict) and set(found) == set(expected):
        for name in found:
            # The direction of a text is chosen for the shards that are computed together.
            if name == "way":
                continue
            # Cells are sorted by their value, and rounding may swap two.
            first, second = (sorted(v, key=_cell) if name == "top" else v for v in (found[name], expected[name]))
            difference = _difference(first, second)
            if difference:
                return f"{name}: {difference}"
        return None
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        return next((one for one in map(_difference, found, expected) if one), None)
    return None if found == expected else f"{str(found)[:80]!r} and not {str(expected)[:80]!r}"


def _cell(cell: dict[str, Any]) -> tuple[int, int]:
    return cell["i"], cell["j"]


def _files(run: Store, folder: Path | None) -> frozenset[str]:
    """Every file of the run directory, hidden ones too."""
    if folder is not None:
        return frozenset(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())
    names = run._fs.find(run.url.removeprefix("s3://"))  # type: ignore[attr-defined]
    return frozenset(name[len(run.url.removeprefix("s3://")) + 1 :] for name in names)

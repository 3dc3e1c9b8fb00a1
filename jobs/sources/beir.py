"""A BEIR folder as settings: its queries, its corpus and, where there is but one choice, its judgments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.errors import JobError
from jobs.settings import absolute

SUFFIXES = ("", ".gz", ".zst")
USUAL_SPLIT = "test"


def with_beir(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` with the files of the folder ``beir`` in place of it; what they name already stays as it is.

    Judgments are those of the split test, or of the only split there is. Raises JobError where the folder has no
    queries or corpus.
    """
    found = dict(settings)
    place = found.pop("beir", None)
    if place is None:
        return found
    if "://" in place:
        # What an address holds is seen when it is read; judgments are named where they are wanted.
        folder = place.rstrip("/")
        files: dict[str, str | None] = {name: f"{folder}/{name}.jsonl" for name in ("queries", "corpus")}
    else:
        root = Path(absolute(place))
        if not root.is_dir():
            raise JobError(f"beir: there is no folder {place}")
        files = {name: _first(root / f"{name}.jsonl") for name in ("queries", "corpus")}
        missing = [name for name, file in files.items() if file is None]
        if missing:
            raise JobError(f"beir: {place} holds no {' and no '.join(f'{name}.jsonl' for name in missing)}")
        splits = sorted(path for path in (root / "qrels").glob("*.tsv*") if path.is_file())
        usual = _first(root / "qrels" / f"{USUAL_SPLIT}.tsv")
        files["qrels"] = usual or (str(splits[0]) if len(splits) == 1 else None)
    for name, file in files.items():
        if found.get(name) is None:
            found[name] = file
    return found


def _first(path: Path) -> str | None:
    candidates = [path.with_name(path.name + suffix) for suffix in SUFFIXES]
    return next((str(one) for one in candidates if one.is_file()), None)

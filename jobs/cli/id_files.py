"""Files of ids, one a line, that commands take."""

from __future__ import annotations

from pathlib import Path

from jobs.errors import JobError


def read_ids_file(path: Path) -> list[str]:
    """Return the ids in a text file, one a line; JobError where it cannot be read or has none."""
    try:
        ids = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise JobError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise JobError(f"{path}: is not UTF-8 text; give a file with one id a line") from None
    if not ids:
        raise JobError(f"{path}: has no id; give a file with one id a line")
    return ids

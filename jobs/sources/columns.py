"""Which columns of a file hold the two texts, their ids, and what is passed through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.errors import SourceError
from jobs.sources.rows import shown_name

USUAL = {"a": "sentence1", "b": "sentence2"}


@dataclass(frozen=True)
class Chosen:
    """The columns of one file by name: ``used`` maps a, b, id, a_id, b_id (those there are), ``kept`` the others."""

    used: dict[str, str]
    kept: tuple[str, ...]


@dataclass
class ColumnChooser:
    """Fixes the text columns at the first file and holds every further file to them."""

    columns: Any  # jobs.config.job.Columns
    keep: Any  # "all" or a list of names and numbers
    notices: list[str] = field(default_factory=list)
    _texts: dict[str, str] | None = None

    def asked(self) -> list[str]:
        """The names of columns that the job or an earlier file made known."""
        keep = self.keep if isinstance(self.keep, list) else []
        names = [*self.columns.given().values(), *keep, *(self._texts or {}).values()]
        return [name for name in names if isinstance(name, str)]

    def choose(self, file: str, names: Sequence[str], text_names: Sequence[str]) -> Chosen:
        """Columns of a file that has ``names``, ``text_names`` of them text; SourceError when one is missing."""
        used: dict[str, str] = {}
        for role in ("a", "b", "id", "a_id", "b_id"):
            asked = getattr(self.columns, role)
            if asked is not None:
                used[role] = named(file, names, asked, f"columns.{role}")
        if self._texts is None:
            self._texts = self._default_texts(file, names, text_names, used)
        for role, name in self._texts.items():
            used[role] = named(file, names, name, f"columns.{role}")
        twice = next((name for name in used.values() if list(names).count(name) > 1), None)
        if twice is not None:
            raise SourceError(f"{file}: there are two columns {shown_name(twice)!r}; rename one")
        if used["a"] == used["b"]:
            raise SourceError(f"{file}: columns.a and columns.b are both {shown_name(used['a'])!r}")
        if self.keep == "all" or self.keep is None:
            taken = set(used.values())
            kept = tuple(dict.fromkeys(name for name in names if name not in taken))
        else:
            kept = tuple(dict.fromkeys(named(file, names, name, "keep") for name in self.keep))
        return Chosen(dict(sorted(used.items())), kept)

    def _default_texts(
        self, file: str, names: Sequence[str], text_names: Sequence[str], used: dict[str, str]
    ) -> dict[str, str]:
        """Names for the texts that the job does not name: the usual ones, else the first columns of text."""
        open_roles = [role for role in ("a", "b") if role not in used]
        if all(USUAL[role] in names and USUAL[role] not in used.values() for role in open_roles):
            return {role: USUAL[role] for role in open_roles}
        free = [name for name in text_names if name not in used.values()]
        if len(free) < len(open_roles):
            raise SourceError(
                f"{file}: no two text columns for the pair; the columns are {listed(names)}; "
                "name them with columns.a and columns.b"
            )
        taken = dict(zip(open_roles, free, strict=False))
        shown = " and ".join(f"{shown_name(name)!r} as {role}" for role, name in taken.items())
        self.notices.append(f"uses the first text columns: {shown} (set columns.a and columns.b to choose others)")
        return taken


def named(file: str, names: Sequence[str], asked: str | int, setting: str) -> str:
    """The name of a column asked for by name or by its number from 1; SourceError with the columns are."""
    if isinstance(asked, int):
        if 1 <= asked <= len(names):
            return names[asked - 1]
        raise SourceError(f"{file}: {setting}: there is no column {asked}; the file has {len(names)}")
    if asked in names:
        return asked
    raise SourceError(f"{file}: {setting}: there is no column {asked!r}; the columns are {listed(names)}")


def unlike(names: Sequence[str], file: str, notices: list[str]) -> list[str]:
    """Names of a file's columns; a repeated name gets a number, so that no column is lost."""
    distinct: list[str] = []
    for name in names:
        new, count = name, 1
        while new in distinct or (count > 1 and new in names):
            count += 1
            new = f"{name}_{count}"
        if new != name:
            notices.append(f"{file}: a second column {shown_name(name)!r} is called {shown_name(new)!r}")
        distinct.append(new)
    return distinct


def listed(names: Sequence[str]) -> str:
    """Column names for a message, not too many."""
    shown = ", ".join(repr(shown_name(name)) for name in names[:30])
    return (shown + (f" and {len(names) - 30} more" if len(names) > 30 else "")) or "none"

"""Columns in folders' names, as Hive, Spark, DuckDB and pyarrow write them: ``lang=en/year=2024/part.parquet``.

The folders right above a file that are named ``key=value`` are its partitions, also where the place that the job names
is inside them. Names and values are percent-decoded. A file's own column of the same name is taken before them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

import pyarrow as pa

from jobs.errors import SourceError
from jobs.sources.columns import Chosen, ColumnChooser
from jobs.sources.files import InputFile
from jobs.sources.rows import ROLES, PairBatch, shown_name

NULL = "__HIVE_DEFAULT_PARTITION__"
WHOLE = re.compile("-?(0|[1-9][0-9]{0,17})")
SHOWN_KEYS = 10


def folder_values(file: InputFile) -> dict[str, str | None]:
    """Columns and values of the folders above a file, from the outermost on; None is no value.

    Within the folder that all inputs share every folder counts, above it those that follow each other alone: a folder
    further up may have such a name for another reason.
    """
    inside = file.name.count("/") if file.name != file.url else 0
    pairs: list[tuple[str, str | None]] = []
    for depth, part in enumerate(reversed(file.url.replace("\\", "/").split("/")[:-1])):
        name, equals, value = part.partition("=")
        if name and equals:
            pairs.append((_decoded(name), None if value == NULL else _decoded(value)))
        elif depth >= inside:
            break
    return dict(reversed(pairs))


def _decoded(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text


@dataclass
class Partitions:
    """The partitions of all files of an input, and notices about them."""

    types: dict[str, bool]  # whether every value of a key is a whole number
    taken: set[str] = field(default_factory=set)  # keys that a column of the job is made of
    differing: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def of(files: Sequence[InputFile]) -> Partitions:
        """The partitions of ``files``."""
        types: dict[str, bool] = {}
        for file in files:
            for key, value in folder_values(file).items():
                whole = value is None or WHOLE.fullmatch(value) is not None
                types[key] = types.get(key, True) and whole
        return Partitions(types)

    def chooser(self, file: InputFile, chooser: ColumnChooser) -> PartitionChooser | None:
        """A chooser that knows the partitions of ``file`` as well, or None where it has none."""
        values = folder_values(file)
        return PartitionChooser(chooser, values, self) if values else None

    def notices(self) -> list[str]:
        """Lines for the user, once everything is read."""
        lines = []
        keys = [key for key in self.types if key in self.taken]
        if keys:
            shown = ", ".join(repr(shown_name(key)) for key in keys[:SHOWN_KEYS])
            lines.append(f"columns from the folders' names: {shown}{' …' if len(keys) > SHOWN_KEYS else ''}")
        lines += [
            f"column {shown_name(key)!r} is both in the files and in their folders' names, and differs in {count:,} "
            f"{'row' if count == 1 else 'rows'}: the files' values are used"
            for key, count in self.differing.items()
        ]
        return lines


class PartitionChooser(ColumnChooser):
    """Chooses among a file's columns and its partitions; the reader of the file sees its own columns alone."""

    def __init__(self, inner: ColumnChooser, values: dict[str, str | None], partitions: Partitions) -> None:
        super().__init__(inner.columns, inner.keep, inner.notices)
        self._inner = inner
        self._values = values
        self._partitions = partitions
        self._used: dict[str, str] = {}
        self._order: tuple[str, ...] = ()
        self._own: set[str] = set()

    def asked(self) -> list[str]:
        """As of the file alone."""
        return self._inner.asked()

    def choose(self, file: str, names: Sequence[str], text_names: Sequence[str]) -> Chosen:
        """As of the file alone, with the partitions behind its columns."""
        self._own = set(names)
        further = [key for key in self._values if key not in self._own]
        chosen = self._inner.choose(file, [*names, *further], text_names)
        self._used = {role: name for role, name in chosen.used.items() if name in further}
        for role in ("a", "b"):
            if role in self._used:
                name = shown_name(self._used[role])
                raise SourceError(f"{file}: columns.{role}: {name!r} is a folder's name, the same text for every row")
        self._order = chosen.kept
        self._partitions.taken |= {name for name in (*chosen.used.values(), *chosen.kept) if name in further}
        used = {role: name for role, name in chosen.used.items() if role not in self._used}
        return Chosen(used, tuple(name for name in chosen.kept if name not in further))

    def complete(self, batch: PairBatch) -> PairBatch:
        """The batch with the partitions' columns."""
        self._compare(batch)
        table = batch.table
        for role, name in self._used.items():
            value = self._values[name] or None
            table = table.set_column(
                table.schema.get_field_index(role), role, pa.array([value] * len(batch), pa.string())
            )
        kept = {name: batch.kept[name] for name in batch.kept.column_names}
        for name in self._order:
            if name in self._values and name not in self._own and name not in kept:
                kept[name] = self._column(name, len(batch), untyped=batch.untyped)
        order = [name for name in self._order if name in kept]
        order += [name for name in kept if name not in order]
        names = {role: (batch.names | self._used)[role] for role in ROLES if role in batch.names | self._used}
        columns = pa.table({name: kept[name] for name in order})
        return PairBatch(batch.file, table, columns, batch.untyped, batch.rejects, names)

    def _column(self, name: str, size: int, *, untyped: bool) -> pa.Array:
        value = self._values[name]
        if untyped or not self._partitions.types[name]:
            return pa.array([value] * size, pa.string())
        return pa.array([None if value is None else int(value)] * size, pa.int64())

    def _compare(self, batch: PairBatch) -> None:
        """Count the rows in which the file's column differs from the folder's name."""
        roles = {name: role for role, name in batch.names.items()}
        for name in self._own & set(self._values):
            column = batch.kept[name] if name in batch.kept.column_names else None
            if column is None and name in roles:
                column = batch.table[roles[name]]
            if column is not None:
                value = self._values[name]
                other = sum((None if one is None else str(one)) != value for one in column.to_pylist())
                if other:
                    self._partitions.differing[name] = self._partitions.differing.get(name, 0) + other

"""A run directory opened for reading: its pairs as attributions again, its tables, its state."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from attribution_core.hooks import hook
from attribution_core.results import ExplainedText, PairAttribution
from attribution_core.text.grouping import Groups
from jobs.errors import RunError
from jobs.run.manifest import DIFFERENCES, Plan, load_plan
from jobs.run.tables import (
    JOB_FILE,
    LIFTS,
    SUCCESS,
    attribution_schema,
    finished_shards,
    reject_schema,
    reserved_names,
    stored_lift,
    text_schema,
)
from jobs.run.untrusted import as_written, check_cells
from jobs.storage.s3 import StorageSettings
from jobs.storage.store import Store

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    import pyarrow as pa
    import pyarrow.dataset

    from attribution_core.model.modules import Role

# Rows looked at for examples of what a column holds.
FIRST_ROWS = 10_000


class Run:
    """What a job has written so far; everything is read when asked for, and a part that is there is whole."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.url = store.url
        if not (store.exists(JOB_FILE) or store.exists("plan/manifest.json")):
            raise RunError(f"{store.url}: is not a run of tokenpair (it has no {JOB_FILE})")

    def __repr__(self) -> str:
        return f"Run({self.url!r})"

    def _repr_html_(self) -> str:
        return str(hook("run_html")(self))

    @cached_property
    def job(self) -> dict[str, Any]:
        """What `job.yaml` says: the settings, versions and the model's fingerprint; empty where it is missing."""
        from jobs.config.yaml import read_yaml
        from jobs.run.record import MOST_BYTES

        if not self.store.exists(JOB_FILE):
            return {}
        try:
            found = read_yaml(self.store.read(JOB_FILE, most=MOST_BYTES))
        except ValueError:
            raise RunError(f"{self.url}/{JOB_FILE}: is not valid YAML") from None
        if not isinstance(found, dict):
            raise RunError(f"{self.url}/{JOB_FILE}: is not a job of tokenpair")
        return found

    @cached_property
    def plan(self) -> Plan | None:
        """The plan, or None where planning was not finished."""
        return load_plan(self.store)

    @property
    def statistics(self) -> Any:
        """What ``tokenpair stats`` found of this run, a Statistics; RunError where it has not been run."""
        return hook("statistics_of_run")(self)

    @property
    def finished(self) -> bool:
        """Whether every planned shard is there."""
        return self.store.exists(SUCCESS)

    @property
    def unfinished(self) -> str:
        """A sentence for a reader of a run that has more to come, else ""."""
        if self.finished:
            return ""
        there = f", {len(self.finished_shards())} of {len(self.plan.shards)} shards are there" if self.plan else ""
        return f"The run is not finished{there}: documents may be missing."

    def finished_shards(self) -> set[int]:
        """Numbers of the shards that are there."""
        return finished_shards(self.store)

    def dataset(self, folder: str = "attributions") -> pyarrow.dataset.Dataset:
        """The parts of ``attributions``, ``texts`` or ``rejects`` so far as one pyarrow dataset."""
        empty = {"texts": text_schema, "rejects": reject_schema, "attributions": self._attribution_schema}[folder]()
        with self._reading():
            return self.store.dataset(folder, self.format, empty)

    def to_table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """`attributions` as a table, one row a pair; all columns, or those named."""
        dataset = self.dataset()
        missing = [name for name in columns or () if name not in dataset.schema.names]
        if missing:
            raise RunError(f"{self.url}: no column {missing[0]!r}; the columns are {', '.join(dataset.schema.names)}")
        return self._table(dataset, columns=list(columns) if columns is not None else None)

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """:meth:`to_table` as a pandas DataFrame, lists as arrays; ExportError where pandas is not installed."""
        from jobs.run.export import frame_of

        return frame_of(self.to_table(columns))

    def to_datasets(self, columns: Sequence[str] | None = None) -> datasets.Dataset:
        """:meth:`to_table` as a Dataset of Hugging Face; ExportError where the package datasets is not installed."""
        from jobs.run.export import dataset_of

        return dataset_of(self.to_table(columns))

    def texts(self) -> pa.Table:
        """One row a distinct (text, role) that has been explained."""
        return self._table(self.dataset("texts"))

    def rejects(self) -> pa.Table:
        """The rows that were turned away, with place and reason."""
        return self._table(self.dataset("rejects"))

    def pair(self, pair_id: str) -> PairAttribution:
        """One pair's attribution; its matrix is NaN where a cell was not stored, its sums are exact.

        RunError when the run has no such pair, or not yet, or turned it away.
        """
        with as_written(self.url):
            return self._pair(str(pair_id))

    def _pair(self, pair_id: str) -> PairAttribution:
        row = self._row(pair_id)
        a = self._text(row["text_a_id"], self.roles[0])
        b = self._text(row["text_b_id"], self.roles[1])
        return self.attribution(row, a, b)

    def attribution(self, row: dict[str, Any], a: ExplainedText, b: ExplainedText) -> PairAttribution:
        """A row of `attributions` as a pair again, with its two texts."""
        own = reserved_names()
        return PairAttribution(
            a=a,
            b=b,
            matrix=_matrix(row),
            row_sums=np.asarray(row["row_sums"], np.float32),
            col_sums=np.asarray(row["col_sums"], np.float32),
            **{name: row[name] for name in ("score", "reference_a", "reference_b", "reference_ab", "total", "error")},
            row_lift=stored_lift(row, "row_lift"),
            col_lift=stored_lift(row, "col_lift"),
            sums_to=self.sums_to,
            similarity=str(self.setting("similarity") or "cosine"),
            layer=int(self.setting("layer") or 0),
            model=str(self.setting("model") or ""),
            pair_id=row["pair_id"],
            special=row["special"],
            extra={name: value for name, value in row.items() if name not in own},
        )

    def pairs(self, pair_ids: Collection[str]) -> dict[str, PairAttribution]:
        """The attributions of those pairs that are there with both their texts; each part is read once."""
        import pyarrow.compute as pc

        table = self.rows(pc.field("pair_id").isin(list(pair_ids)))
        sides = [
            self.explained(set(table[f"text_{side}_id"].to_pylist()), role)
            for side, role in zip("ab", self.roles, strict=True)
        ]
        found: dict[str, PairAttribution] = {}
        for row in table.to_pylist():
            a, b = (texts.get(row[f"text_{side}_id"]) for side, texts in zip("ab", sides, strict=True))
            if a is not None and b is not None:
                found[row["pair_id"]] = self.attribution(row, a, b)
        return found

    def query(self, query_id: str, by: str | None = None) -> Any:
        """A query and its documents in rank order, a QueryResult, with what each word adds to their scores.

        ``query_id`` is the first text's id, as the log gave it. ``by`` says which words of the documents are marked:
        those with the largest ``lift``, or the largest ``share`` of the sum; by default the lift where the run has it.
        Only the rows of that query are read. RunError when the run has no such query, or none of its rows yet;
        SettingError for a ``by`` that is neither, and for ``lift`` where the run has none.
        """
        with as_written(self.url):
            return hook("query_of_run")(self, str(query_id), by)

    def rows(self, wanted: Any, folder: str = "attributions", columns: Sequence[str] | None = None) -> pa.Table:
        """The rows that meet the pyarrow expression ``wanted``.

        Rows are wide and what is asked of them is narrow: the columns of ``wanted`` are read first, and then the rest
        of those parts alone that hold such a row, one after the other.
        """
        import pyarrow as pa

        dataset = self.dataset(folder)
        chosen = list(columns) if columns is not None else None
        holding = set(self._table(dataset, columns=["__filename"], filter=wanted)["__filename"].to_pylist())
        parts = [
            self._table(fragment, schema=dataset.schema, columns=chosen, filter=wanted)
            for fragment in dataset.get_fragments()
            if getattr(fragment, "path", None) in holding
        ]
        if not parts:
            return dataset.schema.empty_table().select(chosen if chosen is not None else dataset.schema.names)
        return pa.concat_tables(parts)

    def first(self, column: str, count: int) -> list[Any]:
        """Up to ``count`` different values of a column of `attributions`, from its first rows."""
        with self._reading():
            head = self.dataset().head(FIRST_ROWS, columns=[column])
        return list(dict.fromkeys(head[column].to_pylist()))[:count]

    def head(self, count: int, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Those columns of the first ``count`` rows of `attributions`, in the order of its parts."""
        with self._reading():
            return cast("list[dict[str, Any]]", self.dataset().head(count, columns=list(columns)).to_pylist())

    def written_texts(self, text_ids: Collection[str], role: str) -> dict[str, str]:
        """The texts of those ids as they were given; those that are not written yet are left out."""
        import pyarrow.compute as pc

        wanted = pc.field("text_id").isin(list(text_ids)) & (pc.field("role") == role)
        return {row["text_id"]: row["text"] for row in self.rows(wanted, "texts", ("text_id", "text")).to_pylist()}

    def explained(self, text_ids: Collection[str], role: str) -> dict[str, ExplainedText]:
        """The texts of those ids, as the model read them; those that are not written yet are left out."""
        import pyarrow.compute as pc

        wanted = pc.field("text_id").isin(list(text_ids)) & (pc.field("role") == role)
        return {row["text_id"]: self._explained(row) for row in self.rows(wanted, "texts").to_pylist()}

    @property
    def roles(self) -> tuple[Role, Role]:
        """The roles of a pair's two texts, as they stand in `texts`."""
        return ("query", "document") if self._mode == "retrieval" else ("text", "text")

    def setting(self, name: str) -> Any:
        """A setting of the job, or None; what was found out in the run (a layer counted from below, the model's own
        similarity) before what was asked."""
        found = self.job.get("run")
        return found[name] if isinstance(found, dict) and name in found else self.job.get(name)

    @property
    def sums_to(self) -> str:
        """What a pair's cells sum to: score, difference or centred; a run of a version before has differences."""
        if "sums_to" in self.job:
            return str(self.job["sums_to"])
        return "score" if self.plan is not None and self.plan.version > DIFFERENCES else "difference"

    def _row(self, pair_id: str) -> dict[str, Any]:
        import pyarrow.compute as pc

        wanted = pc.field("pair_id") == pair_id
        found = self.rows(wanted).slice(0, 1).to_pylist()
        if found:
            return cast("dict[str, Any]", found[0])
        turned_away = self._table(self.dataset("rejects"), filter=wanted).to_pylist()
        if turned_away:
            one = turned_away[0]
            raise RunError(f"pair {pair_id!r} was turned away: {one['reason']} ({one['file']}, row {one['row']})")
        state = "" if self.finished else "; the run is not finished"
        raise RunError(f"{self.url}: there is no pair {pair_id!r}{state}")

    def _text(self, text_id: str, role: str) -> ExplainedText:
        found = self.explained([text_id], role)
        if not found:
            state = "lacks it" if self.finished else "has not written it yet"
            raise RunError(f"{self.url}: the pair's text {text_id!r} ({role}) is not there: the run {state}")
        return found[text_id]

    def _explained(self, row: dict[str, Any]) -> ExplainedText:
        row = dict(row)
        groups = Groups(
            unit=self.setting("groups") or "word",
            labels=tuple(row.pop("groups")),
            starts=tuple(row.pop("starts")),
            ends=tuple(row.pop("ends")),
            kinds=tuple(row.pop("kinds")),
            of_token=(),  # not kept on disk: groups, not tokens, are what was attributed
        )
        row.pop("text_id")
        return ExplainedText(groups=groups, tokens=tuple(row.pop("tokens")), **row)

    @property
    def _mode(self) -> str:
        return self.plan.mode if self.plan is not None else str(self.setting("mode") or "symmetric")

    @cached_property
    def format(self) -> str:
        """parquet or arrow: what the parts are written in."""
        for folder in ("attributions", "texts", "rejects"):
            for name in self.store.list(folder):
                return "arrow" if name.endswith(".arrow") else "parquet"
        return str(self.setting("format") or "parquet")

    def _attribution_schema(self) -> pa.Schema:
        kept = self.plan.kept if self.plan is not None else None
        return attribution_schema(str(self.setting("store") or "top"), kept)

    def _table(self, dataset: pyarrow.dataset.Dataset | pyarrow.dataset.Fragment, **keywords: Any) -> pa.Table:
        with self._reading():
            return dataset.to_table(**keywords)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            with self.store.guard("read", ""):
                yield
        except pa.ArrowException:
            raise RunError(f"{self.url}: a part of it is damaged") from None


def open_run(path: str | os.PathLike[str], storage: StorageSettings | None = None) -> Run:
    """A finished or unfinished run at a local path or ``s3://…``; RunError when there is none."""
    return Run(Store.open(path, storage))


def _matrix(row: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The cells that were stored, [rows, cols]; NaN elsewhere."""
    shape = (row["rows"], row["cols"])
    check_cells(*shape, *(len(row[name]) for name in ("row_sums", "col_sums")))
    if row.get("row_lift") is not None:
        check_cells(*shape, *(len(row[name]) for name in LIFTS))
    if row.get("matrix") is not None:
        return (np.asarray(row["matrix"], np.float32) * np.float32(row["matrix_scale"])).reshape(shape)
    matrix = np.full(shape, np.nan, np.float32)
    for cell in row["top"]:
        matrix[cell["i"], cell["j"]] = cell["value"]
    return matrix

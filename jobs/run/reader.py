"""Reads a run directory: its pairs as attributions, its tables, its settings and its state."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from attribution_core.hooks import hook
from attribution_core.model.inspection import LATE_SIMILARITIES
from attribution_core.results import ExplainedText, PairAttribution
from attribution_core.text.grouping import UNITS, Groups, Unit
from jobs.config.yaml import read_yaml
from jobs.errors import RunError
from jobs.run.export import dataset_of, frame_of
from jobs.run.manifest import DIFFERENCES, Plan, load_plan
from jobs.run.record import is_index
from jobs.run.stored import stored_interactions, stored_matches, stored_matrix
from jobs.run.tables import (
    JOB_FILE,
    JOB_FILE_MOST_BYTES,
    MANIFEST,
    SUCCESS,
    attribution_schema,
    finished_shards,
    reject_schema,
    reserved_names,
    stored_lift,
    text_schema,
)
from jobs.run.untrusted import as_written
from jobs.storage.s3 import StorageSettings
from jobs.storage.store import Store

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from attribution_core.model.modules import Role

# Rows that are read for examples of the values of a column.
FIRST_ROWS = 10_000


class Run:
    """The results that a job has written so far. Each is read when it is asked for; its parts are never incomplete.

    Raises RunError if ``store`` is not a run directory.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.url = store.url
        if not (store.exists(JOB_FILE) or store.exists(MANIFEST)):
            if is_index(store):
                raise RunError(f"{store.url}: is an index, not a run; tokenpair highlight, stats and status read it")
            raise RunError(f"{store.url}: is not a run of tokenpair (it has no {JOB_FILE})")

    def __repr__(self) -> str:
        return f"Run({self.url!r})"

    def _repr_html_(self) -> str:
        return str(hook("run_html")(self))

    @cached_property
    def job(self) -> dict[str, Any]:
        """The content of ``job.yaml``: settings, versions, the model's fingerprint; empty if it is missing.

        Raises RunError if it is not a job file.
        """
        if not self.store.exists(JOB_FILE):
            return {}
        try:
            job = read_yaml(self.store.read(JOB_FILE, most=JOB_FILE_MOST_BYTES))
        except ValueError:
            raise RunError(f"{self.url}/{JOB_FILE}: is not valid YAML") from None
        if not isinstance(job, dict):
            raise RunError(f"{self.url}/{JOB_FILE}: is not a job of tokenpair")
        return job

    @cached_property
    def plan(self) -> Plan | None:
        """The plan, or None if planning is not finished; raises RunError if it cannot be read."""
        return load_plan(self.store)

    @property
    def statistics(self) -> Any:
        """The results of ``tokenpair stats``, a Statistics; raises RunError if it was not run."""
        return hook("statistics_of_run")(self)

    @property
    def finished(self) -> bool:
        """Whether the run has committed all of its planned shards."""
        return self.store.exists(SUCCESS)

    @property
    def unfinished(self) -> str:
        """A warning that the run is not finished; "" if it is."""
        if self.finished:
            return ""
        done = f", {len(self.finished_shards())} of {len(self.plan.shards)} shards are done" if self.plan else ""
        return f"The run is not finished{done}: documents may be missing."

    def finished_shards(self) -> set[int]:
        """Return the numbers of the committed shards."""
        return finished_shards(self.store)

    def dataset(self, folder: str = "attributions") -> pyarrow.dataset.Dataset:
        """Return the parts of ``attributions``, ``texts`` or ``rejects`` written so far as one pyarrow dataset."""
        if folder != "rejects" and self.plan is not None and self.plan.task == "index":
            raise RunError(
                f"{self.url}: is a build of an index and has no pairs; tokenpair highlight and stats read the index"
            )
        empty = {"texts": text_schema, "rejects": reject_schema, "attributions": self._attribution_schema}[folder]()
        with self._reading():
            return self.store.dataset(folder, self.format, empty)

    def to_table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return ``attributions`` as a table with one row for each pair and all columns, or those named.

        Raises RunError if the run has no such column.
        """
        dataset = self.dataset()
        missing = [name for name in columns or () if name not in dataset.schema.names]
        if missing:
            raise RunError(f"{self.url}: no column {missing[0]!r}; the columns are {', '.join(dataset.schema.names)}")
        return self._table(dataset, columns=list(columns) if columns is not None else None)

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return :meth:`to_table` as a DataFrame with lists as arrays; raises ExportError if pandas is missing."""
        return frame_of(self.to_table(columns))

    def to_datasets(self, columns: Sequence[str] | None = None) -> datasets.Dataset:
        """Return :meth:`to_table` as a Hugging Face Dataset; raises ExportError if datasets is not installed."""
        return dataset_of(self.to_table(columns))

    def texts(self) -> pa.Table:
        """Return a table with one row for each distinct (text, role) explained so far."""
        return self._table(self.dataset("texts"))

    def rejects(self) -> pa.Table:
        """Return the rejected rows with file, row number and reason."""
        return self._table(self.dataset("rejects"))

    def pair(self, pair_id: str) -> PairAttribution:
        """Return the attribution of one pair. Its matrix is NaN where a word pair was not stored; its sums are exact.

        Raises RunError if the run has no such pair, has not written it yet, or rejected it.
        """
        with as_written(self.url):
            return self._pair(str(pair_id))

    def _pair(self, pair_id: str) -> PairAttribution:
        row = self._row(pair_id)
        a = self._text(row["text_a_id"], self.roles[0])
        b = self._text(row["text_b_id"], self.roles[1])
        return self.attribution(row, a, b)

    def attribution(self, row: dict[str, Any], a: ExplainedText, b: ExplainedText) -> PairAttribution:
        """Return the pair that a row of ``attributions`` and its two texts describe."""
        own = self.reserved_names
        return PairAttribution(
            a=a,
            b=b,
            matrix=stored_matrix(row),
            matches=stored_matches(row) if self.late else None,
            interactions=stored_interactions(row) if self.late else None,
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
        """Return the attributions by pair id, without the pairs that are not written with both texts.

        Each part is read once.
        """
        table = self.rows(among("pair_id", pair_ids))
        sides = [
            self.explained(set(table[f"text_{side}_id"].to_pylist()), role)
            for side, role in zip("ab", self.roles, strict=True)
        ]
        pairs: dict[str, PairAttribution] = {}
        for row in table.to_pylist():
            a, b = (texts.get(row[f"text_{side}_id"]) for side, texts in zip("ab", sides, strict=True))
            if a is not None and b is not None:
                pairs[row["pair_id"]] = self.attribution(row, a, b)
        return pairs

    def query(self, query_id: str, by: str | None = None) -> Any:
        """Return a query and its documents in rank order, a QueryResult, with what each word adds to their scores.

        ``query_id`` is the id of the first text, as in the log. ``by`` selects the words of the documents to mark:
        those with the largest ``lift`` or the largest ``share`` of the sum; by default the lift if the run has it.
        Only the rows of that query are read. Raises RunError if the run has no such query or has not written it yet,
        and SettingError for another ``by`` and for ``lift`` if the run has none.
        """
        with as_written(self.url):
            return hook("query_of_run")(self, str(query_id), by)

    def margin(self, query_id: str, a: str | None = None, b: str | None = None) -> Any:
        """Return why document ``a`` scores more, or less, than ``b`` for a query, a Margin, by words and word pairs.

        Without documents it is the query's worst inversion: the highest document that is not relevant and the lowest
        that is; where there is none, the two best documents. Raises RunError if the run has no such query or document.
        """
        with as_written(self.url):
            ids = [None if one is None else str(one) for one in (a, b)]
            return hook("margin_of_run")(self, str(query_id), *ids)

    def rows(self, wanted: Any, folder: str = "attributions", columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows that meet the pyarrow expression ``wanted``, with all columns or those named.

        Rows are wide, so only the columns of ``wanted`` are read first. Then the other columns are read, one part at
        a time, of the parts that have such a row.
        """
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
        """Return up to ``count`` distinct values of a column of ``attributions``, from its first rows."""
        with self._reading():
            head = self.dataset().head(FIRST_ROWS, columns=[column])
        return list(dict.fromkeys(head[column].to_pylist()))[:count]

    def head(self, count: int, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Return ``columns`` of the first ``count`` rows of ``attributions``, in the order of its parts."""
        with self._reading():
            return cast("list[dict[str, Any]]", self.dataset().head(count, columns=list(columns)).to_pylist())

    def written_texts(self, text_ids: Collection[str], role: str) -> dict[str, str]:
        """Return the texts by id, as in the input; texts that are not written yet are missing."""
        wanted = among("text_id", text_ids) & (pc.field("role") == role)
        return {row["text_id"]: row["text"] for row in self.rows(wanted, "texts", ("text_id", "text")).to_pylist()}

    def explained(self, text_ids: Collection[str], role: str) -> dict[str, ExplainedText]:
        """Return the texts by id, as the model read them; texts that are not written yet are missing."""
        wanted = among("text_id", text_ids) & (pc.field("role") == role)
        return {row["text_id"]: self._explained(row) for row in self.rows(wanted, "texts").to_pylist()}

    @property
    def roles(self) -> tuple[Role, Role]:
        """The roles of the two texts of a pair, as in the column ``role`` of ``texts``."""
        return ("query", "document") if self._mode == "retrieval" else ("text", "text")

    def setting(self, name: str) -> Any:
        """Return a setting of the job, or None if it has none of that name.

        The value that the run resolved (a layer counted from 0, the model's own similarity) takes precedence over the
        one that was asked for.
        """
        resolved = self.job.get("run")
        return resolved[name] if isinstance(resolved, dict) and name in resolved else self.job.get(name)

    def unit(self, role: str) -> Unit:
        """Return what is attributed as one in texts of a role: token, word or sentence."""
        groups = self.setting("groups")
        unit = groups.get(role) if isinstance(groups, dict) else groups
        return cast("Unit", unit if unit in UNITS else "word")

    @property
    def units(self) -> str:
        """Return what is attributed as one, as text: ``word``, or ``word or sentence`` where the roles differ."""
        return " or ".join(dict.fromkeys(self.unit(role) for role in self.roles))

    @property
    def has_word_pairs(self) -> bool:
        """Whether the run has word pairs; one of ``level: words`` has only what each word adds."""
        return self.setting("level") != "words"

    @property
    def late(self) -> bool:
        """Whether the run is of a late-interaction model, whose pairs have matches."""
        return self.setting("similarity") in LATE_SIMILARITIES

    @property
    def reserved_names(self) -> set[str]:
        """The columns of ``attributions`` that are tokenpair's own; all others were passed through."""
        return reserved_names(late=self.late)

    @property
    def sums_to(self) -> str:
        """What the word pairs sum to: score, difference or centred. Runs of plan version 4 and older: difference."""
        if "sums_to" in self.job:
            return str(self.job["sums_to"])
        return "score" if self.plan is not None and self.plan.version > DIFFERENCES else "difference"

    def _row(self, pair_id: str) -> dict[str, Any]:
        wanted = pc.field("pair_id") == pair_id
        rows = self.rows(wanted).slice(0, 1).to_pylist()
        if rows:
            return cast("dict[str, Any]", rows[0])
        rejects = self._table(self.dataset("rejects"), filter=wanted).to_pylist()
        if rejects:
            reject = rejects[0]
            raise RunError(f"pair {pair_id!r} was rejected: {reject['reason']} ({reject['file']}, row {reject['row']})")
        state = "" if self.finished else "; the run is not finished"
        raise RunError(f"{self.url}: there is no pair {pair_id!r}{state}")

    def _text(self, text_id: str, role: str) -> ExplainedText:
        texts = self.explained([text_id], role)
        if not texts:
            state = "lacks" if self.finished else "has not written yet"
            raise RunError(f"{self.url}: the run {state} the pair's text {text_id!r} ({role})")
        return texts[text_id]

    def _explained(self, row: dict[str, Any]) -> ExplainedText:
        row = dict(row)
        groups = Groups(
            unit=self.unit(row["role"]),
            labels=tuple(row.pop("groups")),
            starts=tuple(row.pop("starts")),
            ends=tuple(row.pop("ends")),
            kinds=tuple(row.pop("kinds")),
            of_token=(),  # not stored, because attributions are per group and not per token
        )
        row.pop("text_id")
        return ExplainedText(groups=groups, tokens=tuple(row.pop("tokens")), **row)

    @property
    def _mode(self) -> str:
        return self.plan.mode if self.plan is not None else str(self.setting("mode") or "symmetric")

    @cached_property
    def format(self) -> str:
        """The file format of the parts: parquet or arrow."""
        for folder in ("attributions", "texts", "rejects"):
            for name in self.store.list(folder):
                return "arrow" if name.endswith(".arrow") else "parquet"
        return str(self.setting("format") or "parquet")

    def _attribution_schema(self) -> pa.Schema:
        kept = self.plan.kept if self.plan is not None else None
        return attribution_schema(str(self.setting("store") or "top"), kept, late=self.late)

    def _table(self, dataset: pyarrow.dataset.Dataset | pyarrow.dataset.Fragment, **keywords: Any) -> pa.Table:
        with self._reading():
            return dataset.to_table(**keywords)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            with self.store.guard("read", ""):
                yield
        except pa.ArrowException:
            raise RunError(f"{self.url}: a part of the run is damaged") from None


def among(column: str, ids: Collection[str]) -> pc.Expression:
    """Return the expression for :meth:`Run.rows` that is true where ``column`` is one of ``ids``, never for no ids."""
    return pc.field(column).isin(pa.array(list(ids), pa.string()))


def open_run(path: str | os.PathLike[str], storage: StorageSettings | None = None) -> Run:
    """Open a finished or unfinished run at a local path or ``s3://…``; raises RunError if there is none."""
    return Run(Store.open(path, storage))

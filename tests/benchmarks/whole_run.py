"""What ``million.py`` reads of a run directory: seconds by phase, files and bytes, whether every row is right.

It opens the files with pyarrow and DuckDB and not with tokenpair, so that a mistake of the reader hides nothing.
"""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import yaml
from pyarrow import fs
from pyarrow.dataset import Dataset, dataset

LARGEST_ERROR = 1e-4
SAME = 1e-6
PHASES = ("start", "planning", "workers", "first shard", "computing", "summary", "exit")
LOG = re.compile(r"(?:driver|worker)-(\d{8}T\d{6}Z-[0-9a-f]{4}).*\.jsonl")


class CheckError(Exception):
    """Something is not as it must be; the message says what, in one line."""


@dataclass(frozen=True)
class Place:
    """A run directory: the ``url`` that commands get, and the ``path`` of it that pyarrow opens in ``files``."""

    url: str
    files: fs.FileSystem
    path: str

    def inside(self, folder: str = "") -> list[fs.FileInfo]:
        """The files of the run directory, or of one of its folders; none where it is not there."""
        selector = fs.FileSelector(f"{self.path}/{folder}".rstrip("/"), recursive=True, allow_not_found=True)
        return [one for one in self.files.get_file_info(selector) if one.type == fs.FileType.File]

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        with self.files.open_input_stream(f"{self.path}/{name}") as file:
            data: bytes = file.read()
        return data

    def parts(self) -> int:
        """How many shards are committed."""
        return sum(one.base_name.startswith("part-") for one in self.inside("attributions"))

    def shards(self) -> int | None:
        """How many shards are planned; None where there is no plan yet."""
        if not any(one.base_name == "manifest.json" for one in self.inside("plan")):
            return None
        return len(json.loads(self.read("plan/manifest.json"))["shards"])

    def table(self, name: str) -> Dataset:
        """One of the run's tables. Raises CheckError where it has no file."""
        paths = [one.path for one in self.inside(name)]
        if not paths:
            raise CheckError(f"{self.url}: there is no file in {name}")
        return dataset(paths, filesystem=self.files, format="parquet")

    def starts(self) -> list[list[dict[str, Any]]]:
        """The events of each start of the run, driver and workers together, by time; ``time`` in seconds since 1970."""
        found: dict[str, list[dict[str, Any]]] = {}
        for one in self.inside("logs"):
            if name := LOG.fullmatch(one.base_name):
                lines = map(json.loads, self.read(f"logs/{one.base_name}").splitlines())
                found.setdefault(name[1], []).extend(
                    line | {"time": datetime.fromisoformat(line["time"]).timestamp()} for line in lines
                )
        return [sorted(found[name], key=lambda event: event["time"]) for name in sorted(found)]


@dataclass(frozen=True)
class Commits:
    """When the shards of one start were committed, first to last, and how many pairs each has."""

    times: list[float]
    pairs: list[int]

    @staticmethod
    def of(events: list[dict[str, Any]]) -> Commits:
        """From the workers' lines, and from the driver's for those that a killed worker had no time to write."""
        first: dict[int, tuple[float, int]] = {}
        for event in events:
            if event["event"] in ("committed", "shard_done") and event["written"]:
                first.setdefault(event["shard"], (event["time"], event["pairs"]))
        ordered = sorted(first.values())
        return Commits([time for time, _ in ordered], [pairs for _, pairs in ordered])

    @property
    def seconds(self) -> float:
        """From the first commit to the last; 0 where a killed start's log on a bucket came to none."""
        return self.times[-1] - self.times[0] if self.times else 0.0

    def when(self, share: float) -> float:
        """The time at which this share of the pairs was committed."""
        wanted = share * sum(self.pairs)
        done = itertools.accumulate(self.pairs)
        return next(time for time, pairs in zip(self.times, done, strict=True) if pairs >= wanted)


def phases(events: list[dict[str, Any]], began: float, exited: float) -> list[float | None]:
    """Seconds of one start by ``PHASES``, which add up to the whole; None for those that a killed start did not reach.

    ``workers`` ends when the first one has its model, ``computing`` goes from the first commit to the last.
    """
    at = {name: next((e["time"] for e in events if e["event"] == name), None) for name in ("start", "planned", "end")}
    ready = next((event["time"] for event in events if event["event"] == "worker_ready"), None)
    commits = Commits.of(events).times
    last = commits[-1] if commits and at["end"] else None
    reached = [began, at["start"], at["planned"], ready, commits[0] if commits else None, last, at["end"]]
    known = [time for time in reached if time is not None]
    seconds = [after - before for before, after in itertools.pairwise([*known, exited])]
    return [*seconds, *[None] * (len(PHASES) - len(seconds))]


def check_rows(place: Place, source: Path) -> tuple[int, int]:
    """How many pairs of the Parquet file ``source`` are attributed and how many rejected.

    Raises CheckError where a pair is not there exactly once, or not with its own texts, or where its sum is not its
    score.
    """
    with _connected(pairs=dataset(source), attributions=place.table("attributions")) as sql:
        sql.register("texts", place.table("texts"))
        rejects = place.table("rejects").to_table(["pair_id"]) if place.inside("rejects") else pa.table({"pair_id": []})
        sql.register("rejects", rejects.cast(pa.schema([("pair_id", pa.string())])))
        lost, twice, strange = _row(
            sql,
            """WITH there AS (
                SELECT pair_id, count(*) AS times
                FROM (SELECT pair_id FROM attributions UNION ALL SELECT pair_id FROM rejects) GROUP BY pair_id)
            SELECT count(*) FILTER (times IS NULL), count(*) FILTER (times > 1), count(*) FILTER (id IS NULL)
            FROM pairs FULL JOIN there ON id = pair_id""",
        )
        if lost or twice or strange:
            raise CheckError(
                f"{place.url}: {lost:,} pairs are missing, {twice:,} are there more than once, and {strange:,} are "
                "not in the input"
            )
        # Only with a cosine is the unit of `error` that of the score.
        cosine = yaml.safe_load(place.read("job.yaml"))["run"]["similarity"] == "cosine"
        also = f"AND abs(total - score) <= {LARGEST_ERROR}" if cosine else ""
        # A value that is null or no number is not counted as right.
        rows, right, largest = _row(
            sql,
            f"""SELECT count(*), count(*) FILTER (abs(error) <= {LARGEST_ERROR} {also}), max(abs(error))
            FROM attributions""",
        )
        if right < rows:
            raise CheckError(
                f"{place.url}: {rows - right:,} of {rows:,} pairs do not sum to their score within {LARGEST_ERROR:g}; "
                f"the largest error is {largest}"
            )
        (own,) = _row(
            sql,
            """WITH t AS (SELECT DISTINCT text_id, text FROM texts)
            SELECT count(*) FROM attributions JOIN pairs ON pair_id = id
            JOIN t AS a ON text_a_id = a.text_id AND sentence1 = a.text
            JOIN t AS b ON text_b_id = b.text_id AND sentence2 = b.text""",
        )
        if own != rows:
            raise CheckError(f"{place.url}: {abs(rows - own):,} pairs do not have the two texts of the input")
    return rows, len(rejects)


def compare_rows(one: Place, other: Place) -> int:
    """How many pairs two runs have, the same in both.

    Raises CheckError where pair ids differ, scores differ by more than 1e-6, or the strongest word pairs differ and
    are not tied.
    """
    with _connected(one=one.table("attributions"), other=other.table("attributions")) as sql:
        both, alone, moved = _row(
            sql,
            f"""SELECT count(*), count(*) FILTER (one.pair_id IS NULL OR other.pair_id IS NULL),
            count(*) FILTER (NOT coalesce(abs(one.score - other.score) <= {SAME}, false))
            FROM one FULL JOIN other USING (pair_id)""",
        )
        if alone or moved:
            raise CheckError(
                f"{one.url} and {other.url} differ: {alone:,} pairs are in one of them alone, or {moved:,} scores "
                f"differ by more than {SAME:g}"
            )
        cells = "[c.i::INTEGER * 65536 + c.j for c in top] AS cells, [c.value for c in top] AS strengths"
        # Rows that are the same at first sight are not looked at any further.
        doubtful = sql.execute(
            f"""WITH a AS (SELECT pair_id, {cells} FROM one), b AS (SELECT pair_id, {cells} FROM other)
            SELECT pair_id, a.cells, a.strengths, b.cells, b.strengths FROM a JOIN b USING (pair_id)
            WHERE CASE WHEN a.cells <> b.cells THEN true ELSE list_distance(a.strengths, b.strengths) > {SAME} END"""
        )
        while rows := doubtful.fetchmany(10_000):
            for pair, *found in rows:
                if not _same_cells(dict(zip(*found[:2], strict=True)), dict(zip(*found[2:], strict=True))):
                    raise CheckError(f"{one.url} and {other.url} differ: other strongest word pairs of {pair}")
    return int(both)


def _same_cells(one: dict[int, float], other: dict[int, float]) -> bool:
    """Whether two selections of cells are the same, but for cells that tie with the weakest one."""
    if len(one) != len(other):
        return False
    if any(abs(one[cell] - other[cell]) > SAME for cell in one.keys() & other.keys()):
        return False
    weakest = max(min(map(abs, cells.values()), default=0.0) for cells in (one, other))
    return all(
        abs(cells[cell]) <= weakest + SAME
        for cells in (one, other)
        for cell in cells
        if cell not in one or cell not in other
    )


def _connected(**tables: Dataset) -> duckdb.DuckDBPyConnection:
    """A connection that sees ``tables`` and goes to disk beyond 4 GB."""
    sql = duckdb.connect(config={"memory_limit": "4GB", "temp_directory": tempfile.gettempdir()})
    for name, table in tables.items():
        sql.register(name, table)
    return sql


def _row(sql: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    row = sql.execute(query).fetchone()
    assert row is not None
    return row

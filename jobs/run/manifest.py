"""Reads the plan that a run directory holds: its shards, its input files, and the rows rejected while planning."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from jobs.errors import RunError
from jobs.run.tables import MANIFEST
from jobs.storage.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 5
# Plans up to this version have attributions that sum to a difference from reference texts, and no lifts.
DIFFERENCES = 4
# The largest manifest that is read; it grows with the number of shards and of input files.
MOST_BYTES = 512 << 20
# Columns of a shard's pairs; the columns passed through follow them.
PAIR_COLUMNS = ("ordinal", "pair_id", "text_a_id", "text_b_id", "file", "row")
# Assumed lengths of texts where the tokenizer is not available while planning.
ASSUMED_CHARACTERS = 400
ASSUMED_WIDTH = 384
ASSUMED_LIMIT = 512
SPECIAL_TOKENS = 2
# Metadata of the judgments: the number of judged queries that the log lacks.
NOT_IN_LOG = b"judged_queries_not_in_log"

__all__ = [
    "MANIFEST",
    "Calibration",
    "Plan",
    "Rate",
    "Shard",
    "ShardInfo",
    "Work",
    "judgment_schema",
    "load_plan",
    "read_corpus",
    "read_judgments",
    "read_pairs",
    "read_shard",
]


@dataclass(frozen=True)
class Rate:
    """Lengths of the texts of one role. Rates are per hundred tokens, so that plans contain only whole numbers.

    ``characters`` and ``groups`` are per hundred tokens. ``extra`` is the number of prompt and special tokens of a
    text, ``limit`` the largest number of tokens that the model reads. ``sampled`` texts were measured, of which
    ``truncated`` were longer than the limit; both are 0 if the rates are assumed.
    """

    characters: int = ASSUMED_CHARACTERS
    groups: int = 100
    extra: int = SPECIAL_TOKENS
    limit: int = ASSUMED_LIMIT
    sampled: int = 0
    truncated: int = 0


@dataclass(frozen=True)
class Calibration:
    """Rates by role, in the order of the roles' numbers; ``width`` is the largest number of directions of a text."""

    rates: dict[str, Rate]
    width: int = ASSUMED_WIDTH

    @property
    def measured(self) -> bool:
        """Whether the rates were measured on the input rather than assumed."""
        return any(rate.sampled for rate in self.rates.values())

    def tokens_sql(self) -> str:
        """Return an SQL expression of the number of tokens of a text, from the columns ``role`` and ``characters``."""
        return self._by_role(
            lambda r: f"least((characters * 100 + {r.characters - 1}) // {r.characters} + {r.extra}, {r.limit})"
        )

    def groups_sql(self) -> str:
        """Return an SQL expression of the number of groups of a text, from the same columns."""
        return self._by_role(
            lambda r: (
                f"greatest((least((characters * 100 + {r.characters - 1}) // {r.characters} + {r.extra}, {r.limit}) "
                f"- {r.extra}) * {r.groups} // 100, 1)"
            )
        )

    def _by_role(self, sql: Any) -> str:
        cases = " ".join(f"WHEN {number} THEN {sql(rate)}" for number, rate in enumerate(self.rates.values()))
        return f"(CASE role {cases} END)::BIGINT"

    def plain(self) -> dict[str, Any]:
        """Return the calibration as plain values for the manifest."""
        return {"width": self.width, "rates": {role: asdict(rate) for role, rate in self.rates.items()}}

    @staticmethod
    def of(plain: Mapping[str, Any]) -> Calibration:
        """Return the calibration of the values that :meth:`plain` returned."""
        return Calibration({role: Rate(**rate) for role, rate in plain["rates"].items()}, int(plain["width"]))


@dataclass(frozen=True)
class ShardInfo:
    """The size of a shard. ``texts`` counts its distinct texts, including those that other shards need as well."""

    index: int
    pairs: int
    texts: int
    characters: int
    cost: int


@dataclass(frozen=True)
class Work:
    """Sums over all texts of all shards, from which the floating-point operations are estimated.

    ``tokens`` and ``squares`` are Σ S and Σ S² over texts of S tokens. ``moved`` and ``moved_squares`` are the same
    sums with each text counted once for each of its directions.
    """

    texts: int
    tokens: int
    squares: int
    moved: int
    moved_squares: int


@dataclass(frozen=True)
class Plan:
    """The plan of a run.

    ``job`` is the digest of its job. ``texts`` counts distinct (text, role). ``rejected`` counts the rows rejected
    while planning, by reason. ``inputs`` has a dict for each input file: file, size, modified, fingerprint.
    ``centre_file`` has the sample of texts, by role, whose mean embedding a job with centred sums subtracts.
    ``judgments_file`` has the judgments of a log's queries, None for jobs without qrels and for older plans.
    ``index_snapshot`` is the number of the state of the index that a log's documents come from.
    ``corpus_file`` has the hashes of ids and texts of an index's corpus; ``task`` is that of the job: each row of an
    index is planned as a pair of a document with itself. ``kept``
    is the schema of the columns passed through, under their names in the output. ``calibration`` has the rates that
    costs were estimated with, ``lengths`` the characters of distinct texts by role and percentile, ``work`` the sums
    for the estimate, and ``other_levels`` the same for each level that the job does not have, and with an index of the
    corpus. ``warnings`` are the notices that the summary repeats.
    """

    job: str
    shards: tuple[ShardInfo, ...]
    pairs: int
    texts: int
    characters: int
    mode: str
    rejected: dict[str, int]
    inputs: list[dict[str, Any]]
    kept: pa.Schema
    notices: list[str]
    pairs_file: str
    texts_file: str
    calibration: Calibration
    lengths: dict[str, dict[str, int]]
    work: Work
    other_levels: dict[str, Work] = field(default_factory=dict)
    centre_file: str | None = None
    judgments_file: str | None = None
    corpus_file: str | None = None
    index_snapshot: int | None = None
    task: str = "pairs"
    warnings: list[str] = field(default_factory=list)
    version: int = VERSION
    _footers: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def noun(self) -> str:
        """What the rows of the result are, in the singular; ``pairs`` counts them."""
        return "document" if self.task == "index" else "pair"


@dataclass(frozen=True)
class Shard:
    """The pairs and texts of a shard.

    ``pairs`` has ordinal, pair_id, text_a_id, text_b_id, file, row and the columns passed through, sorted by ordinal.
    ``texts`` has each text of the pairs once: text_id, role, text, owner (whether this shard writes its row), shared
    (whether other shards need it as well).
    """

    index: int
    pairs: pa.Table
    texts: pa.Table


def load_plan(run: Store) -> Plan | None:
    """Return the plan of a run, or None if planning is not finished; raises RunError if it cannot be read."""
    import pyarrow as pa  # `tokenpair status` of a finished run does not need it

    if not run.exists(MANIFEST):
        return None
    try:
        manifest = json.loads(run.read(MANIFEST, most=MOST_BYTES))
        if manifest["version"] not in (DIFFERENCES, VERSION):
            raise RunError(f"{run.url}: was planned by another version of tokenpair (plan {manifest['version']})")
        kept = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(manifest["kept"])))
        shards = tuple(ShardInfo(**{k: int(v) for k, v in shard.items()}) for shard in manifest["shards"])
        names = ("job", "pairs_file", "texts_file")
        if not all(isinstance(manifest[name], str) for name in names):
            raise TypeError("names are text")
        same = (*names, "pairs", "texts", "characters", "mode", "rejected", "inputs", "notices")
        return Plan(
            shards=shards,
            kept=kept,
            calibration=Calibration.of(manifest["calibration"]),
            lengths={role: {k: int(v) for k, v in lengths.items()} for role, lengths in manifest["lengths"].items()},
            work=Work(**{k: int(v) for k, v in manifest["work"].items()}),
            other_levels={
                str(level): Work(**{k: int(v) for k, v in work.items()})
                for level, work in manifest.get("other_levels", {}).items()
            },
            centre_file=None if manifest.get("centre_file") is None else str(manifest["centre_file"]),
            judgments_file=None if manifest.get("judgments_file") is None else str(manifest["judgments_file"]),
            corpus_file=None if manifest.get("corpus_file") is None else str(manifest["corpus_file"]),
            index_snapshot=None if manifest.get("index_snapshot") is None else int(manifest["index_snapshot"]),
            task=str(manifest.get("task", "pairs")),
            warnings=[str(line) for line in manifest.get("warnings", [])],
            version=int(manifest["version"]),
            **{key: manifest[key] for key in same},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, pa.ArrowException):
        raise RunError(f"{run.url}/{MANIFEST}: is not a plan of tokenpair") from None


def read_shard(run: Store, plan: Plan, index: int) -> Shard:
    """Return the pairs and texts of shard ``index``; raises RunError if the plan's files are damaged or lack it."""
    return Shard(index, _row_group(run, plan, plan.pairs_file, index), _row_group(run, plan, plan.texts_file, index))


def judgment_schema() -> pa.Schema:
    """Return the schema of the judgments: ids of a query and a document, and the grade of the document."""
    import pyarrow as pa

    return pa.schema([("query", pa.string()), ("document", pa.string()), ("relevance", pa.int32())])


def read_judgments(run: Store, plan: Plan) -> pa.Table | None:
    """Return the judgments of the plan's queries, those of documents without a row too; None if it has none.

    The columns are those of :func:`judgment_schema`, sorted by query and document. The metadata ``NOT_IN_LOG`` has the
    number of judged queries that the log lacks. Raises RunError if the file is damaged.
    """
    import pyarrow as pa

    if plan.judgments_file is None:
        return None
    table = _columns(run, plan.judgments_file, list(judgment_schema().names))
    try:
        return table.cast(judgment_schema().with_metadata(table.schema.metadata))
    except pa.ArrowException:
        raise RunError(f"{run.url}/{plan.judgments_file}: is damaged") from None


def read_pairs(run: Store, plan: Plan, columns: list[str]) -> pa.Table:
    """Return some columns of the pairs of all shards; raises RunError if the file is damaged or lacks one."""
    return _columns(run, plan.pairs_file, columns)


def read_corpus(run: Store, plan: Plan) -> pa.Table:
    """Return the hashes of all documents of an index's corpus, computed now or before: columns hash and text_hash."""
    assert plan.corpus_file is not None, "the plan is of an index"
    return _columns(run, plan.corpus_file, ["hash", "text_hash"])


def _columns(run: Store, name: str, columns: list[str]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def read() -> pa.Table:
        with run.open_input(name) as raw:
            parquet = pq.ParquetFile(raw)
            if not set(columns) <= set(parquet.schema_arrow.names):
                raise RunError(f"{run.url}/{name}: is damaged")
            return parquet.read(columns)

    try:
        return run.attempt("read", name, read)
    except pa.ArrowException:
        raise RunError(f"{run.url}/{name}: is damaged") from None


def _row_group(run: Store, plan: Plan, name: str, index: int) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def read() -> pa.Table:
        with run.open_input(name) as raw:
            # The footer grows with the number of shards, so each process reads it only once.
            parquet = pq.ParquetFile(raw, metadata=plan._footers.get(name))
            plan._footers[name] = parquet.metadata
            if not 0 <= index < parquet.num_row_groups:
                raise RunError(f"{run.url}/{name}: has no shard {index}")
            return parquet.read_row_group(index)

    try:
        return run.attempt("read", name, read)
    except pa.ArrowException:
        raise RunError(f"{run.url}/{name}: is damaged") from None


def encoded(plan: Plan) -> bytes:
    """Return the plan as the bytes of its manifest."""
    typed = ("shards", "kept", "calibration", "work", "other_levels")
    fields = {k: v for k, v in vars(plan).items() if k not in typed and not k.startswith("_")}
    fields["kept"] = base64.b64encode(plan.kept.serialize().to_pybytes()).decode()
    fields["calibration"] = plan.calibration.plain()
    fields["work"] = asdict(plan.work)
    fields["other_levels"] = {level: asdict(work) for level, work in plan.other_levels.items()}
    fields["shards"] = [asdict(shard) for shard in plan.shards]
    return json.dumps(fields, ensure_ascii=False, sort_keys=True, indent=1).encode()

"""The plan that a run directory holds: its shards, what became of the input, and how both are read again."""

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
# Versions up to this one wrote attributions that sum to a difference from the reference, and no lifts.
DIFFERENCES = 4
# Of a manifest; it grows with the number of shards and of input files.
MOST_BYTES = 512 << 20
# Columns of a shard's pairs that come before those passed through.
PAIR_COLUMNS = ("ordinal", "pair_id", "text_a_id", "text_b_id", "file", "row")
# Of a text's length where its tokenizer was not at hand.
ASSUMED_CHARACTERS = 400
ASSUMED_WIDTH = 384
ASSUMED_LIMIT = 512
SPECIAL_TOKENS = 2

__all__ = ["MANIFEST", "Calibration", "Plan", "Rate", "Shard", "ShardInfo", "Work", "load_plan", "read_shard"]


@dataclass(frozen=True)
class Rate:
    """What one role's texts come to. Rates are hundredths, so that plans are whole numbers throughout.

    ``characters`` are characters a hundred tokens, ``groups`` the groups of a hundred tokens, ``extra`` the tokens of
    prompt and special ones, ``limit`` the most tokens that the model reads. ``sampled`` texts were measured, and
    ``truncated`` of them were longer than the limit; 0 where the rates are assumed.
    """

    characters: int = ASSUMED_CHARACTERS
    groups: int = 100
    extra: int = SPECIAL_TOKENS
    limit: int = ASSUMED_LIMIT
    sampled: int = 0
    truncated: int = 0


@dataclass(frozen=True)
class Calibration:
    """Rates by role, in the order of the roles' numbers; ``width`` is the most directions that a text may take."""

    rates: dict[str, Rate]
    width: int = ASSUMED_WIDTH

    @property
    def measured(self) -> bool:
        """Whether the rates were measured, and not assumed."""
        return any(rate.sampled for rate in self.rates.values())

    def tokens_sql(self) -> str:
        """SQL for the tokens of a text of ``role`` with so many ``characters``."""
        return self._by_role(
            lambda r: f"least((characters * 100 + {r.characters - 1}) // {r.characters} + {r.extra}, {r.limit})"
        )

    def groups_sql(self) -> str:
        """SQL for the groups of a text, of the same columns."""
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
        """As plain values for the manifest."""
        return {"width": self.width, "rates": {role: asdict(rate) for role, rate in self.rates.items()}}

    @staticmethod
    def of(plain: Mapping[str, Any]) -> Calibration:
        """The calibration that :meth:`plain` gave."""
        return Calibration({role: Rate(**rate) for role, rate in plain["rates"].items()}, int(plain["width"]))


@dataclass(frozen=True)
class ShardInfo:
    """What a shard holds; ``texts`` counts distinct texts, also those that other shards hold as well."""

    index: int
    pairs: int
    texts: int
    characters: int
    cost: int


@dataclass(frozen=True)
class Work:
    """Sums over all texts of all shards, from which floating-point work follows.

    ``tokens`` and ``squares`` are Σ S and Σ S²; ``moved`` and ``moved_squares`` the same with each text counted once a
    direction.
    """

    texts: int
    tokens: int
    squares: int
    moved: int
    moved_squares: int


@dataclass(frozen=True)
class Plan:
    """What a run will do. ``texts`` counts distinct (text, role); ``rejected`` counts planned rejects by reason.

    ``job`` is the digest of the job that it was made for. ``inputs`` has a dict a file: file, size, modified,
    fingerprint. ``centre_file`` has the sample of texts that a job with centred sums takes the mean of, by role.
    ``kept`` is the schema of the columns passed through, under their names in the output. ``calibration``
    is by what rates lengths were taken for costs, ``lengths`` the characters of distinct texts by role and percentile,
    ``work`` what it all takes. ``warnings`` are the notices that the summary repeats.
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
    centre_file: str | None = None
    warnings: list[str] = field(default_factory=list)
    version: int = VERSION
    _footers: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Shard:
    """``pairs``: ordinal, pair_id, text_a_id, text_b_id, file, row and the kept columns, by ordinal.

    ``texts``: text_id, role, text, owner (this shard writes its row), shared (other shards need it as well); every
    text of the pairs once.
    """

    index: int
    pairs: pa.Table
    texts: pa.Table


def load_plan(run: Store) -> Plan | None:
    """The plan of a run, or None where none was finished; RunError when it cannot be understood."""
    import pyarrow as pa

    if not run.exists(MANIFEST):
        return None
    try:
        found = json.loads(run.read(MANIFEST, most=MOST_BYTES))
        if found["version"] not in (DIFFERENCES, VERSION):
            raise RunError(f"{run.url}: was planned by another version of tokenpair (plan {found['version']})")
        kept = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(found["kept"])))
        shards = tuple(ShardInfo(**{k: int(v) for k, v in one.items()}) for one in found["shards"])
        names = ("job", "pairs_file", "texts_file")
        if not all(isinstance(found[name], str) for name in names):
            raise TypeError("names are text")
        same = (*names, "pairs", "texts", "characters", "mode", "rejected", "inputs", "notices")
        return Plan(
            shards=shards,
            kept=kept,
            calibration=Calibration.of(found["calibration"]),
            lengths={role: {k: int(v) for k, v in one.items()} for role, one in found["lengths"].items()},
            work=Work(**{k: int(v) for k, v in found["work"].items()}),
            centre_file=None if found.get("centre_file") is None else str(found["centre_file"]),
            warnings=[str(line) for line in found.get("warnings", [])],
            version=int(found["version"]),
            **{key: found[key] for key in same},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, pa.ArrowException):
        raise RunError(f"{run.url}/{MANIFEST}: is not a plan of tokenpair") from None


def read_shard(run: Store, plan: Plan, index: int) -> Shard:
    """The pairs and texts of shard ``index``; RunError when the plan's files do not hold it."""
    return Shard(index, _row_group(run, plan, plan.pairs_file, index), _row_group(run, plan, plan.texts_file, index))


def _row_group(run: Store, plan: Plan, name: str, index: int) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def read() -> pa.Table:
        with run.open_input(name) as raw:
            # The footer grows with the number of shards: once a process is enough.
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
    """The plan as the bytes of its manifest."""
    typed = ("shards", "kept", "calibration", "work")
    fields = {k: v for k, v in vars(plan).items() if k not in typed and not k.startswith("_")}
    fields["kept"] = base64.b64encode(plan.kept.serialize().to_pybytes()).decode()
    fields["calibration"] = plan.calibration.plain()
    fields["work"] = asdict(plan.work)
    fields["shards"] = [asdict(shard) for shard in plan.shards]
    return json.dumps(fields, ensure_ascii=False, sort_keys=True, indent=1).encode()

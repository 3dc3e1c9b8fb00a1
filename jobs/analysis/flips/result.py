"""The results of deleting words until two documents change places: of one margin, and over a run's inversions.

``statistics/flips.json`` is :meth:`Flips.to_dict`, ``statistics/flips.parquet`` has one row an inversion, text and rule
(:func:`flip_schema`). With another model than the run's own ``flips`` becomes ``flips-by-<fingerprint>`` in both names.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from attribution_core.hooks import hook
from jobs.analysis.resampling import Mean
from jobs.errors import RunError
from jobs.run.reader import Run
from jobs.run.untrusted import as_written
from jobs.storage.store import Store

FORMAT = 1
NAME = "statistics/flips"


@dataclass(frozen=True)
class Deletions:
    """How many of the ``words`` of a text must go until the two documents change places.

    ``text`` is "document" (the higher one) or "query". ``count`` words go in the order of the attributions, named in
    ``deleted``; None where the order of the documents did not turn with one word left. ``random`` is the mean of
    ``orders`` random orders; those that never turn it count with all words, and ``random_never`` is how many they are.

    ``best`` is the size of the smallest set of words that turns it, by trying all sets of growing size; None where
    sets smaller than ``count`` were too many to try: then no set of ``tried`` words or fewer does.
    """

    text: str
    words: int
    count: int | None
    deleted: tuple[str, ...]
    random: float
    random_never: int
    orders: int
    best: int | None
    tried: int


@dataclass(frozen=True)
class Proof:
    """A margin tested by deletion: the document ``above`` falls below ``below`` when words go.

    ``judge`` is the model that scored the changed texts, ``own_judge`` whether it is the run's.
    """

    above: str
    below: str
    document: Deletions
    query: Deletions
    judge: str
    own_judge: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class FlipMean:
    """The mean number of words of ``text`` that go by ``rule`` until two documents change places.

    ``turned`` is the share of inversions where they do; the others count with all their words.
    """

    text: str
    rule: str
    deletions: Mean
    turned: float


@dataclass(frozen=True)
class FlipLead:
    """How many words fewer go by the attributions than by the rule ``against``, in the same inversions; ``wins`` is the
    share of inversions where they are fewer (equal ones count half)."""

    text: str
    against: str
    fewer: Mean
    wins: float


@dataclass(frozen=True)
class Measured:
    """The number of deletions of one inversion by text and rule; a mean over orders where chance has a part."""

    query_id: str
    above: str
    below: str
    margin: float
    words: dict[str, int]
    deletions: dict[tuple[str, str], float]
    turned: dict[tuple[str, str], float]


@dataclass(frozen=True)
class Flips:
    """Deletions over ``inversions`` inversions, one a query, drawn out of ``of`` of a run; see :class:`FlipMean`.

    ``words`` are the mean numbers of words of the texts. ``orders`` random orders were drawn for each inversion.
    """

    run: str
    model: str
    layer: int
    judge: str
    judge_fingerprint: str
    own_judge: bool
    seed: int
    orders: int
    of: int
    inversions: int
    words: dict[str, float]
    means: tuple[FlipMean, ...]
    leads: tuple[FlipLead, ...]
    measured: tuple[Measured, ...] = ()

    def mean(self, text: str, rule: str) -> FlipMean:
        """Return the mean of one rule."""
        return next(one for one in self.means if (one.text, one.rule) == (text, rule))

    def lead(self, text: str, against: str) -> FlipLead:
        """Return the lead of the attributions over one rule."""
        return next(one for one in self.leads if (one.text, one.against) == (text, against))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in ``flips.json``: the fields but for ``measured``."""
        plain = {name: value for name, value in vars(self).items() if name != "measured"}
        listed = {name: [asdict(one) for one in plain.pop(name)] for name in ("means", "leads")}
        return {"format": FORMAT, **plain, **listed}

    def to_table(self) -> pa.Table:
        """One row an inversion, text and rule."""
        rows = [
            (one.query_id, one.above, one.below, one.margin, text, rule, one.words[text], count, one.turned[text, rule])
            for one in self.measured
            for (text, rule), count in one.deletions.items()
        ]
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(flip_schema())
        arrays = [pa.array(column, field.type) for column, field in zip(columns, flip_schema(), strict=True)]
        return pa.table(arrays, schema=flip_schema())

    def write(self, run: Store) -> list[str]:
        """Write both files into the run; return their names."""
        name = NAME + ("" if self.own_judge else f"-by-{self.judge_fingerprint[:8]}")
        sink = io.BytesIO()
        pq.write_table(self.to_table(), sink, compression="zstd")
        run.replace(f"{name}.parquet", sink.getvalue())
        # The file that names the result comes last.
        run.replace(f"{name}.json", json.dumps(self.to_dict(), ensure_ascii=False, indent=1).encode())
        return [f"{name}.json", f"{name}.parquet"]

    def __str__(self) -> str:
        return str(hook("flips_text")(self))


def flip_schema() -> pa.Schema:
    """Columns of ``flips.parquet``: ``deletions`` are means over orders, ``turned`` the share of orders that turned."""
    texts = [(name, pa.string()) for name in ("query", "above", "below")]
    fields = [*texts, ("margin", pa.float32()), ("text", pa.string()), ("rule", pa.string())]
    return pa.schema([*fields, ("words", pa.int32()), ("deletions", pa.float32()), ("turned", pa.float32())])


def stored_flips(run: Run) -> Flips | None:
    """Return the flips that were stored in a run by its own model, without ``measured``; None where there are none.

    Raises RunError where the file is not tokenpair's.
    """
    if not run.store.exists(f"{NAME}.json"):
        return None
    with as_written(run.url):
        plain = json.loads(run.store.read(f"{NAME}.json"))
        if plain.pop("format") != FORMAT:
            raise RunError(f"{run.url}/{NAME}.json: was written by another version; run tokenpair why --prove again")
        means = tuple(FlipMean(**{**one, "deletions": Mean(**one["deletions"])}) for one in plain.pop("means"))
        leads = tuple(FlipLead(**{**one, "fewer": Mean(**one["fewer"])}) for one in plain.pop("leads"))
        return Flips(**plain, means=means, leads=leads)

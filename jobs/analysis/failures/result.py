"""What the search for kinds of failure returns and stores: kinds with their cases, and what could not be looked at."""

from __future__ import annotations

from pydantic import ValidationError

from jobs.analysis.statistics.schema import FOLDER, Stored
from jobs.errors import RunError
from jobs.run.reader import Run

FILE = f"{FOLDER}/failures.json"
VERSION = 1


class Rate(Stored):
    """What a rule's planted test measured on one collection: the share of ``planted`` cases that it recognised and of
    ``controls``, which share all but the cause, that it took for one."""

    collection: str
    planted: int
    controls: int
    recognised: float
    false_alarms: float
    of: str = ""

    def __str__(self) -> str:
        of = f", {self.of}" if self.of else ""
        return f"{self.recognised:.0%} recognised at {self.false_alarms:.0%} false alarms ({self.collection}{of})"


class Case(Stored):
    """One case. ``document_id`` is the document that the rule speaks of, ``other_id`` the one it is compared with;
    ``words`` are the words or the sentence that set the rule off, and ``text`` says it in one line."""

    query_id: str
    document_id: str | None = None
    other_id: str | None = None
    words: tuple[str, ...] = ()
    text: str = ""


class Kind(Stored):
    """One kind of failure in ``count`` of ``of`` queries; ``low`` and ``high`` are the ends of the 95 % interval of
    their ratio, None where it has none. ``of_what`` names these queries; ``rates`` are those of its planted test."""

    name: str
    title: str
    advice: str
    count: int
    of: int
    low: float | None
    high: float | None
    cases: tuple[Case, ...]
    rates: tuple[Rate, ...]
    of_what: str = "failing queries"

    @property
    def share(self) -> float | None:
        """count / of; None of nothing."""
        return self.count / self.of if self.of else None

    @property
    def above_chance(self) -> bool:
        """Whether it occurs more often than the false alarms of its rule alone would make it."""
        alarms = [rate.false_alarms for rate in self.rates]
        return self.low is not None and self.low > (sum(alarms) / len(alarms) if alarms else 0.0)


class IdenticalWord(Stored):
    """A word of a query that of two documents only the wrong one has.

    ``documents`` of the run's documents have it, ``idf`` is ln(all / documents), and ``share`` is its part of the
    margin between the two scores; None where the margin is zero.
    """

    word: str
    documents: int
    idf: float
    share: float | None


class OnlyInWrong(Stored):
    """The identical words that only the wrong document ``above`` has, not the right one ``below``; a description of the
    inversion, not its cause."""

    query_id: str
    above: str
    below: str
    words: tuple[IdenticalWord, ...]


class Failures(Stored):
    """Kinds of failure in a run.

    ``failing`` of ``judged`` queries have a document that is not relevant above a relevant one. ``looked_at`` queries
    were examined: failing ones where there are judgments, else any. ``cut`` of ``documents`` documents are longer than
    the model reads. ``with_model`` says whether the model was there for the rules that need it, and ``notes`` what was
    left out and why.
    """

    version: int = VERSION
    queries: int
    judged: int
    failing: int
    looked_at: int
    documents: int
    cut: int
    with_model: bool
    kinds: tuple[Kind, ...]
    only_in_wrong: tuple[OnlyInWrong, ...] = ()
    notes: tuple[str, ...] = ()

    def kind(self, name: str) -> Kind | None:
        """Return the kind of that name; None where it was left out."""
        return next((kind for kind in self.kinds if kind.name == name), None)

    def of_query(self, query_id: str) -> list[tuple[Kind, Case]]:
        """Return the cases of one query, each with its kind."""
        return [(kind, case) for kind in self.kinds for case in kind.cases if case.query_id == query_id]


def write_failures(run: Run, failures: Failures) -> str:
    """Store them in the run directory; returns the file's name."""
    run.store.replace(FILE, failures.model_dump_json(indent=1).encode())
    return FILE


def stored_failures(run: Run) -> Failures | None:
    """Return what ``tokenpair probe`` stored, as it was then; None where it was not run or another version wrote it.

    Raises RunError where the file is damaged.
    """
    if not run.store.exists(FILE):
        return None
    data = run.store.read(FILE)
    try:
        return Failures.model_validate_json(data)
    except ValidationError:
        if b'"version": 1' in data:
            raise RunError(f"{run.url}/{FILE}: is damaged; write it again with: tokenpair probe {run.url}") from None
        return None

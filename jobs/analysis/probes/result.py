"""What probes return and store: for each edit the change of the score, its control, and how often the order turns."""

from __future__ import annotations

from pydantic import ValidationError

from jobs.analysis.statistics.schema import FOLDER, Stored
from jobs.run.reader import Run

FILE = f"{FOLDER}/probes.json"
VERSION = 1
# A change of the score below this is called small.
SMALL = 0.02


class Estimate(Stored):
    """A mean over pairs and the ends of its 95 % interval over queries, None where there are fewer than two."""

    value: float
    low: float | None
    high: float | None


class Probe(Stored):
    """One edit of ``pairs`` documents; ``skipped`` offered nothing to edit.

    ``change`` is the score of the edited text less that of the original, ``control_change`` that of the control, and
    ``difference`` the first less the second, pair by pair. ``small`` is the share of pairs whose change is below SMALL.
    ``above`` is the share of pairs whose edited text scores above the original, ``control_above`` the same of the
    control; None for the prompt, where both documents change. ``turned`` is the share of the ``with_next`` pairs above
    the next document of their query that fall below it, ``control_turned`` the same of the control.
    """

    name: str
    title: str
    control: str
    contradicts: bool
    pairs: int
    skipped: int
    change: Estimate
    control_change: Estimate
    difference: Estimate
    small: Estimate
    above: Estimate | None
    control_above: Estimate | None
    with_next: int
    turned: Estimate | None
    control_turned: Estimate | None


class Probes(Stored):
    """Probes of a model on ``pairs`` documents of a run, one a query, of ``of`` queries."""

    version: int = VERSION
    model: str
    similarity: str
    pairs: int
    of: int
    seed: int
    probes: tuple[Probe, ...]
    notes: tuple[str, ...] = ()

    def probe(self, name: str) -> Probe | None:
        """Return the probe of that name; None where no document offered anything to edit."""
        return next((one for one in self.probes if one.name == name), None)


def write_probes(run: Run, probes: Probes) -> str:
    """Store them in the run directory; returns the file's name."""
    run.store.replace(FILE, probes.model_dump_json(indent=1).encode())
    return FILE


def stored_probes(run: Run) -> Probes | None:
    """Return what ``tokenpair probe`` stored; None where it was not run, or its file is not one of this version."""
    if not run.store.exists(FILE):
        return None
    try:
        return Probes.model_validate_json(run.store.read(FILE))
    except ValidationError:
        return None

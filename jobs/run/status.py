"""Reads the progress of a run from its run directory alone: the committed shards and the states that drivers wrote."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from jobs.errors import RunError
from jobs.progress import counted, duration
from jobs.run.event_log import FOLDER
from jobs.run.manifest import MANIFEST, Plan, load_plan
from jobs.run.tables import JOB_FILE, SUCCESS, finished_shards
from jobs.run.totals import Totals
from jobs.storage.store import Store

# A driver whose last heartbeat is older than this is gone; a short outage of the store is allowed for.
ALIVE_SECONDS = 45.0
AT_WORK = ("planning", "starting", "running")
STARTS_READ = 4
# Many times the size of a state or summary; a larger file is from another program and is not read.
MOST_BYTES = 16 << 20
SHOWN = 10


@dataclass(frozen=True)
class Status:
    """The progress of a run.

    ``state`` is planning, starting, running, finished, incomplete (ended with shards missing), stopped (by a signal),
    failed (because of ``reason``), lost (the driver ended without writing a state) or unknown (there is no state).
    ``seen_seconds`` is the age of the driver's last heartbeat in seconds, ``drivers`` the number of drivers at work,
    ``rate`` the pairs per second. ``rate``, ``workers`` and ``retries`` are of the last start.
    """

    url: str
    state: str
    reason: str = ""
    host: str = ""
    process: int | None = None
    began: str = ""
    seen_seconds: float | None = None
    drivers: int = 0
    shards: int | None = None
    done: int = 0
    running: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    pairs: int | None = None
    pairs_done: int = 0
    rate: float = 0.0
    seconds_left: float | None = None
    workers: dict[str, int] = field(default_factory=dict)
    retries: int = 0
    errors: list[dict[str, str]] = field(default_factory=list)
    totals: Totals | None = None
    noun: str = "pair"

    def plain(self) -> dict[str, Any]:
        """Return the status as plain values for ``--json``."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the status as lines for the user."""
        lines = [f"run      {self.url}", f"state    {self._sentence()}"]
        if self.totals is not None:
            return [*lines, *self.totals.lines()]
        if self.shards is None:
            return lines
        words = [f"{self.done:,} of {self.shards:,} done"]
        if self.running:
            words.append(f"{len(self.running):,} running")
        if self.failed:
            words.append(f"{len(self.failed):,} failed")
        lines.append(f"shards   {', '.join(words)}")
        words = [f"{self.pairs_done:,} of {self.pairs or 0:,}"]
        if self.state in AT_WORK and self.rate:
            words.append(f"{self.rate:,.1f} {self.noun}s/s")
        if self.seconds_left is not None:
            words.append(f"about {duration(self.seconds_left)} left")
        lines.append(f"{'pairs    ' if self.noun == 'pair' else 'texts    '}{', '.join(words)}")
        if self.state in AT_WORK and any(self.workers.values()):
            kinds = (("ready", "at work"), ("starting", "starting"), ("waiting", "waiting for a machine"))
            words = [f"{self.workers[kind]:,} {what}" for kind, what in kinds if self.workers.get(kind)]
            lines.append(f"workers  {', '.join(words) or 'none'}")
        if self.retries:
            lines.append(f"retries  {counted(self.retries, 'shard')} had to be tried again")
        lines += [f"error    {error.get('time', '')}  {error.get('what', '')}" for error in self.errors]
        lines += [f"FAILED   shard {shard}: {reason}" for shard, reason in list(self.failed.items())[:SHOWN]]
        if len(self.failed) > SHOWN:
            lines.append(f"FAILED   and {counted(len(self.failed) - SHOWN, 'further shard')}")
        return lines

    def _sentence(self) -> str:
        seen = "" if self.seen_seconds is None else f"; last sign of life {duration(max(self.seen_seconds, 0.0))} ago"
        where = f" on {self.host} (process {self.process})" if self.host else ""
        if self.state in AT_WORK:
            others = f"; {self.drivers} drivers are at work" if self.drivers > 1 else ""
            return f"{self.state}{where}{seen}{others}"
        again = "the same command goes on with it"
        return {
            "finished": "finished",
            "incomplete": f"ended with shards missing{where}; {again}",
            "stopped": f"stopped by {self.reason or 'a signal'}{where}; {again}",
            "failed": f"ended by an error{where}: {self.reason}",
            "lost": f"not finished, and its driver{where} is gone{seen}; {again}",
        }.get(self.state, f"not finished; {again}")


def read_status(run: Store) -> Status:
    """Return the status of ``run``; raises RunError if the directory is not a run."""
    states = _states(run)
    finished = run.exists(SUCCESS)
    if not (states or finished or run.exists(JOB_FILE) or run.exists(MANIFEST)):
        raise RunError(f"{run.url}: is not a run of tokenpair (it has no {JOB_FILE})")
    alive = [state for state in states if _phase(state) in AT_WORK and _age(state) < ALIVE_SECONDS]
    last = (alive or states or [{}])[0]
    if finished:
        return Status(run.url, "finished", totals=_totals(run), **_who(last))
    # The plan is read before the parts: if the run is restarted in between, no part belongs to a later plan.
    plan = load_plan(run)
    done = finished_shards(run)
    phase = _phase(last)
    state = "lost" if phase in AT_WORK and not alive else phase or "unknown"
    shards = _mapping(last, "shards")
    failed = {int(k): str(v) for k, v in _mapping(shards, "failed").items() if re.fullmatch(r"[0-9]{1,9}", k)}
    running = [n for n in _listed(shards, "running") if isinstance(n, int) and n not in done] if alive else []
    rate = _number(last, "rate")
    pairs_done = _pairs(plan, done)
    left = (plan.pairs - pairs_done) / rate if plan is not None and rate > 0 and state == "running" else math.inf
    return Status(
        run.url,
        state,
        reason=str(last.get("reason") or ""),
        drivers=len(alive),
        shards=None if plan is None else len(plan.shards),
        done=len(done),
        running=running,
        failed={shard: why for shard, why in failed.items() if shard not in done},
        pairs=None if plan is None else plan.pairs,
        pairs_done=pairs_done,
        noun="pair" if plan is None else plan.noun,
        rate=rate,
        seconds_left=left if math.isfinite(left) else None,
        workers={k: int(v) for k, v in _mapping(last, "workers").items() if isinstance(v, int)},
        retries=int(_number(last, "retries")),
        errors=[{str(k): str(v) for k, v in e.items()} for e in _listed(last, "errors") if isinstance(e, dict)],
        **_who(last),
    )


def _states(run: Store) -> list[dict[str, Any]]:
    """Return the states that the last starts wrote, the newest first; their file names sort by time."""
    names = [name for name in run.list(FOLDER) if re.fullmatch(rf"{FOLDER}/state-[\w-]+\.json", name)]
    states: list[dict[str, Any]] = []
    for name in sorted(names, reverse=True)[:STARTS_READ]:
        try:
            state = json.loads(run.read(name, most=MOST_BYTES))
        except (ValueError, RecursionError):
            continue
        if isinstance(state, dict):
            states.append(state)
    return states


def _who(state: dict[str, Any]) -> dict[str, Any]:
    process = state.get("process")
    return {
        "host": str(state.get("host") or ""),
        "process": process if isinstance(process, int) else None,
        "began": str(state.get("began") or ""),
        "seen_seconds": round(age, 1) if math.isfinite(age := _age(state)) else None,
    }


def _phase(state: dict[str, Any]) -> str:
    return str(state.get("phase") or "")


def _age(state: dict[str, Any]) -> float:
    """Return the seconds since a state was written, by this machine's clock; infinite if that is unknown."""
    try:
        then = datetime.fromisoformat(str(state.get("updated")))
        return (datetime.now(UTC) - then).total_seconds()
    except (ValueError, TypeError):
        return float("inf")


def _pairs(plan: Plan | None, done: set[int]) -> int:
    return sum(shard.pairs for shard in plan.shards if shard.index in done) if plan is not None else 0


def _totals(run: Store) -> Totals:
    try:
        return Totals.of(json.loads(run.read(SUCCESS, most=MOST_BYTES)))
    except (ValueError, TypeError, RecursionError):
        return Totals()


# Others may have written the run directory: a value of another type than expected counts as empty.


def _mapping(state: dict[str, Any], name: str) -> dict[str, Any]:
    value = state.get(name)
    return value if isinstance(value, dict) else {}


def _listed(state: dict[str, Any], name: str) -> list[Any]:
    value = state.get(name)
    return value if isinstance(value, list) else []


def _number(state: dict[str, Any], name: str) -> float:
    value = state.get(name)
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
    except OverflowError:
        return 0.0
    return number if math.isfinite(number) else 0.0

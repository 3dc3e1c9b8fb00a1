"""Where a run stands, told from its run directory alone: what is committed, and what its starts wrote of themselves."""

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

# Longer than a start takes to say again that it is there, a store that was away for a while included.
ALIVE_SECONDS = 45.0
AT_WORK = ("planning", "starting", "running")
STARTS_READ = 4
# Many times what a start or a finished run writes of itself; more is from elsewhere and is not read.
MOST_BYTES = 16 << 20
SHOWN = 10


@dataclass(frozen=True)
class Status:
    """Where a run stands.

    ``state`` is planning, starting, running, finished, incomplete (ended with shards missing), stopped (by a signal),
    failed (of ``reason``), lost (its driver is gone without a word) or unknown (nobody wrote of it). ``seen_seconds``
    ago the driver gave its last sign of life; ``drivers`` are at work. Rate, workers and retries are of the last start.
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

    def plain(self) -> dict[str, Any]:
        """As plain values for ``--json``."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What a user reads."""
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
            words.append(f"{self.rate:,.1f} pairs/s")
        if self.seconds_left is not None:
            words.append(f"about {duration(self.seconds_left)} left")
        lines.append(f"pairs    {', '.join(words)}")
        if self.state in AT_WORK and any(self.workers.values()):
            kinds = (("ready", "at work"), ("starting", "starting"), ("waiting", "waiting for a machine"))
            words = [f"{self.workers[kind]:,} {what}" for kind, what in kinds if self.workers.get(kind)]
            lines.append(f"workers  {', '.join(words) or 'none'}")
        if self.retries:
            lines.append(f"retries  {counted(self.retries, 'shard')} had to be tried again")
        lines += [f"error    {one.get('time', '')}  {one.get('what', '')}" for one in self.errors]
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
    """Where ``run`` stands; RunError where there is none."""
    states = _states(run)
    finished = run.exists(SUCCESS)
    if not (states or finished or run.exists(JOB_FILE) or run.exists(MANIFEST)):
        raise RunError(f"{run.url}: is not a run of tokenpair (it has no {JOB_FILE})")
    alive = [one for one in states if _phase(one) in AT_WORK and _age(one) < ALIVE_SECONDS]
    last = (alive or states or [{}])[0]
    if finished:
        return Status(run.url, "finished", totals=_totals(run), **_who(last))
    # The plan before the parts, so that a part is never of a plan that came later.
    plan = load_plan(run)
    done = finished_shards(run)
    phase = _phase(last)
    state = "lost" if phase in AT_WORK and not alive else phase or "unknown"
    told = _mapping(last, "shards")
    failed = {int(k): str(v) for k, v in _mapping(told, "failed").items() if re.fullmatch(r"[0-9]{1,9}", k)}
    running = [n for n in _listed(told, "running") if isinstance(n, int) and n not in done] if alive else []
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
        rate=rate,
        seconds_left=left if math.isfinite(left) else None,
        workers={k: int(v) for k, v in _mapping(last, "workers").items() if isinstance(v, int)},
        retries=int(_number(last, "retries")),
        errors=[{str(k): str(v) for k, v in one.items()} for one in _listed(last, "errors") if isinstance(one, dict)],
        **_who(last),
    )


def _states(run: Store) -> list[dict[str, Any]]:
    """What the last starts wrote of themselves, the newest first; names sort by time."""
    names = [name for name in run.list(FOLDER) if re.fullmatch(rf"{FOLDER}/state-[\w-]+\.json", name)]
    found: list[dict[str, Any]] = []
    for name in sorted(names, reverse=True)[:STARTS_READ]:
        try:
            state = json.loads(run.read(name, most=MOST_BYTES))
        except (ValueError, RecursionError):
            continue
        if isinstance(state, dict):
            found.append(state)
    return found


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
    """Seconds since a state was written, by this machine's clock."""
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


# A run directory may have been written by anybody: what is not of the kind it should be counts as nothing.


def _mapping(state: dict[str, Any], name: str) -> dict[str, Any]:
    found = state.get(name)
    return found if isinstance(found, dict) else {}


def _listed(state: dict[str, Any], name: str) -> list[Any]:
    found = state.get(name)
    return found if isinstance(found, list) else []


def _number(state: dict[str, Any], name: str) -> float:
    found = state.get(name)
    try:
        number = float(found) if isinstance(found, int | float) and not isinstance(found, bool) else 0.0
    except OverflowError:
        return 0.0
    return number if math.isfinite(number) else 0.0

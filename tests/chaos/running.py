"""Which runs are made, and one run from its beginning to its verdict."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Sequence

from chaos.cases import Case, HungError, NotPossibleError, Run
from chaos.ground import Ground
from chaos.report import Result


def drawn(cases: Sequence[Case], runs: int, chance: random.Random) -> list[tuple[Case, str]]:
    """So many runs, each case in its share, in random order; every run with a seed of its own."""
    # Round the cases again and again, the frequent ones longest: any number of runs has many kinds.
    rounds = max(case.of_fifty for case in cases)
    order = [case for n in range(rounds) for case in cases if n < case.of_fifty]
    chosen = list(itertools.islice(itertools.cycle(order), runs))
    chance.shuffle(chosen)
    return [(case, f"{case.act.__name__}:{chance.randrange(1 << 32)}") for case in chosen]


def attempt(ground: Ground, case: Case, seed: str, *, outage_seconds: float | None = None) -> Result:
    """Make one run and judge it; nothing it started is left."""
    run = Run(ground, random.Random(seed), seed.split(":")[0])
    if outage_seconds is not None:
        run.outage_seconds = outage_seconds
    began = time.monotonic()
    next_commit, problem, skipped = None, "", False
    try:
        job = case.act(run)
        next_commit = run.next_commit(job)
    except NotPossibleError as error:
        run.how.append(str(error))
        skipped = True
    except (AssertionError, HungError) as error:
        problem = str(error)
    finally:
        for driver in run.drivers:
            with contextlib.suppress(ProcessLookupError):
                driver.end()
    ended = ", then ".join(run.ended) or "–"
    return Result(case.title, seed, ", ".join(run.how), ended, next_commit, time.monotonic() - began, problem, skipped)

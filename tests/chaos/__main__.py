"""Disturb so many runs and say what came of them: ``python -m tests.chaos --runs 50 --seed 1``."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent)]


def _main() -> int:
    from chaos.cases import CASES
    from chaos.ground import Ground
    from chaos.report import table
    from chaos.running import attempt, drawn

    names = [case.act.__name__ for case in CASES]
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="how many runs; fifty have every case in its share")
    parser.add_argument("--seed", type=int, default=1, help="another number, other moments")
    parser.add_argument("--case", choices=names, action="append", help="only this case; repeatable")
    parser.add_argument("--only", metavar="NAME:SEED", action="append", help="exactly this run, as a failure told it")
    parser.add_argument("--keep", action="store_true", help="leave the folder of jobs and logs, and say where it is")
    given = parser.parse_args()

    by_name = {case.act.__name__: case for case in CASES}
    runs = [(by_name[one.split(":")[0]], one) for one in given.only or ()]
    runs = runs or drawn([by_name[name] for name in given.case or names], given.runs, random.Random(given.seed))
    folder = Path(tempfile.mkdtemp(prefix="tokenpair-chaos-"))
    began = time.monotonic()
    results = []
    try:
        with Ground.laid(folder) as ground:
            print(f"undisturbed: {ground.undisturbed_seconds:.0f} s", flush=True)
            for number, (case, seed) in enumerate(runs, 1):
                results.append(attempt(ground, case, seed))
                print(results[-1].line(number, len(runs)), flush=True)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    except Exception:
        traceback.print_exc()
        return 2
    finally:
        bad = any(result.problem for result in results)
        if given.keep or bad:
            print(f"jobs and logs are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{table(results)}\n")
    print(f"{len(results)} runs in {(time.monotonic() - began) / 60:.1f} min, seed {given.seed}")
    return 1 if bad or not results else 0


if __name__ == "__main__":
    raise SystemExit(_main())

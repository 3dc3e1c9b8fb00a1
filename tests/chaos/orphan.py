"""A worker that outlives its driver: it goes on computing and committing while a rerun does the same.

Ray ends the workers of a dead driver, sooner or later; on a cluster whose network is cut it may be much later. This one
is no actor, so that it is there for as long as the test needs it: ``python -m chaos.orphan JOB.yaml SEED``.
"""

from __future__ import annotations

import random
import sys

from chaos.worker import ChaosWorker
from jobs.config.job import load_job
from jobs.run.manifest import load_plan
from jobs.run.tables import finished_shards
from jobs.storage.store import Store


def _main(file: str, seed: str) -> None:
    job = load_job(file)
    run = Store.open(job.output, job.storage)
    plan = load_plan(run)
    assert plan is not None, "there is no plan to go on with"
    worker = ChaosWorker(job.model_dump(mode="json"), run.url, 1, "cpu", plan.pairs_file)
    worker.load()
    left = sorted(set(range(len(plan.shards))) - finished_shards(run))
    random.Random(seed).shuffle(left)
    for shard in left:
        worker.run_shard(shard)


if __name__ == "__main__":
    _main(*sys.argv[1:])

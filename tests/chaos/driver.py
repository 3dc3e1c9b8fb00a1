"""``tokenpair`` as a user has it, but for the class of its workers."""

from __future__ import annotations

import faulthandler
import functools
import signal
from pathlib import Path

if __name__ == "__main__":
    # A driver that hangs is asked where before it is ended.
    faulthandler.register(signal.SIGUSR1, all_threads=True)

    import jobs.engine
    from chaos.worker import ChaosWorker, note
    from jobs.cli import main

    jobs.engine.run_job = functools.partial(jobs.engine.run_job, worker_class=ChaosWorker)  # type: ignore[assignment]
    note(Path("model", "chaos"), "driver")
    main()

"""``tokenpair`` as a user has it, but for the class of its workers."""

from __future__ import annotations

import faulthandler
import functools
import signal
from pathlib import Path

if __name__ == "__main__":
    # A driver that hangs is asked where before it is ended.
    faulthandler.register(signal.SIGUSR1, all_threads=True)

    import jobs.engine.driver
    from chaos.worker import ChaosWorker, note
    from jobs.cli.main import main

    jobs.engine.driver.run_job = functools.partial(jobs.engine.driver.run_job, worker_class=ChaosWorker)  # type: ignore[assignment]
    note(Path("model", "chaos"), "driver")
    main()

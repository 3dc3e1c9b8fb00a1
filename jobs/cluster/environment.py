"""The environment that tokenpair's processes run in: libraries that do not print, threads that do not spin."""

from __future__ import annotations

import logging
import os
import warnings

# Read by the libraries when they are imported, so they stand in the environment before that; workers inherit them.
QUIET_ENVIRONMENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
}
# Threads that wait by spinning take the core of the one that works: with two threads on two busy cores a shard of ten
# pairs took 15 s instead of 2 s. Read when torch is imported.
PATIENT_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
ENVIRONMENT = QUIET_ENVIRONMENT | PATIENT_THREADS


def quiet_libraries() -> None:
    """Turn progress bars, load reports and warnings of transformers and its kin off in this process.

    To be called before anything imports torch.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore")
    for name in ("sentence_transformers", "transformers", "huggingface_hub", "torch", "asyncio", "botocore", "s3fs"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

"""Environment variables of tokenpair's processes, so that libraries print nothing and idle threads use no core."""

from __future__ import annotations

import logging
import os
import sys
import warnings

# Libraries read these when they are imported, so they are set before; workers inherit them.
QUIET_ENVIRONMENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
}
# Idle OpenMP threads that spin take cores from working ones: with two threads on two busy cores a shard of ten pairs
# took 15 s instead of 2 s. Read when torch is imported.
PASSIVE_WAIT = {"OMP_WAIT_POLICY": "PASSIVE"}
ENVIRONMENT = QUIET_ENVIRONMENT | PASSIVE_WAIT


def connected_here() -> bool:
    """Whether a Ray is connected in this process already; imports none."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def set_environment() -> None:
    """Set what the environment does not say yet, for libraries that this process imports and processes it starts."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def quiet_libraries() -> None:
    """Turn off progress bars, load reports and warnings of transformers and related libraries in this process.

    Must be called before torch is imported.
    """
    set_environment()
    warnings.filterwarnings("ignore")
    for name in ("sentence_transformers", "transformers", "huggingface_hub", "torch", "asyncio", "botocore", "s3fs"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import transformers  # heavy, and reads the environment that was set above

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

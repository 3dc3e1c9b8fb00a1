"""Fixtures for all tests."""

from __future__ import annotations

import os
import random
import tempfile
from typing import TYPE_CHECKING

import pytest
from s3_server import s3

if TYPE_CHECKING:
    from tiny_models import TinyModels

    from attribution_core.results import PairAttribution

__all__ = ["s3"]

# Set before anything imports transformers: no test may reach for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Ray runs its workers at niceness 15: beside another test that computes they would get a twentieth of a processor.
os.environ.setdefault("RAY_worker_niceness", "0")
# Beside other test processes, threads of one wait for each other longer than they compute.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Calibrations of tiny models are shared by the tests of one session and forgotten after it.
if "TOKENPAIR_CACHE" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="tokenpair-tests-")
    os.environ["TOKENPAIR_CACHE"] = _cache.name

SEED = int(os.environ.get("TOKENPAIR_TEST_SEED") or random.SystemRandom().randrange(1 << 16))


# Few tests that take long, most of them waiting for Ray: begun last, one would leave the other processes idle.
LONGEST_FIRST = (
    "test_cli",
    "test_chaos",
    "test_submit",
    "test_faithful_model",
    "test_train",
    "test_real_model",
    "test_elastic",
    "test_engine",
    "test_local_ray",
    "test_explained_log",
    "test_demo",
)


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-xdist, where it is used, hand files out in the order of collection."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first."""
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def pytest_report_header() -> str:
    return f"random texts and weights: repeat with TOKENPAIR_TEST_SEED={SEED}"


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of this run: fresh every time unless TOKENPAIR_TEST_SEED is set."""
    return SEED


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers of one test: the same whichever other tests run before it."""
    print(f"TOKENPAIR_TEST_SEED={SEED}")
    return random.Random(f"{SEED}:{request.node.name}")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    """Tiny random encoders, built once a session."""
    import torch
    from tiny_models import TinyModels

    torch.set_num_threads(1)  # matrices this small only make threads wait for each other
    return TinyModels(tmp_path_factory.mktemp("models"))


@pytest.fixture
def coffee() -> PairAttribution:
    """Two sentences that share some words, and their attribution as the displays show it."""
    from display_pairs import coffee_pair

    return coffee_pair()

"""Fixtures for all tests."""

from __future__ import annotations

import os
import random
import tempfile
from collections import defaultdict
from pathlib import Path
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

DEFAULT_SEED = 0
# Files that start Ray, an S3 server, a browser or the real model, or compute for long: .ci/check leaves them out.
SLOW_FILES = {
    f"test_{name}.py"
    for name in (
        *("chaos", "cli", "demo", "elastic", "engine", "explained_log", "faithful_model", "local_ray", "paths"),
        *("real_log", "real_model", "report_browser", "s3_failures", "stores", "submit", "stopping"),
        *("adaptive", "doctor", "evaluation", "exact_attributions", "families", "finetune", "fuzz_jobs", "fuzz_rows"),
        *("comparison", "report", "million", "statistics", "statistics_command", "statistics_tags", "train"),
        *("calibration_cache", "completion", "contributions", "log_joins", "matching", "oracle", "structured"),
        *("flips", "why"),
    )
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--seed``: a failure of a random seed is repeated with its number."""
    parser.addoption(
        "--seed",
        default=str(DEFAULT_SEED),
        metavar="NUMBER|random",
        help=f"seed of random texts and weights; 'random' takes a fresh one (default: {DEFAULT_SEED})",
    )


def pytest_configure(config: pytest.Config) -> None:
    """A random seed is drawn once, before pytest-xdist hands the options to its processes."""
    if config.option.seed == "random":
        config.option.seed = str(random.SystemRandom().randrange(1 << 16))
    # Read by tests/fuzzing.py when its examples are declared.
    os.environ["TOKENPAIR_TEST_SEED"] = config.option.seed


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a test marked ``rotates(n)`` about one combination in n stays by default; the others are ``long``."""
    for item in items:
        if item.path.name in SLOW_FILES or "s3" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
    families: dict[tuple[Path, str], list[pytest.Function]] = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("rotates"):
            families[item.path, item.originalname].append(item)
    for (_, name), combinations in families.items():
        marker = combinations[0].get_closest_marker("rotates")
        assert marker is not None
        draw = random.Random(f"{config.option.seed}:{name}")
        chosen = chosen_combinations(combinations, marker.args[0], draw, **marker.kwargs)
        for item in combinations:
            if item not in chosen:
                item.add_marker(pytest.mark.long)


def chosen_combinations(
    combinations: list[pytest.Function], one_in: int, draw: random.Random, *, cover: bool = True
) -> list[pytest.Function]:
    """One combination in ``one_in``, and with ``cover`` as many more as it takes for every parameter's every value."""
    shuffled = draw.sample(combinations, len(combinations))
    chosen: list[pytest.Function] = []
    seen: set[tuple[str, str]] = set()
    for least in (-(-len(shuffled) // one_in), None) if cover else (-(-len(shuffled) // one_in),):
        for item in shuffled:
            values = {(name, repr(value)) for name, value in item.callspec.params.items()}
            if item not in chosen and (len(chosen) < least if least is not None else not values <= seen):
                chosen.append(item)
                seen |= values
    return chosen


def pytest_report_header(config: pytest.Config) -> str:
    return f"random texts and weights: --seed {config.option.seed}"


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this session."""
    return int(request.config.option.seed)


@pytest.fixture
def rng(request: pytest.FixtureRequest, seed: int) -> random.Random:
    """Random numbers of one test: the same whichever other tests run before it."""
    print(f"--seed {seed}")
    return random.Random(f"{seed}:{request.node.name}")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    """Tiny random encoders, built once a session for all of its processes."""
    import torch
    from tiny_models import TinyModels

    torch.set_num_threads(1)  # matrices this small only make threads wait for each other
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    (shared / "models").mkdir(exist_ok=True)
    return TinyModels(shared / "models")


@pytest.fixture
def coffee() -> PairAttribution:
    """Two sentences that share some words, and their attribution as the displays show it."""
    from display_pairs import coffee_pair

    return coffee_pair()

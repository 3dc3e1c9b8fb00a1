"""The arrows between rooms: which package may import which. Read from the source, imports inside functions too."""

from __future__ import annotations

import ast
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the top of the house to its ground. A room may import what stands below it, and nothing on its own floor.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("jobs.__main__",),
    ("jobs.cli",),
    ("jobs.views",),
    ("jobs.doctor",),
    ("jobs.demo", "jobs.training"),
    ("jobs.analysis", "jobs.engine"),
    ("jobs.plan",),
    ("jobs.cluster",),
    ("jobs.sources",),
    ("jobs.index", "jobs.run"),
    ("jobs.config",),
    ("jobs.storage",),
    ("jobs.progress",),
    ("jobs.errors",),
    ("attribution_core",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# `Run.query`, `run_job` and the like are named by these files and imported when they are asked for.
PUBLIC_NAMES = "jobs"


def _modules() -> dict[str, Path]:
    named = {}
    for package in ("jobs", "attribution_core"):
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


MODULES = _modules()


def imports(path: Path) -> list[tuple[str, int]]:
    """The project's own modules that a file imports, each with its line; imports for types alone count too."""
    seen = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            seen += [(name.name, node.lineno) for name in node.names if name.name in MODULES]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are written in full"
            for name in node.names:
                module = f"{node.module}.{name.name}"
                if module in MODULES:
                    seen.append((module, node.lineno))
                elif node.module in MODULES:
                    seen.append((node.module, node.lineno))
    return seen


def room(module: str) -> str:
    parts = module.split(".")
    return parts[0] if parts[0] == "attribution_core" else ".".join(parts[:2])


def _upward() -> list[str]:
    wrong = []
    for module, path in MODULES.items():
        here = room(module)
        if here == PUBLIC_NAMES:
            continue
        for other, line in imports(path):
            there = room(other)
            if here != there and (there == PUBLIC_NAMES or FLOOR[there] <= FLOOR[here]):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {here} imports {there}")
    return wrong


def test_every_room_has_a_floor() -> None:
    rooms = {room(module) for module in MODULES} - {PUBLIC_NAMES}
    assert rooms == set(FLOOR), "a new room needs its floor here and its line in jobs/README.md"


def test_no_room_imports_one_above_it() -> None:
    wrong = _upward()
    assert not wrong, "\n".join(wrong)


def test_no_circle_among_files() -> None:
    graph = defaultdict(set)
    for module, path in MODULES.items():
        # A package's own file names what other programs import, and does so when it is asked.
        if module not in ("jobs", "attribution_core"):
            graph[module] |= {other for other, _ in imports(path)} - {module, "jobs", "attribution_core"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("imports in a circle: " + " -> ".join(error.args[1]))


def test_results_do_not_import_what_draws_them() -> None:
    """Printing and notebooks are hooks: a program that reads results loads no drawing."""
    for module in ("attribution_core.results", "attribution_core.attribution"):
        drawn = [other for other, _ in imports(MODULES[module]) if other.startswith("attribution_core.display")]
        assert not drawn, f"{module} imports {drawn}"


@pytest.mark.parametrize(("package", "most"), [("jobs", 4), ("attribution_core", 12)])
def test_few_files_at_the_top(package: str, most: int) -> None:
    files = sorted(path.name for path in (ROOT / package).glob("*.py"))
    assert len(files) <= most, files

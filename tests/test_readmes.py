"""The READMEs name only what exists: commands with their flags, files, links, settings, and Python that imports."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from jobs.analysis.statistics.schema import NAMES
from jobs.cli.main import app
from jobs.config.job import JobConfig
from jobs.training.config import TrainConfig

ROOT = Path(__file__).parents[1]
PLACES = ("", "attribution_core", "jobs", "tests", ".github")
DOCUMENTS = sorted(
    path
    for place in PLACES
    for path in ((ROOT / place).glob("*.md") if place in ("", ".github") else (ROOT / place).rglob("*.md"))
)
# Paths below these are the project's own; a reader may look them up.
TOPS = ("jobs/", "attribution_core/", "tests/", ".ci/", ".github/")
FILE_NAME = re.compile(r"[\w./-]+\.(py|js|css|j2|json|md|toml|yaml)")
# Files of the examples and of run directories, which stand beside nothing here.
WRITTEN = {
    *("job.yaml", "train.yaml", "summary.json", "comparison.json", "config.json", "query.html", "README.md"),
    *("statistics/faithfulness.json", "statistics/failures.json", "statistics/probes.json", "statistics/flips.json"),
    "state.json",
}
OTHER_PROGRAMS = {"pip", "export", "ray", "kubectl", "git", "pre-commit", "."}


def _ids(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


document = pytest.mark.parametrize("path", DOCUMENTS, ids=_ids)


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks of these languages."""
    return [
        body for name, body in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE) if name in languages
    ]


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def inline(text: str) -> list[str]:
    """What stands in single backquotes."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def anchors(text: str) -> set[str]:
    """The fragments that GitHub gives a document's headings."""
    heads = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-") for head in heads}


def console(text: str) -> Iterator[str]:
    """The commands of console blocks, one a simple command: without prompt, comment, and what follows a pipe."""
    for block in blocks(text, "console"):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            if line.startswith("$ "):
                words = shlex.shlex(line[2:], posix=True, punctuation_chars="|&;")
                words.whitespace_split = True
                yield from _commands(list(words))


def _commands(words: list[str]) -> Iterator[str]:
    command: list[str] = []
    for word in [*words, "&&"]:
        if set(word) <= set("|&;"):
            if command:
                yield shlex.join(command)
            command = []
        else:
            command.append(word)


@cache
def flags() -> dict[str, set[str]]:
    """The flags of every command of the program."""
    group: Any = typer.main.get_command(app)
    both = {
        name: {*(o for p in one.params for o in (*p.opts, *p.secondary_opts))} for name, one in group.commands.items()
    }
    return {name: {*found, "--help", "-h", "--debug"} for name, found in both.items()}


def wrong_words(words: list[str]) -> list[str]:
    """What of a command does not exist."""
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if not words:
        return []
    if words[0] == "tokenpair":
        if len(words) == 1 or words[1].startswith("-") or words[1] == "…":
            return []
        if words[1] not in flags():
            return [f"tokenpair {words[1]}: no such command"]
        given = {word.split("=")[0] for word in words[2:] if re.match(r"--?[a-zA-Z]", word)}
        return [f"tokenpair {words[1]} {flag}: no such flag" for flag in sorted(given - flags()[words[1]])]
    if words[0] in ("python", "python3"):
        return _wrong_python(words[1:])
    if words[0].startswith(".ci/"):
        return [] if (ROOT / words[0]).is_file() else [f"{words[0]}: no such file"]
    return [] if words[0] in OTHER_PROGRAMS | {"ruff", "mypy"} else [f"{words[0]}: not a program that READMEs name"]


def _wrong_python(words: list[str]) -> list[str]:
    if words[0] == "-m":
        return [] if words[1] in ("pytest", "spacy") or _module(words[1]) else [f"python -m {words[1]}: no such module"]
    script = ROOT / words[0]
    if not script.is_file():
        return [f"{words[0]}: no such file"]
    source = script.read_text("utf-8")
    given = [word.split("=")[0] for word in words[1:] if word.startswith("--")]
    return [f"{words[0]} {flag}: no such flag" for flag in given if f'"{flag}"' not in source]


def _module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_the_first_readme_is_one_to_read() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 260


@document
def test_commands_and_their_flags_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    commands = list(console(text))
    for code in inline(text):
        if code.startswith(("tokenpair ", "python ", ".ci/")):
            commands.append(code)
    wrong = [problem for one in commands for problem in wrong_words(shlex.split(one, comments=True))]
    assert not wrong, "\n".join(wrong)


@document
def test_flags_in_the_text_exist(path: Path) -> None:
    known = set().union(*flags().values())
    scripts = "".join(one.read_text("utf-8") for one in (ROOT / "tests").rglob("*.py") if one != Path(__file__))
    outside = {"--block", "--address"}
    named = {
        word.split("=")[0]
        for code in inline(path.read_text("utf-8"))
        for word in code.split()
        if re.match(r"--[a-z]", word)
    }
    wrong = [flag for flag in sorted(named - known - outside) if f'"{flag}"' not in scripts]
    assert not wrong, wrong


@document
def test_files_exist(path: Path) -> None:
    wrong = []
    for code in inline(path.read_text("utf-8")):
        name = code.split("::")[0].split("#")[0]
        if name.startswith(TOPS) and " " not in name and not set(name) & set("<>*…{"):
            if not (ROOT / name).exists():
                wrong.append(name)
        elif FILE_NAME.fullmatch(name) and name not in WRITTEN:
            beside = (path.parent, ROOT, ROOT / "tests/benchmarks")
            if not any((place / name).exists() for place in beside) and not any((ROOT / "tests").rglob(name)):
                wrong.append(name)
    assert not wrong, f"{_ids(path)} names files that do not exist: {wrong}"


@document
def test_links_lead_somewhere(path: Path) -> None:
    text = prose(path.read_text("utf-8"))
    wrong = []
    for target in [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'src="([^"]+)"', text)]:
        if target.startswith(("http://", "https://")):
            continue
        name, _, fragment = target.partition("#")
        other = (path.parent / name).resolve() if name else path
        if not other.exists() or (fragment and fragment not in anchors(other.read_text("utf-8"))):
            wrong.append(target)
    assert not wrong, f"{_ids(path)}: {wrong}"


@document
def test_python_compiles_and_imports_what_exists(path: Path) -> None:
    for block in blocks(path.read_text("utf-8"), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                for name in node.names:
                    assert hasattr(module, name.name), f"from {node.module} import {name.name}"
            elif isinstance(node, ast.Import):
                for name in node.names:
                    importlib.import_module(name.name)


@document
def test_job_files_have_fields_that_exist(path: Path) -> None:
    for block in blocks(path.read_text("utf-8"), "yaml"):
        settings = yaml.safe_load(block)
        if isinstance(settings, dict) and "model" in settings:
            config = TrainConfig if "train" in settings else JobConfig
            config.model_validate(settings)


@pytest.mark.parametrize(
    ("config", "readme"), [(JobConfig, "jobs/config/README.md"), (TrainConfig, "jobs/training/README.md")]
)
def test_every_field_of_a_job_is_described(config: Any, readme: str) -> None:
    table = "\n".join(line for line in (ROOT / readme).read_text("utf-8").splitlines() if line.startswith("| `"))
    described = set(re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in table.splitlines())))
    assert set(config.model_fields) <= described, set(config.model_fields) - described


def test_every_room_stands_on_the_map() -> None:
    rooms = (ROOT / "jobs/README.md").read_text("utf-8")
    for folder in sorted((ROOT / "jobs").iterdir()):
        if (folder / "__init__.py").is_file():
            assert f"[{folder.name}/](" in rooms, folder.name


def test_every_test_file_stands_in_the_table_of_claims() -> None:
    """A new file of tests says which claim it proves; a file that is gone leaves no row behind."""
    table = (ROOT / "tests/README.md").read_text("utf-8")
    missing = sorted(one.name for one in (ROOT / "tests").rglob("test_*.py") if f"`{one.name}`" not in table)
    assert not missing, missing


def test_every_statistic_is_described() -> None:
    table = (ROOT / "jobs/analysis/statistics/README.md").read_text("utf-8")
    assert [name for name in NAMES if f"| `{name}` |" not in table] == []

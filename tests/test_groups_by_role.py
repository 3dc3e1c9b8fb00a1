"""Queries by word and documents by sentence: each side has its own groups, and the numbers stay the same."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from tiny_models import TinyModels, random_text

from attribution_core import Attributor
from attribution_core.errors import SettingError
from jobs.config.job import load_job
from jobs.engine.driver import run_job
from jobs.errors import JobError
from jobs.run.reader import Run, open_run

BY_ROLE = {"query": "word", "document": "sentence"}
JOB = {"model": "m", "log": "run.trec", "queries": "q.jsonl", "corpus": "c.jsonl", "output": "run"}


def document(rng: random.Random) -> str:
    return " ".join(f"{random_text(rng, words=rng.randint(2, 6))}." for _ in range(rng.randint(2, 4)))


def test_cells_are_sums_of_words_over_the_sentences(tiny: TinyModels, rng: random.Random) -> None:
    """Would catch groups of one role used for the other, and a document's words in the wrong sentence."""
    model = tiny.load("bert")
    common = {"mode": "retrieval", "layer": 1, "nodes": 6, "dtype": "float64"}
    query, text = random_text(rng, words=5), document(rng)
    by_role = Attributor(model, groups=BY_ROLE, **common).attribute(query, text)
    by_word = Attributor(model, groups="word", **common).attribute(query, text)
    assert by_role.a.groups.unit == "word"
    assert by_role.b.groups.unit == "sentence"
    assert by_role.a.groups.labels == by_word.a.groups.labels
    starts = np.array(by_role.b.groups.starts)
    kinds = np.array([kind == "text" for kind in by_role.b.groups.kinds])
    for place in np.flatnonzero(kinds):
        inside = [
            at
            for at, (start, kind) in enumerate(zip(by_word.b.groups.starts, by_word.b.groups.kinds, strict=True))
            if kind == "text" and by_role.b.groups.starts[place] <= start < by_role.b.groups.ends[place]
        ]
        np.testing.assert_allclose(by_role.matrix[:, place], by_word.matrix[:, inside].sum(1), atol=1e-6)
    assert len(starts[kinds]) >= 2


def test_groups_by_role_need_two_roles(tiny: TinyModels) -> None:
    model = tiny.load("bert")
    with pytest.raises(SettingError, match="retrieval mode"):
        Attributor(model, groups=BY_ROLE)
    with pytest.raises(SettingError, match="a document"):
        Attributor(model, groups={"query": "word", "document": "line"}, mode="retrieval")
    with pytest.raises(JobError, match="groups: found one for each role"):
        load_job(None, {"model": "m", "input": "x.csv", "output": "run", "groups": BY_ROLE})
    with pytest.raises(JobError, match=r"groups: found .*allowed: token, word or sentence"):
        load_job(None, JOB | {"groups": {"query": "line"}})
    job = load_job(None, JOB | {"groups": {"document": "sentence"}})
    assert (job.unit("query"), job.unit("document")) == ("word", "sentence")


def by_role_run(folder: Path, model: str, rng: random.Random) -> Run:
    """A finished log of three queries by word and four documents by sentence."""
    texts = {f"d{i}": document(rng) for i in range(4)}
    queries = {f"q{i}": random_text(rng, words=4) for i in range(3)}
    for name, rows in (("q", queries), ("c", texts)):
        lines = [f'{{"_id": "{key}", "text": "{text}"}}\n' for key, text in rows.items()]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    ranks = [f"{q} Q0 {d} {rank} {9 - rank} x\n" for q in queries for rank, d in enumerate(texts, 1)]
    (folder / "run.trec").write_text("".join(ranks))
    job = load_job(
        None,
        {name: str(folder / value) if name != "model" else model for name, value in JOB.items()}
        | {"groups": BY_ROLE, "layer": 1, "workers": {"ray": False}},
    )
    assert run_job(job, quiet=True).complete
    return open_run(folder / "run")


def test_a_run_knows_the_groups_of_each_role(tiny: TinyModels, rng: random.Random, tmp_path: Path) -> None:
    """Would catch a run that reads all its texts back by one unit."""
    run = by_role_run(tmp_path, str(tiny.folder("bert")), rng)
    pair = run.pair("q0:d1")
    assert (pair.a.groups.unit, pair.b.groups.unit) == ("word", "sentence")
    assert run.units == "word or sentence"
    result = run.query("q1")
    assert result.query.groups.unit == "word"
    assert {one.explained.groups.unit for one in result.documents} == {"sentence"}

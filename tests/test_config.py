"""The job file: what is allowed, how a mistake is told, and what makes two jobs the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.config.job import JobConfig, load_job, parse_size
from jobs.engine.model import worker_share
from jobs.errors import JobError

LEAST: dict[str, Any] = {"model": "m", "input": "pairs.csv", "output": "run"}


def refusal(**changes: Any) -> str:
    with pytest.raises(JobError) as caught:
        load_job(None, LEAST | changes)
    return str(caught.value)


def test_three_settings_are_enough_and_the_rest_has_the_documented_defaults() -> None:
    job = load_job(None, LEAST)
    assert (job.mode, job.layer, job.groups, job.top_k, job.format, job.memory_bytes) == (
        "symmetric",
        -2,
        "word",
        32,
        "parquet",
        2 << 30,
    )
    assert (job.quadrature.rule, job.quadrature.tolerance, job.quadrature.max_nodes) == ("gauss", 2e-3, 256)


def test_flags_are_laid_over_the_file_and_absent_ones_are_not(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("model: m\ninput: [a.csv, b.csv]\noutput: o\nlayer: 1\nquadrature: {rule: riemann, nodes: 50}\n")
    job = load_job(file, {"layer": None, "top_k": 5, "quadrature": {"nodes": 9, "rule": None}, "input": None})
    assert (job.layer, job.top_k, job.quadrature.rule, job.quadrature.nodes) == (1, 5, "riemann", 9)
    assert len(job.input) == 2


def test_local_places_are_absolute_and_addresses_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A rerun from another folder, and a worker that runs in another one, must mean the same files.
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    job = load_job(None, {"model": "model", "input": ["p.csv", "s3://b/*.csv"], "output": "s3://b/run"})
    assert job.model == str(tmp_path / "model")
    assert job.input == [str(tmp_path / "p.csv"), "s3://b/*.csv"]
    assert job.output == "s3://b/run"
    assert load_job(None, LEAST | {"model": "owner/name"}).model == "owner/name"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"groups": "words"},
            "groups: found 'words'; allowed: token, word or sentence; in retrieval mode also {query: …, document: …} "
            "with one for each",
        ),
        ({"top_k": True}, "top_k: found true; allowed: a whole number from 1 to 100000"),
        ({"top_k": "32"}, "top_k: found '32'; allowed: a whole number from 1 to 100000"),
        ({"limit": 0}, f"limit: found 0; allowed: a whole number from 1 to {10**15}, or null for every pair"),
        ({"header": "yes"}, "header: found 'yes'; allowed: true or false"),
        (
            {"memory": "2 apples"},
            "memory: found '2 apples'; allowed: a size from 16MiB, such as 2GiB or 500MB, or a share such as 60%",
        ),
        (
            {"memory": "0%"},
            "memory: found '0%'; allowed: a size from 16MiB, such as 2GiB or 500MB, or a share such as 60%",
        ),
        ({"workers": 3}, "workers: found 3; allowed: settings count, min, max, gpus, cpus, ray"),
        ({"quadrature": {"nods": 3}}, "quadrature.nods: is not a setting; did you mean nodes?"),
        (
            {"storage": {"secret": "hush"}},
            "storage.secret: is not a setting; the settings here are endpoint_url, region, profile",
        ),
        ({"output": ""}, "output: found ''; allowed: a folder for the run, local or s3://bucket/…"),
        (
            {"quadrature": {"tolerance": float("nan")}},
            "quadrature.tolerance: found nan; allowed: a residual in units of ‖e‖, above 0 and at most 1",
        ),
        (
            {"header": False, "columns": {"a": "question"}},
            "columns.a: found 'question'; allowed: with header: false, a column's number from 1",
        ),
        (
            {"similarity": "euclidean"},
            "similarity: found 'euclidean'; allowed: cosine, dot, maxsim, meanmaxsim, or null for the model's own",
        ),
    ],
)
def test_a_wrong_setting_is_told_with_what_was_found_and_what_is_allowed(changes: dict[str, Any], line: str) -> None:
    assert refusal(**changes) == line


def test_memory_is_a_size_or_a_share_that_workers_divide() -> None:
    """Two workers that took 60 % of the machine each would take more than there is."""
    assert load_job(None, LEAST | {"memory": "512MiB"}).memory_bytes == 512 << 20
    share = load_job(None, LEAST | {"memory": "60%"})
    assert share.memory_bytes is None
    assert share.memory_share == pytest.approx(0.6)
    cores = os.cpu_count() or 1
    assert worker_share(0.6, None, "cpu", 1) == pytest.approx(0.6 / cores)
    assert worker_share(0.6, 0.5, None, 1) == pytest.approx(0.3)
    assert worker_share(0.6, 4.0, None, 1) == pytest.approx(0.6)


def test_every_wrong_setting_has_a_line_of_its_own() -> None:
    assert len(refusal(groups=3, layer="x", output=[], nonsense=1).splitlines()) == 4


@pytest.mark.parametrize("place", ["model", "input", "output"])
def test_credentials_in_an_address_are_refused_and_not_repeated(place: str) -> None:
    assert "SECRET" not in refusal(**{place: "s3://KEY:SECRET@bucket/x"})
    assert "SECRET" not in refusal(storage={"endpoint_url": "https://KEY:SECRET@host/"})
    assert "SECRET" not in refusal(**{place: {"odd": "s3://KEY:SECRET@bucket/x"}})


@pytest.mark.parametrize("place", ["model", "input", "output"])
def test_a_secret_with_a_slash_in_it_is_refused_as_well(place: str) -> None:
    """Secret keys of AWS often hold a "/", and the address was printed in full."""
    for address in ("s3://KEY:sec/SECRET@bucket/x", "s3://KEY:SECRET", "s3:///KEY:SECRET@bucket"):
        assert "an address with credentials in it" in refusal(**{place: address}), address
        assert "SECRET" not in refusal(**{place: address}), address
    for endpoint in ("http://user:sec/SECRET@host", "http://user:sec?SECRET@host", "http://host/?key=@SECRET"):
        assert "SECRET" not in refusal(storage={"endpoint_url": endpoint}), endpoint


@pytest.mark.parametrize(
    "place",
    [
        "s3://bucket/mail/me@example.org/run-12:30",
        "s3://bucket/a:b@c/x",
        "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/name/x",
        "file:///home/me@work/x",
    ],
)
def test_keys_and_folders_may_look_like_a_login(place: str) -> None:
    assert load_job(None, LEAST | {"input": place}).input == [place]


def test_columns_without_a_header_are_numbers_and_with_one_names() -> None:
    assert load_job(None, LEAST | {"header": False, "columns": {"a": "2", "b": 3}}).columns.given() == {"a": 2, "b": 3}
    assert load_job(None, LEAST | {"columns": {"a": 2}}).columns.a == "2"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("model: [", "is not valid YAML"),
        ("- a\n- b\n", "allowed: settings"),
        ("model: m\nmodel: n\n", "'model' is given twice"),
        ("model: !!python/object/apply:os.system [true]", "is not valid YAML"),
        ("limit: 2026-13-99\nmodel: m\ninput: i\noutput: o", "month must be"),
        ("[" * 5000, "is not valid YAML"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nmodel: [*b, *b]\ninput: i\noutput: o", "the alias *a is not read"),
    ],
)
def test_files_that_are_no_job_are_told_so(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    with pytest.raises(JobError, match=r"job\.yaml: ") as caught:
        load_job(file)
    assert part in str(caught.value)


def test_unreadable_files_are_told_so(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large.yaml").write_bytes(b"#" * (2 << 20))
    for name, part in [
        ("no.yaml", "no such job file"),
        ("", "folder"),
        ("binary.yaml", "UTF-8"),
        ("large.yaml", "1 MiB"),
    ]:
        with pytest.raises(JobError, match=part):
            load_job(tmp_path / name)


def test_identity_leaves_the_means_out() -> None:
    one = load_job(None, LEAST)
    means = {"output": "elsewhere", "workers": {"count": 7}, "memory": "1GiB", "storage": {"region": "x"}}
    assert load_job(None, LEAST | means).identity() == one.identity()
    for changes in ({"layer": -1}, {"top_k": 3}, {"limit": 5}, {"columns": {"a": "x"}}, {"shards": 3}):
        assert load_job(None, LEAST | changes).identity() != one.identity()


def test_a_job_survives_being_written_and_read(tmp_path: Path) -> None:
    import yaml

    job = load_job(None, LEAST | {"keep": ["label"], "workers": {"gpus": 0.5}, "columns": {"a": "x"}})
    file = tmp_path / "again.yaml"
    file.write_text(yaml.safe_dump(job.model_dump(mode="json")))
    # What stands in the file is said: a header that was looked for is one then.
    assert job.header is None
    assert load_job(file) == job.model_copy(update={"header": True})


@pytest.mark.parametrize(("text", "size"), [("2GiB", 2 << 30), ("1.5 kb", 1500), (7, 7), ("64MiB", 64 << 20)])
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from([*JobConfig.model_fields, "nodes", "a", "x"])


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(names, anything, max_size=6))
def test_any_settings_give_a_job_or_one_line_a_mistake(found: dict[str, Any]) -> None:
    lines: list[str] = []
    try:
        assert load_job(None, LEAST | found).identity()
    except JobError as error:
        lines = str(error).splitlines() or ["no word of it"]
    assert all(": " in line for line in lines)

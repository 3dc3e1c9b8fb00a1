"""Comparing two runs: what is matched, what is said of scores and attributions, and that sharding changes nothing."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pair_runs import Row, attributed, cut_text, damage, words, write_pairs
from scipy.stats import spearmanr
from typer.testing import CliRunner

from jobs.analysis.comparison import details
from jobs.analysis.comparison.alignment import Cut, align, summed, summed_cells
from jobs.analysis.comparison.compare import compare_runs
from jobs.cli import main as cli
from jobs.errors import JobError, RunError, StoreError
from jobs.run.reader import Run
from jobs.storage.store import Store

LABEL = pa.schema([("label", pa.string()), ("gold", pa.float32())])


def rows_of(rng: random.Random, count: int, *, noise: float = 0.0, shift: float = 0.0) -> list[Row]:
    """Pairs of six and five words; the same seed gives the same ones but for ``noise`` on cells and scores."""
    found = []
    for at in range(count):
        numbers = np.random.default_rng(at)
        inner = numbers.normal(0, 1, (6, 5))
        score = float(numbers.uniform()) + shift
        other = np.random.default_rng(rng.randrange(1 << 30)).normal(0, 1, (6, 5))
        a = words(" ".join(f"a{at}w{n}" for n in range(6)))
        b = words(" ".join(f"b{at}w{n}" for n in range(5)))
        kept = {"label": "odd" if at % 2 else "even", "gold": score}
        found.append(Row(f"p{at:03}", attributed(a, b, inner + noise * other, score + noise * other[0, 0] / 10), kept))
    return found


def dealt(rows: list[Row], shards: int, rng: random.Random) -> list[list[Row]]:
    shuffled = rng.sample(rows, len(rows))
    return [shuffled[at::shards] for at in range(shards)]


def test_a_run_equals_itself_however_it_was_sharded(tmp_path: Path, rng: random.Random) -> None:
    rows = rows_of(rng, 40)
    first = write_pairs(tmp_path / "one", [rows], kept=LABEL, store="full")
    second = write_pairs(tmp_path / "two", dealt(rows, 7, rng), kept=LABEL, store="full")
    found = compare_runs(first, second)
    assert (found.matched.pairs, found.matched.by, found.compared) == (40, "pair_id", 40)
    assert found.scores.absolute.most == 0
    assert found.scores.pearson == pytest.approx(1)
    assert found.scores.spearman == pytest.approx(1)
    for name, spread in found.agreement.items():
        assert spread is not None
        assert spread.least == pytest.approx(0 if name == "distance" else 1, abs=1e-6)
    assert found.examples == ()


def test_shard_count_and_order_change_no_number(tmp_path: Path, rng: random.Random) -> None:
    one, other = rows_of(rng, 30), rows_of(rng, 30, noise=0.5)
    results = []
    for at in range(2):
        first = write_pairs(tmp_path / f"first{at}", dealt(one, 1 + 3 * at, rng), kept=LABEL)
        second = write_pairs(tmp_path / f"second{at}", dealt(other, 5 - at, rng), kept=LABEL)
        plain = json.loads(json.dumps(compare_runs(first, second, sample=20, seed=3).to_dict()))
        del plain["first"]["run"], plain["second"]["run"]
        results.append(plain)
    assert_close(results[0], results[1])


def assert_close(one: Any, other: Any) -> None:
    """Equal but for the order in which floats were added."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_close(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_close(left, right)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-9)
    else:
        assert one == other


def test_scores_and_agreement_equal_a_direct_computation(tmp_path: Path, rng: random.Random) -> None:
    one, other = rows_of(rng, 25), rows_of(rng, 25, noise=0.7, shift=0.1)
    first = write_pairs(tmp_path / "one", dealt(one, 2, rng), kept=LABEL, store="full")
    second = write_pairs(tmp_path / "two", dealt(other, 3, rng), kept=LABEL, store="full")
    found = compare_runs(first, second)
    scores = np.array([(x.pair.score, y.pair.score) for x, y in zip(one, other, strict=True)])
    assert found.scores.difference.mean == pytest.approx(np.mean(scores[:, 1] - scores[:, 0]), abs=1e-6)
    assert found.scores.pearson == pytest.approx(np.corrcoef(scores.T)[0, 1], abs=1e-6)
    by_rank = spearmanr(scores[:, 0], scores[:, 1]).statistic
    assert found.scores.spearman == pytest.approx(by_rank, abs=1e-6)
    assert sum(found.scores.histogram) == 25
    cosines, distances, overlaps = [], [], []
    for x, y in zip(one, other, strict=True):
        left, right = x.pair.matrix.ravel().astype(float), y.pair.matrix.ravel().astype(float)
        cosines.append(left @ right / np.linalg.norm(left) / np.linalg.norm(right))
        moved = [
            np.abs(u / np.abs(u).sum() - v / np.abs(v).sum()).sum() / 2
            for u, v in ((x.pair.row_sums, y.pair.row_sums), (x.pair.col_sums, y.pair.col_sums))
        ]
        distances.append(np.mean(moved))
        strongest = [set(np.argsort(-np.abs(m))[:10].tolist()) for m in (left, right)]
        overlaps.append(len(strongest[0] & strongest[1]) / 10)
    for name, direct in (("cosine_cells", cosines), ("distance", distances), ("overlap", overlaps)):
        spread = found.agreement[name]
        assert spread is not None
        assert spread.mean == pytest.approx(np.mean(direct), abs=1e-3 if name == "cosine_cells" else 1e-6)
    (gold,) = [column for column in found.columns if column.name == "gold"]
    assert gold.first == pytest.approx(1)
    for group in found.groups:
        chosen = [n for n in range(25) if (n % 2 == 1) == (group.value == "odd")]
        assert group.difference == pytest.approx(np.mean((scores[:, 1] - scores[:, 0])[chosen]), abs=1e-6)


def test_only_pairs_with_the_same_id_and_texts_are_matched(tmp_path: Path, rng: random.Random) -> None:
    rows = rows_of(rng, 10)
    changed = attributed(words("quite other words"), words("and these too"), np.ones((3, 3)))
    theirs = [*rows[:6], Row("p006", changed), Row("only here", changed)]
    first, second = write_pairs(tmp_path / "one", [rows]), write_pairs(tmp_path / "two", [theirs])
    matched = compare_runs(first, second).matched
    assert (matched.pairs, matched.first, matched.second, matched.other_texts) == (6, 10, 8, 1)


def test_pairs_are_matched_by_their_texts_where_no_id_is_shared(tmp_path: Path, rng: random.Random) -> None:
    rows = rows_of(rng, 8)
    renamed = [Row(f"other {row.pair_id}", row.pair) for row in rows[2:]]
    twice = [*rows, Row("again", rows[5].pair)]
    first, second = write_pairs(tmp_path / "one", [twice]), write_pairs(tmp_path / "two", [renamed])
    matched = compare_runs(first, second).matched
    assert (matched.by, matched.pairs) == ("texts", 6)


def test_runs_without_a_common_pair_are_refused(tmp_path: Path, rng: random.Random) -> None:
    rows = rows_of(rng, 6)
    first, second = write_pairs(tmp_path / "one", [rows[:3]]), write_pairs(tmp_path / "two", [rows[3:]])
    with pytest.raises(RunError, match="share no pair"):
        compare_runs(first, second)


def test_words_are_aligned_by_characters_when_tokenizers_differ() -> None:
    """walk|ing against walking, x-ray against x|-|ray; what only one run read is in no unit."""
    text = "walking near x-ray end"
    one = cut_text(text, ["walk", "ing", "near", "x-ray"]).groups
    other = cut_text(text, ["walking", "near", "x", "-", "ray", "end"]).groups
    found = align(Cut(one.starts, one.ends, one.kinds), Cut(other.starts, other.ends, other.kinds))
    assert [text[start:end] for start, end in found.spans] == ["walking", "near", "x-ray"]
    assert found.first.tolist() == [-1, 0, 0, 1, 2, -1]
    assert found.second.tolist() == [-1, 0, 1, 2, 2, 2, -1, -1]
    assert found.alone == 1
    assert summed([9, 1, 2, 3, 4, 9], found.first, 3).tolist() == [3, 3, 4]
    cells = summed_cells(np.ones((6, 8)), found.first, found.second, (3, 3))
    assert cells.tolist() == [[2, 2, 6], [1, 1, 3], [1, 1, 3]]


def test_another_tokenizer_with_the_same_sums_agrees_fully(tmp_path: Path) -> None:
    a = "walking dogs barked"
    pieces, whole = cut_text(a, ["walk", "ing", "dogs", "barked"], unit="token"), words(a)
    b = words("a loud bark")
    inner = np.array([[1.0, 2, 3], [4, 5, 6], [-7, 8, 9], [1, 0, 2]])
    joined = np.array([inner[0] + inner[1], inner[2], inner[3]])
    first = write_pairs(tmp_path / "one", [[Row("p", attributed(pieces, b, inner))]], groups="token", store="full")
    second = write_pairs(tmp_path / "two", [[Row("p", attributed(whole, b, joined))]], store="full")
    agreement = compare_runs(first, second).agreement
    for name in ("cosine_a", "cosine_b", "spearman_a", "cosine_cells"):
        spread = agreement[name]
        assert spread is not None
        assert spread.mean == pytest.approx(1, abs=1e-3)
    assert agreement["distance"] is not None
    assert agreement["distance"].mean == pytest.approx(0, abs=1e-6)


def test_examples_name_the_words_that_went_up_and_down(tmp_path: Path) -> None:
    a, b = words("alpha beta gamma"), words("one two")
    before, after = np.zeros((3, 2)), np.zeros((3, 2))
    before[0, 0], after[2, 0] = 1, 1
    same = Row("same", attributed(words("left alone here"), words("so it stays"), np.ones((3, 3))))
    first = write_pairs(tmp_path / "one", [[Row("moved", attributed(a, b, before, 0.2)), same]])
    second = write_pairs(tmp_path / "two", [[same, Row("moved", attributed(a, b, after, 0.9))]])
    found = compare_runs(first, second)
    assert [(one.by, one.pair_1) for one in found.examples] == [("score", "moved"), ("attribution", "moved")]
    example = found.examples[0]
    assert [word.word for word in example.up] == ["gamma"]
    assert [word.word for word in example.down] == ["alpha"]
    assert "gamma" in str(found)


def scored(place: Path, inner: Any, score: float, **settings: Any) -> Run:
    """A run of one pair of three and two words whose cells are ``inner``."""
    pair = attributed(words("alpha beta gamma"), words("one two"), inner, score)
    return write_pairs(place, [[Row("p", pair)]], **settings)


def test_runs_that_sum_to_the_score_show_parts_of_it(tmp_path: Path) -> None:
    """Words' changes are in the score's unit, and add up to its change; shares of other sums do not."""
    before = np.array([[0.1, 0.1], [-0.3, 0.0], [0.05, 0.05]])
    after = before + np.array([[0.2, 0.1], [0.0, 0.0], [0.0, -0.15]])
    first = scored(tmp_path / "one", before, float(before.sum()), sums_to="score")
    second = scored(tmp_path / "two", after, float(after.sum()), sums_to="score")
    found = compare_runs(first, second)
    assert found.one_sum
    example = found.examples[0]
    assert example.unit == "score"
    changes = {(one.side, one.word): one.second - one.first for one in (*example.up, *example.down)}
    assert changes == {
        ("a", "alpha"): pytest.approx(0.3),
        ("a", "gamma"): pytest.approx(-0.15),
        ("b", "one"): pytest.approx(0.2),
        ("b", "two"): pytest.approx(-0.05),
    }
    for side in "ab":
        moved = sum(change for (of, _), change in changes.items() if of == side)
        assert moved == pytest.approx(example.score_2 - example.score_1, abs=1e-6)
    shown = str(found)
    assert "sums to score" in shown
    assert "a:alpha +0.20 → +0.50" in shown
    # A score of another kind, and sums of another kind, have no unit in common with it.
    for name, other in (("dot", {"sums_to": "score", "similarity": "dot"}), ("old", {"sums_to": "difference"})):
        against = compare_runs(first, scored(tmp_path / name, after, 0.0, **other))
        assert against.examples[0].unit == "share"
        assert "%" in str(against)


def test_shares_are_finite_whatever_the_score_is(tmp_path: Path) -> None:
    """Cells that cancel to a score of 0, a negative score, and no attribution at all; by hand."""
    cancelling = np.array([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.0]])
    first = scored(tmp_path / "one", cancelling, 0.0, sums_to="score")
    distances = []
    for at, inner in enumerate((-cancelling, -np.ones((3, 2)), np.zeros((3, 2)))):
        spread = compare_runs(first, scored(tmp_path / str(at), inner, -0.1, sums_to="score")).agreement["distance"]
        distances.append(None if spread is None else spread.mean)
    # Opposite shares of a: 1; b's words, whose sums are 0, have none. Then ½(|½ + ⅓| + |−½ + ⅓| + ⅓).
    assert distances == [pytest.approx(1), pytest.approx(2 / 3), None]


@pytest.mark.parametrize(
    "kinds", [("score", "difference"), ("centred", "score"), ("difference", None), ("score", None)]
)
def test_different_sums_are_named_before_anything_is_compared(
    tmp_path: Path, rng: random.Random, kinds: tuple[str, str | None]
) -> None:
    """A run of an earlier version, whose record names no sums, has differences."""
    runs = []
    for at, kind in enumerate(kinds):
        settings = {} if kind is None else {"sums_to": kind}
        runs.append(write_pairs(tmp_path / str(at), [rows_of(rng, 5)], **settings))
    found = compare_runs(runs[0], runs[1])
    shown = " ".join(str(found).split())
    same = kinds == ("difference", None)
    assert found.one_sum == same == json.loads(json.dumps(found.to_dict()))["one_sum"]
    assert ("Word pairs sum to different things: in the first run to" in shown) == (not same)
    assert f"sums to {kinds[1] or 'difference'}" in shown


def test_other_references_stand_in_the_header(tmp_path: Path, rng: random.Random) -> None:
    def run(name: str, **tokens: str) -> Run:
        found = {"reference": tokens} if tokens else {}
        return write_pairs(tmp_path / name, [rows_of(rng, 5)], sums_to="score", run=found)

    pad, unk = "[PAD] (padding token)", "[UNK] (unknown token)"
    first = run("one", text=pad)
    shown = " ".join(str(compare_runs(first, run("two", text=unk))).split())
    assert f"reference {pad}" in shown
    assert f"reference {unk}" in shown
    assert ", reference " not in str(compare_runs(first, run("three", text=pad)))
    mixed = " ".join(str(compare_runs(first, run("four", query=pad, document=unk))).split())
    assert f"{pad} for a query" in mixed
    assert f"{unk} for a document" in mixed
    assert "reference not recorded" in " ".join(str(compare_runs(first, run("five"))).split())


def test_output_is_written_and_a_run_is_not_overwritten(tmp_path: Path, rng: random.Random) -> None:
    first = write_pairs(tmp_path / "one", [rows_of(rng, 9)], kept=LABEL)
    second = write_pairs(tmp_path / "two", [rows_of(rng, 9, noise=1.0)], kept=LABEL)
    found = compare_runs(first, second, sample=4, output=Store.open(tmp_path / "out"))
    table = pq.read_table(tmp_path / "out" / "pairs.parquet")
    assert table.num_rows == 9
    assert table["distance"].null_count == 5
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["matched"]["pairs"] == 9
    assert found.compared == 4
    with pytest.raises(JobError, match="is a run"):
        compare_runs(first, second, output=Store.open(tmp_path / "two"))


def test_a_log_is_told_by_query(tmp_path: Path) -> None:
    def run(name: str, shift: float) -> Run:
        rows = [
            Row(f"{q}:{d}", attributed(words(f"query {q}", "query"), words(f"text {d}", "document"), np.eye(2), score))
            for q, move in (("x", shift), ("y", 0.0))
            for d, score in (("k", 0.4 + move), ("l", 0.5 + move))
        ]
        return write_pairs(tmp_path / name, [rows], mode="retrieval")

    groups = compare_runs(run("one", 0.0), run("two", 0.25)).groups
    assert [(g.by, g.value, g.pairs) for g in groups] == [("query", "query x", 2), ("query", "query y", 2)]
    assert groups[0].difference == pytest.approx(0.25)


@pytest.mark.parametrize(
    "name",
    ["n", "score_1", "text_a", "pair_1", "distance", "overlap", "value", "hash_a", "nth", "Score", 'a "b".c', "kept_0"],
)
def test_a_column_may_have_any_name(tmp_path: Path, rng: random.Random, name: str) -> None:
    """Columns of the comparison's own tables must neither hide one that was passed through nor be hidden by it."""
    schema = pa.schema([("other", pa.string()), (name, pa.int32()), (name.swapcase(), pa.string())])
    rows = [
        Row(row.pair_id, row.pair, {"other": None, name: at % 3, name.swapcase(): "xy"[at % 2]})
        for at, row in enumerate(rows_of(rng, 12))
    ]
    first = write_pairs(tmp_path / "one", [rows], kept=schema)
    second = write_pairs(tmp_path / "two", [rows_of(rng, 12, noise=0.5)])
    scores = np.array([row.pair.score for row in rows])
    expected = spearmanr(scores, np.arange(12) % 3.0).statistic
    found = compare_runs(first, second)
    assert [(one.name, one.first) for one in found.columns] == [(name, pytest.approx(expected, abs=1e-6))]
    assert sorted((g.by, g.value, g.pairs) for g in found.groups) == sorted(
        [(name, str(at), 4) for at in range(3)] + [(name.swapcase(), one, 6) for one in "xy"]
    )
    assert {g.by for g in compare_runs(first, second, by=name).groups} == {name}


def test_a_column_that_hardly_two_pairs_share_makes_no_groups(tmp_path: Path, rng: random.Random) -> None:
    # Would catch a table of groups of one pair each, keyed by a number with sixteen digits.
    schema = pa.schema([("label", pa.int32()), ("measured", pa.float64())])
    rows = [Row(r.pair_id, r.pair, {"label": at % 2, "measured": at / 7}) for at, r in enumerate(rows_of(rng, 12))]
    first = write_pairs(tmp_path / "one", [rows], kept=schema)
    second = write_pairs(tmp_path / "two", [rows_of(rng, 12, noise=0.5)])
    assert {g.by for g in compare_runs(first, second).groups} == {"label"}
    assert len(compare_runs(first, second, by="measured").groups) == 12


@pytest.mark.parametrize("folder", ["attributions", "texts"])
def test_a_damaged_part_is_told_in_one_line(tmp_path: Path, rng: random.Random, folder: str) -> None:
    first = write_pairs(tmp_path / "one", [rows_of(rng, 30)])
    second = write_pairs(tmp_path / "two", [rows_of(rng, 30)])
    damage(tmp_path / "two", folder)
    with pytest.raises((RunError, StoreError), match=str(tmp_path / "two")) as error:
        compare_runs(first, second)
    assert "\n" not in str(error.value)


def test_whole_matrices_are_held_a_few_at_a_time(
    tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch batches of so many rows that long texts fill the memory; and batches change no number."""
    rows, others = rows_of(rng, 30), rows_of(rng, 30, noise=0.5)
    first = write_pairs(tmp_path / "one", [rows], store="full")
    second = write_pairs(tmp_path / "two", dealt(others, 3, rng), store="full")
    at_once = compare_runs(first, second)
    sizes: list[int] = []
    stored = details._stored

    def seen(batch: pa.RecordBatch, number: int) -> Any:
        sizes.append(len(batch))
        return stored(batch, number)

    monkeypatch.setattr(details, "_stored", seen)
    monkeypatch.setattr(details, "CELLS_AT_ONCE", 4 * 2 * 8 * 7)  # pairs of 8 and 7 groups in either run
    few = compare_runs(first, second)
    assert max(sizes) == 4
    one, other = few.agreement["cosine_cells"], at_once.agreement["cosine_cells"]
    assert np.hstack(list(asdict(one).values())) == pytest.approx(np.hstack(list(asdict(other).values())), abs=1e-9)


def test_the_command_prints_text_json_and_one_line_errors(tmp_path: Path, rng: random.Random) -> None:
    write_pairs(tmp_path / "one", [rows_of(rng, 5)], kept=LABEL)
    write_pairs(tmp_path / "two", [rows_of(rng, 5, noise=1.0)], kept=LABEL)
    command = ["compare", str(tmp_path / "one"), str(tmp_path / "two"), "--quiet"]
    shown = CliRunner().invoke(cli.app, command)
    assert shown.exit_code == 0, shown.output
    assert "5 pairs in both" in shown.output
    plain = CliRunner().invoke(cli.app, [*command, "--json"])
    assert json.loads(plain.stdout)["compared"] == 5
    wrong = CliRunner().invoke(cli.app, [*command, "--by", "nothing"])
    assert wrong.exit_code == 2
    assert "there is no such column" in wrong.output
    assert "Traceback" not in wrong.output

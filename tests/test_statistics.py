"""Exact statistics equal a direct computation, estimates keep their bounds, and the layout of a run does not matter."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statistics_oracle import PIPELINE, Oracle, Word, shares
from statistics_runs import Made, made_pairs, write_made

from attribution_core.results import ExplainedText
from jobs.analysis.statistics.compute import compute_statistics
from jobs.analysis.statistics.results import Statistics, statistics_of

CLOSE = 1e-5
FULL_TOP = 32


def rows(found: Statistics, table: str) -> list[dict[str, Any]]:
    return found.table(table).to_pylist()  # type: ignore[no-any-return]


def computed(place: Path, pairs: list[Made], **more: Any) -> Statistics:
    parts = more.pop("parts", None)
    settings = {name: more.pop(name) for name in ("only", "sample", "gold", "resamples", "pipeline") if name in more}
    run = write_made(place, pairs, parts, sums_to=pairs[0].pair.sums_to, **more)
    compute_statistics(run, **{"pipeline": PIPELINE, "resamples": 50, **settings})
    return statistics_of(run)


@pytest.fixture(scope="module")
def pairs(seed: int) -> list[Made]:
    """Pairs that sum to their score: of two in five that is near zero or negative."""
    return made_pairs(seed, 50, sums_to="score")


@pytest.fixture(scope="module")
def oracle(pairs: list[Made]) -> Oracle:
    return Oracle(pairs)


@pytest.fixture(scope="module")
def full(pairs: list[Made], tmp_path_factory: pytest.TempPathFactory) -> Statistics:
    """The statistics of a run that kept whole matrices, and 32 cells a pair beside them, as jobs do."""
    return computed(tmp_path_factory.mktemp("full") / "run", pairs, store="full", top_k=FULL_TOP)


@pytest.fixture(scope="module")
def top(pairs: list[Made], tmp_path_factory: pytest.TempPathFactory) -> Statistics:
    """The statistics of a run that kept eight cells a pair."""
    return computed(tmp_path_factory.mktemp("top") / "run", pairs, store="top")


@pytest.fixture(params=["full", "top"])
def either(request: pytest.FixtureRequest) -> Statistics:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def test_concentration_equals_the_direct_sums(either: Statistics, pairs: list[Made], oracle: Oracle) -> None:
    # Would catch a share taken of the wrong total, or a quantile over the wrong pairs.
    totals = np.array([oracle.matrix(one).sum() for one in pairs])
    masses = np.array([np.abs(oracle.matrix(one)).sum() for one in pairs])
    own = totals > 0.1 * masses
    assert (totals < 0).any()
    assert own.sum() < len(pairs)
    for row in rows(either, "concentration"):
        sums = np.array([oracle.largest(one, row["percent"]) for one in pairs])
        assert row["share"] == pytest.approx(sums.sum() / totals.sum(), abs=CLOSE)
        assert row["p50"] == pytest.approx(np.median((sums / totals)[own]), abs=CLOSE)
        assert row["low"] <= row["share"] <= row["high"]
    notes = either["concentration"].statistic.notes
    assert any(f"{len(pairs) - own.sum()} of 50 pairs have a score near zero or negative" in note for note in notes)
    negative = sum(-np.minimum(oracle.matrix(one), 0).sum() for one in pairs)
    mass = sum(np.abs(oracle.matrix(one)).sum() for one in pairs)
    assert either["concentration"].figure("negative_mass").value == pytest.approx(negative / mass, abs=CLOSE)


def test_single_cells_of_a_full_run_are_counted_exactly(full: Statistics, pairs: list[Made], oracle: Oracle) -> None:
    cells = np.concatenate([oracle.text_cells(one).ravel() for one in pairs])
    figure = full["concentration"].figure("negative_cells")
    assert figure.exact
    assert figure.value == pytest.approx((cells < 0).mean(), abs=CLOSE)
    assert full["concentration"].figure("skewness").value == pytest.approx(oracle.skewness(), abs=CLOSE)


def test_words_by_part_of_speech_equal_the_direct_sums(either: Statistics, oracle: Oracle) -> None:
    # Would catch words aligned to the wrong tags.
    for side in "ab":
        direct = shares(oracle.by_word(side, lambda word, *_: word.pos if word.kind == "text" else None))
        found = {row["pos"]: row for row in rows(either, "parts_of_speech") if row["side"] == side}
        assert set(found) == set(direct)
        for pos, (share, frequency) in direct.items():
            assert found[pos]["share"] == pytest.approx(share, abs=CLOSE)
            assert found[pos]["frequency"] == pytest.approx(frequency, abs=CLOSE)
            assert found[pos]["lift"] == pytest.approx(share / frequency, rel=1e-4)
        sums, _ = oracle.by_word(side, lambda word, *_: word.pos if word.kind == "text" else None)
        assert {pos: row["mean"] for pos, row in found.items()} == pytest.approx(
            {pos: total / len(oracle.pairs) for pos, total in sums.items()}, abs=CLOSE
        )


def pos_pair(left: Word, right: Word) -> tuple[str, str]:
    return left.pos, right.pos


CELL_TABLES = [("pos_pairs", ("pos_a", "pos_b")), ("matches", ("match",)), ("meetings", ("meeting",))]


@pytest.mark.parametrize(("table", "names"), CELL_TABLES)
def test_cells_by_kind_are_exact_or_within_their_bounds(
    either: Statistics, oracle: Oracle, table: str, names: tuple[str, ...]
) -> None:
    # Would catch a cell counted in the wrong kind, and a bound that forgets a cell that was not kept.
    label: Any = {"pos_pairs": pos_pair, "matches": oracle.match, "meetings": oracle.meeting}[table]
    direct = shares(oracle.by_cell(label))
    narrow = 0
    seen = set()
    for row in rows(either, table):
        key = tuple(row[name] for name in names)
        key = key if len(key) > 1 else key[0]
        share, frequency = direct.get(key, (0.0, 0.0))
        seen.add(key)
        assert row["frequency"] == pytest.approx(frequency, abs=CLOSE)
        if row["exact"]:
            assert row["share"] == pytest.approx(share, abs=CLOSE)
        assert row["at_least"] - CLOSE <= share <= row["at_most"] + CLOSE
        assert row["at_least"] - CLOSE <= row["share"] <= row["at_most"] + CLOSE
        narrow += row["at_most"] - row["at_least"] < 2
    assert seen >= set(direct)
    assert narrow, "a bound that allows for everything says nothing"


def test_kinds_of_words_and_special_tokens_equal_the_direct_sums(either: Statistics, oracle: Oracle) -> None:
    whole = sum(oracle.matrix(one).sum() for one in oracle.pairs)
    for side in "ab":
        direct = shares(oracle.by_word(side, lambda word, *_: word.what), whole)
        found = {row["kind"]: row for row in rows(either, "word_kinds") if row["side"] == side}
        assert {kind: row["share"] for kind, row in found.items()} == pytest.approx(
            {kind: share for kind, (share, _) in direct.items()}, abs=CLOSE
        )


def test_positions_equal_the_direct_sums(either: Statistics, oracle: Oracle) -> None:
    def tenth(word: Word, text: ExplainedText, place: int) -> int | None:
        read = text.cut_at if text.cut_at is not None else len(text.text)
        return min(int(word.start * 10 / read), 9) if word.kind == "text" else None

    def in_words(word: Word, text: ExplainedText, place: int) -> str | None:
        return None if word.kind != "text" else str(place) if place < 10 else "10-14"

    for side in "ab":
        for table, key, label in (("position_tenth", "order", tenth), ("position_word", "position", in_words)):
            direct = shares(oracle.by_word(side, label))
            found = {row[key]: row for row in rows(either, table) if row["side"] == side}
            assert {at: row["share"] for at, row in found.items()} == pytest.approx(
                {at: share for at, (share, _) in direct.items()}, abs=CLOSE
            )


@pytest.mark.parametrize("sums_to", ["score", "difference", "centred"])
def test_sufficiency_equals_scipy_on_direct_sums(tmp_path: Path, seed: int, sums_to: str) -> None:
    # Would catch reference terms added where the sum is the score, and a score predicted without what it lacks.
    pairs = made_pairs(seed, 50, sums_to="score" if sums_to == "score" else "difference")
    pairs = [replace(one, pair=replace(one.pair, sums_to=sums_to)) for one in pairs]
    oracle = Oracle(pairs)
    found = computed(tmp_path / "run", pairs, only=["sufficiency"])
    against = {
        "score": np.array([one.pair.score for one in pairs]),
        "total": np.array([oracle.matrix(one).sum() for one in pairs]),
        "label": np.array([one.kept["label"] for one in pairs]),
    }
    added = against["score"] - against["total"]
    kinds = {"score": {"cells"}}.get(sums_to, {"cells", "score"})
    names = {"score": {"score", "label"}}.get(sums_to, {"score", "total", "label"})
    table = rows(found, "sufficiency")
    assert {(row["sum"], row["against"]) for row in table} == {(kind, name) for kind in kinds for name in names}
    for row in table:
        sums = np.zeros(len(pairs))
        if row["percent"]:
            sums = np.array([oracle.largest(one, row["percent"]) for one in pairs])
        sums = sums + (added if row["sum"] == "score" else 0)
        y = against[row["against"]]
        assert row["pearson"] == pytest.approx(stats.pearsonr(sums, y).statistic, abs=CLOSE)
        # The order of two sums that float32 does not tell apart is anybody's.
        assert row["spearman"] == pytest.approx(stats.spearmanr(sums, y).statistic, abs=1e-3)
    assert ("reference terms" in str(found["sufficiency"])) == (sums_to == "difference")


def test_chosen_parts_of_speech_are_exact_or_within_their_bounds(
    either: Statistics, pairs: list[Made], oracle: Oracle
) -> None:
    y = np.array([one.kept["label"] for one in pairs])
    for row in rows(either, "sufficiency_words"):
        if row["against"] != "label":
            continue
        chosen = oracle.chosen(row["words"])
        pearson, spearman = stats.pearsonr(chosen, y).statistic, stats.spearmanr(chosen, y).statistic
        if row["exact"]:
            # Cells beyond the strongest were stored with eleven bits, and these sums may be of nothing else.
            assert row["pearson"] == pytest.approx(pearson, abs=1e-4)
            assert row["spearman"] == pytest.approx(spearman, abs=1e-2)  # ties of sums of nothing
        assert row["pearson_at_least"] - 1e-4 <= pearson <= row["pearson_at_most"] + 1e-4
        assert row["spearman_at_least"] - 1e-2 <= spearman <= row["spearman_at_most"] + 1e-2


def test_the_strongest_word_pairs_are_exact_or_within_their_bounds(either: Statistics, oracle: Oracle) -> None:
    total, count = oracle.by_cell(lambda left, right: (left.label, right.label))
    found = rows(either, "strongest")
    for row in found:
        key = (row["a"], row["b"])
        assert row["occurrences"] == count[key]
        # Cells beyond the strongest were stored with eleven bits: one is right to 1e-5, and a sum to that many times.
        close = CLOSE * max(count[key], 1)
        assert row["at_least"] - close <= total[key] <= row["at_most"] + close
        mean = total[key] / count[key]
        assert row["mean_at_least"] - CLOSE <= mean <= row["mean_at_most"] + CLOSE
        if row["exact"]:
            assert row["mean"] == pytest.approx(mean, abs=CLOSE)
    by_total = [(row["a"], row["b"]) for row in found if row["by"] == "total"]
    if found[0]["exact"]:
        best = sorted(total, key=lambda key: -total[key])
        assert by_total[:5] == best[:5]


def test_words_by_lift_equal_the_direct_sums(either: Statistics, pairs: list[Made]) -> None:
    # Would catch a special token's lift counted, and a document's words with another's lifts.
    total: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    for one in pairs:
        for text, lifts in ((one.pair.a, one.pair.row_lift), (one.pair.b, one.pair.col_lift)):
            assert lifts is not None
            for label, kind, lift in zip(text.groups.labels, text.groups.kinds, lifts, strict=True):
                if kind == "text":
                    total[label.casefold()] += float(lift)
                    count[label.casefold()] += 1
    found = rows(either, "words_by_lift")
    assert {row["side"] for row in found} == {"both"}
    for row in found:
        assert row["occurrences"] == count[row["word"]]
        assert row["total"] == pytest.approx(total[row["word"]], abs=CLOSE)
        assert row["mean"] == pytest.approx(total[row["word"]] / count[row["word"]], abs=CLOSE)
    for by, sign in (("total", -1), ("lowest", 1)):
        words = [row["word"] for row in found if row["by"] == by]
        assert words[:3] == sorted(total, key=lambda word, sign=sign: sign * total[word])[:3]  # type: ignore[misc]


def test_totals_that_cancel_have_no_shares_and_keep_their_means(tmp_path: Path, seed: int) -> None:
    # Would catch a share of next to nothing: a thousand times the total, or of the wrong sign.
    pairs = made_pairs(seed, 40, sums_to="score")
    for sign in (0.001, -0.4):
        low = []
        for one in pairs:
            matrix = one.pair.matrix - one.pair.matrix.mean()
            matrix = (matrix + sign * np.abs(matrix).mean()).astype(np.float32)
            sums = {"row_sums": matrix.sum(1), "col_sums": matrix.sum(0), "total": float(matrix.sum())}
            low.append(replace(one, pair=replace(one.pair, matrix=matrix, score=sums["total"], **sums)))
        found = computed(tmp_path / f"run{sign}", low, store="full")
        for name in ("concentration", "parts_of_speech", "pos_pairs", "matches", "word_kinds", "position_tenth"):
            table = rows(found, name)
            assert table
            assert {row[key] for row in table for key in ("share", "low", "high")} == {None}, name
            assert {row.get("lift") for row in table} == {None}
        oracle = Oracle(low)
        sums, _ = oracle.by_cell(oracle.match)
        means = {row["match"]: row["mean"] for row in rows(found, "matches") if row["cells"]}
        assert means == pytest.approx({key: total / len(low) for key, total in sums.items()}, abs=CLOSE)
        assert any(
            "No shares: the scores of these pairs add up to" in note for note in found["matches"].statistic.notes
        )
        figures = {one.name: one for statistic in found for one in statistic.statistic.figures}
        assert figures["largest_5"].value is figures["nouns_lift"].value is figures["exact"].value is None
        assert 0.3 < figures["negative_mass"].value < 0.8  # type: ignore[operator]
        for row in rows(found, "sufficiency"):
            assert -1 <= row["spearman"] <= 1
        assert "nan" not in str(found).replace("finance", "")


def test_shares_are_of_the_sum_over_pairs_and_bounded_near_zero(tmp_path: Path, seed: int) -> None:
    # One pair's total near zero must not move what a thousand pairs' shares are.
    pairs = made_pairs(seed, 40)
    before = computed(tmp_path / "before", pairs, only=["concentration", "matches"])
    matrix = pairs[0].pair.matrix - pairs[0].pair.matrix.mean()
    sums = {"row_sums": matrix.sum(1), "col_sums": matrix.sum(0), "total": float(matrix.sum())}
    near = replace(pairs[0], pair_id="near", pair=replace(pairs[0].pair, matrix=matrix, **sums))
    after = computed(tmp_path / "after", [*pairs, near], only=["concentration", "matches"])
    for table in ("concentration", "matches"):
        for one, other in zip(rows(before, table), rows(after, table), strict=True):
            assert other["share"] == pytest.approx(one["share"], abs=0.05)
    for row in rows(after, "concentration"):
        assert all(abs(row[key]) <= 10 for key in ("p05", "p25", "p50", "p75", "p95"))


def test_the_groups_of_word_pairs_are_those_of_the_gold_label(full: Statistics, pairs: list[Made]) -> None:
    labels = np.array([one.kept["label"] for one in pairs])
    edges = np.unique(np.quantile(labels, [0.2, 0.4, 0.6, 0.8]))
    group = np.searchsorted(edges, labels, "right")
    found = rows(full, "strongest_by_group")
    names = list(dict.fromkeys(row["group"] for row in found))
    for at, name in enumerate(names):
        direct, count = Oracle([one for one, g in zip(pairs, group, strict=True) if g == at]).by_cell(
            lambda left, right: (left.label, right.label)
        )
        row = next(row for row in found if row["group"] == name and row["by"] == "total")
        key = (row["a"], row["b"])
        assert (row["occurrences"], row["mean"]) == (count[key], pytest.approx(direct[key] / count[key], abs=CLOSE))


def test_exact_sums_keep_all_their_digits_whatever_the_cells_are_stored_in(full: Statistics, top: Statistics) -> None:
    # What follows from stored sums must not depend on whether matrices were kept.
    for table in ("concentration", "parts_of_speech", "word_kinds", "position_word", "sufficiency"):
        assert full.table(table).equals(top.table(table))


def test_with_every_cell_kept_an_estimate_is_exact(pairs: list[Made], oracle: Oracle, tmp_path: Path) -> None:
    found = computed(tmp_path / "run", pairs, store="top", top_k=1000, only=["parts_of_speech", "matches"])
    direct = shares(oracle.by_cell(pos_pair))
    for row in rows(found, "pos_pairs"):
        share, _ = direct[row["pos_a"], row["pos_b"]]
        assert row["share"] == pytest.approx(share, abs=CLOSE)
        assert row["at_most"] - row["at_least"] < CLOSE


LAYOUTS = [
    ("one part, backwards", [list(range(49, -1, -1))], "parquet"),
    ("seven parts", [list(range(at, 50, 7)) for at in range(7)], "parquet"),
    ("Arrow IPC", [list(range(25, 50)), list(range(25))], "arrow"),
]


@pytest.mark.parametrize("store", ["top", "full"])
@pytest.mark.parametrize(("name", "parts", "format"), LAYOUTS, ids=[name for name, *_ in LAYOUTS])
def test_nothing_changes_with_shard_count_or_order(
    full: Statistics, top: Statistics, pairs: list[Made], tmp_path: Path, store: str, name: str, parts: Any, format: str
) -> None:
    # Bit for bit: sums are of quanta, samples and draws follow a hash of the ids.
    expected = full if store == "full" else top
    kept = FULL_TOP if store == "full" else 8
    found = computed(tmp_path / "run", pairs, parts=parts, store=store, format=format, top_k=kept)
    for statistic in expected.summary.statistics.values():
        assert found.summary.statistics[statistic.name] == statistic
        for info in statistic.tables:
            assert found.table(info.name).equals(expected.table(info.name)), info.name


def test_a_sample_is_the_same_whatever_the_layout(pairs: list[Made], tmp_path: Path) -> None:
    first = computed(tmp_path / "one", pairs, sample=20, only=["concentration"])
    again = computed(tmp_path / "two", pairs, sample=20, only=["concentration"], parts=[range(30, 50), range(30)])
    assert first.summary.run.pairs == 20
    assert first.summary.run.sample == 20
    assert first.table("concentration").equals(again.table("concentration"))

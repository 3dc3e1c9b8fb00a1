"""What of a log's files joins with nothing, contradicts itself or could be read in two ways is said, with counts."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from test_logs import DOCUMENTS, FILES, QUERIES, log, log_job, planned, ranking, rows_of, write_texts  # noqa: F401

from jobs.errors import JobError, SourceError
from jobs.run.manifest import load_plan
from jobs.sources.beir import with_beir
from jobs.storage.store import Store

WITH_QRELS = FILES | {"qrels": "qrels.tsv"}


def said(folder: Path, **settings: Any) -> list[str]:
    return planned(folder, **settings)[0].notices


def judged(folder: Path, rows: list[tuple[str, str, int]]) -> None:
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in rows)]
    (folder / "qrels.tsv").write_text("\n".join(lines) + "\n")


def all_judged(folder: Path) -> list[tuple[str, str, int]]:
    return [(row[0], row[2], 1) for row in rows_of(folder)]


# Files that do not meet ----------------------------------------------------------------------------------------------


def test_a_log_that_fits_says_nothing(log: Path) -> None:  # noqa: F811
    judged(log, all_judged(log))
    plan, _ = planned(log, files=WITH_QRELS)
    quiet = [
        line
        for line in plan.notices
        if "tokenizer is not on this machine" not in line and "a text is title" not in line
    ]
    assert quiet == []
    assert plan.warnings == []


def test_judgments_of_other_queries_are_told(log: Path) -> None:  # noqa: F811
    judged(log, [("PLAIN-1", "d1", 1), ("PLAIN-2", "d1", 0)])
    plan, _ = planned(log, files=WITH_QRELS)
    line = (
        "qrels.tsv: none of its 2 judged queries is in the log, so relevance is null in every row; ids look like "
        f"'PLAIN-1' there and '{min(QUERIES)}' in the log"
    )
    assert plan.warnings == [line]
    assert line in plan.notices
    assert load_plan(Store.open(log_job(log).output)) == plan


def test_the_summary_repeats_what_its_reader_must_know(log: Path) -> None:  # noqa: F811
    """Also of a run that had been finished before."""
    from jobs.engine.driver import _warnings
    from jobs.engine.outcome import Outcome
    from jobs.run.totals import Totals

    judged(log, [("PLAIN-1", "d1", 1)])
    plan, _ = planned(log, files=WITH_QRELS)
    warnings = _warnings(Store.open(log_job(log).output))
    assert warnings == tuple(plan.warnings)
    lines = Outcome("run", Totals(), 1, 1, {}, 0, 0.0, warnings=warnings).lines()
    assert any(line.startswith("note     qrels.tsv: its 1 judged query is not in the log, so") for line in lines)
    assert not any(line.startswith("note") for line in Outcome("run", Totals(), 1, 1, {}, 0, 0.0).lines())


def test_queries_on_one_side_only_are_counted(log: Path) -> None:  # noqa: F811
    kept = [line for line in (log / "run.trec").read_text().splitlines() if line.split()[0] not in ("q2", "q3")]
    judged(log, [row for row in all_judged(log) if row[0] != "q1"] + [("extra", "d1", 1)])
    (log / "run.trec").write_text("\n".join(kept) + "\n")
    plan, _ = planned(log, files=WITH_QRELS)
    count = len(QUERIES)
    assert f"queries.jsonl: 2 of {count} queries are not in the log: q2, q3" in plan.notices
    assert f"qrels.tsv: 3 of {count} judged queries are not in the log: extra, q2, q3" in plan.notices
    assert f"the log: 1 of {count - 2} queries is without judgment in qrels.tsv: q1" in plan.notices
    assert plan.warnings == []


def test_a_sample_is_no_lack_of_queries(log: Path) -> None:  # noqa: F811
    judged(log, all_judged(log))
    for changes in ({"sample": 2}, {"limit": 3}, {"depth": 1}):
        lines = said(log, files=WITH_QRELS, output=f"run-{next(iter(changes))}", **changes)
        assert not any("not in the log" in line or "without judgment" in line for line in lines)


def test_judgments_of_other_documents_are_told(log: Path) -> None:  # noqa: F811
    judged(log, [(query, f"doc-{document}", 1) for query, document, _ in all_judged(log)])
    first = min(DOCUMENTS)
    assert planned(log, files=WITH_QRELS)[0].warnings == [
        "qrels.tsv: judges none of the pairs, so relevance is null in every row; documents look like "
        f"'doc-{first}' there and '{first}' in the log"
    ]


def test_judgments_without_rows_are_told(log: Path) -> None:  # noqa: F811
    judged(log, [])
    assert planned(log, files=WITH_QRELS)[0].warnings == [
        "qrels.tsv: contains no judgments, so relevance is null in every row"
    ]


def test_ids_of_the_log_without_text_are_named(log: Path) -> None:  # noqa: F811
    with open(log / "run.trec", "a", encoding="utf-8") as file:
        file.write("q1 Q0 gone 1 0.5 t\nq2 Q0 gone 1 0.5 t\nq1 Q0 lost 1 0.5 t\nnobody Q0 d1 1 0.5 t\n")
    plan, _ = planned(log)
    documents = len({row[2] for row in rows_of(log)})
    assert f"the log: 2 of {documents} documents are not in corpus.jsonl: gone, lost" in plan.notices
    assert f"the log: 1 of {len(QUERIES) + 1} queries is not in queries.jsonl: nobody" in plan.notices
    assert plan.rejected == {"document id without text": 3, "query id without text": 1}


def test_a_corpus_with_other_ids_is_told_with_examples(log: Path) -> None:  # noqa: F811
    lines = [json.dumps({"_id": f"MED-{key}", "text": text}) for key, text in DOCUMENTS.items()]
    (log / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    first = next(iter(DOCUMENTS))
    with pytest.raises(SourceError, match=rf"look like '{first}' in the log and 'MED-{first}' in the corpus"):
        planned(log)


def test_contradicting_judgments_are_counted_and_the_first_is_taken(log: Path) -> None:  # noqa: F811
    (query, document, _), other, same = all_judged(log)[:3]
    rows = [(query, document, 2), other, same, same, (query, document, 0), (*other[:2], 0), (query, document, 0)]
    judged(log, rows)
    plan, shards = planned(log, files=WITH_QRELS)
    assert (
        f"qrels.tsv: 2 pairs are judged more than once with different grades, such as query {query} with document "
        f"{document} (2 and 0): the first is taken"
    ) in plan.warnings
    found = {r["pair_id"]: r["relevance"] for shard in shards for r in shard.pairs.to_pylist()}
    assert found[f"{query}:{document}"] == 2
    assert found[f"{other[0]}:{other[1]}"] == 1
    judged(log, [*rows[:1], (query, document, 0)])
    assert any("1 pair is judged more" in line for line in said(log, files=WITH_QRELS, output="one"))


# Ranks ---------------------------------------------------------------------------------------------------------------


def with_ranks(folder: Path, rank: Any) -> None:
    """The run sorted by score, with ``rank(query, place)`` in the fourth column."""
    ranked: dict[str, list[list[str]]] = {}
    for row in rows_of(folder):
        ranked.setdefault(row[0], []).append(row)
    lines = []
    for query, rows in ranked.items():
        for place, row in enumerate(sorted(rows, key=lambda row: -float(row[4])), 1):
            lines.append(" ".join([*row[:3], str(rank(query, place)), *row[4:]]))
    (folder / "run.trec").write_text("\n".join(lines) + "\n")


def test_ranks_that_fit_or_say_nothing_are_not_spoken_of(log: Path) -> None:  # noqa: F811
    plain = ranking(log)
    for at, rank in enumerate(
        (lambda q, p: p, lambda q, p: p - 1, lambda q, p: 0, lambda q, p: "-", lambda q, p: 3 * p)
    ):
        with_ranks(log, rank)
        plan, _ = planned(log, output=f"fit{at}")
        assert plan.warnings == []
        assert ranking(log, output=f"fit{at}") == plain


def test_ranks_that_are_not_unique_are_told_and_the_score_decides(log: Path) -> None:  # noqa: F811
    plain = ranking(log)
    with_ranks(log, lambda query, place: place - (place == 3 and query in ("q2", "q4")))
    plan, _ = planned(log, output="shared")
    first = next(row[0] for row in rows_of(log) if row[0] in ("q2", "q4"))
    assert plan.warnings == [
        f"run.trec: ranks are not unique in 2 queries (query {first}: rank 2 2 times): the order is by score"
    ]
    assert ranking(log, output="shared") == plain


def test_ranks_against_the_scores_are_told(log: Path) -> None:  # noqa: F811
    """As of distances, where the smallest is the best."""
    with_ranks(log, lambda query, place: 9 - place if query == "q1" else place)
    (line,) = planned(log)[0].warnings
    assert line.startswith(f"run.trec: in 1 of {len(QUERIES)} queries the ranks do not follow the scores: the order")


# Three columns -------------------------------------------------------------------------------------------------------


def three(folder: Path, number: Any, *, shuffled: bool = False) -> list[tuple[str, str, int]]:
    """A three-column run with ``number(place, score)``; the pairs with their right ranks."""
    ranked: dict[str, list[tuple[float, str]]] = {}
    for row in rows_of(folder):
        ranked.setdefault(row[0], []).append((float(row[4]), row[2]))
    lines, expected = [], []
    for query, documents in ranked.items():
        for place, (score, document) in enumerate(sorted(documents, reverse=True), 1):
            lines.append(f"{query}\t{document}\t{number(place, score)}\n")
            expected.append((query, document, place))
    if shuffled:
        random.Random(3).shuffle(lines)
    (folder / "run.tsv").write_text("".join(lines))
    return sorted(expected)


THREE = FILES | {"log": "run.tsv"}


@pytest.mark.parametrize(
    ("number", "shuffled", "line"),
    [
        (lambda place, score: place, False, None),
        (lambda place, score: place - 1, False, None),
        (lambda place, score: place, True, "counts from 1 within each query, so it is the rank"),
        (lambda place, score: 3 * place, False, "rises within each query, so it is the rank"),
        (lambda place, score: score, False, "has fractions or negative numbers, so it is the score"),
        (lambda place, score: score - 10, True, "has fractions or negative numbers, so it is the score"),
        (lambda place, score: 1000 - place * place, False, "falls within each query, so it is the score"),
    ],
    ids=["ranks", "ranks from 0", "ranks in any order", "ranks with gaps", "scores", "negative", "whole scores"],
)
def test_the_third_column_is_decided_by_the_data(log: Path, number: Any, shuffled: bool, line: str | None) -> None:  # noqa: F811
    expected = three(log, number, shuffled=shuffled)
    notices = [one for one in said(log, files=THREE) if one.startswith("run.tsv")]
    assert notices == ([] if line is None else [f"run.tsv: the third column {line}"])
    found = ranking(log, files=THREE)
    assert [row[:3] for row in found] == expected
    assert all((row[3] is None) == (line is None or "rank" in line) for row in found)


@pytest.mark.parametrize(
    "number", [lambda place, score: 9 - place, lambda place, score: 1, lambda place, score: (place * 5) % 7 + 50],
    ids=["falling to 1", "all alike", "in no order"],
)  # fmt: skip
def test_what_could_be_both_is_asked(log: Path, number: Any) -> None:  # noqa: F811
    three(log, number)
    with pytest.raises(
        SourceError, match=r"could be a rank or a score.*add log_format: msmarco .*or log_format: scores"
    ):
        planned(log, files=THREE)
    by_rank = ranking(log, files=THREE, log_format="msmarco", output="ranks")
    by_score = ranking(log, files=THREE, log_format="scores", output="scores")
    assert {row[3] for row in by_rank} == {None}
    assert None not in {row[3] for row in by_score}
    assert len(by_rank) == len(by_score) == 48


def test_ranks_shared_in_three_columns_are_told(log: Path) -> None:  # noqa: F811
    three(log, lambda place, score: min(place, 4))
    (line,) = planned(log, files=THREE)[0].warnings
    assert line.startswith(f"run.tsv: ranks are not unique in {len(QUERIES)} queries (query ")
    assert line.endswith("rank 4 5 times): such documents are ordered by their ids, largest first")


def test_a_bad_number_costs_its_row_and_does_not_decide(log: Path) -> None:  # noqa: F811
    queries = list(QUERIES)
    rows = [
        f"{queries[at % len(queries)]}\td{at // len(queries) + 1}\t{at // len(queries) + 1}\n"
        for at in range(40 * len(QUERIES))
    ]
    lines = [json.dumps({"_id": f"d{at + 1}", "text": f"text {at}"}) for at in range(40)]
    (log / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    rows[17] = rows[17].replace("\n", ".5\n")
    rows[19] = "q1\td40\tx\n"
    (log / "run.tsv").write_text("".join(rows))
    plan, _ = planned(log, files=THREE)
    assert plan.rejected == {"neither a rank nor a score": 1, "rank is not a whole number": 1}


@pytest.mark.parametrize("name", ["rank", "score"])
def test_a_header_is_passed_over(log: Path, name: str) -> None:  # noqa: F811
    expected = three(log, lambda place, score: place if name == "rank" else score)
    text = (log / "run.tsv").read_text()
    (log / "run.tsv").write_text(f"qid\tdocid\t{name}\n{text}")
    plan, shards = planned(log, files=THREE)
    assert plan.rejected == {}
    rows = [row for shard in shards for row in shard.pairs.to_pylist()]
    assert sorted((row["text_a_id"], row["text_b_id"], row["rank"]) for row in rows) == expected
    lines = (log / "run.tsv").read_text().splitlines()
    assert all(lines[row["row"] - 1].startswith(f"{row['text_a_id']}\t{row['text_b_id']}\t") for row in rows)


# A BEIR folder -------------------------------------------------------------------------------------------------------


def beir(folder: Path, *splits: str) -> Path:
    write_texts(folder)
    (folder / "qrels").mkdir()
    for split in splits:
        (folder / "qrels" / split).write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    return folder


def test_the_split_of_a_beir_folder(tmp_path: Path) -> None:
    lines: list[str] = []
    place = str(beir(tmp_path, "train.tsv", "dev.tsv.gz"))

    def qrels(**settings: Any) -> str | None:
        lines.clear()
        return with_beir({"beir": place, **settings}, None, lines.append)["qrels"]

    assert qrels() is None
    assert lines == [
        f"--beir: {place} has judgments of dev, train but none of test, so none are read; choose with --split dev"
    ]
    assert qrels(split="dev") == f"{place}/qrels/dev.tsv.gz"
    assert lines == []
    with pytest.raises(
        JobError, match=r"--split: .* has no judgments of 'test' \(qrels/test\.tsv\); there are dev, train"
    ):
        qrels(split="test")
    with pytest.raises(JobError, match="--split: cannot be combined with --qrels"):
        qrels(split="dev", qrels=["mine.tsv"])
    with pytest.raises(JobError, match="--split: needs --beir"):
        with_beir({"split": "dev"})
    (tmp_path / "qrels" / "dev.tsv.gz").unlink()
    assert qrels() == f"{place}/qrels/train.tsv"
    assert lines == [f"--beir: judgments are those of train, the only split of {place}"]
    (tmp_path / "qrels" / "test.tsv").touch()
    assert qrels() == f"{place}/qrels/test.tsv"
    assert lines == []


def test_a_beir_folder_in_a_bucket(s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from test_stores import as_user

    from jobs.storage.s3 import open_s3

    as_user(monkeypatch, s3.admin)
    system = open_s3(None)
    for path in beir(tmp_path, "dev.tsv", "test.tsv").rglob("*.*"):
        system.put_file(str(path), f"{s3.bucket}/beir/{path.relative_to(tmp_path).as_posix()}")
    place = f"s3://{s3.bucket}/beir"
    found = with_beir({"beir": place})
    assert found == {name: f"{place}/{name}.jsonl" for name in ("queries", "corpus")} | {
        "qrels": f"{place}/qrels/test.tsv"
    }
    assert with_beir({"beir": place, "split": "dev"})["qrels"] == f"{place}/qrels/dev.tsv"
    with pytest.raises(JobError, match="there are dev, test"):
        with_beir({"beir": place, "split": "train"})
    with pytest.raises(JobError, match="there is no folder"):
        with_beir({"beir": f"s3://{s3.bucket}/nowhere"})


def test_a_file_of_judgments_that_is_not_there_is_told_with_its_neighbours(log: Path) -> None:  # noqa: F811
    judged(log, [])
    (log / "qrels").mkdir()
    (log / "qrels.tsv").rename(log / "qrels" / "dev.tsv")
    with pytest.raises(
        SourceError, match=r"qrels: .*test\.tsv: there is no such file or folder; its folder has dev\.tsv"
    ):
        planned(log, files=FILES | {"qrels": "qrels/test.tsv"})

"""A query read back from a run: the right documents in the right order, exact numbers, the original's characters."""

from __future__ import annotations

import itertools
import random
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from query_runs import LOG, QUERIES, Ranked, attribution, small_log, write_run
from s3_server import S3Server
from test_stores import as_user
from tiny_models import TinyModels, random_text

from attribution_core.errors import SettingError, TokenpairError
from jobs.analysis.query.result import QueryDocument, QueryResult, Span
from jobs.analysis.query.snippet import Snippet, snippet, whole
from jobs.config.job import load_job
from jobs.engine.worker import Worker
from jobs.errors import RunError
from jobs.plan.plan import make_plan
from jobs.run.reader import open_run
from jobs.storage.store import Store

ODD = "\u202eevil  tab\tand 👩‍💻 emoji\u00a0here, naïve\n日本 <script>alert(1)</script> e\u0301 end"


@pytest.fixture(params=["parquet", "arrow"])
def format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_documents_come_in_rank_order_with_what_the_log_says(tmp_path: Path, format: str) -> None:
    """Would catch the order of the shards or of the scores, another query's rows, and columns that are mixed up."""
    result = open_run(write_run(tmp_path / "run", QUERIES, small_log(), format=format).url).query("q1")
    assert [(one.rank, one.id, one.score) for one in result] == [
        (1, "d3", pytest.approx(0.5)),
        (2, "d1", pytest.approx(0.3)),
        (3, "d2", pytest.approx(0.9)),
    ]
    assert [one.log_score for one in result] == pytest.approx([0.501, 0.301, 0.901])
    assert [one.relevance for one in result] == [2, None, 1]
    assert {one.tag for one in result} == {"mini"}
    assert (result.text, len(result), result[0].text) == ("hot wing design", 3, "A layer on the wing")
    assert result.words == ("[CLS]", "hot", "wing", "design", "[SEP]")
    assert [one.id for one in result[1:]] == ["d1", "d2"]
    assert [one.id for one in open_run(tmp_path / "run").query("q2")] == ["d3"]


def test_without_ranks_the_score_decides(tmp_path: Path) -> None:
    """Would catch a log without ranks in file order, or equal scores in an order that changes."""
    rows = [Ranked("q1", name, "some words", score) for name, score in (("b", 0.5), ("c", 0.7), ("a", 0.5))]
    result = open_run(write_run(tmp_path / "run", QUERIES, [rows], schema=pa.schema([])).url).query("q1")
    assert [(one.rank, one.id) for one in result] == [(1, "c"), (2, "a"), (3, "b")]
    assert (result[0].log_score, result[0].relevance, result[0].tag) == (None, None, None)


def test_a_document_may_have_the_querys_id(tmp_path: Path) -> None:
    """Would catch the query's text shown as the document's, where queries and documents are numbered alike."""
    run = write_run(tmp_path / "run", QUERIES, [[Ranked("q1", "q1", "some words", kept={"rank": 1})]])
    result = open_run(run.url).query("q1")
    assert (result.text, result[0].text) == ("hot wing design", "some words")


def test_ranks_that_came_as_text_are_numbers(tmp_path: Path) -> None:
    """Would catch rank 10 before rank 9 where a CSV file brought the ranks."""
    rows = [Ranked("q1", f"d{rank}", "some words", kept={"rank": str(rank)}) for rank in (10, 9, 11)]
    run = write_run(tmp_path / "run", QUERIES, [rows], schema=pa.schema([("rank", pa.string())]))
    assert [one.rank for one in open_run(run.url).query("q1")] == [9, 10, 11]


def test_spans_are_the_originals_characters_with_exact_sums(tmp_path: Path) -> None:
    """Would catch offsets into a cleaned-up text, sums over the stored cells alone, or the wrong query word."""
    row = Ranked("q1", "d", ODD, cells={("wing", "emoji"): 0.7, ("hot", "emoji"): -0.9, ("hot", "end"): 0.5})
    run = open_run(write_run(tmp_path / "run", QUERIES, [[row]], schema=pa.schema([]), top_k=3).url)
    (document,) = run.query("q1")
    expected = attribution(QUERIES, row, 0)
    assert document.text == ODD
    assert [span.text for span in document.spans] == ODD.split()
    for span, j in zip(document.spans, range(1, len(expected.b.groups) - 1), strict=True):
        assert ODD[span.start : span.end] == span.text == expected.b.groups.labels[j]
        assert span.value == pytest.approx(float(expected.matrix[:, j].sum(dtype=np.float64)), abs=1e-6)
    met = {span.text: (span.query_word, span.query_index, span.cell) for span in document.spans if span.query_word}
    assert met == {"emoji": ("hot", 1, pytest.approx(-0.9)), "end": ("hot", 1, pytest.approx(0.5))}
    np.testing.assert_array_equal(document.row_sums, expected.row_sums)
    np.testing.assert_array_equal(document.col_sums, expected.col_sums)
    assert [(cell.a, cell.b) for cell in document.top(2)] == [("hot", "emoji"), ("wing", "emoji")]


def test_a_snippet_is_the_full_window_with_the_largest_sum(rng: random.Random) -> None:
    """Against trying every window: would catch one that is too wide, not the best, half empty, full of words that pull
    the score down, or that changes the text."""
    for _ in range(200):
        words = [
            rng.choice(["a", "bb", "ccc", "日本", "👩‍💻", "longer-word", "\x1b[31m"]) for _ in range(rng.randint(1, 25))
        ]
        text = "".join(word + rng.choice([" ", "  ", "\n", ", "]) for word in words)
        document = document_of(text, [rng.choice([0.0, rng.gauss(0, 1)]) for _ in text.split()])
        room = rng.randint(12, 60)
        shown = snippet(document, room)
        assert "".join(piece.text for piece in shown.pieces) == text[shown.start : shown.end]
        if len(text) <= room:
            assert (shown.start, shown.end) == (0, len(text))
            continue
        spans = document.spans
        assert len(text[shown.start : shown.end].strip()) <= room

        def fits(first: int, last: int) -> bool:
            return first >= 0 and last < len(spans) and spans[last].end - spans[first].start <= room  # noqa: B023

        best = max(
            sum(span.value for span in spans[first : last + 1])
            for first in range(len(spans))
            for last in range(first, len(spans))
            if fits(first, last) and not fits(first - 1, last) and not fits(first, last + 1)
        )
        inside = [span for span in spans if span.start >= shown.start and span.end <= shown.end]
        assert sum(span.value for span in inside) == pytest.approx(best, abs=1e-6)


def test_a_word_longer_than_the_room_is_cut(tmp_path: Path) -> None:
    """Would catch a page-long snippet of a document without spaces."""
    document = document_of("x" * 5000 + " tail", [1.0, 0.1])
    shown = snippet(document, 100)
    assert (shown.start, shown.end) == (0, 100)
    assert shown.cut_after


def test_what_is_marked_stands_out_of_its_document(rng: random.Random) -> None:
    """Would catch a text in which most words are marked, and a strong word that is not."""
    clear = whole(document_of("a b c d e f g h", [0.1, 2, 0.1, -1.1, 0.1, 0.9, 0.1, 0.1]))
    assert [span.text for span in clear.marked] == ["b", "d"]
    for _ in range(20):
        values = [rng.expovariate(1) * rng.choice([1, -1]) for _ in range(200)]
        marked = whole(document_of("word " * 200, values)).marked
        assert 1 <= len(marked) < 60
        assert max(values, key=abs) in [pytest.approx(span.value) for span in marked]
    assert whole(document_of("a b", [0, 0])).marked == []
    beside = whole(document_of("a b c d e", [0.4, -1.0, 0.1, -0.4, 0.0])).marked
    assert [span.text for span in beside] == ["a", "b"], "what pulls down most hides what lifts most"


def document_of(text: str, values: list[float]) -> QueryDocument:
    """A document whose words, split at white space, brought ``values``."""
    from display_pairs import explained

    sums = np.array([0.05, *values, -0.05], np.float32)
    return QueryDocument("d", "p", 1, 0.5, None, None, None, explained(text), np.zeros(3, np.float32), sums, ())


PLANTED = "the wing of a heated body in subsonic flow"


def planted(tmp_path: Path, **more: object) -> Store:
    """A run of one document whose largest share is another word's than its largest lift."""
    lifts = {"heated": 0.08, "wing": 0.01, "body": -0.05}
    cells = {("wing", "wing"): 0.6, ("hot", "heated"): 0.2}
    row = Ranked("q1", "d", PLANTED, cells=cells, lifts=None if more.get("old") else lifts)
    return write_run(tmp_path / "run", QUERIES, [[row]], schema=pa.schema([]), **more)  # type: ignore[arg-type]


def test_marks_follow_the_lift_where_the_run_has_it_and_the_share_where_asked(tmp_path: Path) -> None:
    """Would catch marks by the wrong one of the two, and one that is given as the other."""
    run = open_run(planted(tmp_path).url)
    (by_lift,), (by_share,) = run.query("q1"), run.query("q1", by="share")
    assert (run.query("q1").by, run.query("q1", "lift").by, run.query("q1", "share").by) == ("lift", "lift", "share")
    assert [span.text for span in whole(by_lift).marked] == ["heated", "body"]
    assert [span.text for span in whole(by_share).marked] == ["wing", "heated"]
    for lifted, shared in zip(by_lift.spans, by_share.spans, strict=True):
        assert (lifted.lift, lifted.share) == (shared.lift, shared.share)
        assert (lifted.value, shared.value) == (lifted.lift, lifted.share)
    told = {span.text: (span.lift, span.share) for span in by_lift.spans}
    assert told["heated"] == (pytest.approx(0.08), pytest.approx(0.2, abs=0.05))
    assert told["wing"] == (pytest.approx(0.01), pytest.approx(0.6, abs=0.05))


@pytest.mark.parametrize("more", [{"old": True}, {"similarity": "dot"}])
def test_a_run_without_lifts_has_shares_alone(tmp_path: Path, more: dict[str, object]) -> None:
    """Would catch a lift that is made up, and an old run that is no longer read."""
    run = open_run(planted(tmp_path, **({"old": True} | more)).url)
    (document,) = run.query("q1")
    assert (run.query("q1").by, document.by, document.row_lift, document.col_lift) == ("share", "share", None, None)
    assert all(span.lift is None and span.value == span.share for span in document.spans)
    why = "similarity is dot" if "similarity" in more else "made by an earlier version"
    with pytest.raises(SettingError, match=f"the run has no lifts: .*{why}"):
        run.query("q1", by="lift")
    with pytest.raises(SettingError, match="by must be lift or share, not 'top'"):
        run.query("q1", by="top")


def test_a_snippet_is_where_the_lift_is(tmp_path: Path) -> None:
    """Would catch a window that follows the share though the marks in it follow the lift, or the other way round."""
    words = [f"w{n}" for n in range(120)]
    document = document_of(" ".join(words), [3.0 if n == 10 else 0.01 for n in range(120)])
    lift = np.array([0, *(0.5 if n == 100 else -0.3 if n == 60 else 0.0 for n in range(120)), 0], np.float32)
    shown = {
        by: [piece.text for piece in snippet(replace(document, col_lift=lift, by=by), 80).pieces]  # type: ignore[arg-type]
        for by in ("lift", "share")
    }
    assert "w100" in shown["lift"]
    assert "w60" not in shown["lift"]
    assert "w10" in shown["share"]


def test_a_lift_that_is_noise_is_not_marked() -> None:
    """Would catch marks all over two equal texts, whose lifts are zero but for the numerical error."""
    document = document_of("a b c d", [0.3, 0.2, 0.3, 0.2])
    lift = np.array([0, 1e-4, -9e-4, 5e-4, 1.9e-3, 0], np.float32)
    assert whole(replace(document, col_lift=lift, by="lift")).marked == []
    assert [span.text for span in whole(replace(document, col_lift=lift * 2, by="lift")).marked] == ["d"]


def test_byte_tokens_of_one_character_are_one_span(tmp_path: Path) -> None:
    """Would catch an emoji that is drawn once for each of its bytes."""
    document = document_of("ok 👍 ok", [0.1, 0.2, 0.4])
    groups = document.explained.groups
    doubled = replace(
        groups,
        labels=(*groups.labels[:3], "👍", *groups.labels[3:]),
        starts=(*groups.starts[:3], 3, *groups.starts[3:]),
        ends=(*groups.ends[:3], 4, *groups.ends[3:]),
        kinds=(*groups.kinds[:3], "text", *groups.kinds[3:]),
    )
    sums = np.array([0, 0.1, 0.2, 0.3, 0.4, 0], np.float32)
    document = replace(
        document, explained=replace(document.explained, groups=doubled), col_sums=sums, col_lift=sums / 10
    )
    assert [(span.text, round(span.share, 3)) for span in document.spans] == [("ok", 0.1), ("👍", 0.5), ("ok", 0.4)]
    assert [round(span.lift or 0, 3) for span in document.spans] == [0.01, 0.05, 0.04]


def test_missing_ids_are_told_with_what_ids_look_like(tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path / "run", QUERIES, small_log()).url)
    with pytest.raises(RunError, match=r"run: there is no query 'd1'; ids look like 'q1', 'q2'$"):
        run.query("d1")
    with pytest.raises(RunError, match=r"query 'q1' has no document 'd9': it has 'd3', 'd1', 'd2'$"):
        run.query("q1").document("d9")
    assert run.query("q1").document("d2").rank == 3


def test_an_unfinished_run_gives_what_is_there_and_says_so(tmp_path: Path) -> None:
    """Would catch gaps that nobody is told of, and a failure where the query's own text comes with a later shard."""
    run = open_run(write_run(tmp_path / "run", QUERIES, small_log()[:1], finished=False, texts_of=["q2"]).url)
    assert "not finished" in str(run.query("q2"))
    early = run.query("q1")
    assert "not finished" in early.unfinished
    assert [(one.rank, one.id) for one in early] == [(3, "d2")]
    assert {"hot", "wing"} <= set(early.words)
    assert "text is not written yet" in str(early)
    assert "text is not written yet" in early._repr_html_()
    with pytest.raises(RunError, match=r"no query 'q9'; ids look like 'q1', 'q2'; the run is not finished$"):
        run.query("q9")
    with pytest.raises(RunError, match=r"has no document 'd1': it has 'd2'; the run is not finished$"):
        early.document("d1")
    empty = open_run(write_run(tmp_path / "empty", QUERIES, [], finished=False).url)
    with pytest.raises(RunError, match=r"no query 'q1'; there is no row yet; the run is not finished$"):
        empty.query("q1")


def test_a_finished_run_says_nothing_of_the_kind(tmp_path: Path) -> None:
    result = open_run(write_run(tmp_path / "run", QUERIES, small_log()).url).query("q1")
    assert result.unfinished == ""
    assert "not finished" not in str(result)


def test_parts_without_the_query_are_not_read_but_for_their_ids(tmp_path: Path) -> None:
    """Would catch a query that loads the whole run: what lies in the other parts' wide columns is rubbish here."""
    # The broken part holds the ids on either side, so that its smallest and largest id do not tell.
    asked, other = (
        [Ranked(names[n % len(names)], f"d{n}", "some words", kept={"rank": n}) for n in range(30)]
        for names in (["q1"], ["q0", "q2"])
    )
    run = write_run(tmp_path / "run", QUERIES | {"q0": "a wing"}, [asked, other], schema=LOG)
    path = tmp_path / "run" / "attributions" / "part-00001.parquet"
    group = pq.ParquetFile(path).metadata.row_group(0)
    broken = bytearray(path.read_bytes())
    for at in range(group.num_columns):
        column = group.column(at)
        if column.path_in_schema != "text_a_id":
            start = min(filter(None, (column.data_page_offset, column.dictionary_page_offset)))
            broken[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(broken)
    with pytest.raises(TokenpairError):
        open_run(run.url).to_table()
    assert len(open_run(run.url).query("q1")) == 30


@pytest.mark.parametrize("folder", ["attributions", "texts"])
@pytest.mark.parametrize("part", [0, 1])
def test_a_damaged_part_is_told_in_one_line(tmp_path: Path, folder: str, part: int) -> None:
    """Would catch an error of the Arrow library in a user's hands."""
    run = write_run(tmp_path / "run", QUERIES, small_log())
    (tmp_path / "run" / folder / f"part-{part:05d}.parquet").write_bytes(b"junk")
    for query in ("q1", "q9"):
        with pytest.raises(RunError, match=r"run: (a part of the run is damaged|there is no query 'q9')"):
            open_run(run.url).query(query)


def test_a_run_in_a_bucket_answers_too(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, format: str
) -> None:
    as_user(monkeypatch, s3.admin)
    place = f"s3://{s3.bucket}/{uuid.uuid4().hex}"
    write_run(place, QUERIES, small_log(), format=format)
    here = open_run(write_run(tmp_path / "run", QUERIES, small_log(), format=format).url).query("q1")
    as_user(monkeypatch, s3.read_only)
    there = open_run(place).query("q1")
    assert str(there) == str(here)
    with pytest.raises(RunError, match="no query 'q9'; ids look like 'q1', 'q2'"):
        open_run(place).query("q9")


@pytest.fixture(scope="module")
def prompted(tiny: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> QueryResult:
    """A query of a real job with a tiny model that puts prompts before queries and documents."""
    folder = tmp_path_factory.mktemp("log")
    model = tiny.folder("bert", prompts={"query": "question: ", "document": "river: "}, normalize=True)
    chance = random.Random(3)
    lines = ["qid,docid,rank,relevance,query,document"]
    lines += [f'7,d{n},{n + 1},{n % 2},how do I copy file,"{random_text(chance, 12)}"' for n in reversed(range(12))]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    job = load_job(
        None,
        {
            "model": str(model),
            "input": str(folder / "log.csv"),
            "output": str(folder / "run"),
            "columns": {"a": "query", "b": "document", "a_id": "qid", "b_id": "docid"},
            "mode": "retrieval",
            "shards": 3,
        },
    )
    store = Store.open(job.output)
    plan = make_plan(job, store)
    worker = Worker(job.model_dump(mode="json"), job.output)
    worker.load()
    for shard in plan.shards:
        worker.run_shard(shard.index)
    store.commit("_SUCCESS", b"")
    return open_run(job.output).query("7")


def test_a_query_of_a_real_job_is_whole(prompted: QueryResult) -> None:
    """Would catch a result that only fits runs made by hand: ids, ranks and sums of a job as it runs."""
    assert [(one.rank, one.id) for one in prompted] == [(n + 1, f"d{n}") for n in range(12)]
    for document in prompted:
        assert [span.text for span in document.spans] == [
            label for label, kind in zip(document.explained.groups.labels, document.explained.groups.kinds, strict=True)
            if kind == "text"
        ]  # fmt: skip
        assert document.row_sums.sum() == pytest.approx(document.col_sums.sum(), abs=1e-4)
        assert document.total == pytest.approx(float(document.row_sums.sum()), abs=1e-6)
        assert document.row_lift is not None
        assert document.col_lift is not None
        assert (document.row_lift.sum(), document.col_lift.sum()) == pytest.approx((0, 0), abs=2e-3)
        assert len(document.row_sums) == len(prompted.words)
        assert isinstance(whole(document), Snippet)
        assert all(isinstance(span, Span) for span in document.spans)


def test_no_two_documents_are_contradicted_by_their_bars(prompted: QueryResult) -> None:
    """Would catch bars that sum to anything but the score: what lies between two documents' scores lies between the
    sums of their bars as well."""
    assert prompted.sums_to == "score"
    for first, second in itertools.combinations(prompted, 2):
        between = sum(float(value) for value in first.row_sums) - sum(float(value) for value in second.row_sums)
        assert between == pytest.approx(first.score - second.score, abs=4e-3)
    scores = [one.score for one in prompted]
    assert max(scores) - min(scores) > 0.02, "all alike, so that nothing was tested"


def test_prompt_tokens_are_no_words_of_the_query(prompted: QueryResult) -> None:
    """Would catch a prompt that is shown as if the user had asked it."""
    assert "prompt" in prompted.query.groups.kinds
    assert prompted.text == "how do I copy file"
    assert "question" not in str(prompted)
    assert "question" not in prompted._repr_html_()
    from jobs.views.query.page import query_html

    assert "question" in query_html(prompted, special=True)

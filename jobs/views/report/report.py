"""Makes the report of a run: gather, choose, draw; bounded in memory and in the size of the page."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from attribution_core.display.view import model_words, printable, shortened
from jobs.analysis.failures.find import read_failures
from jobs.analysis.failures.result import Failures
from jobs.analysis.flips.result import stored_flips
from jobs.analysis.probes.result import stored_probes
from jobs.analysis.query.reader import read_queries
from jobs.analysis.query.result import QueryResult
from jobs.analysis.ranking.result import Ranking
from jobs.analysis.statistics.compute import compute_statistics
from jobs.analysis.statistics.schema import NAMES, SUMMARY, Summary, read_summary
from jobs.analysis.statistics.tagging import chosen_pipeline
from jobs.errors import RunError, StoreError
from jobs.run.reader import Run
from jobs.run.untrusted import as_written
from jobs.views.kit.page import html_table
from jobs.views.kit.table import Table, table_of
from jobs.views.query.page import query_html
from jobs.views.report import plots
from jobs.views.report.explorer import Explorer
from jobs.views.report.failing import Failing, Known, failing_judged, failing_unjudged
from jobs.views.report.faithfulness import judged, read_faithfulness, sections
from jobs.views.report.findings import Findings
from jobs.views.report.kinds import (
    cards,
    examples,
    kind_sentences,
    knows_the_cut,
    only_in_wrong,
    probe_sentences,
    probes_part,
    tags,
)
from jobs.views.report.overview import Overview, read_overview
from jobs.views.report.page import page
from jobs.views.report.query_table import fragment, most_cut, query_rows, read_facts, without_effect
from jobs.views.report.ranking import stored_ranking
from jobs.views.report.rows import Rows
from jobs.views.report.sampling import choose_pairs, choose_queries, rejected
from jobs.views.report.trust import (
    adds_up,
    agreement,
    cut_texts,
    decided,
    judged_documents,
    meaning,
    rejected_rows,
    scored,
    small,
)
from jobs.views.report.verdict import metrics, sentences
from jobs.views.statistics.advice import CUT, advice_of

NAME = "report.html"
# With the statistics' tables and plots a report stays below 2 MB whatever the run is.
PAIRS_ROOM, FAILING_ROOM, QUERIES_ROOM = 500_000, 700_000, 100_000
QUERIES, DOCUMENTS = 5, 5
REASONS, EXAMPLES, LONGEST_REJECT = 12, 3, 400
METHOD = (
    "A word's contribution is the model's Jacobian, integrated along the path to the text from a reference, in which "
    "one token stands in place of every word. The products of two texts' contributions are the word pairs; what those "
    "of a pair add up to is said above. Metrics of rankings are computed as trec_eval does. Intervals are 95 % "
    "bootstrap intervals. Where one is so wide that its number says nothing, the page says how little is judged, and "
    "draws nothing."
)


def make_report(run: Run, echo: Callable[[str], None], *, called: str, seed: int = 0, pairs: int = 60) -> str:
    """The report of ``run`` as one HTML page.

    ``called`` is how the user names the run, for the commands on the page; ``echo`` gets a line for what takes time;
    ``seed`` and ``pairs``, about how many, choose those that are shown. RunError where the run has no pair yet.
    """
    if not run.first("pair_id", 1):
        raise RunError(f"{run.url}: has no pair to report on yet" + ("" if run.finished else "; it is not finished"))
    overview = read_overview(run, run.format)
    unit = run.units
    log = run.roles[0] == "query"
    called = printable(called)
    findings = Findings(_statistics(run, overview, echo), run.store)
    advice = advice_of(findings.summary, findings.tables)
    faithfulness = read_faithfulness(run.store)
    ranking = stored_ranking(findings.summary.statistics.get("ranking"), run.store)
    with as_written(run.url):
        failures = read_failures(run) if log else None
        failing = _failing(run, ranking, findings, failures, called)
    probes = stored_probes(run) if log else None
    with as_written(run.url):
        queries = list(read_queries(run, choose_queries(run, seed, QUERIES)).values())
    lists = [("Failing queries", failing.pairs), *choose_pairs(run, seed, pairs), *findings.examples()]
    explorer, lists = _pairs(run, lists, queries)
    model = printable(model_words(str(run.setting("model") or ""))) or "this model"
    trust = [
        adds_up(overview),
        judged(faithfulness, called),
        decided(stored_flips(run) if log else None, called, failing=ranking is not None and bool(failing.intro)),
        meaning(overview, unit),
        cut_texts(overview),
        judged_documents(ranking),
        agreement(overview),
        rejected_rows(overview),
    ]
    verdict = sentences(
        kind_sentences(failures),
        advice,
        probe_sentences(probes),
        failing=bool(failing.intro),
        without=[CUT] if knows_the_cut(failures) else [],
    )
    said = {one.finding for one in verdict}
    table = _query_table(run, seed, ranking, findings, failing, queries, explorer)
    parts = [
        ("verdict", "Verdict", True),
        ("failing", "Failing queries", bool(failing.intro)),
        ("queries", "All queries", table is not None),
        ("pairs", "Pairs", True),
        ("findings", "Findings", True),
        ("trust", "Trust", True),
        ("method", "Method", True),
    ]
    return page(
        {
            "version": _version(),
            "title": f"Why {shortened(_name(model), 80)} scores as it does",
            "subtitle": f"What each {unit} adds to the score: {overview.totals.pairs:,} pairs of {called}",
            "parts": [{"id": id, "title": title} for id, title, there in parts if there],
            "warnings": [run.unfinished] if run.unfinished else [],
            "verdict": verdict,
            "metrics": metrics(ranking),
            "notes": [*(ranking.notes if ranking is not None else ()), *findings.of_a_sample()],
            "facts": _facts(overview),
            "failing": failing,
            "kinds": cards(failures, set(failing.ids)),
            "failing_notes": _failing_notes(run, failing, failures),
            "probes": probes_part(probes, called) if log else None,
            "query_table": table,
            "other_findings": [one for one in advice if one.finding not in said],
            "scored": scored(overview, log),
            "trust": [one for one in trust if one is not None],
            "plots": _overview_plots(overview, unit),
            "faithfulness": sections(faithfulness) if faithfulness else [],
            "statistics": findings.sections(explorer),
            "statistics_notes": [*findings.summary.notes, *findings.of_a_sample(), findings.intervals()],
            "pairs_words": _pairs_words(explorer, unit, bool(failing.pairs), run.has_word_pairs),
            "run": shlex.quote(called),
            "rejects": _rejects(run) if overview.totals.rejected else None,
            "method": METHOD,
            "about": _about(run, model),
            "format": "Parquet" if run.format == "parquet" else "Arrow",
            "sql": _sql(run, called),
            "data": Markup(explorer.json(lists)),
        }
    )


def _failing(run: Run, ranking: Ranking | None, findings: Findings, failures: Failures | None, called: str) -> Failing:
    """The failing queries of a log, by its judgments where it has some."""
    known = Known(tags(failures), only_in_wrong(failures), examples(failures))
    if ranking is not None:
        return failing_judged(run, ranking, known, called, FAILING_ROOM)
    if run.roles[0] == "query":
        lost = without_effect(findings.tables)
        return failing_unjudged(run, known, lost, most_cut(run), called, FAILING_ROOM)
    return Failing("", Rows("failing-table", "", ()))


def _failing_notes(run: Run, failing: Failing, failures: Failures | None) -> list[str]:
    """What could not be looked at; that the run is not finished stands at the top of the page."""
    notes = dict.fromkeys([*failing.notes, *(failures.notes if failures is not None else ())])
    return [printable(note) for note in notes if note != run.unfinished]


def _query_table(
    run: Run,
    seed: int,
    ranking: Ranking | None,
    findings: Findings,
    failing: Failing,
    queries: Sequence[QueryResult],
    explorer: Explorer,
) -> Rows | None:
    """The table of a log's queries: those drawn at random open to their documents, failing ones lead to their row."""
    wanted = [*failing.ids, *(one.id for one in queries)]
    count, facts = read_facts(run, seed, wanted)
    if not facts:
        return None
    links = {id: f"#{fragment('failing', id)}" for id in failing.ids}
    opened = {one.id: html for one, html in _opened(queries, explorer) if one.id not in links}
    return query_rows(facts, count, ranking, without_effect(findings.tables), opened, links)


def write_report(run: Run, page: str, output: Path | None) -> str:
    """Write the page to ``output``, or into the run directory, and return its place. StoreError where that fails."""
    if output is None:
        run.store.replace(NAME, page.encode())
        return run.store.describe_name(NAME)
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write {output}: {error.strerror or error}") from None
    return str(output)


def _statistics(run: Run, overview: Overview, echo: Callable[[str], None]) -> Summary:
    """The statistics of the run's present rows: the stored ones, else computed first."""
    summary = None
    why = "the run has no statistics yet"
    if run.store.exists(SUMMARY):
        try:
            summary = read_summary(run.store)
        except RunError:
            why = "the run's statistics are damaged, or another version wrote them"
    if summary is not None:
        if summary.run.pairs_in_run == overview.totals.pairs:
            missing = [name for name in NAMES if name not in summary.statistics]
            if not missing:
                return summary
            echo(f"computing the statistics that are missing: {', '.join(missing)}")
            facts = summary.run
            return compute_statistics(
                run,
                only=missing,
                pipeline=facts.pipeline.name if facts.pipeline else None,
                sample=facts.sample,
                seed=facts.seed,
                resamples=facts.resamples,
                gold=facts.gold,
                echo=echo,
            )
        why = "the run has more rows since its statistics were computed"
    echo(f"{why}: computing them first, as tokenpair stats does (its options choose how)")
    return compute_statistics(run, pipeline=chosen_pipeline(None), echo=echo)


def _pairs(
    run: Run, lists: list[tuple[str, list[str]]], queries: list[QueryResult]
) -> tuple[Explorer, list[tuple[str, list[str]]]]:
    """The pairs of ``lists``, and those of the queries' documents as lists of their own."""
    lists = lists + [
        (f"Query: {shortened(printable(one.text), 60)}", [document.pair_id for document in one.documents[:DOCUMENTS]])
        for one in queries
    ]
    # Turn by turn, so that where the room ends every list has lost its last ones.
    depth = max((len(ids) for _, ids in lists), default=0)
    turns = dict.fromkeys(ids[at] for at in range(depth) for _, ids in lists if at < len(ids))
    pairs = run.pairs(turns)
    explorer = Explorer(PAIRS_ROOM)
    for pair_id in turns:
        if pair_id in pairs:
            explorer.add(pairs[pair_id])
    return explorer, lists


def _opened(queries: Sequence[QueryResult], explorer: Explorer) -> Iterator[tuple[QueryResult, Markup]]:
    """Queries with the drawing of their documents, as many as have room."""
    room = QUERIES_ROOM
    for one in queries:
        links = {
            document.pair_id: f"#pair={quote(document.pair_id, safe='')}"
            for document in one.documents
            if document.pair_id in explorer
        }
        html = query_html(one, top=DOCUMENTS, links=links, styled=False)
        if len(html.encode()) <= room:
            room -= len(html.encode())
            yield one, Markup(html)


def _rejects(run: Run) -> dict[str, Any]:
    rows = []
    for one in rejected(run, REASONS, EXAMPLES):
        places = ", ".join(f"{printable(e['file'] or '')}:{e['row']}" for e in one["examples"])
        said = "; ".join(shortened(printable(e["text"] or ""), 80) for e in one["examples"])
        rows.append((one["reason"], f"{one['count']:,}", shortened(places, 160), said))
    table = table_of(("reason", "rows", "such as", "which said"), rows, "By reason", labels=4)
    columns = [replace(column, label=column.head != "rows") for column in table.columns]
    note = "All of them, with file and row, are in the run's rejects."
    return html_table(Table(table.title, columns, note=note), LONGEST_REJECT)


def _facts(overview: Overview) -> list[dict[str, str]]:
    totals = overview.totals
    facts = [
        ("pairs", f"{totals.pairs:,}"),
        ("distinct texts", f"{totals.texts:,}"),
        ("median score", f"{overview.scores.quartiles[1]:.3f}"),
        ("largest error", small(totals.largest_error)),
        ("rejected rows", f"{sum(totals.rejected.values()):,}"),
    ]
    return [{"name": name, "value": value} for name, value in facts]


def _overview_plots(overview: Overview, unit: str) -> list[dict[str, Any]]:
    one = overview
    made_of = [plots.Bar("score", one.score), *(plots.Bar(name, value) for name, value in one.parts(unit))]
    note = "the first bar is the sum of the others"
    if one.sums_to == "centred":
        made_of.append(plots.Bar("what average texts share", one.score - one.total))
    if one.sums_to == "difference":
        made_of += [
            plots.Bar("a, reference of b", one.reference_a),
            plots.Bar("reference of a, b", one.reference_b),
            plots.Bar("both references", -one.reference_ab),
        ]
        note += "; a reference is the same text with one token, such as padding, in place of every word"
    return [
        {
            "title": "The scores",
            "note": "how many pairs have which score",
            "svg": plots.histogram("The scores of all pairs", overview.scores.bins, "score"),
        },
        {
            "title": "What an average score is made of",
            "note": note,
            "svg": plots.bars("What an average score is made of", made_of),
        },
    ]


def _name(model: str) -> str:
    """The part of a model's name that tells it from others: of folders that are called "model" the one above."""
    above, _, last = model.rpartition("/")
    return above if above and last in ("model", "models", "best", "final", "checkpoint") else last


def _pairs_words(explorer: Explorer, unit: str, failing: bool, word_pairs: bool) -> str:
    pointing = f"Point at a {unit} of one text to see its pairs with the other."
    if not word_pairs:
        pointing = f"The run has no {unit} pairs (level: words): point at a {unit} to see what it adds."
    first = "those of the failing queries, " if failing else ""
    return (
        f"{len(explorer):,} pairs: {first}the highest and lowest scores, some at random, and those that stand out in "
        f"the statistics. {pointing} On the keyboard, Tab reaches "
        f"a text or the matrix, arrow keys walk, Enter holds a {unit} and Escape lets go."
    )


def _about(run: Run, model: str) -> list[dict[str, str]]:
    record = run.job.get("run")
    record = record if isinstance(record, dict) else {}
    versions = record.get("versions")
    by_role = ", ".join(f"{run.unit(role)} ({role})" for role in run.roles)
    facts = [
        ("model", model),
        ("first layer above the cut", str(run.setting("layer"))),
        ("similarity", str(run.setting("similarity") or "cosine")),
        ("attributed as one", by_role if len({run.unit(role) for role in run.roles}) > 1 else run.units),
        ("mode", str(run.setting("mode") or "symmetric")),
        ("weights (fingerprint)", str(record.get("fingerprint") or "unknown")[:16]),
        *((str(name), str(value)) for name, value in (versions if isinstance(versions, dict) else {}).items()),
        ("report made", datetime.date.today().isoformat()),
    ]
    return [{"name": name, "value": printable(value)} for name, value in facts]


def _sql(run: Run, called: str) -> str:
    kind = "parquet" if run.format == "parquet" else "arrow"
    place = printable(called).replace("'", "''").rstrip("/")
    if kind == "arrow":
        return f'open_run("{place}").to_table()'
    columns = "pair_id, score, total, error" + (", top[1]" if run.has_word_pairs else "")
    return f"SELECT {columns} FROM '{place}/attributions/*.parquet' ORDER BY abs(error) DESC"


def _version() -> str:
    try:
        return version("tokenpair")
    except PackageNotFoundError:
        return ""

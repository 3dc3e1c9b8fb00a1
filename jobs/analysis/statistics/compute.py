"""All statistics of a run in one pass over its pairs, and their files in ``statistics/``."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from importlib import import_module

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pyarrow.types as types

from jobs.analysis.resampling import Resampling
from jobs.analysis.statistics.batches import buckets_of, has_lifts, read_batches
from jobs.analysis.statistics.measure import Measure, Result, Scene, Table, numbers
from jobs.analysis.statistics.pairs import MEMORY, Pairs, batches, order_pairs
from jobs.analysis.statistics.schema import (
    FOLDER,
    NAMES,
    SUMMARY,
    VERSION,
    RunFacts,
    Statistic,
    Summary,
    TableInfo,
    read_summary,
)
from jobs.analysis.statistics.sums import Array, quantum_for
from jobs.analysis.statistics.texts import Texts, read_texts
from jobs.errors import JobError, RunError
from jobs.run.reader import Run
from jobs.storage.duckdb import temporary_database

RESAMPLES = 1000
# Columns that are a gold label where they have numbers, the likeliest first.
GOLD = ("relevance", "gold", "label", "similarity", "score_input", "gold_score", "similarity_score")
NOT_GOLD = ("rank", "log_score", "retrieval_score", "tag", "row", "id", "fold", "year")


def compute_statistics(
    run: Run,
    *,
    only: Sequence[str] = (),
    pipeline: str | None = None,
    sample: int | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    gold: str | None = None,
    echo: Callable[[str], None] = lambda line: None,
) -> Summary:
    """Compute the statistics named in ``only`` (all by default), write them to ``statistics/`` and return the summary.

    ``pipeline`` names the spaCy pipeline, None for none; ``gold`` the column of gold labels, None to look for one.
    RunError where nothing was attributed yet.
    """
    unknown = [name for name in only if name not in NAMES]
    if unknown:
        raise JobError(f"--only {unknown[0]}: there is no such statistic; there are {', '.join(NAMES)}")
    wanted = [_measure(name) for name in NAMES if not only or name in only]
    gold_name = gold_column(run, gold)
    with temporary_database(MEMORY) as con:
        if "sentence" in {run.unit(role) for role in run.roles} and pipeline is not None:
            echo("groups are sentences: parts of speech and lemmas are left out")
            pipeline = None
        texts = read_texts(run, con, pipeline, echo)
        pairs = order_pairs(run, con, texts.ids, seed, sample)
        if not pairs.count:
            raise RunError(f"{run.url}: no pair has both its texts yet")
        pairs = _with_places(pairs, texts)
        scene = _scene(run, con, texts, pairs, seed, resamples, gold_name)
        why = {measure.name: reason for measure in wanted if (reason := measure.missing(scene))}
        measures = [measure(scene) for measure in wanted if measure.name not in why]
        _pass(run, scene, measures)
        results = {measure.name: measure.result() for measure in measures}
        summary = _summary(scene, wanted, results, why)
    return _write(run, summary, [table for result in results.values() for table in result.tables], echo)


def gold_column(run: Run, asked: str | None) -> str | None:
    """The column of gold labels: the one asked for, else one whose name says so, else the only one with numbers."""
    numeric = _numeric(run)
    if asked is not None:
        if asked not in numeric:
            raise JobError(f"--gold {asked}: is no column of numbers; there are {', '.join(numeric) or 'none'}")
        return asked
    named = [name for name in GOLD if name in numeric]
    others = [name for name in numeric if name not in NOT_GOLD]
    return named[0] if named else (others[0] if len(others) == 1 else None)


def _numeric(run: Run) -> list[str]:
    """Columns of numbers that the job passed through; even a column with a known name may hold text."""
    own = run.reserved_names
    kinds = (types.is_integer, types.is_floating, types.is_boolean)
    return [f.name for f in run.dataset().schema if f.name not in own and any(is_of(f.type) for is_of in kinds)]


def _measure(name: str) -> type[Measure]:
    module = import_module(f"jobs.analysis.statistics.{name}")
    measure: type[Measure] = getattr(module, "".join(word.capitalize() for word in name.split("_")))
    return measure


def _with_places(pairs: Pairs, texts: Texts) -> Pairs:
    """``pairs`` with places in the table of texts in place of places among a role's texts."""
    for values, start in zip((pairs.a, pairs.b), texts.role_start, strict=True):
        values[values >= 0] += start
    return pairs


def _scene(
    run: Run, con: duckdb.DuckDBPyConnection, texts: Texts, pairs: Pairs, seed: int, resamples: int, gold: str | None
) -> Scene:
    numeric = _numeric(run)
    return Scene(
        run=run,
        con=con,
        texts=texts,
        pairs=pairs,
        resampling=Resampling.drawn(buckets_of(pairs), resamples, [seed, 1]),
        quantum=quantum_for(pairs.mass),
        seed=seed,
        resamples=resamples,
        whole="matrix" in run.dataset().schema.names,
        sums_to=run.sums_to,
        lifts=has_lifts(run),
        word_pairs=run.has_word_pairs,
        gold_name=gold,
        gold=_column(run, pairs, gold) if gold else None,
        kept=tuple(name for name in ("rank", "relevance") if name in numeric),
    )


def _pass(run: Run, scene: Scene, measures: Sequence[Measure]) -> None:
    cells = scene.word_pairs and any(measure.cells for measure in measures)
    lifts = scene.lifts and any(measure.lifts for measure in measures)
    for batch in read_batches(run, scene.pairs, scene.texts, cells=cells, lifts=lifts, kept=scene.kept):
        for measure in measures:
            measure.add(batch)


def _column(run: Run, pairs: Pairs, name: str) -> Array:
    """A column of the pairs, by rank."""
    values = np.full(pairs.count, np.nan)
    at = 0
    for batch in batches(run, [name], 1 << 17):
        rank = pairs.rank[at : at + len(batch)]
        values[rank[rank >= 0]] = numbers(batch[name])[rank >= 0]
        at += len(batch)
    return values


def _summary(scene: Scene, wanted: Sequence[type[Measure]], results: dict[str, Result], why: dict[str, str]) -> Summary:
    run, pairs = scene.run, scene.pairs
    facts = RunFacts(
        pairs=pairs.count,
        pairs_in_run=len(pairs.rank),
        texts=len(scene.texts),
        finished=run.finished,
        groups=run.units,
        mode="retrieval" if run.roles[0] == "query" else "symmetric",
        store="full" if scene.whole else "top",
        model=str(run.setting("model") or ""),
        layer=int(run.setting("layer") or 0),
        similarity=str(run.setting("similarity") or "cosine"),
        sums_to=scene.sums_to,
        sample=pairs.count if pairs.count + pairs.without_text < len(pairs.rank) else None,
        seed=scene.seed,
        resamples=scene.resamples,
        gold=scene.gold_name,
        pipeline=scene.texts.pipeline,
        level="pairs" if scene.word_pairs else "words",
    )
    notes = [run.unfinished] if run.unfinished else []
    if pairs.without_text:
        notes.append(f"{pairs.without_text:,} pairs are left out: a text of theirs is not written yet.")
    if scene.texts.pipeline is None:
        notes.append(
            "No spaCy pipeline was used: parts of speech and lemmas are left out. "
            "pip install 'tokenpair[statistics]' and a pipeline for your language, then run this again."
        )
    statistics = {}
    for measure in wanted:
        result = results.get(measure.name, Result())
        reason = why.get(measure.name)
        statistics[measure.name] = Statistic(
            name=measure.name,
            title=measure.title,
            meaning=measure.meaning.format(whole=scene.sum_name),
            figures=tuple(result.figures),
            tables=tuple(_info(table) for table in result.tables),
            notes=(*result.notes, *([reason] if reason else [])),
        )
    return Summary(version=VERSION, run=facts, statistics=statistics, notes=tuple(notes))


def _info(table: Table) -> TableInfo:
    return TableInfo(
        name=table.name,
        file=f"{FOLDER}/{table.name}.parquet",
        rows=len(table.data),
        exact=table.exact,
        meaning=table.meaning,
        columns=table.meanings(),
    )


def _write(run: Run, summary: Summary, tables: Sequence[Table], echo: Callable[[str], None]) -> Summary:
    """Write tables, then the summary that names them; statistics that an earlier call made of the same pairs stay."""
    try:
        earlier = read_summary(run.store)
    except RunError:
        earlier = None
    if earlier is not None and earlier.run == summary.run:
        merged = earlier.statistics | summary.statistics
        ordered = {name: merged[name] for name in NAMES if name in merged}
        summary = summary.model_copy(update={"statistics": ordered})
    elif earlier is not None and (gone := [name for name in earlier.statistics if name not in summary.statistics]):
        echo(f"removed, for they were of other pairs or made with other settings: {', '.join(gone)}")
    for table in tables:
        run.store.replace(f"{FOLDER}/{table.name}.parquet", _parquet(table))
    run.store.replace(SUMMARY, summary.model_dump_json(indent=1).encode())
    for file in (_files(earlier) if earlier is not None else set()) - _files(summary):
        run.store.remove(file)
    return summary


def _files(summary: Summary) -> set[str]:
    return {info.file for statistic in summary.statistics.values() for info in statistic.tables}


def _parquet(table: Table) -> bytes:
    meanings = table.meanings()
    schema = table.data.schema
    for at, name in enumerate(table.data.column_names):
        schema = schema.set(at, schema.field(at).with_metadata({"meaning": meanings[name]}))
    schema = schema.with_metadata({"meaning": table.meaning})
    sink = io.BytesIO()
    pq.write_table(table.data.cast(schema), sink, compression="zstd")
    return sink.getvalue()

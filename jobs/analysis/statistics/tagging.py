"""Parts of speech and lemmas by spaCy: each distinct text is tagged once, and its tags are stored in the run directory.

What is tagged is the part of a text that the model read. A pipeline's tags are merged to the seventeen universal ones;
words are aligned to the groups that were attributed by their character offsets.
"""

from __future__ import annotations

import hashlib
import io
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from attribution_core.text.words import word_key
from jobs.analysis.statistics.schema import FOLDER, Pipeline
from jobs.analysis.statistics.sums import Array
from jobs.errors import ExportError, JobError
from jobs.storage.store import Store

# Universal Dependencies, version 2.
UNIVERSAL = tuple(
    "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split()  # noqa: SIM905
)
# What spaCy's pipelines say beside them: the older name of conjunctions, white space, and no answer at all.
MERGED = {"CONJ": "CCONJ", "SPACE": "X", "EOL": "X", "": "X"}
NUMBER, NEGATION = 1, 4
TEXTS_A_PART = 20_000
NEEDED_BY_NO_TAG = ("ner", "parser", "senter", "sentencizer", "textcat", "textcat_multilabel", "entity_linker")
NO_SPACY = "spaCy is not installed: pip install 'tokenpair[statistics]' installs it; a pipeline is needed as well"


@dataclass(frozen=True)
class Tagged:
    """The number of texts that this call tagged, and how long that took."""

    texts: int
    words: int
    seconds: float


def installed_pipelines() -> list[str]:
    """Names of the spaCy pipelines that are installed as packages; ExportError where spaCy is not."""
    try:
        from spacy.util import get_installed_models
    except ImportError:
        raise ExportError(NO_SPACY) from None
    return sorted(get_installed_models())


def chosen_pipeline(asked: str | None) -> str | None:
    """The pipeline to use: the one that was asked for, else the only one installed; None where there is none.

    ``none`` asks for none. JobError where several are installed and none was asked for.
    """
    if asked == "none":
        return None
    if asked is not None:
        return asked
    try:
        installed = installed_pipelines()
    except ExportError:
        return None
    if len(installed) > 1:
        raise JobError(f"several spaCy pipelines are installed ({', '.join(installed)}): choose one with --pipeline")
    return installed[0] if installed else None


def load_pipeline(name: str) -> tuple[Any, Pipeline]:
    """A pipeline by its package's name or folder, without what no tag needs; JobError where it cannot be used."""
    try:
        import spacy
    except ImportError:
        raise ExportError(NO_SPACY) from None
    try:
        nlp = spacy.load(name, exclude=list(NEEDED_BY_NO_TAG))
    except (OSError, ValueError) as error:
        there = ", ".join(installed_pipelines()) or "none"
        reason = str(error).splitlines()[0][:200]
        raise JobError(f"--pipeline {name}: cannot be loaded ({reason}); installed are: {there}") from None
    meta = nlp.meta
    if not any(doc.pos_ not in ("", "SPACE") for doc in nlp("The dogs were walking.")):
        raise JobError(f"--pipeline {name}: gives no parts of speech; its components are {', '.join(nlp.pipe_names)}")
    return nlp, Pipeline(name=name, version=str(meta.get("version", "")), language=str(nlp.lang))


def tag_texts(
    con: duckdb.DuckDBPyConnection,
    store: Store,
    pipeline: str,
    echo: Callable[[str], None],
) -> tuple[Pipeline, Tagged]:
    """Fill the table ``tags`` for every text in the view ``read_texts`` (``read``: what the model read of a text).

    Tags of an earlier call are read from the run directory; new ones are added there, part by part.
    """
    nlp, facts = load_pipeline(pipeline)
    con.execute(
        "CREATE TABLE tags (key VARCHAR, starts INTEGER[], ends INTEGER[], pos UTINYINT[], lemmas VARCHAR[], "
        "flags UTINYINT[])"
    )
    folder = f"{FOLDER}/tags/{re.sub(r'[^A-Za-z0-9_.-]', '_', facts.name)}-{facts.version}"
    parts = [name for name in store.list(folder) if name.endswith(".parquet")]
    if parts:
        kept = store.dataset(folder, "parquet")
        con.register("kept_tags", kept)
        with store.guard("read", folder):
            con.execute("INSERT INTO tags SELECT DISTINCT ON (key) * FROM kept_tags")
        con.unregister("kept_tags")
    con.execute("CREATE TABLE untagged AS SELECT DISTINCT read FROM read_texts ANTI JOIN tags ON key = md5(read)")
    new = con.execute("SELECT count(*) FROM untagged").fetchall()[0][0]
    words, started = 0, time.perf_counter()
    if new:
        echo(f"tagging {new:,} texts with {facts.name} {facts.version}")
    cursor = con.cursor()  # an open result blocks the connection that it came from
    reader = cursor.sql("SELECT read FROM untagged ORDER BY read").to_arrow_reader(TEXTS_A_PART)
    for number, batch in enumerate(_of_size(reader, TEXTS_A_PART), len(parts)):
        table = _tags(nlp, batch)
        words += sum(map(len, table["pos"].to_pylist()))
        con.register("new_tags", table)
        con.execute("INSERT INTO tags SELECT * FROM new_tags")
        con.unregister("new_tags")
        store.commit(f"{folder}/part-{number:05d}.parquet", _encoded(table))
    return facts, Tagged(new, words, time.perf_counter() - started)


def aligned(texts: pa.RecordBatch, starts: Array, ends: Array, offsets: Array) -> tuple[Array, pa.Array, Array]:
    """The tag, lemma and flags of each group; ``starts`` and ``ends`` [groups] are theirs.

    ``offsets`` [texts + 1] says which groups are whose. A group takes the tag and
    lemma of the word that it shares most characters with, the first of equals, and the flags of every word that it
    touches. ``texts`` has the columns of ``tags``. Groups that touch no word get X, "" and 0.
    """
    word_offsets = texts["tag_starts"].offsets.to_numpy().astype(np.int64)
    word_offsets -= word_offsets[0]
    word_starts, word_ends = (texts[name].flatten().to_numpy() for name in ("tag_starts", "tag_ends"))
    pos, flags = (texts[name].flatten().to_numpy() for name in ("tag_pos", "tag_flags"))
    lemmas = texts["tag_lemmas"].flatten()
    # One long line of characters: every text has a stretch of its own on it.
    stretch = int(max(ends.max(initial=0), word_ends.max(initial=0))) + 1
    of_group = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)) * stretch
    of_word = np.repeat(np.arange(len(word_offsets) - 1), np.diff(word_offsets)) * stretch
    group_from, group_to = starts + of_group, ends + of_group
    word_from, word_to = word_starts + of_word, word_ends + of_word
    first = np.searchsorted(word_to, group_from, "right")
    count = np.maximum(np.searchsorted(word_from, group_to, "left") - first, 0)
    count[ends <= starts] = 0
    tag = np.full(len(starts), UNIVERSAL.index("X"), np.uint8)
    flag = np.zeros(len(starts), np.uint8)
    best = np.full(len(starts), -1, np.int64)
    touching = np.flatnonzero(count)
    if len(touching):
        group = np.repeat(touching, count[touching])
        begins = np.cumsum(count[touching]) - count[touching]
        word = first[group] + np.arange(len(group)) - np.repeat(begins, count[touching])
        shared = np.minimum(word_to[word], group_to[group]) - np.maximum(word_from[word], group_from[group])
        order = np.lexsort((word, -shared, group))
        best[touching] = word[order][begins]
        flag[touching] = np.bitwise_or.reduceat(flags[word], begins)
        tag[touching] = pos[best[touching]]
    lemma = lemmas.take(pa.array(best, pa.int64(), mask=best < 0))
    return tag, lemma, flag


def _tags(nlp: Any, texts: list[str]) -> pa.Table:
    code = {name: number for number, name in enumerate(UNIVERSAL)}
    code |= {name: code[merged] for name, merged in MERGED.items()}
    columns: dict[str, list[Any]] = {name: [] for name in ("starts", "ends", "pos", "lemmas", "flags")}
    for doc in nlp.pipe([text[: nlp.max_length] for text in texts], batch_size=256):
        words = [word for word in doc if not word.is_space]
        columns["starts"].append([word.idx for word in words])
        columns["ends"].append([word.idx + len(word) for word in words])
        columns["pos"].append([code.get(word.pos_, code["X"]) for word in words])
        columns["lemmas"].append([word_key(word.lemma_ or word.text) for word in words])
        columns["flags"].append(
            [
                (NUMBER if word.like_num else 0) | (NEGATION if "Neg" in word.morph.get("Polarity") else 0)
                for word in words
            ]
        )
    keys = [hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() for text in texts]
    offsets, small = pa.list_(pa.int32()), pa.list_(pa.uint8())
    types = {"starts": offsets, "ends": offsets, "pos": small, "lemmas": pa.list_(pa.string()), "flags": small}
    return pa.table({"key": keys, **{name: pa.array(values, types[name]) for name, values in columns.items()}})


def _of_size(reader: pa.RecordBatchReader, size: int) -> Iterator[list[str]]:
    """The first column of a reader in lists of ``size``, whatever the size of the database's batches."""
    texts: list[str] = []
    for batch in reader:
        texts += batch.column(0).to_pylist()
        while len(texts) >= size:
            yield texts[:size]
            texts = texts[size:]
    if texts:
        yield texts


def _encoded(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()

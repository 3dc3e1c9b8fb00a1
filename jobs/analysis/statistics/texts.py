"""The distinct texts of a run as flat arrays of words, in one fixed order."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attribution_core.text.words import word_key
from jobs.analysis.statistics.schema import Pipeline
from jobs.analysis.statistics.sums import Array
from jobs.analysis.statistics.tagging import NEGATION, NUMBER, UNIVERSAL, aligned, tag_texts
from jobs.errors import RunError
from jobs.run.reader import Run

TEXT, SPECIAL, PROMPT = 0, 1, 2
KINDS = ("text", "special", "prompt")
PUNCTUATION = 2
TEXTS_A_BATCH = 4096

# English, for texts in which no pipeline marks negation.
NEGATIONS = frozenset(
    "no not never none nobody nothing neither nor nowhere cannot without n't hardly scarcely".split()  # noqa: SIM905
)
NUMERAL = re.compile(r"[+-]?\d[\d.,:/%-]*")


@dataclass
class Texts:
    """Words of T texts, one after the other: those of text t are at ``offsets[t]`` to ``offsets[t + 1]``.

    ``word``, ``lemma`` and ``stem`` are numbers of ``names`` (-1: none), ``kind`` and ``flags`` as the constants above
    say, ``pos`` numbers of UNIVERSAL, ``starts`` character offsets. ``place`` counts a text's words from 0 without its
    special and prompt tokens. Of the texts: ``chars`` their length, ``words`` without special and prompt tokens,
    ``cut`` the share of the characters that the model read.
    """

    ids: tuple[pa.Array, pa.Array]
    role_start: tuple[int, int]
    offsets: Array
    word: Array
    lemma: Array
    stem: Array
    kind: Array
    pos: Array
    flags: Array
    starts: Array
    place: Array
    chars: Array
    words: Array
    cut: Array
    names: list[str] = field(repr=False)
    pipeline: Pipeline | None = None
    stemmed: bool = False

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def text_ids(self) -> pa.Array:
        """The ids of all texts, in the order of the table; those of both roles where a pair's texts have different."""
        return self.ids[0] if self.role_start[1] == 0 else pa.concat_arrays(self.ids)

    @cached_property
    def of_word(self) -> Array:
        """The text that each word is of, [words]."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.offsets))

    def counts(self, label: Array, columns: int) -> Array:
        """How many words of each text have each ``label`` (one a word; negative ones are left out), [T, columns]."""
        there = label >= 0
        place = self.of_word[there].astype(np.int64) * columns + label[there]
        return np.bincount(place, minlength=len(self) * columns).reshape(len(self), columns)


def read_texts(
    run: Run,
    con: duckdb.DuckDBPyConnection,
    pipeline: str | None,
    echo: Callable[[str], None] = lambda line: None,
) -> Texts:
    """Every text of the run, tagged where ``pipeline`` names a spaCy pipeline; RunError where none is there."""
    con.register("parts", run.dataset("texts"))
    cut = "CASE WHEN cut_at IS NULL THEN text ELSE substring(text, 1, cut_at) END AS read"
    columns = "text_id, role, groups, starts, ends, kinds, cut_at, length(text) AS chars"
    with run.store.guard("read", "texts"):
        # A text that two drivers wrote in different shards must not be counted twice.
        con.execute(f"CREATE TABLE read_texts AS SELECT DISTINCT ON (role, text_id) {columns}, {cut} FROM parts")
    con.unregister("parts")
    facts = tag_texts(con, run.store, pipeline, echo)[0] if pipeline is not None else None
    reader = _Reader(facts, sentences="sentence" in {run.unit(role) for role in run.roles})
    tags = "tags.starts AS tag_starts, tags.ends AS tag_ends, tags.pos AS tag_pos, tags.lemmas AS tag_lemmas, "
    tags += "tags.flags AS tag_flags"
    source = f"t.*, {tags} FROM read_texts t LEFT JOIN tags ON tags.key = md5(t.read)" if facts else "* FROM read_texts"
    cursor = con.cursor()
    # In the order of roles, so that a pair's two roles are two runs of the table.
    order = f"ORDER BY role = '{run.roles[1]}', text_id"
    rows = cursor.sql(f"SELECT {source} {order}").to_arrow_reader(TEXTS_A_BATCH)
    for batch in rows:
        reader.add(batch)
    if not reader.ids:
        raise RunError(f"{run.url}: no text has been attributed yet")
    return reader.texts(run.roles)


class _Reader:
    """Collects batches of texts; ``sentences`` says that groups of a role are sentences, which have no stem."""

    def __init__(self, facts: Pipeline | None, *, sentences: bool) -> None:
        self.facts, self.sentences = facts, sentences
        self.ids: list[Any] = []
        self.roles: list[Any] = []
        self.parts: dict[str, list[Array]] = {}
        self.numbers: dict[str, int] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        offsets = batch["groups"].offsets.to_numpy().astype(np.int64)
        offsets = offsets - offsets[0]
        sizes = np.diff(offsets)
        kind = _codes(batch["kinds"].flatten(), KINDS)
        starts, ends = (batch[name].flatten().to_numpy() for name in ("starts", "ends"))
        own = kind == TEXT
        running = np.cumsum(own) - own
        place = running - np.repeat(running[offsets[:-1]] if len(own) else running, sizes)
        self.ids.append(batch["text_id"])
        self.roles.append(batch["role"])
        word = self._numbered(batch["groups"].flatten())
        columns = {"sizes": sizes, "kind": kind, "starts": starts, "place": place.astype(np.int32), "word": word}
        columns["chars"] = batch["chars"].to_numpy().astype(np.int64)
        columns["words"] = np.add.reduceat(np.append(own, False), offsets[:-1]).astype(np.int32) * (sizes > 0)
        cut = batch["cut_at"].to_numpy(zero_copy_only=False).astype(np.float64)
        columns["cut"] = np.where(np.isnan(cut), 1.0, cut / np.maximum(columns["chars"], 1))
        if self.facts is not None and not self.sentences:
            columns["pos"], lemmas, columns["flags"] = aligned(batch, starts, ends, offsets)
            columns["lemma"] = self._numbered(lemmas)
        for name, values in columns.items():
            self.parts.setdefault(name, []).append(values)

    def _numbered(self, words: pa.Array) -> Array:
        """A number for each word, one for those of the same :func:`word_key`; -1 for a null."""
        coded = words.dictionary_encode() if not pa.types.is_dictionary(words.type) else words
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.combine_chunks()
        numbers = self.numbers
        table = [numbers.setdefault(word_key(name), len(numbers)) for name in coded.dictionary.to_pylist()]
        codes = np.asarray(coded.indices.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)
        return np.append(np.array(table, np.int32), np.int32(-1))[codes]

    def texts(self, roles: tuple[str, str]) -> Texts:
        together = {name: np.concatenate(parts) for name, parts in self.parts.items()}
        offsets = np.concatenate([[0], np.cumsum(together.pop("sizes"))])
        names = list(self.numbers)
        word, kind = together["word"], together["kind"]
        of_word = np.array([_flags(name, self.facts) for name in names], np.uint8)
        flags = of_word[word] | together.pop("flags", np.uint8(0))
        flags[kind != TEXT] = 0
        ids = pa.chunked_array([part.cast(pa.string()) for part in self.ids]).combine_chunks()
        role = pa.chunked_array([part.cast(pa.string()) for part in self.roles]).combine_chunks()
        second = int(np.searchsorted(np.asarray(role.to_numpy(zero_copy_only=False) == roles[1]), True))
        starts = (0, second) if roles[0] != roles[1] else (0, 0)
        sides = (ids.slice(0, second), ids.slice(second)) if roles[0] != roles[1] else (ids, ids)
        stems, stemmed = self._stems(names)
        none = np.full(len(word), -1, np.int32)
        return Texts(
            ids=sides,
            role_start=starts,
            offsets=offsets,
            stem=np.where(kind == TEXT, stems[word], -1).astype(np.int32) if stemmed else none,
            pos=together.pop("pos", np.full(len(word), UNIVERSAL.index("X"), np.uint8)),
            lemma=np.where(kind == TEXT, together.pop("lemma", none), -1).astype(np.int32),
            flags=flags,
            names=list(self.numbers),
            pipeline=self.facts,
            stemmed=stemmed,
            **together,
        )

    def _stems(self, names: list[str]) -> tuple[Array, bool]:
        """The number of each word's stem, by Snowball's algorithm for the pipeline's language."""
        stemmer = _stemmer(self.facts.language if self.facts else "") if not self.sentences else None
        if stemmer is None:
            return np.zeros(0, np.int32), False
        stems = stemmer.stemWords(names)
        return np.array([self.numbers.setdefault(stem, len(self.numbers)) for stem in stems], np.int32), True


def _stemmer(language: str) -> Any:
    languages = {
        **{"ar": "arabic", "ca": "catalan", "da": "danish", "de": "german", "el": "greek", "en": "english"},
        **{"es": "spanish", "eu": "basque", "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi"},
        **{"hu": "hungarian", "hy": "armenian", "id": "indonesian", "it": "italian", "lt": "lithuanian"},
        **{"nb": "norwegian", "ne": "nepali", "nl": "dutch", "pt": "portuguese", "ro": "romanian", "ru": "russian"},
        **{"sr": "serbian", "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish"},
    }
    if language not in languages:
        return None
    try:
        import Stemmer
    except ImportError:
        return None
    return Stemmer.Stemmer(languages[language])


def _flags(name: str, facts: Pipeline | None) -> int:
    number = NUMBER if NUMERAL.fullmatch(name) else 0
    punctuation = PUNCTUATION if not any(sign.isalnum() for sign in name) else 0
    english = facts is None or facts.language == "en"
    negation = NEGATION if english and (name in NEGATIONS or name.endswith("n't")) else 0
    return number | punctuation | negation


def _codes(values: pa.Array, names: tuple[str, ...]) -> Array:
    """Numbers of ``names``; a name that is not among them counts as the last."""
    codes = pc.fill_null(pc.index_in(values, value_set=pa.array(names)), len(names) - 1)
    return codes.to_numpy(zero_copy_only=False).astype(np.uint8)

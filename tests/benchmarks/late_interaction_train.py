"""Trains a small late-interaction model (ColBERT's MaxSim) on a log's judgments and says how well it ranks.

    python tests/benchmarks/late_interaction_train.py cranfield late-expanded --variant expanded

``log`` is a folder in BEIR's format with ``queries.jsonl``, ``corpus.jsonl`` and ``qrels/test.tsv``. Every third query
is held out (:func:`held_out`); the others with their relevant documents are the training pairs. The model is
all-MiniLM-L6-v2's encoder, trained by the loss and the trainer of sentence-transformers, with the other documents of a
batch as negatives. ``plain`` scores by the encoder's own outputs, ``projected`` by a projection of them to 64 numbers,
``expanded`` also fills queries up to 32 tokens with [MASK] tokens that are scored and not attended to.

The last line compares nDCG@10 on the held-out queries, all documents ranked, with that of all-MiniLM-L6-v2, which has
one vector a text.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from machine import minilm
from sentence_transformers import (
    MultiVectorEncoder,
    MultiVectorEncoderTrainer,
    MultiVectorEncoderTrainingArguments,
    SentenceTransformer,
)
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.base.modules.dense import Dense
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.multi_vector_encoder.evaluation import MultiVectorInformationRetrievalEvaluator
from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

VARIANTS = ("plain", "projected", "expanded")
WIDTH = 64
QUERY_TOKENS, DOCUMENT_TOKENS = 32, 96
Texts = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path, help="a folder in BEIR's format")
    parser.add_argument("output", type=Path, help="the folder of the trained model")
    parser.add_argument("--variant", choices=VARIANTS, default="expanded")
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    queries, corpus, relevant = read_log(asked.log)
    torch.manual_seed(asked.seed)
    model = untrained(asked.variant)
    judged = {query: relevant[query] for query in held_out(relevant)}
    started = time.perf_counter()
    train(model, queries, corpus, {query: relevant[query] for query in relevant if query not in judged}, asked)
    seconds = time.perf_counter() - started
    model.save(str(asked.output), create_model_card=False)
    one_vector = ndcg(SentenceTransformer(minilm(), device="cpu"), queries, corpus, judged)
    after = ndcg(model, queries, corpus, judged)
    print(
        f"{asked.variant}: nDCG@10 of {len(judged)} held-out queries {after:.4f}, one vector {one_vector:.4f}; "
        f"{seconds:.0f} s of training"
    )


def read_log(folder: Path) -> tuple[Texts, Texts, dict[str, list[str]]]:
    """Return the texts of queries and documents, and the relevant documents of each query with judgments, in order."""

    def read(name: str) -> Texts:
        with open(folder / name, encoding="utf-8") as file:
            rows = map(json.loads, file)
            return {row["_id"]: f"{row.get('title', '')} {row['text']}".strip() for row in rows}

    relevant: dict[str, list[str]] = {}
    queries, corpus = read("queries.jsonl"), read("corpus.jsonl")
    with open(folder / "qrels" / "test.tsv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if int(row["score"]) > 0 and row["query-id"] in queries and row["corpus-id"] in corpus:
                relevant.setdefault(row["query-id"], []).append(row["corpus-id"])
    return queries, corpus, relevant


def held_out(relevant: dict[str, list[str]]) -> list[str]:
    """Every third query with judgments, in their order."""
    return list(relevant)[::3]


def untrained(variant: str) -> MultiVectorEncoder:
    """all-MiniLM-L6-v2's encoder with the modules of a late-interaction model."""
    transformer = Transformer(
        minilm(), query_length=None if variant == "expanded" else QUERY_TOKENS, document_length=DOCUMENT_TOKENS
    )
    if variant == "expanded":
        transformer.query_expansion = {"strategy": "fixed", "attend": False, "length": QUERY_TOKENS}
    modules: list[Any] = [transformer]
    if variant != "plain":
        width = transformer.get_embedding_dimension()
        of_tokens = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
        modules.append(Dense(width, WIDTH, bias=False, activation_function=None, **of_tokens))
    modules += [MultiVectorMask(), Normalize(module_input_name="token_embeddings")]
    return MultiVectorEncoder(modules=modules, device="cpu")


def train(
    model: MultiVectorEncoder, queries: Texts, corpus: Texts, relevant: dict[str, list[str]], asked: argparse.Namespace
) -> None:
    """Train on each query with each of its relevant documents; no query or document stands in a batch twice."""
    pairs = [(query, document) for query, documents in relevant.items() for document in sorted(documents)]
    data = Dataset.from_dict(
        {"query": [queries[query] for query, _ in pairs], "positive": [corpus[document] for _, document in pairs]}
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = MultiVectorEncoderTrainingArguments(
            output_dir=folder,
            num_train_epochs=asked.epochs,
            per_device_train_batch_size=asked.batch,
            learning_rate=asked.learning_rate,
            warmup_steps=0.1,
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            seed=asked.seed,
            use_cpu=True,
            save_strategy="no",
            report_to=[],
            logging_steps=10,
            disable_tqdm=True,
        )
        loss = MultiVectorMultipleNegativesRankingLoss(model)
        MultiVectorEncoderTrainer(model=model, args=arguments, train_dataset=data, loss=loss).train()


def ndcg(
    model: MultiVectorEncoder | SentenceTransformer, queries: Texts, corpus: Texts, judged: dict[str, list[str]]
) -> float:
    """nDCG@10 of the ranking of all documents, each relevant one counting alike."""
    late = isinstance(model, MultiVectorEncoder)
    evaluator = (MultiVectorInformationRetrievalEvaluator if late else InformationRetrievalEvaluator)(
        {query: queries[query] for query in judged},
        corpus,
        {query: set(documents) for query, documents in judged.items()},
        ndcg_at_k=[10],
        write_csv=False,
    )
    values = evaluator(model)
    return float(next(value for name, value in values.items() if name.endswith("ndcg@10")))


if __name__ == "__main__":
    main()

"""The input of ``million.py``: sentences, distinct pairs of them, and models; the same every time."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from machine import minilm
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from transformers import AutoTokenizer

SENTENCES = 10_000
VOCABULARY = 8000
WIDTH = 256


def sentences(files: list[Path]) -> list[str]:
    """The distinct texts of the first two columns of CSV files; without any, made ones, the same every time."""
    if files:
        rows = (row for path in files for row in csv.reader(path.read_text("utf-8").splitlines()))
        return list(dict.fromkeys(text for row in rows for text in row[:2] if text.strip()))
    known = AutoTokenizer.from_pretrained(minilm()).get_vocab()
    # The vocabulary is in the order of frequency, about.
    words = np.array([word for word in sorted(known, key=known.__getitem__) if word.isalpha() and word.isascii()])
    words = words[:VOCABULARY]
    shares = 1 / (np.arange(len(words)) + 10.0)
    chance = np.random.default_rng(0)
    lengths = chance.integers(5, 21, SENTENCES)
    drawn = chance.choice(words, lengths.sum(), p=shares / shares.sum())
    return list(dict.fromkeys(" ".join(some) + "." for some in np.split(drawn, np.cumsum(lengths)[:-1])))


def write_pairs(path: Path, count: int, texts: list[str]) -> Path:
    """Write ``count`` distinct pairs of ``texts`` in random order, the same every time, as Parquet."""
    if 2 * count > len(texts) ** 2:
        raise SystemExit(f"{len(texts):,} sentences are too few for {count:,} distinct pairs")
    chance = np.random.default_rng(0)
    places = np.empty(0, np.int64)
    while len(places) < count:
        places = np.unique(np.append(places, chance.integers(0, len(texts) ** 2, count + 100)))
    first, second = np.divmod(chance.permutation(places)[:count], len(texts))
    columns = {"id": [f"p{number:08d}" for number in range(count)]}
    columns |= {"sentence1": pa.array(texts).take(first), "sentence2": pa.array(texts).take(second)}
    pq.write_table(pa.table(columns), path, row_group_size=100_000)
    return path


def made_model(name: str, folder: Path) -> str:
    """The folder of the model ``name``."""
    if name == "tiny":
        from worker import tiny_bert  # imports the engine

        return str(tiny_bert(folder / "tiny"))
    if name != "static":
        return str(Path(name).resolve())
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    vectors = np.random.default_rng(0).normal(0, 1, (len(tokenizer), WIDTH)).astype(np.float32)
    module = StaticEmbedding(tokenizer, embedding_weights=vectors)
    SentenceTransformer(modules=[module], device="cpu").save(str(folder / "static"), create_model_card=False)
    return str(folder / "static")

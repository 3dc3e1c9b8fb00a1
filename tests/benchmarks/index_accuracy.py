"""How exact the shares and scores of an index are, and how many bytes a document takes.

    python tests/benchmarks/index_accuracy.py INDEX queries.jsonl --documents 40

Every query of the file (BEIR's layout) against every document of the index:

- a share's error: that of the stored row's product with the query against the same one of the float32 contributions,
  computed again for ``--documents`` of the documents with as many nodes, in units of ‖e‖‖q‖;
- the sum of the groups' shares, and of all rows, against the score of the model itself.

Bytes are those of a document's row, less its text, and of its entry in the ids file.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from attribution_core import Attributor
from attribution_core.model.loading import load_model
from jobs.cluster.environment import quiet_libraries
from jobs.index.format import COMPLETION
from jobs.index.reader import Index, open_index
from jobs.storage.store import Store

LONG = 235
IDS_ENTRY = 24


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index")
    parser.add_argument("queries", type=Path)
    parser.add_argument("--documents", type=int, default=40, help="how many are computed again")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    quiet_libraries()
    index = open_index(options.index)
    facts = index.facts
    _, loaded = load_model(facts.model)
    print(f"{len(index):,} documents, {facts.groups}s, {facts.model}, layer {facts.layer}, {facts.precision}")
    say_bytes(index)

    model = attributor(loaded, index)
    texts = [json.loads(line)["text"] for line in options.queries.read_text("utf-8").splitlines() if line.strip()]
    queries = model.routes.of("query").embeddings(model.read(texts, "query"))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    say_sums(index, model, queries)
    names = np.random.default_rng(options.seed).permutation(list(index.ids()))[: options.documents]
    say_shares(index, loaded, names.tolist(), queries)


def attributor(loaded: Any, index: Index, nodes: int | None = None) -> Attributor:
    """The index's model, with a number of nodes."""
    facts = index.facts
    return Attributor(
        loaded,
        layer=facts.layer,
        groups=facts.groups,
        mode="retrieval",
        similarity=facts.similarity,
        reference=facts.reference,
        prompt_a=facts.prompts.get("query"),
        prompt_b=facts.prompts.get("document"),
        nodes=nodes,
    )


def say_bytes(index: Index) -> None:
    """Bytes of documents beside their texts, of all and of long ones."""
    store = Store.open(index.url)
    sizes, tokens = [], []
    for part in index.snapshot.parts:
        table = pa.ipc.open_file(pa.BufferReader(store.read(part.file))).read_all()
        for row in range(len(table)):
            one = table.slice(row, 1)
            sizes.append(one.nbytes - one["text"].nbytes + IDS_ENTRY)
            tokens.append(one["tokens"][0].as_py())
    size, length = np.array(sizes), np.array(tokens)
    for said, chosen in (("all", length > 0), (f"{LONG} tokens or more", length >= LONG)):
        if chosen.any():
            print(
                f"{said}: {chosen.sum()} documents of {length[chosen].mean():.0f} tokens, "
                f"{size[chosen].mean():,.0f} B each beside the text, at most {size[chosen].max():,}"
            )


def say_sums(index: Index, model: Attributor, queries_QD: np.ndarray) -> None:
    """Sums of shares against the model's own scores."""
    wrong: dict[str, list[np.ndarray]] = defaultdict(list)
    document = model.routes.of("document")
    for batch in index.batches():
        assert batch.texts is not None, "an index with texts"
        own_ND = document.embeddings(model.read(batch.texts, "document"))
        scores_NQ = own_ND @ queries_QD.T / np.linalg.norm(own_ND, axis=1)[:, None]
        length_N1 = np.linalg.norm(batch.embeddings, axis=1)[:, None]
        all_NQ = batch.embeddings @ queries_QD.T / length_N1
        groups_NQ = all_NQ - batch.remainders @ queries_QD.T / length_N1
        wrong["all rows"].append(np.abs(all_NQ - scores_NQ).ravel())
        wrong["groups"].append(np.abs(groups_NQ - scores_NQ).ravel())
    for name, parts in wrong.items():
        say(f"|sum of {name} − score|", np.concatenate(parts))


def say_shares(index: Index, loaded: Any, names: list[str], queries_QD: np.ndarray) -> None:
    """Shares from the rows against those of the same documents' contributions, computed again."""
    stored = defaultdict(list)
    for name in names:
        one = index.document(name)
        stored[one.nodes].append(one)
    errors, shares = [], []
    for nodes, documents in stored.items():
        model = attributor(loaded, index, nodes)
        computed = model.contributions(model.read([one.text or "" for one in documents], "document"))
        for one, exact in zip(documents, computed, strict=True):
            rows_GD, length = COMPLETION.completed(exact), np.linalg.norm(exact.embedding_D)
            errors.append(np.abs((one.rows - rows_GD) @ queries_QD.T / length).ravel())
            shares.append(np.abs(rows_GD @ queries_QD.T / length).ravel())
    say(f"|share − float32's|, {len(names)} documents", np.concatenate(errors))
    print(f"  shares themselves: {np.median(np.concatenate(shares)):.1e} at the median")


def say(name: str, values: np.ndarray) -> None:
    """Quantiles of errors."""
    middle, high, most = np.quantile(values, [0.5, 0.99, 1])
    print(
        f"{name}: {middle:.1e} at the median, {high:.1e} at the 99th percentile, {most:.1e} at most ({len(values):,})"
    )


if __name__ == "__main__":
    main()

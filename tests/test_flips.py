"""Deleting words until two documents change places: counted by hand on a tiny model, and stored in the run."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pair_runs import Row, write_pairs
from sentence_transformers import SentenceTransformer
from tiny_models import WORDS, TinyModels

from attribution_core import Attributor
from jobs.analysis.faithfulness.orders import ATTRIBUTIONS, EMBEDDINGS, LEXICAL, RANDOM
from jobs.analysis.flips.contest import DOCUMENT, QUERY, RULES, TEXTS
from jobs.analysis.flips.prove import prove, sample_flips
from jobs.analysis.flips.result import Deletions, Proof, stored_flips
from jobs.errors import RunError
from jobs.run.reader import Run
from jobs.views.margin.flips import flips_text, proof_lines
from jobs.views.margin.page import margin_html
from jobs.views.report.trust import decided

LOG = pa.schema([("rank", pa.int32()), ("relevance", pa.int32())])


def texts(rng: random.Random, words: int) -> str:
    return " ".join(rng.sample([word for word in WORDS if "'" not in word], words))


def attributed_run(
    tiny: TinyModels, place: Path, rng: random.Random, queries: int, *, judged: bool = True, **more: Any
) -> Run:
    """Queries of four words with three documents, explained by a tiny model; the lowest-scoring one is relevant."""
    attributor = Attributor(tiny.load("bert", normalize=True), layer=-1, mode="retrieval", nodes=6)
    rows = []
    for at in range(queries):
        query = texts(rng, 4)
        pairs = attributor.attribute_pairs([(query, texts(rng, 6)) for _ in range(3)])
        pairs.sort(key=lambda pair: -pair.score)
        for rank, pair in enumerate(pairs, start=1):
            kept = {"rank": rank, "relevance": int(rank == 3) if judged else None}
            rows.append(Row(f"{at}:{rank}", pair, kept))
    settings = {"mode": "retrieval", "sums_to": "score", "model": str(tiny.folder("bert", normalize=True))}
    return write_pairs(place, [rows], kept=LOG, top_k=64, **(settings | more))


def removed(text: str, words: Sequence[int]) -> str:
    return " ".join(word for at, word in enumerate(text.split()) if at not in words)


class ByHand:
    """How many words of a text must go, from the model's own embeddings."""

    def __init__(self, model: SentenceTransformer, query: str, above: str, below: str) -> None:
        self.model, self.texts = model, {QUERY: query, DOCUMENT: above}
        self.below = below

    def turns(self, text: str, words: Sequence[int]) -> bool:
        now = self.texts | {text: removed(self.texts[text], words)}
        query, above, below = self.model.encode([now[QUERY], now[DOCUMENT], self.below], normalize_embeddings=True)
        return float(query @ above) < float(query @ below)

    def along(self, text: str, order: Sequence[int]) -> int | None:
        return next((n for n in range(1, len(order)) if self.turns(text, order[:n])), None)

    def fewest(self, text: str) -> int | None:
        count = len(self.texts[text].split())
        for size in range(1, count):
            if any(self.turns(text, some) for some in itertools.combinations(range(count), size)):
                return size
        return None


def test_deletions_equal_those_by_hand(tiny: TinyModels, tmp_path: Path, rng: random.Random) -> None:
    """Would catch an order of other values, a count that is one too small, and sets that were not tried."""
    run = attributed_run(tiny, tmp_path / "run", rng, 4)
    model = tiny.load("bert", normalize=True)
    seen = set()
    for query in run.to_table()["text_a_id"].unique().to_pylist():
        margin = run.margin(query)
        first, second = margin.documents
        proof = prove(run, margin, orders=3)
        by_hand = ByHand(model, margin.text, first.text, second.text)
        gained = first.row_sums - second.row_sums
        for text, values, found in (
            (DOCUMENT, first.col_sums[1:-1], proof.document),
            (QUERY, gained[1:-1], proof.query),
        ):
            order = np.argsort(-values).tolist()
            assert found.count == by_hand.along(text, order)
            assert found.best == by_hand.fewest(text)
            assert found.deleted == tuple(by_hand.texts[text].split()[word] for word in order[: found.count or 0])
            assert found.words == len(values)
            if found.best is not None:
                assert found.best <= found.random <= found.words
            seen.add(found.count)
    assert len(seen) > 1, "all alike proves nothing"


def test_a_search_that_is_too_large_says_how_far_it_went(tiny: TinyModels, tmp_path: Path, rng: random.Random) -> None:
    run = attributed_run(tiny, tmp_path / "run", rng, 4)
    for query in run.to_table()["text_a_id"].unique().to_pylist():
        margin = run.margin(query)
        whole, none = prove(run, margin, orders=1), prove(run, margin, orders=1, most_sets=0)
        assert none.document.count == whole.document.count
        assert none.document.tried == 0
        # Without a search only a single word is known to be the fewest.
        assert none.document.best == (1 if whole.document.count == 1 else None)


def test_the_order_of_the_two_documents_does_not_matter(tiny: TinyModels, tmp_path: Path, rng: random.Random) -> None:
    run = attributed_run(tiny, tmp_path / "run", rng, 1)
    margin = run.margin(run.to_table()["text_a_id"][0].as_py())
    turned = run.margin(margin.query_id, margin.b, margin.a)
    assert turned.difference == pytest.approx(-margin.difference)
    assert prove(run, turned, orders=2) == prove(run, margin, orders=2)


def test_the_sample_is_stored_and_its_means_are_those_of_single_proofs(
    tiny: TinyModels, tmp_path: Path, rng: random.Random
) -> None:
    run = attributed_run(tiny, tmp_path / "run", rng, 6)
    assert stored_flips(run) is None
    flips = sample_flips(run, sample=4, orders=2, seed=3)
    assert (flips.inversions, flips.of, flips.own_judge) == (4, 6, True)
    assert {one.query_id for one in sample_flips(run, sample=4, orders=1, seed=3).measured} == {
        one.query_id for one in flips.measured
    }
    for text in TEXTS:
        counts = []
        for one in flips.measured:
            proof = prove(run, run.margin(one.query_id), orders=1, most_sets=0)
            found = getattr(proof, text)
            counts.append(found.words if found.count is None else found.count)
        assert flips.mean(text, ATTRIBUTIONS).deletions.mean == pytest.approx(np.mean(counts))
        for rule in (EMBEDDINGS, LEXICAL, RANDOM):
            lead, own = flips.lead(text, rule), flips.mean(text, ATTRIBUTIONS).deletions.mean
            assert lead.fewer.mean == pytest.approx(flips.mean(text, rule).deletions.mean - own)
            assert lead.fewer.low <= lead.fewer.mean <= lead.fewer.high
    assert flips.write(run.store) == ["statistics/flips.json", "statistics/flips.parquet"]
    stored = stored_flips(run)
    assert stored is not None
    assert stored.to_dict() == flips.to_dict()
    table = pq.read_table(Path(run.url) / "statistics" / "flips.parquet")
    assert len(table) == 4 * len(TEXTS) * len(RULES)
    text = " ".join(flips_text(flips).split())
    assert "4 of 6 inversions, one a query" in text
    assert "Only 4 different first texts" in text
    trust, untested = decided(stored, "RUN", failing=True), decided(None, "RUN", failing=True)
    assert trust is not None
    assert untested is not None
    assert "4 of 6 inversions were tested by deletion" in trust.words
    assert untested.words.endswith("tokenpair why RUN --prove")
    assert decided(None, "RUN", failing=False) is None


def test_random_orders_depend_on_the_seed_alone(tiny: TinyModels, tmp_path: Path, rng: random.Random) -> None:
    run = attributed_run(tiny, tmp_path / "run", rng, 3)
    one, again, other = (sample_flips(run, sample=3, orders=2, seed=seed) for seed in (0, 0, 1))
    assert one.measured == again.measured
    assert {key: value for m in one.measured for key, value in m.deletions.items() if key[1] == ATTRIBUTIONS} == {
        key: value for m in other.measured for key, value in m.deletions.items() if key[1] == ATTRIBUTIONS
    }


def test_a_model_that_changed_is_refused_and_another_may_judge(
    tiny: TinyModels, tmp_path: Path, rng: random.Random
) -> None:
    run = attributed_run(tiny, tmp_path / "run", rng, 1, fingerprint="another")
    margin = run.margin(run.to_table()["text_a_id"][0].as_py())
    with pytest.raises(RunError, match=r"has other weights now than when the run was made; --model .* anyway"):
        prove(run, margin)
    proof = prove(run, margin, model=str(tiny.folder("mpnet", normalize=True)), orders=2)
    assert not proof.own_judge
    assert all(line.startswith("Tested by deletion, by ") for line in proof_lines(proof))


def test_a_run_without_inversions_is_refused_with_the_reason(
    tiny: TinyModels, tmp_path: Path, rng: random.Random
) -> None:
    run = attributed_run(tiny, tmp_path / "run", rng, 1, judged=False)
    with pytest.raises(RunError, match="no inversion to test, because it has no judgments"):
        sample_flips(run)


def test_a_proof_in_words() -> None:
    found = Deletions("document", 60, 3, ("heat", "wing", "jet"), 28.4, 0, 10, None, 1)
    never = Deletions("query", 6, None, (), 6.0, 10, 10, None, 2)
    document, query = proof_lines(Proof("d1", "d2", found, never, "some/model", True))
    assert document == (
        "Tested by deletion: without 3 of the 60 words of d1 (heat, wing, jet) d1 falls below d2. It takes 28.4 in "
        "random order (mean of 10); no set of up to 1 word does it."
    )
    assert query.startswith("Tested by deletion: no deletion of up to 5 of the 6 words of the query, largest first,")


def test_a_proof_is_part_of_the_page(tiny: TinyModels, tmp_path: Path, rng: random.Random) -> None:
    run = attributed_run(tiny, tmp_path / "run", rng, 1)
    margin = run.margin(run.to_table()["text_a_id"][0].as_py())
    assert "Tested by deletion" in margin_html(margin, proof=prove(run, margin, orders=1))
    assert "Tested by deletion" not in margin_html(margin)

"""What each word adds to the whole score, without word pairs: the same numbers, from fewer directions."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from test_completion import SUMS_TO, completed_by_hand, sample
from test_pair_columns import some_pairs
from tiny_models import TinyModels, random_text

from attribution_core import Attributor
from attribution_core.contribution_cache import ContributionCache
from attribution_core.contributions import Contributor
from attribution_core.errors import SettingError
from attribution_core.pairs.completion import Completion


@pytest.mark.rotates(3)
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("way", ["forward", "partner", "auto"])
@pytest.mark.parametrize("sums_to", SUMS_TO)
def test_sums_equal_completed_contributions_times_what_the_partner_sums_to(
    sums_to: str, way: str, similarity: str, tiny: TinyModels, rng: random.Random, seed: int
) -> None:
    """Would catch a partner's products in another's place, a share inherited twice, and a lift of the wrong text."""
    model = tiny.load("bert", similarity=similarity, seed=seed % 5)
    centre = sample(rng) if sums_to == "centred" else None
    common: dict[str, Any] = {"layer": 1, "sums_to": sums_to, "nodes": 6, "centre": centre, "dtype": "float64"}
    words = Attributor(model, level="words", way=way, **common)
    alone = Attributor(model, way="forward", **common)
    read, edges = some_pairs(words, rng, 14)
    of_text = alone.contributions(read)
    centre_D = alone.completion.centres.get("text")
    completed = [completed_by_hand(one, sums_to, centre_D) for one in of_text]
    whole = [completed_by_hand(one, "score") for one in of_text]
    completion = Completion(alone.completion.sums_to, alone.completion.centres)
    columns, defined = words.pair_columns(read, edges, top_k=7, cells=True)
    assert defined.tolist() == list(range(len(edges)))
    assert columns.cells is None
    assert columns.top_value is None
    for at, (i, j) in enumerate(edges.tolist()):
        e_a, e_b = (of_text[k].embedding_D.astype(np.float64) for k in (i, j))
        lengths = float(np.linalg.norm(e_a) * np.linalg.norm(e_b))
        norm = lengths if similarity == "cosine" else 1.0
        rows = completed[i] @ completion.target(of_text[j]) / norm
        cols = completed[j] @ completion.target(of_text[i]) / norm
        pair = columns.pair(at)
        close = {"rtol": 0, "atol": 1e-6 * max(1.0, float(np.abs(rows).max()), float(np.abs(cols).max()))}
        np.testing.assert_allclose(pair.row_sums, rows, **close)
        np.testing.assert_allclose(pair.col_sums, cols, **close)
        assert np.isnan(pair.matrix).all()
        assert pair.score == pytest.approx(e_a @ e_b / norm, abs=1e-6)
        expected = completion.target(of_text[i]) @ completion.target(of_text[j]) / norm
        missing = max(rows.sum() - expected, cols.sum() - expected, key=abs)
        assert pair.total == pytest.approx(expected + missing, abs=close["atol"])
        assert pair.error == pytest.approx(missing * norm / lengths, abs=close["atol"])
        if similarity == "cosine":
            score = e_a @ e_b / norm
            assert pair.row_lift is not None
            assert pair.col_lift is not None
            np.testing.assert_allclose(pair.row_lift, whole[i] @ (e_b / norm - score * e_a / (e_a @ e_a)), **close)
            np.testing.assert_allclose(pair.col_lift, whole[j] @ (e_a / norm - score * e_b / (e_b @ e_b)), **close)


def test_words_sum_to_the_score_of_the_model(tiny: TinyModels, rng: random.Random) -> None:
    model = tiny.load("bert")
    pairs = [(random_text(rng, 9), random_text(rng, 30)) for _ in range(12)]
    found = Attributor(model, level="words", tolerance=1e-4).attribute_pairs(pairs)
    embeddings = [model.encode(list(side), convert_to_numpy=True) for side in zip(*pairs, strict=True)]
    scores = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(*embeddings, strict=True)]
    for pair, score in zip(found, scores, strict=True):
        assert pair.score == pytest.approx(score, abs=1e-5)
        assert pair.row_sums.sum() == pytest.approx(score, abs=3e-4)
        assert pair.col_sums.sum() == pytest.approx(score, abs=3e-4)
        assert (pair.a.way, pair.b.way) == ("partner", "partner")


@pytest.mark.parametrize("level", ["pairs", "words"])
def test_a_log_pulls_documents_back_along_their_query_alone(
    level: str, tiny: TinyModels, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A document of a log takes two directions, not one for each word of the query."""
    widths: list[int] = []
    embedded: list[str] = []
    projections, ends = Contributor.projections, Contributor.ends

    def counted(self: Contributor, texts: Any, cotangents: Any, **more: Any) -> Any:
        widths.extend(len(one) + 1 for text, one in zip(texts, cotangents, strict=True) if text.role == "document")
        return projections(self, texts, cotangents, **more)

    def noted(self: Contributor, texts: Any) -> Any:
        embedded.extend(text.role for text in texts)
        return ends(self, texts)

    monkeypatch.setattr(Contributor, "projections", counted)
    monkeypatch.setattr(Contributor, "ends", noted)
    attributor = Attributor(tiny.load("bert"), level=level, mode="retrieval", nodes=4)
    query = random_text(rng, 8)
    attributor.attribute_pairs([(query, random_text(rng, 40)) for _ in range(5)])
    assert widths == ([2] * 5 if level == "words" else [len(attributor.read([query], "query")[0].labels) + 1] * 5)
    assert embedded == (["query"] if level == "words" else [])


def test_a_text_of_many_partners_is_pushed_forward_and_cached(tiny: TinyModels, rng: random.Random) -> None:
    attributor = Attributor(tiny.load("bert"), level="words", nodes=4)
    cache = ContributionCache(1 << 24)
    texts = list(dict.fromkeys([random_text(rng, 3), *(random_text(rng, 20) for _ in range(30))]))
    read = attributor.read(texts, "text")
    cache.admit((text.role, text.text) for text in read)
    edges = np.array([(0, at) for at in range(1, len(read))])
    columns, _ = attributor.pair_columns(read, edges, cache=cache)
    assert columns.texts[0].way == "forward"
    assert cache.get(read[0]) is not None
    assert cache.get(read[1]) is None


def test_a_pair_over_the_tolerance_is_computed_again(tiny: TinyModels, rng: random.Random) -> None:
    model = tiny.load("bert")
    pairs = [(random_text(rng, 6), random_text(rng, 9)) for _ in range(6)]
    rough = Attributor(model, level="words", tolerance=0.5, pair_tolerance=1.0).attribute_pairs(pairs)
    fine = Attributor(model, level="words", tolerance=0.5, pair_tolerance=1e-4).attribute_pairs(pairs)
    assert max(abs(pair.error) for pair in rough) > 1e-4
    assert max(abs(pair.error) for pair in fine) <= 1e-4


def test_an_unknown_level_is_refused(tiny: TinyModels) -> None:
    with pytest.raises(SettingError, match="level 'cells' is unknown; allowed are pairs, words"):
        Attributor(tiny.load("bert"), level="cells")

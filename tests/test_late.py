"""Late interaction: MaxSim with its matches fixed, split into words, against loops in float64 and the model itself."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from late_models import FIXED, late_folder
from late_oracle import LateOracle
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Normalize
from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling
from tiny_models import TinyModels, random_text

from attribution_core import Attributor, ModelError, PairAttribution, SettingError, TextError
from attribution_core.pairs.late import matched

ATTENDED = {"strategy": "min", "attend": True, "length": 9}
# The tiny ModernBERT attends to four tokens on either side: a token far behind the text would see none.
SHORT = FIXED | {"length": 9}
KINDS = [("bert", None), ("bert", FIXED), ("bert", ATTENDED), ("modernbert", SHORT)]
# Without a calibration of each model.
FEW: dict[str, Any] = {"quadrature": "riemann", "nodes": 2}
Pairs = list[tuple[str, str]]


@pytest.fixture
def pairs(rng: random.Random) -> Pairs:
    return [(random_text(rng, rng.randint(2, 7)), random_text(rng, rng.randint(4, 24))) for _ in range(5)]


def _loaded(folder: Path) -> MultiVectorEncoder:
    return MultiVectorEncoder(str(folder), device="cpu")


def _own_scores(model: MultiVectorEncoder, pairs: Pairs) -> Any:
    queries, documents = zip(*pairs, strict=True)
    return model.similarity_pairwise(model.encode_query(list(queries)), model.encode_document(list(documents))).numpy()


def _close(found: PairAttribution, expected: PairAttribution, most: float) -> None:
    np.testing.assert_allclose(found.row_sums, expected.row_sums, atol=most)
    np.testing.assert_allclose(found.col_sums, expected.col_sums, atol=most)
    np.testing.assert_allclose(found.matrix, expected.matrix, atol=most)


@pytest.mark.parametrize(("family", "expansion"), KINDS)
def test_cells_equal_the_oracle(tiny: TinyModels, rng: random.Random, family: str, expansion: Any) -> None:
    folder = late_folder(tiny, family, expansion=expansion, projection=5)
    query, document = random_text(rng, 3), random_text(rng, 5)
    cells, raw, score, met = LateOracle(_loaded(folder), layer=-2, nodes=4).pair(query, document)
    attributor = Attributor(str(folder), quadrature="riemann", nodes=4, dtype="float64", groups="token")
    pair = attributor.attribute(query, document)
    # Some tokens of one text may be one group: those that queries are filled up with.
    rows = np.zeros((len(pair.a.groups), cells.shape[1]))
    raw_rows = rows.copy()
    np.add.at(rows, list(pair.a.groups.of_token), cells)
    np.add.at(raw_rows, list(pair.a.groups.of_token), raw)
    # ModernBERT computes parts in float32 whatever its type.
    most = 1e-5 if family == "bert" else 1e-3
    np.testing.assert_allclose(pair.matrix, rows, atol=most)
    assert pair.interactions is not None
    np.testing.assert_allclose(pair.interactions, raw_rows, atol=most)
    assert pair.score == pytest.approx(score, abs=1e-5)
    assert pair.matches is not None
    assert [(match.token_i, match.token_j) for match in pair.matches] == met


@pytest.mark.parametrize(("family", "layer", "nodes"), [("bert", -2, 32), ("modernbert", -1, 48)])
def test_cells_sum_to_maxsim_in_float64(tiny: TinyModels, pairs: Pairs, family: str, layer: int, nodes: int) -> None:
    folder = late_folder(tiny, family, expansion=SHORT)
    attributor = Attributor(str(folder), layer=layer, nodes=nodes, dtype="float64")
    for pair in attributor.attribute_pairs(pairs):
        assert pair.total == pytest.approx(pair.score, rel=1e-5)
        assert float(pair.matrix.sum(dtype=np.float64)) == pytest.approx(pair.score, rel=1e-5)


@pytest.mark.parametrize("similarity", ["maxsim", "meanmaxsim"])
@pytest.mark.parametrize(("family", "expansion"), KINDS)
def test_scores_and_matches_are_the_models_own(
    tiny: TinyModels, pairs: Pairs, family: str, expansion: Any, similarity: str
) -> None:
    folder = late_folder(tiny, family, expansion=expansion, similarity=similarity)
    model = _loaded(folder)
    pairs = [*pairs, ("naïve 👍🏽 wave", "Ünïcode, e\u0301 (see below). " * 12), ("rain", "rain")]
    attributor = Attributor(str(folder), level="words", **FEW)
    assert attributor.similarity == similarity
    explained = attributor.attribute_pairs(pairs)
    np.testing.assert_allclose([pair.score for pair in explained], _own_scores(model, pairs), atol=2e-5)
    for (query, document), pair in zip(pairs, explained, strict=True):
        e_q, e_d = (one.numpy() for one in (model.encode_query(query), model.encode_document(document)))
        assert pair.matches is not None
        assert len(pair.matches) == len(e_q)
        products = e_q @ e_d.T
        norm = len(e_q) if similarity == "meanmaxsim" else 1
        np.testing.assert_allclose([match.value * norm for match in pair.matches], products.max(1), atol=1e-5)
        # The token that was met stands, among the scored ones, where the model's own maximum is.
        scored = attributor.read([document], "document")[0].scored_S
        assert scored is not None
        places = np.flatnonzero(scored)
        met = [int(np.searchsorted(places, match.token_j)) for match in pair.matches]
        np.testing.assert_allclose(products[np.arange(len(e_q)), met], products.max(1), atol=1e-5)
        assert sum(match.value for match in pair.matches) == pytest.approx(pair.score, abs=1e-5)
        assert all(pair.a.groups.of_token[match.token_i] == match.i for match in pair.matches)
        assert all(pair.b.groups.labels[match.j] == match.b for match in pair.matches)


def test_rows_and_columns_alone_equal_those_of_word_pairs(tiny: TinyModels, pairs: Pairs) -> None:
    folder, pairs = late_folder(tiny, expansion=FIXED), pairs[:2]
    for sums_to in ("score", "difference"):
        settings: dict[str, Any] = {"sums_to": sums_to, "nodes": 24, "dtype": "float64"}
        whole = Attributor(str(folder), **settings).attribute_pairs(pairs)
        for way in ("auto", "forward", "partner"):
            words = Attributor(str(folder), level="words", way=way, **settings).attribute_pairs(pairs)
            for one, other in zip(words, whole, strict=True):
                assert not one.has_word_pairs
                np.testing.assert_allclose(one.row_sums, other.row_sums, atol=1e-5)
                np.testing.assert_allclose(one.col_sums, other.col_sums, atol=1e-5)
                expected = (one.reference_a, one.reference_b, one.reference_ab)
                target = one.score if sums_to == "score" else one.score - expected[0] - expected[1] + expected[2]
                assert one.total == pytest.approx(target, abs=1e-4)


def test_company_order_and_direction_change_nothing(tiny: TinyModels, pairs: Pairs, rng: random.Random) -> None:
    folder = late_folder(tiny, expansion=FIXED)
    # Queries share documents, and one text is query and document.
    more = [*pairs, (pairs[0][0], pairs[1][1]), (pairs[1][0], pairs[1][1]), (pairs[0][1], pairs[0][0])]
    attributor = Attributor(str(folder), **FEW)
    together = attributor.attribute_pairs(more)
    order = rng.sample(range(len(more)), len(more))
    shuffled = attributor.attribute_pairs([more[at] for at in order])
    forward = Attributor(str(folder), way="forward", **FEW).attribute_pairs(more)
    for at, (a, b) in enumerate(more):
        _close(together[at], attributor.attribute(a, b), 2e-5)
        _close(together[at], shuffled[order.index(at)], 2e-5)
        _close(together[at], forward[at], 2e-5)


@pytest.mark.parametrize("level", ["pairs", "words"])
@pytest.mark.parametrize("layer", [-1, -3])
def test_layers_linearised_by_hand_equal_torch_func(tiny: TinyModels, pairs: Pairs, level: str, layer: int) -> None:
    folder = late_folder(tiny, expansion=FIXED)
    settings: dict[str, Any] = {"layer": layer, "level": level, "dtype": "float64", **FEW}
    by_hand, generic = (
        Attributor(str(folder), products=products, **settings).attribute_pairs(pairs)
        for products in ("structured", "generic")
    )
    for one, other in zip(by_hand, generic, strict=True):
        _close(one, other, 1e-6)
    # A cut of a budget into chunks changes nothing.
    small = Attributor(str(folder), memory=1 << 20, **settings).attribute_pairs(pairs)
    for one, other in zip(small, generic, strict=True):
        _close(one, other, 1e-6)


def test_texts_of_one_reference_keep_their_own_scored_tokens(tiny: TinyModels) -> None:
    attributor = Attributor(str(late_folder(tiny)), **FEW)
    # As long as each other, with the marks that are not scored in other places.
    pairs = [("rain", "rain falls , on the river"), ("rain", "rain . falls on the river")]
    for together, (a, b) in zip(attributor.attribute_pairs(pairs), pairs, strict=True):
        _close(together, Attributor(str(late_folder(tiny)), **FEW).attribute(a, b), 2e-5)


def test_the_sides_of_a_symmetric_pair_differ(tiny: TinyModels, pairs: Pairs) -> None:
    folder = late_folder(tiny)
    model = _loaded(folder)
    attributor = Attributor(str(folder), mode="symmetric", **FEW)
    a, b = pairs[0]
    both = attributor.attribute_pairs([(a, b), (b, a)])
    embedded = [model.encode([text]) for text in (a, b)]
    assert both[0].score == pytest.approx(float(model.similarity(*embedded)), abs=1e-5)
    assert both[1].score == pytest.approx(float(model.similarity(*embedded[::-1])), abs=1e-5)
    assert both[0].score != pytest.approx(both[1].score, abs=1e-3)


def test_strongest_cells_are_those_of_the_largest_interactions(tiny: TinyModels, pairs: Pairs) -> None:
    pair = Attributor(str(late_folder(tiny)), **FEW).attribute(*pairs[1])
    assert pair.interactions is not None
    top = pair.top(4)
    assert [abs(cell.interaction or 0.0) for cell in top] == sorted(
        (abs(cell.interaction or 0.0) for cell in top), reverse=True
    )
    assert top[0].value == pytest.approx(float(pair.matrix[top[0].i, top[0].j]))
    text = np.ix_([kind == "text" for kind in pair.a.groups.kinds], [kind == "text" for kind in pair.b.groups.kinds])
    assert abs(top[0].interaction or 0.0) == pytest.approx(float(np.abs(pair.interactions[text]).max()))


def test_what_fills_up_a_query_is_one_special_group(tiny: TinyModels) -> None:
    pair = Attributor(str(late_folder(tiny, expansion=FIXED)), **FEW).attribute("rain falls", "wet weather")
    assert pair.a.groups.labels[-1] == "[MASK]"
    assert pair.a.groups.kinds[-1] == "special"
    assert len(pair.a.tokens) == FIXED["length"]
    assert pair.matches is not None
    assert len(pair.matches) == FIXED["length"]


def test_an_exact_tie_takes_the_first_match_and_is_counted() -> None:
    a_TD, b_TD = np.eye(2, dtype=np.float32), np.array([[0, 1], [1, 0], [1, 0]], np.float32)
    match_T, value_T, ties = matched(a_TD, b_TD)
    assert match_T.tolist() == [1, 0]
    assert value_T.tolist() == [1.0, 1.0]
    assert ties == 1


def test_a_document_without_a_scored_token_has_a_problem(tiny: TinyModels) -> None:
    folder = late_folder(tiny, skip=(".", "[CLS]", "[SEP]", "[", "]", "d"), prompts={})
    with pytest.raises(TextError, match="no token left to score"):
        Attributor(str(folder)).attribute("rain", "...")


def test_what_is_no_text_is_refused(tiny: TinyModels) -> None:
    with pytest.raises(TextError, match="second text is dict, not text"):
        Attributor(str(late_folder(tiny))).attribute_pairs([("rain", {"image": "rain.png"})])  # type: ignore[list-item]


def test_texts_within_the_tolerance_sum_to_the_score(tiny: TinyModels, pairs: Pairs) -> None:
    for pair in Attributor(str(late_folder(tiny, expansion=FIXED))).attribute_pairs(pairs):
        assert pair.converged
        assert abs(pair.error) < 2e-3
        assert pair.total == pytest.approx(pair.score, abs=2e-3 * FIXED["length"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"sums_to": "centred"}, "needs one vector a text"),
        ({"way": "reverse"}, "does not serve late interaction"),
        ({"similarity": "cosine"}, "maxsim"),
    ],
)
def test_settings_of_one_vector_are_refused(tiny: TinyModels, setting: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Attributor(str(late_folder(tiny)), **setting)


def test_modules_that_cannot_be_attributed_are_refused(tiny: TinyModels) -> None:
    model = _loaded(late_folder(tiny))
    model.append(HierarchicalTokenPooling(pool_factor=2))
    with pytest.raises(ModelError, match="merges output tokens"):
        Attributor(model)
    model = _loaded(late_folder(tiny))
    model.append(Normalize())
    with pytest.raises(ModelError, match="must be 'token_embeddings'"):
        Attributor(model)


def test_a_pylate_folder_is_late_interaction_too(tiny: TinyModels, tmp_path: Path, pairs: Pairs) -> None:
    folder = tmp_path / "pylate"
    shutil.copytree(late_folder(tiny, skip=()), folder)
    settings = folder / "config_sentence_transformers.json"
    found = json.loads(settings.read_text())
    found |= {"model_type": "ColBERT", "query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": 9}
    settings.write_text(json.dumps(found))
    listed = json.loads((folder / "modules.json").read_text())[:2]
    listed[1]["type"] = "pylate.models.Dense.Dense"
    (folder / "modules.json").write_text(json.dumps(listed))
    explained = Attributor(str(folder), level="words", **FEW).attribute_pairs(pairs)
    np.testing.assert_allclose([pair.score for pair in explained], _own_scores(_loaded(folder), pairs), atol=2e-5)

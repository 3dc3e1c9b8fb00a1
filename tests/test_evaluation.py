"""Evaluating a run: texts change as they should, orders are what they say, a model whose right answer is known."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pair_runs import Row, attributed, cut_text, damage, words, write_pairs
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tiny_models import TOKENIZERS, WORDS, TinyModels
from typer.testing import CliRunner

from attribution_core.results import ExplainedText, PairAttribution
from jobs import cli
from jobs.errors import JobError, RunError, StoreError
from jobs.evaluation.curves import MEASURES, area, measure, prepare
from jobs.evaluation.intervals import Bootstrap
from jobs.evaluation.judge import Judge
from jobs.evaluation.measuring import evaluate_run
from jobs.evaluation.orders import (
    ATTRIBUTIONS,
    METHODS,
    SHUFFLED,
    Scored,
    of_attributions,
    of_identical_words,
    shuffled,
)
from jobs.evaluation.perturbing import Side, deletions, insertions, word_counts
from jobs.evaluation.result import advantages_of
from jobs.evaluation.sampling import sample_pairs
from jobs.opened_run import Run

CHANCE = np.random.default_rng(0)


class BagOfWords:
    """A judge of which everything is known: a text's embedding is the sum of its words' weights, one axis a word."""

    def __init__(self, weights: dict[str, float]) -> None:
        self.weights = weights

    def embed(self, texts: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Any]:
        axes = list(self.weights)
        return {
            (role, text): np.array([self.weights[axis] * text.split().count(axis) for axis in axes])
            for role, text in texts
        }

    def word_vectors(self, side: Side, role: str) -> Any:
        return np.eye(len(side), 16)


def bag_pair(weights: dict[str, float], a: ExplainedText, b: ExplainedText) -> PairAttribution:
    """The exact attribution of a bag of words: only equal words meet."""
    inner = [[weights[x] * weights[y] * (x == y) for y in b.text.split()] for x in a.text.split()]
    pair = attributed(a, b, inner)
    return PairAttribution(**{**vars(pair), "pair_id": "p"})


def test_deleted_words_leave_no_doubled_space_and_no_unread_text() -> None:
    side = Side.of(cut_text("A red, red rose", ["A", "red", ",", "red", "rose"]))
    assert side.without([1]) == "A , red rose"
    assert side.without([3]) == "A red, rose"
    assert side.without([0, 4]) == "red, red"
    assert side.without([1, 2, 3]) == "A rose"
    assert side.without([]) == "A red, red rose"
    assert side.without(range(5)) == ""
    cut = words("one two three four")
    read = ExplainedText(**{**vars(cut), "groups": words("one two").groups, "truncated": True, "cut_at": 7})
    assert Side.of(read).without([0]) == "two"


def test_deletion_and_insertion_go_from_whole_to_blank_and_back(rng: random.Random) -> None:
    side = Side.of(words("a b c d e f g"))
    order = np.array(rng.sample(range(7), 7))
    gone, come = deletions(side, order, 5), insertions(side, order, 5)
    assert (gone[0], gone[-1], come[0], come[-1]) == (side.text, "", "", side.text)
    assert word_counts(7, 5).tolist() == [0, 2, 3, 5, 6, 7]
    for left, there in zip(gone, come, strict=True):
        assert sorted(left.split() + there.split()) == list("abcdefg")


def test_most_positive_pairs_go_first_and_unknown_cells_lie_between() -> None:
    """Of the words without a stored positive cell their exact sums decide; a stored negative cell helps nobody."""
    nan = np.nan
    cells = np.array([[nan, 0.5], [0.9, nan], [nan, nan], [nan, -0.8]])
    scored = Scored(cells, np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, 1.0]))
    order_a, order_b = scored.orders("pairs", CHANCE)
    assert order_a.tolist() == [1, 0, 3, 2]
    assert order_b.tolist() == [0, 1]
    assert scored.orders("words", CHANCE)[0].tolist() == [3, 2, 1, 0]


def test_orders_of_a_run_of_strongest_cells_are_those_of_whole_matrices(tmp_path: Path, rng: random.Random) -> None:
    """Words' order always; pairs' order where the strongest cells are enough to know it."""
    a, b = words("a b c d"), words("e f g")
    inner = np.random.default_rng(rng.randrange(1 << 30)).normal(0, 1, (4, 3)) + 1
    row = Row("p", attributed(a, b, inner))
    found = []
    for store, top_k in (("full", 1), ("top", 12), ("top", 3)):
        run = write_pairs(tmp_path / f"{store}{top_k}", [[row]], store=store, top_k=top_k)
        found.append(of_attributions(run.pair("p"), Side.of(a), Side.of(b)))
    for scored in found:
        for level in ("words", "pairs") if scored is not found[2] else ("words",):
            for order, direct in zip(scored.orders(level, CHANCE), found[0].orders(level, CHANCE), strict=True):
                assert order.tolist() == direct.tolist()
    assert np.isnan(found[2].cells).sum() == 9


def test_shuffling_keeps_the_values_and_identical_words_ignore_case() -> None:
    scored = Scored(np.arange(12.0).reshape(4, 3), np.arange(4.0), np.arange(3.0))
    moved = shuffled(scored, np.random.default_rng(1))
    assert sorted(moved.cells.ravel()) == sorted(scored.cells.ravel())
    assert not np.array_equal(moved.cells, scored.cells)
    same = of_identical_words(Side.of(words("The cat sat")), Side.of(words("a CAT")))
    assert same.cells.tolist() == [[0, 0], [0, 1], [0, 0]]


def test_exact_attributions_are_the_best_order_of_a_model_that_is_known(rng: random.Random) -> None:
    """A bag of words: no order of the words of a lowers or raises the score faster than the attributions' own."""
    weights = {name: rng.uniform(0.5, 3) for name in ("p", "q", "r", "s", "t", "u")}
    a, b = words("p q r s"), words("s q r t u")
    judge: Any = BagOfWords(weights)
    pair = bag_pair(weights, a, b)
    ready = prepare(pair, "a", judge, steps=4, orders=2, seed=rng.randrange(1 << 30))
    assert ready is not None
    curves = measure(ready, judge.embed(ready.texts()))
    m = METHODS.index(ATTRIBUTIONS)
    side = Side.of(a)
    whole = np.array([weights[w] * b.text.split().count(w) for w in weights])
    areas = {"deletion": [], "insertion": []}  # type: ignore[var-annotated]
    for order in itertools.permutations(range(4)):
        for operation, change in (("deletion", deletions), ("insertion", insertions)):
            texts = change(side, np.array(order), 4)
            embedded = judge.embed([("text", text) for text in texts])
            areas[operation].append(float(area(np.array([embedded["text", text] @ whole for text in texts]))))
    own = dict(zip(MEASURES, curves.areas()[m], strict=True))
    assert own["words of a", "deletion"] == pytest.approx(min(areas["deletion"]))
    assert own["words of a", "insertion"] == pytest.approx(max(areas["insertion"]))
    assert min(areas["deletion"]) < max(areas["deletion"])


def test_shuffled_attributions_are_centred_on_random_order(rng: random.Random) -> None:
    """Over many pairs of a known model: exact attributions far above random order, the same ones shuffled at it."""
    known = [f"w{at}" for at in range(10)]
    gained = []
    for at in range(200):
        weights = {name: rng.uniform(0.2, 3) for name in known}
        pair = bag_pair(weights, words(" ".join(rng.sample(known, 5))), words(" ".join(rng.sample(known, 7))))
        judge: Any = BagOfWords(weights)
        pair = PairAttribution(**{**vars(pair), "pair_id": str(at)})
        ready = prepare(pair, "a", judge, steps=4, orders=1, seed=rng.randrange(1 << 30))
        assert ready is not None
        gained.append(advantages_of(measure(ready, judge.embed(ready.texts()))))
    values = np.stack(gained)
    for method, holds in ((ATTRIBUTIONS, lambda sigmas: sigmas > 10), (SHUFFLED, lambda sigmas: np.abs(sigmas) < 5)):
        of_method = values[:, METHODS.index(method)]
        assert holds(of_method.mean(0) / (of_method.std(0) / len(values) ** 0.5)).all(), method


def test_curves_of_pairs_run_from_the_whole_interaction_to_none(tiny: TinyModels, tmp_path: Path) -> None:
    """Ends are f(a, b) − f(a, blank) − f(blank, b) + f(blank, blank), as the model scores them."""
    run = tiny_run(tiny, tmp_path / "run", [[tiny_row(random.Random(5), "p")]])
    judge = Judge(run)
    pair = run.pair("p")
    ready = prepare(pair, "p", judge, steps=6, orders=1, seed=0)
    assert ready is not None
    curves = measure(ready, judge.embed(ready.texts()))
    model = tiny.load("bert", normalize=True)
    a, b, blank = model.encode([pair.a.text, pair.b.text, ""])
    interaction = float(a @ b - a @ blank - blank @ b + blank @ blank)
    for m in range(len(METHODS)):
        deletion, insertion = curves.values[m, 4], curves.values[m, 5]
        assert (deletion[0], deletion[-1]) == pytest.approx((interaction, 0), abs=1e-5)
        assert (insertion[0], insertion[-1]) == pytest.approx((0, interaction), abs=1e-5)
        assert curves.values[m, 0, 0] == pytest.approx(float(a @ b), abs=1e-5)
        assert curves.values[m, 0, -1] == pytest.approx(float(blank @ b), abs=1e-5)
        assert curves.scores[m, 0, -1] == pytest.approx(1, abs=1e-5)


def test_texts_are_encoded_with_the_roles_prompts(tiny: TinyModels, tmp_path: Path) -> None:
    prompts = {"query": "question answer", "document": "document"}
    folder = tiny.folder("mpnet", prompts=prompts)
    pair = attributed(words("red dog", "query"), words("good red ball", "document"), np.ones((2, 3)))
    asked = {"query": None, "document": "paper", "text": None}
    run = write_pairs(tmp_path / "run", [[Row("p", pair)]], mode="retrieval", model=str(folder), prompts=asked)
    found = Judge(run).embed([("query", "red dog"), ("document", "good red ball")])
    model = tiny.load("mpnet", prompts=prompts)
    for key, direct in (
        (("query", "red dog"), model.encode_query("red dog", normalize_embeddings=True)),
        (("document", "good red ball"), model.encode("paper" + "good red ball", normalize_embeddings=True)),
    ):
        np.testing.assert_allclose(found[key], direct, atol=1e-5)


def test_token_embeddings_are_summed_over_the_words_of_another_tokenizer(tiny: TinyModels, tmp_path: Path) -> None:
    """Every token of the judge goes to the word of the run that it stands in."""
    for family in ("bert", "roberta", "xlm-roberta"):
        run = tiny_run(tiny, tmp_path / family, [[tiny_row(random.Random(1), "p")]], family)
        read = cut_text("Reading stations walked fastest.", ["Reading", "stations", "walked", "fastest", "."])
        vectors = Judge(run).word_vectors(Side.of(read), "text")
        model = tiny.load(family, normalize=True)
        tokens = model.encode([read.text], output_value="token_embeddings")[0].numpy()
        np.testing.assert_allclose(vectors.sum(0), tokens[1:-1].sum(0), atol=1e-4)
        assert (np.abs(vectors).sum(1) > 0).all()


def test_the_sample_and_its_result_depend_on_neither_order_nor_shards(
    tiny: TinyModels, tmp_path: Path, rng: random.Random
) -> None:
    rows = [tiny_row(rng, f"p{at}") for at in range(12)]
    one = tiny_run(tiny, tmp_path / "one", [rows])
    many = tiny_run(tiny, tmp_path / "many", [rows[at::5][::-1] for at in range(5)])
    assert sample_pairs(one, 5, 7) == sample_pairs(many, 5, 7)
    assert sample_pairs(one, 5, 7) != sample_pairs(one, 5, 8)
    assert len(sample_pairs(one, 100, 0).pair_ids) == 12
    found = [evaluate_run(run, sample=5, seed=7, steps=4, orders=1) for run in (one, many)]
    for x, y in zip(found[0].curves, found[1].curves, strict=True):
        np.testing.assert_allclose(x.values, y.values, atol=1e-5)
        assert x.advantage.low == pytest.approx(y.advantage.low, abs=1e-5)
    assert found[0].verdict == found[1].verdict


def test_the_documents_of_one_query_are_one_draw() -> None:
    """Ten copies of each value must not make the interval narrower."""
    values = np.random.default_rng(3).normal(0, 1, 40)
    alone = Bootstrap([str(at) for at in range(40)], 0).mean(values)
    copied = Bootstrap([str(at % 40) for at in range(400)], 0).mean(np.tile(values, 10))
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=1e-6)
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * values.std() / 40**0.5, rel=0.15)
    assert alone.low < values.mean() < alone.high


def test_the_command_writes_its_result_and_prints_it(tiny: TinyModels, tmp_path: Path, rng: random.Random) -> None:
    tiny_run(tiny, tmp_path / "run", [[tiny_row(rng, f"p{at}") for at in range(4)]])
    command = ["evaluate", str(tmp_path / "run"), "--quiet", "--steps", "3", "--orders", "1", "--sample", "4"]
    shown = CliRunner().invoke(cli.app, command)
    assert shown.exit_code == 0, shown.output
    assert "Advantage over random order" in shown.output
    assert "Only 4 different first texts" in shown.output
    plain = CliRunner().invoke(cli.app, [*command, "--json"])
    written = json.loads((tmp_path / "run" / "statistics" / "faithfulness.json").read_text())
    assert json.loads(plain.stdout) == written
    assert written["pairs"] == 4
    table = pq.read_table(tmp_path / "run" / "statistics" / "faithfulness.parquet")
    assert table.num_rows == 4 * len(MEASURES) * len(METHODS)
    means = [c["values"] for c in written["curves"] if (c["method"], c["level"]) == (ATTRIBUTIONS, "pairs")]
    direct = [row for row in table.to_pylist() if (row["method"], row["level"]) == (ATTRIBUTIONS, "pairs")]
    stored = np.mean([row["values"] for row in direct if row["operation"] == "deletion"], axis=0)
    np.testing.assert_allclose(means[0], stored, atol=1e-6)


def test_changed_weights_are_refused_unless_named_as_the_judge(
    tiny: TinyModels, tmp_path: Path, rng: random.Random
) -> None:
    rows = [[tiny_row(rng, f"p{at}") for at in range(3)]]
    run = tiny_run(tiny, tmp_path / "run", rows, run={"fingerprint": "of other weights"})
    with pytest.raises(RunError, match="other weights"):
        evaluate_run(run)
    found = evaluate_run(run, judge=str(tiny.folder("roberta")), steps=2, orders=1)
    names = found.write(run.store)
    assert not found.own_judge
    assert names[0] == f"statistics/faithfulness-by-{found.judge_fingerprint[:8]}.json"
    for name, value in (("sample", 1), ("steps", 1), ("orders", 0)):
        with pytest.raises(JobError, match=f"--{name}"):
            evaluate_run(run, **{name: value})  # type: ignore[arg-type]


def test_a_run_without_anything_to_order_is_told_in_one_line(tiny: TinyModels, tmp_path: Path) -> None:
    run = tiny_run(tiny, tmp_path / "run", [[Row("p", attributed(words("red"), words("ball"), [[1.0]]))]])
    with pytest.raises(RunError, match="two words to put into an order"):
        evaluate_run(run)
    with pytest.raises(RunError, match="no pair to evaluate"):
        evaluate_run(write_pairs(tmp_path / "empty", [], finished=False))


@pytest.mark.parametrize("routed", [False, True])
def test_a_static_model_is_judged_by_its_tokens_vectors(
    tiny: TinyModels, tmp_path: Path, rng: random.Random, routed: bool
) -> None:
    """A static embedding gives no token embeddings of its own; alone and as one side of a Router."""
    width = int(tiny.load("bert").get_embedding_dimension())
    tokenizer = TOKENIZERS["bert"]()
    static: list[Any] = [
        StaticEmbedding(tokenizer, embedding_weights=np.random.default_rng(2).normal(0, 1, (len(tokenizer), width)))
    ]
    deep = list(tiny.load("bert").children())
    modules = [Router.for_query_document(query_modules=static, document_modules=deep)] if routed else static
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "model"), create_model_card=False)
    role_a, role_b = ("query", "document") if routed else ("text", "text")
    rows = [
        Row(f"p{at}", attributed(words(f"{first} red dog", role_a), words("good ball", role_b), np.ones((3, 2))))
        for at, first in enumerate(["fast", "walking"])
    ]
    run = write_pairs(
        tmp_path / "run", [rows], mode="retrieval" if routed else "symmetric", model=str(tmp_path / "model")
    )
    vectors = Judge(run).word_vectors(Side.of(words("red dog")), role_a)
    table = static[0].embedding.weight.detach().numpy()
    direct = [table[tokenizer.encode(word, add_special_tokens=False)].sum(0) for word in ("red", "dog")]
    np.testing.assert_allclose(vectors, direct, atol=1e-5)
    assert evaluate_run(run, steps=2, orders=1).pairs == 2


def test_a_sample_of_one_query_is_undecided(tiny: TinyModels, tmp_path: Path, rng: random.Random) -> None:
    """However many documents it has; "faithful" would be said of other queries too."""
    a = words("red dog walking fast")
    rows = [Row(f"p{at}", attributed(a, words(f"red ball {at}"), np.eye(4, 3))) for at in range(8)]
    found = evaluate_run(tiny_run(tiny, tmp_path / "run", [rows]), steps=2, orders=1)
    assert (found.pairs, found.draws) == (8, 1)
    assert found.verdict.grade == "undecided"


def test_a_damaged_part_is_told_as_one(tiny: TinyModels, tmp_path: Path, rng: random.Random) -> None:
    run = tiny_run(tiny, tmp_path / "run", [[tiny_row(rng, f"p{at}") for at in range(50)]])
    damage(tmp_path / "run")
    with pytest.raises((RunError, StoreError), match=str(tmp_path)):
        sample_pairs(run, 5, 0)


def tiny_row(rng: random.Random, name: str) -> Row:
    """A pair of known words with attributions by chance."""
    a, b = (words(" ".join(rng.sample([w for w in WORDS if "'" not in w], count))) for count in (5, 4))
    return Row(name, attributed(a, b, np.random.default_rng(rng.randrange(1 << 30)).normal(0, 1, (5, 4))))


def tiny_run(tiny: TinyModels, place: Path, shards: list[list[Row]], family: str = "bert", **settings: Any) -> Run:
    return write_pairs(place, shards, model=str(tiny.folder(family, normalize=True)), **settings)

"""Evaluating a run: what is checked first, what is encoded, what is written and said."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from evaluation_runs import tiny_row, tiny_run
from pair_runs import Row, attributed, cut_text, damage, words, write_pairs
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tiny_models import TOKENIZERS, TinyModels
from typer.testing import CliRunner

from jobs.analysis.faithfulness.evaluate import evaluate_run
from jobs.analysis.faithfulness.judge import Judge
from jobs.analysis.faithfulness.orders import ATTRIBUTIONS, METHODS, RULES
from jobs.analysis.faithfulness.perturbation import Side
from jobs.analysis.faithfulness.sampling import sample_pairs
from jobs.analysis.faithfulness.scores import units
from jobs.analysis.resampling import Bootstrap
from jobs.cli import main as cli
from jobs.errors import JobError, RunError, StoreError


def test_texts_are_encoded_with_the_roles_prompts(tiny: TinyModels, tmp_path: Path) -> None:
    prompts = {"query": "question answer", "document": "document"}
    folder = tiny.folder("mpnet", prompts=prompts)
    pair = attributed(words("red dog", "query"), words("good red ball", "document"), np.ones((2, 3)))
    asked = {"query": None, "document": "paper", "text": None}
    run = write_pairs(tmp_path / "run", [[Row("p", pair)]], mode="retrieval", model=str(folder), prompts=asked)
    found = Judge(run).embed([("query", "red dog"), ("document", "good red ball")])
    found = {key: units(value[None])[0] for key, value in found.items()}
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
        (whole,) = Judge(run).word_vectors(Side.of(cut_text(read.text, [read.text])), "text", mean=True)
        np.testing.assert_allclose(whole, tokens[1:-1].mean(0), atol=1e-5)


def test_the_sample_and_its_result_depend_on_neither_order_nor_shards(
    tiny: TinyModels, tmp_path: Path, rng: random.Random
) -> None:
    rows = [tiny_row(rng, f"p{at}") for at in range(12)]
    one = tiny_run(tiny, tmp_path / "one", [rows])
    many = tiny_run(tiny, tmp_path / "many", [rows[at::5][::-1] for at in range(5)])
    assert sample_pairs(one, 5, 7) == sample_pairs(many, 5, 7)
    assert sample_pairs(one, 5, 7) != sample_pairs(one, 5, 8)
    assert len(sample_pairs(one, 100, 0).pair_ids) == 12
    found = [evaluate_run(run, sample=8, seed=7, steps=4, orders=1, shapley=4) for run in (one, many)]
    for agreed, again in zip(found[0].agreement, found[1].agreement, strict=True):
        assert agreed.value.mean == pytest.approx(again.value.mean, abs=1e-5)
    another = evaluate_run(one, sample=8, seed=8, steps=4, orders=1, shapley=4)
    assert another.agreement != found[0].agreement
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
    tiny_run(tiny, tmp_path / "run", [[tiny_row(rng, f"p{at}") for at in range(7)]], store="full")
    command = ["evaluate", str(tmp_path / "run"), "--quiet", "--steps", "3", "--orders", "1", "--sample", "7"]
    command += ["--shapley", "4", "--png", str(tmp_path / "figure.png")]
    shown = CliRunner().invoke(cli.app, command)
    assert shown.exit_code == 0, shown.output
    assert "Advantage over random order" in shown.output
    assert "Agreement with deletion" in shown.output
    assert "ahead by, word pairs" in shown.output
    assert "Only 7 different first texts" in shown.output
    assert max(len(line) for line in shown.output.splitlines() if not line.startswith("wrote ")) <= 80
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    plain = CliRunner().invoke(cli.app, [*command, "--json"])
    written = json.loads((tmp_path / "run" / "statistics" / "faithfulness.json").read_text())
    assert json.loads(plain.stdout) == written
    assert (written["format"], written["pairs"], written["sums_to"]) == (2, 7, "score")
    table = pq.read_table(tmp_path / "run" / "statistics" / "faithfulness.parquet")
    assert table.num_rows == 7 * 6 * len(METHODS)
    means = [c["values"] for c in written["curves"] if (c["method"], c["level"]) == (ATTRIBUTIONS, "both texts")]
    direct = [row for row in table.to_pylist() if (row["method"], row["level"]) == (ATTRIBUTIONS, "both texts")]
    stored = np.mean([row["values"] for row in direct if row["operation"] == "deletion"], axis=0)
    np.testing.assert_allclose(means[0], stored, atol=1e-6)
    agreed = pq.read_table(tmp_path / "run" / "statistics" / "faithfulness-agreement.parquet").to_pylist()
    assert len(agreed) == 7 * len(RULES)
    for one in written["agreement"]:
        name = f"{one['level']}_{one['correlation']}".replace(" ", "_")
        own = [row[name] for row in agreed if row["method"] == one["method"]]
        assert one["value"]["mean"] == pytest.approx(np.mean(own), abs=1e-6)


def test_changed_weights_are_refused_unless_named_as_the_judge(
    tiny: TinyModels, tmp_path: Path, rng: random.Random
) -> None:
    rows = [[tiny_row(rng, f"p{at}") for at in range(6)]]
    run = tiny_run(tiny, tmp_path / "run", rows, run={"fingerprint": "of other weights"})
    with pytest.raises(RunError, match="other weights"):
        evaluate_run(run)
    found = evaluate_run(run, judge=str(tiny.folder("roberta")), steps=2, orders=1, shapley=2)
    assert "judged by" in found.verdict.text
    names = found.write(run.store)
    assert not found.own_judge
    assert names[0] == f"statistics/faithfulness-by-{found.judge_fingerprint[:8]}.json"
    for name, value in (("sample", 5), ("steps", 1), ("orders", 0), ("shapley", 1)):
        with pytest.raises(JobError, match=f"--{name}"):
            evaluate_run(run, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "more", "said"),
    [
        ([("red", "ball")] * 8, {}, r"0 of the 8 pairs drawn .*0 different first texts; an interval needs 6"),
        ([("red dog", "ball fast")] * 8, {}, "a text of 3 words or more"),
        ([("red dog walking", f"ball {at}") for at in range(9)], {}, "9 of the 9 pairs .*1 different first text;"),
        ([(f"red dog {at}", "ball") for at in range(5)], {}, "5 different first texts.*: evaluate a run with more$"),
        ([(f"red dog {at // 5}", f"ball {at}") for at in range(40)], {"sample": 6}, "raise --sample$"),
        ([], {}, "no pair to evaluate; the run is not finished"),
    ],
)
def test_a_sample_that_is_too_small_is_refused_before_a_model_is_loaded(
    tmp_path: Path, rows: list[tuple[str, str]], more: dict[str, Any], said: str
) -> None:
    """In one line that says how many there are and are needed; the model that is named here does not exist."""
    pairs = [
        Row(f"p{at}", attributed(words(a), words(b), np.ones((len(a.split()), len(b.split())))))
        for at, (a, b) in enumerate(rows)
    ]
    run = write_pairs(tmp_path / "run", [pairs] if pairs else [], model="no/such-model", finished=bool(pairs))
    with pytest.raises(RunError, match=said) as error:
        evaluate_run(run, **more)
    assert "\n" not in str(error.value)


def test_the_run_itself_is_named_before_its_model(tiny: TinyModels, tmp_path: Path, rng: random.Random) -> None:
    """Pairs that cannot be judged are left out where there are enough others."""
    good = [tiny_row(rng, f"p{at}") for at in range(6)]
    bad = Row("bad", attributed(words("red"), words("ball"), [[1.0]]))
    found = evaluate_run(tiny_run(tiny, tmp_path / "run", [[*good, bad]]), steps=2, orders=1, shapley=2)
    assert (found.pairs, found.of, found.draws) == (6, 7, 6)


@pytest.mark.parametrize("sums_to", ["score", "difference", None])
def test_what_was_judged_is_said(tiny: TinyModels, tmp_path: Path, rng: random.Random, sums_to: str | None) -> None:
    """Runs of a version before do not say what they sum to: it was the paper's difference."""
    rows = [tiny_row(rng, f"p{at}") for at in range(6)]
    settings = {} if sums_to is None else {"sums_to": sums_to}
    run = write_pairs(tmp_path / "run", [rows], model=str(tiny.folder("bert", normalize=True)), **settings)
    found = evaluate_run(run, steps=2, orders=1, shapley=2)
    assert found.sums_to == (sums_to or "difference")
    shown = str(found)
    assert ("sums_to: difference" in shown) == (sums_to != "score")
    assert ("deletion, pairs" in shown) == (sums_to != "score")
    assert ("deletion, both texts" in shown) == (sums_to == "score")
    assert "Word pairs are judged" not in shown


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
    firsts = ["fast", "walking", "good", "ball", "river", "paper"]
    rows = [
        Row(f"p{at}", attributed(words(f"{first} red dog", role_a), words("good ball", role_b), np.ones((3, 2))))
        for at, first in enumerate(firsts)
    ]
    run = write_pairs(
        tmp_path / "run", [rows], mode="retrieval" if routed else "symmetric", model=str(tmp_path / "model")
    )
    vectors = Judge(run).word_vectors(Side.of(words("red dog")), role_a)
    table = static[0].embedding.weight.detach().numpy()
    direct = [table[tokenizer.encode(word, add_special_tokens=False)].sum(0) for word in ("red", "dog")]
    np.testing.assert_allclose(vectors, direct, atol=1e-5)
    assert evaluate_run(run, steps=2, orders=1).pairs == 6


def test_word_pairs_are_judged_where_all_of_them_were_stored(
    tiny: TinyModels, tmp_path: Path, rng: random.Random
) -> None:
    """A run of the strongest word pairs says that it cannot be judged by them; the words' sums are exact all the
    same."""
    rows = [tiny_row(rng, f"p{at}") for at in range(6)]
    stored = {"top": {"top_k": 3}, "full": {"store": "full"}}
    top, full = (
        evaluate_run(tiny_run(tiny, tmp_path / name, [rows], **more), steps=2, orders=1, shapley=2)
        for name, more in stored.items()
    )
    assert (top.whole, full.whole) == (0, 6)
    assert "0 of 6 pairs (store: full stores all)" in str(top)
    assert "word pairs, ranks" not in str(top)
    own, other = (one.agreed("words", "spearman", ATTRIBUTIONS) for one in (top, full))
    assert own is not None
    assert other is not None
    assert own.value.mean == pytest.approx(other.value.mean)


def test_a_damaged_part_is_told_as_one(tiny: TinyModels, tmp_path: Path, rng: random.Random) -> None:
    run = tiny_run(tiny, tmp_path / "run", [[tiny_row(rng, f"p{at}") for at in range(50)]])
    damage(tmp_path / "run")
    with pytest.raises((RunError, StoreError), match=str(tmp_path)):
        sample_pairs(run, 5, 0)

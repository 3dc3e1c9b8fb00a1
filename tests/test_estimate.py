"""What a plan says of a job's size and cost, and from what it knows it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from test_logs import log as log
from test_logs import log_job, planned
from tiny_models import MAX_LENGTH, TinyModels, random_text
from typer.testing import CliRunner

from attribution_core.directions.cost import flops
from attribution_core.memory import LayerShape
from jobs.cli import main as cli
from jobs.config.job import parse_job
from jobs.errors import JobError
from jobs.plan.estimate import accelerator
from jobs.plan.plan import make_plan
from jobs.plan.sharding import Work
from jobs.plan.text_lengths import Calibration, Rate, calibrate
from jobs.plan.work import LayerSizes, expected_nodes, total_flops
from jobs.run.manifest import read_shard
from jobs.storage.store import Store

SIZES = LayerSizes(d=384, inner=1536, layers=2)


def test_work_is_the_sum_of_the_cost_of_every_text() -> None:
    """The sums that a plan keeps must not lose what the cost model of one text says."""
    chance = random.Random(1)
    texts = [(chance.randrange(3, 500), chance.randrange(1, 384)) for _ in range(50)]
    shape = LayerShape(d=384, inner=1536, heads=12, layers=2, bytes=4)
    each = sum(flops(shape, tokens=tokens, nodes=8, directions=directions) for tokens, directions in texts)
    work = Work(
        texts=len(texts),
        tokens=sum(t for t, _ in texts),
        squares=sum(t * t for t, _ in texts),
        moved=sum(t * k for t, k in texts),
        moved_squares=sum(t * t * k for t, k in texts),
    )
    assert total_flops(SIZES, work, nodes=8) == pytest.approx(each, rel=1e-9)


def test_rates_are_those_of_the_models_own_tokenizer(tiny: TinyModels, rng: random.Random) -> None:
    """Characters a token, prompt and special tokens, and the length that the model reads."""
    prompts = {"query": "question: ", "document": "document, number three: "}
    folder = tiny.folder("bert", prompts=prompts)
    model = tiny.load("bert", prompts=prompts)
    texts = {"query": [random_text(rng, 6) for _ in range(30)], "document": [random_text(rng, 70) for _ in range(30)]}
    job = parse_job({"model": str(folder), "input": "x.csv", "output": "run", "mode": "retrieval"})
    found = calibrate(job, texts)
    assert found.measured
    for role, rate in found.rates.items():
        lengths = [len(model.tokenizer(prompts[role] + text)["input_ids"]) for text in texts[role]]
        assert rate.extra == len(model.tokenizer(prompts[role])["input_ids"])
        assert rate.limit == MAX_LENGTH
        assert rate.truncated == sum(length > MAX_LENGTH for length in lengths)
        tokens = sum(length - rate.extra for length in lengths)
        assert rate.characters == pytest.approx(100 * sum(map(len, texts[role])) / tokens, abs=1.5)
        assert rate.sampled == 30
    assert found.rates["document"].truncated > 10
    assert found.width == 24
    assert Calibration.of(found.plain()) == found


def test_without_the_model_lengths_are_assumed_and_it_is_said(log: Path) -> None:
    plan, _ = planned(log)
    assert not plan.calibration.measured
    assert plan.calibration.rates == {"query": Rate(), "document": Rate()}
    assert any("assumed, not measured" in notice for notice in plan.notices)


def test_nodes_are_set_or_said_to_be_assumed(log: Path) -> None:
    assert expected_nodes(log_job(log, quadrature={"nodes": 5}), SIZES) == (5, False)
    assert expected_nodes(log_job(log, quadrature={"rule": "riemann"}), SIZES) == (50, False)
    assert expected_nodes(log_job(log), SIZES) == (8, True)
    assert expected_nodes(log_job(log, quadrature={"max_nodes": 4}), SIZES) == (4, True)


def test_an_unknown_accelerator_is_told_with_those_there_are() -> None:
    with pytest.raises(JobError, match=r"--on: found 'abacus'; allowed: t4, l4, .*h100"):
        accelerator("abacus", None)
    with pytest.raises(JobError, match="--price: needs --on"):
        accelerator(None, 3.0)
    one = accelerator("H100", 2.5)
    assert one is not None
    assert (one.name, one.price) == ("h100", 2.5)


@pytest.mark.parametrize(
    ("seconds", "price", "said"),
    [
        (0.2, None, "one l4: under a second, less than $0.01 at $0.8 an hour (US dollars, "),
        (7200.0, None, "one l4: about 2 h 00 min, $1.60 at $0.8 an hour (US dollars, "),
        (7200.0, 3.0, "one l4: about 2 h 00 min, 6.00 at 3 an hour (your --price, in its currency; "),
        (7200.0, 0.0, "one l4: about 2 h 00 min, 0.00 at 0 an hour ("),
        (1.0, 3600.0, "one l4: about 1.0 s, 1.00 at 3600 an hour ("),
    ],
)
def test_time_and_money_of_an_accelerator_have_their_units(seconds: float, price: float | None, said: str) -> None:
    chosen = accelerator("l4", price)
    assert chosen is not None
    assert chosen.line(seconds * chosen.rate).startswith(said)


def test_more_expensive_documents_have_shards_with_fewer_of_them(tmp_path: Path) -> None:
    """Balance is by cost, and the cost of a document grows with its partners as well as its length."""
    rows = ["sentence1,sentence2"]
    rows += [f"{'query words ' * 3}{i} {n},{'long ' * 200}{i}" for i in range(80) for n in range(1 + 9 * (i < 40))]
    (tmp_path / "p.csv").write_text("\n".join(rows) + "\n")
    settings: dict[str, Any] = {"model": "m", "input": str(tmp_path / "p.csv"), "output": str(tmp_path / "run")}
    run = Store.open(tmp_path / "run")
    plan = make_plan(parse_job(settings | {"mode": "retrieval", "shards": 4}), run)
    costs = [shard.cost for shard in plan.shards]
    assert max(costs) < 1.3 * min(costs)
    documents = [read_shard(run, plan, at).texts["role"].to_pylist().count("document") for at in range(4)]
    assert documents[0] < documents[-1] / 2


def test_plan_says_what_a_job_would_be_and_writes_nothing(log: Path, tiny: TinyModels) -> None:
    before = sorted(log.rglob("*"))
    with open(log / "run.trec", "a", encoding="utf-8") as file:
        file.write("q1 Q0 nowhere 1 0.5 t\n")
    words = ["plan", "--model", str(tiny.folder("bert")), "--log", str(log / "run.trec"), "--beir", str(log)]
    result = CliRunner().invoke(cli.app, [*words, "--depth", "20", "--sample", "4", "--on", "l4", "--price", "2"])
    assert result.exit_code == 0, result.stderr
    said = {line.split()[0]: line for line in reversed(result.stdout.splitlines())}
    assert said["pairs"].startswith("pairs     32 of")
    assert "4 × query" in said["pairs"]
    assert said["lengths"].startswith("lengths   query: ")
    assert said["cut"].startswith("cut       document: about ")
    assert "estimated from" in said["cut"]
    assert "of the mean" in said["shards"]
    assert "8 nodes a text assumed" in said["work"]
    assert "this machine: " in said["time"]
    assert "one l4: under a second, less than 0.01 at 2 an hour (your --price, in its currency; " in said["one"]
    assert sorted(log.rglob("*")) == before


def test_plan_and_run_tell_a_mistake_alike(log: Path) -> None:
    for command in ("plan", "run"):
        words = [command, "--model", "m", "--log", str(log / "run.trec"), "--beir", str(log / "no")]
        result = CliRunner().invoke(cli.app, [*words, "--output", str(log / "out")])
        assert result.exit_code == 2
        assert result.stderr == f"tokenpair: error: --beir: there is no folder {log / 'no'}\n"

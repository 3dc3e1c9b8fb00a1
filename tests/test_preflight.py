"""What can be refused of a job before its input is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import TinyModels

from attribution_core.errors import TokenpairError
from jobs.config.job import load_job
from jobs.plan.preflight import check_before_planning


@pytest.mark.parametrize("word", ["qwertyuiop asdf", "coffee beans", "naïve-ish"])
def test_a_reference_that_is_not_one_token_is_refused_before_planning(
    tiny: TinyModels, tmp_path: Path, word: str
) -> None:
    (tmp_path / "x.csv").write_text("sentence1,sentence2\na,b\n", "utf-8")
    settings = {"model": str(tiny.folder("bert")), "input": str(tmp_path / "x.csv"), "output": str(tmp_path / "run")}
    for good in ("coffee", "pad", "unk", "mask"):
        check_before_planning(load_job(None, settings | {"reference": good}))
    with pytest.raises(TokenpairError, match="tokens of this model; use"):
        check_before_planning(load_job(None, settings | {"reference": word}))

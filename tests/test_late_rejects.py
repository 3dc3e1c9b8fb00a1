"""Rows that only the plan can turn away, because it takes the whole input to see what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

from test_plan import planned, put, rejects_of


def test_a_row_turned_away_late_is_told_as_one_turned_away_early(tmp_path: Path) -> None:
    """The columns of the source, whoever turned the row away: a filter over ``row_text`` must find all of them."""
    put(tmp_path, "a.csv", 'no,q,d,did,n\n1,x,y,,007\n1,x,"z ""q""\n\b",,08\n2,,y,,9\n3,u,v,k,1\n4,u,w,k,2\n')
    put(
        tmp_path,
        "b.jsonl",
        '{"no": "1", "q": "s", "d": null, "did": null, "m": [1]}\n'
        '{"no": "1", "q": "s", "d": "t", "did": null, "m": [1]}\n',
    )
    plan, _ = planned(tmp_path, columns={"a": "q", "b": "d", "id": "no", "b_id": "did"}, keep="all", mode="retrieval")
    told = [(one["file"], one["row"], json.loads(one["row_text"])) for one in rejects_of(tmp_path, plan)]
    assert told == [
        ("a.csv", 3, {"q": "x", "d": 'z "q"\n\b', "no": "1", "did": None, "n": "08"}),
        ("a.csv", 5, {"q": "", "d": "y", "no": "2", "did": None, "n": "9"}),
        ("a.csv", 7, {"q": "u", "d": "w", "no": "4", "did": "k", "n": "2"}),
        ("b.jsonl", 1, {"q": "s", "d": None, "no": "1", "did": None, "m": "[1]"}),
        ("b.jsonl", 2, {"q": "s", "d": "t", "no": "1", "did": None, "m": "[1]"}),
    ]

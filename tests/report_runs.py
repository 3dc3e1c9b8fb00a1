"""Small runs for the tests of the report: real attributions of a tiny model, written as a job would, without Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from row_tables import attribution_row, attribution_table, summarise, text_row, text_table

from attribution_core.attribution import Attributor
from attribution_core.results import PairAttribution
from jobs.run.reader import Run
from jobs.run.tables import LIFTS, commit_shard, reject_table
from jobs.storage.store import Store

# Would end the script or the style, open a tag or an attribute, turn the direction, or fill the page.
HOSTILE = (
    "</script><script>document.body.dataset.hacked='yes'</script> "
    "<img src=x onerror=\"document.body.dataset.hacked='yes'\"> <!-- \"quotes\" 'single' `back` "
    "{{ 7 * 7 }} {% raw %} &amp; ]]> שלום עולם مرحبا \u202edesrever\u202c 👩‍👩‍👧 🦊 naïve"
)
LONG = "coffee " + "x" * 9_985 + " end of it"


def pairs_of(model: Any, texts: Sequence[tuple[str, str]], mode: str = "symmetric") -> list[PairAttribution]:
    """Attributions by a tiny model."""
    return Attributor(model, mode=mode).attribute_pairs(texts)  # type: ignore[arg-type]


def write_run(
    place: Path,
    pairs: Sequence[PairAttribution],
    ids: Sequence[tuple[str, str, str]],
    *,
    shards: int = 2,
    kept: Mapping[str, Sequence[Any]] | None = None,
    store: str = "full",
    mode: str = "symmetric",
    model: str = "tiny",
    rejects: Sequence[Mapping[str, Any]] = (),
    finished: bool = True,
    backwards: bool = False,
    sums_to: str | None = "score",
) -> Run:
    """A run of those pairs; ``ids`` are (pair_id, text_a_id, text_b_id), ``kept`` the columns passed through. With
    ``sums_to`` None it is a run of a version that knew neither that nor lifts."""
    run = Store.open(str(place))
    record = {"model": model, "mode": mode, "groups": "word", "layer": 2, "similarity": "cosine", "store": store}
    record["top_k"] = 8
    if sums_to is not None:
        record["sums_to"] = sums_to
    run.commit("job.yaml", yaml.safe_dump(record).encode())
    written: set[tuple[str, str]] = set()
    order = list(range(len(pairs)))[:: -1 if backwards else 1]
    for shard in range(shards):
        rows, texts = [], []
        chosen = order[shard::shards]
        for at in chosen:
            pair, (pair_id, a_id, b_id) = pairs[at], ids[at]
            sums = summarise(pair, 8)
            names = {"pair_id": pair_id, "text_a_id": a_id, "text_b_id": b_id}
            rows.append(attribution_row(pair, sums, **names, store=store))
            for text, text_id in ((pair.a, a_id), (pair.b, b_id)):
                if (text.role, text_id) not in written:
                    written.add((text.role, text_id))
                    texts.append(text_row(text, text_id))
        columns = {name: [values[at] for at in chosen] for name, values in (kept or {}).items()}
        table = attribution_table(rows, pa.table(columns) if columns else None, store)
        if sums_to is None:
            table = table.drop_columns(list(LIFTS))
        rejected = reject_table([dict(one) for one in rejects] if shard == 0 else [])
        commit_shard(run, shard, table, text_table(texts), rejected)
    if finished:
        run.commit("_SUCCESS", b"")
    return Run(run)

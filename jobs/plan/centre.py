"""The mean embedding that centred sums leave out: a sample of the run's texts in the plan, and its mean beside it.

The planner draws the sample. The first worker that has the model writes the mean, once: every worker, now and after a
restart, takes the same.
"""

from __future__ import annotations

import hashlib
import io
import json
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from attribution_core.pairs.completion import check_centre_size
from jobs.config.job import JobConfig
from jobs.errors import RunError
from jobs.plan.text_lengths import ROLES
from jobs.storage.store import Store

if TYPE_CHECKING:
    # torch takes seconds to import, and planning needs none of it.
    from attribution_core.attribution import Attributor

SAMPLE = 512
MOST_BYTES = 64 << 20


def write_centre_sample(con: duckdb.DuckDBPyConnection, run: Store, job: JobConfig) -> str:
    """Commit a sample of the distinct texts of each role, drawn by the job's seed, and return its name.

    The tables ``texts`` (no, role, key, text) and ``used`` (no) are the plan's.

    Raises:
        SettingError: where a role has too few distinct texts for a mean.
    """
    texts: list[str] = []
    roles: list[str] = []
    for number, role in enumerate(ROLES[job.mode]):
        rows = con.execute(
            f"""SELECT text FROM (SELECT text, min(key) AS key FROM texts SEMI JOIN used USING (no) WHERE role = ?
                                  GROUP BY text)
                ORDER BY md5(key || ':' || ?), key LIMIT {SAMPLE}""",
            [number, str(job.seed)],
        ).fetchall()
        check_centre_size(role, len(rows))
        texts += [str(text) for (text,) in rows]
        roles += [role] * len(rows)
    sink = io.BytesIO()
    pq.write_table(pa.table({"role": roles, "text": texts}), sink, compression="zstd", write_statistics=False)
    name = f"plan/centre-{hashlib.sha256(sink.getvalue()).hexdigest()[:16]}.parquet"
    run.commit(name, sink.getvalue())
    return name


def mean_embeddings(run: Store, centre_file: str, attributor: Attributor) -> dict[str, NDArray[np.float32]]:
    """The mean embedding [D] of the sample ``centre_file`` by role: the stored one, else computed and committed.

    Raises:
        RunError: where the file is damaged.
        SettingError: where too few texts of the sample have a token.
    """
    name = centre_file.replace("/centre-", "/mean-").replace(".parquet", ".json")
    if not run.exists(name):
        try:
            sample = pq.read_table(io.BytesIO(run.read(centre_file, most=MOST_BYTES * 8)))
        except pa.ArrowException:
            raise RunError(f"{run.url}/{centre_file}: is damaged") from None
        of_role: dict[str, list[str]] = {}
        for role, text in zip(sample["role"].to_pylist(), sample["text"].to_pylist(), strict=True):
            of_role.setdefault(role, []).append(text)
        means = {role: attributor.mean_embedding(texts, role) for role, texts in of_role.items()}  # type: ignore[arg-type]
        run.commit(name, json.dumps({role: [float(v) for v in mean] for role, mean in means.items()}).encode())
    try:
        mean_of: dict[str, Any] = json.loads(run.read(name, most=MOST_BYTES))
        means = {role: np.array(mean_of[role], np.float32) for role in attributor.roles}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RunError(f"{run.url}/{name}: is damaged") from None
    width = attributor.encoder.embedding_width
    if any(mean.shape != (width,) or not np.isfinite(mean).all() for mean in means.values()):
        raise RunError(f"{run.url}/{name}: is not a mean embedding of this model")
    return means

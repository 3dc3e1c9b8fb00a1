"""Builds an index of a corpus, and brings one up to date: a run over what is new or changed, then a snapshot.

Each build or update is a run of its own in ``generations/``, over the documents that the last snapshot lacks or has
with another text. A new snapshot is committed when that run is complete, so readers see the old one or the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.config.job import JobConfig
from jobs.engine.driver import Outcome, run_job
from jobs.engine.worker import PROBE, Worker
from jobs.errors import JobError, RunError
from jobs.index.format import id_hash
from jobs.index.generations import generation_name
from jobs.index.hashes import part_hashes
from jobs.index.reader import Index
from jobs.index.snapshot import (
    IDS_SCHEMA,
    Facts,
    Part,
    Probe,
    Snapshot,
    commit_snapshot,
    load_snapshot,
    read_ids,
    snapshot_name,
    snapshot_numbers,
    write_ids,
)
from jobs.plan.corpus_staging import UnchangedError
from jobs.progress import counted
from jobs.run.manifest import load_plan, read_corpus
from jobs.run.record import RESOLVED, check_same_model_files, differing_inputs, read_record
from jobs.run.tables import JOB_FILE, RESULT_OF, SUCCESS
from jobs.sources import input_files
from jobs.storage.store import Store

# Settings that may differ between the generations of an index: where the documents come from, how many, and where the
# model lies, whose files are compared.
_MAY_DIFFER = {
    *("model", "corpus", "corpus_columns", "titles", "limit", "sample", "seed", "max_rejects", "shards", "update_of")
}


@dataclass(frozen=True)
class Changes:
    """What a build changed: documents added, changed and removed, and how many stayed as they were."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0

    def line(self) -> str:
        """The changes as a line of the summary."""
        words = [
            f"{count:,} {what}"
            for count, what in (
                (self.added, "added"),
                (self.changed, "changed"),
                (self.removed, "removed"),
                (self.unchanged, "unchanged"),
            )
            if count
        ]
        return f"changes  {', '.join(words) or 'none'}"


def read_ids_file(path: Path) -> list[str]:
    """Return the ids in a text file, one a line; JobError where it cannot be read or has none."""
    try:
        ids = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise JobError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise JobError(f"{path}: is not UTF-8 text; give a file with one id a line") from None
    if not ids:
        raise JobError(f"{path}: has no id; give a file with one id a line")
    return ids


@dataclass(frozen=True)
class IndexOutcome:
    """The outcome of a build: that of its run, None where no document had to be computed; then the new snapshot."""

    url: str
    run: Outcome | None
    snapshot: Snapshot | None
    changes: Changes

    @property
    def exit_code(self) -> int:
        """0 when the index is up to date, 1 while a shard is missing."""
        return 0 if self.run is None else self.run.exit_code

    def lines(self) -> list[str]:
        """The summary that a user reads."""
        lines = [] if self.run is None else self.run.lines()
        if self.run is not None and not self.run.complete:
            return lines
        lines = [line for line in lines if not line.startswith("result ")]
        assert self.snapshot is not None, "a complete run has a snapshot"
        lines.append(self.changes.line())
        dead = f", {self.snapshot.dead:,} replaced or removed documents stay on disk" if self.snapshot.dead else ""
        return [*lines, f"index    {counted(self.snapshot.documents, 'document')}{dead}: {self.url}"]


def build_index(
    job: JobConfig,
    *,
    quiet: bool = False,
    echo: Callable[[str], None] = print,
    restart: bool = False,
    partial: bool = False,
    remove: Sequence[str] = (),
    verify: bool = False,
    worker_class: type[Worker] = Worker,
) -> IndexOutcome:
    """Build the index ``job.output`` of a corpus, go on with a build that was stopped, or bring the index up to date.

    Documents that the corpus no longer has leave the index, unless ``partial`` says that the corpus has changes alone;
    those with an id in ``remove`` leave it in any case. ``restart`` deletes what a stopped build left. ``verify`` reads
    all documents first, so that damaged ones are computed again. Raises
    TokenpairError for errors that the user can correct, and Interrupted as :func:`run_job` does.
    """
    assert job.task == "index", "the job is of an index"
    root = Store.open(job.output, job.storage)
    before = _state(root)
    if before is None and (partial or remove):
        raise RunError(f"{root.url}: holds no index yet, so there is nothing to update; build one first")
    if before is not None and verify:
        before = _without_damaged(root, before, echo)
    number = 1 if before is None else before.number + 1
    generation = generation_name(number)
    base = None if before is None else f"{root.url}/{snapshot_name(before.number)}"
    own = job.model_copy(
        update={"output": f"{root.url}/{generation}", "update_of": base} | ({"max_removed": 1.0} if partial else {})
    )
    store = Store.open(own.output, job.storage)
    if before is not None:
        _check_same_index(root, before, job)
    run: Outcome | None = None
    try:
        run = run_job(
            own, quiet=quiet, echo=echo, restart=restart or _stale(store, own, echo), worker_class=worker_class
        )
        if not run.complete:
            return IndexOutcome(root.url, run, None, Changes())
        plan = load_plan(store)
        if plan is None:
            raise RunError(f"{store.url}: its plan was removed while it ran")
        corpus = read_corpus(store, plan)
    except UnchangedError as nothing:
        corpus = nothing.hashes
    known = (
        _Rows.of(before.parts, read_ids(root, before)) if before is not None else _Rows.of((), IDS_SCHEMA.empty_table())
    )
    fresh = _fresh(root, generation) if run is not None else _Rows.of((), IDS_SCHEMA.empty_table())
    unknown = [one for one in remove if id_hash(one) not in known.hash]
    if unknown:
        echo(f"note: {counted(len(unknown), 'id')} to remove, such as {unknown[0]!r}: not in the index")
    stay, taken, changes = _merged(known, corpus, fresh, partial=partial, remove=remove)
    if run is None and before is not None and not changes.removed:
        return IndexOutcome(root.url, None, before, changes)
    facts = before.facts if before is not None else _facts(store, job)
    if before is not None and run is not None:
        _check_same_model(root, before, _facts(store, job))
    parts, ids = stay.then(taken)
    stored = len(fresh.hash) + (before.documents + before.dead if before is not None else 0)
    if not len(ids):
        raise RunError(f"{root.url}: no document would be left in the index")
    snapshot = Snapshot(
        number=number,
        documents=len(ids),
        dead=stored - len(ids),
        parts=parts,
        ids=write_ids(root, number, ids),
        facts=facts,
    )
    if not commit_snapshot(root, snapshot):
        raise RunError(f"{root.url}: another update was finished first; run the command again to add what is missing")
    return IndexOutcome(root.url, run, snapshot, changes)


def _state(root: Store) -> Snapshot | None:
    """The last snapshot; None where there is none. RunError where the folder holds something else than an index."""
    if root.exists(JOB_FILE):
        raise RunError(
            f"{root.url}: is a run (it has {JOB_FILE}), not an index; give the index's own folder, or another output"
        )
    if snapshot_numbers(root):
        return load_snapshot(root)
    others = root.list("")
    if others:
        raise RunError(f"{root.url}: is not empty and not an index (it holds {', '.join(others[:3])})")
    return None


def _stale(store: Store, job: JobConfig, echo: Callable[[str], None]) -> bool:
    """Whether a stopped build was of a corpus that has changed since: its documents may be out of date."""
    record = read_record(store)
    if record is None or store.exists(SUCCESS):
        return False
    if record.get("update_of") != job.update_of or not differing_inputs(
        record[RESOLVED].get("inputs") or [], input_files(job)
    ):
        return False
    echo("note: the corpus has changed since the last build stopped, so the build starts again")
    return True


def _without_damaged(root: Store, before: Snapshot, echo: Callable[[str], None]) -> Snapshot:
    """A new snapshot without the documents that cannot be read, so that they count as new; ``before`` where all can."""
    damaged: list[str] = []
    names = [name for batch in Index(root, before).batches(damaged) for name in batch.ids]
    if not damaged:
        return before
    for line in damaged:
        echo(f"note: {line}")
    known = _Rows.of(before.parts, read_ids(root, before))
    good = np.isin(known.hash, np.array([id_hash(name) for name in names], np.uint64))
    parts, ids = known.select(good).then(_Rows.of((), IDS_SCHEMA.empty_table()))
    number, lost = before.number + 1, len(known.hash) - len(ids)
    if not len(ids):
        raise RunError(f"{root.url}: no document of the index can be read; build a new one in another output")
    echo(f"note: {counted(lost, 'document')} cannot be read and {'is' if lost == 1 else 'are'} computed again")
    repaired = replace(
        before,
        number=number,
        documents=len(ids),
        dead=before.dead + lost,
        parts=parts,
        ids=write_ids(root, number, ids),
    )
    if not commit_snapshot(root, repaired):
        raise RunError(f"{root.url}: another update was finished first; run the command again")
    return repaired


def _check_same_index(root: Store, before: Snapshot, job: JobConfig) -> None:
    """RunError where the settings of an index differ from the job's; its model's files are compared too."""
    last = Store.open(f"{root.url}/{generation_name(_last_generation(before))}", job.storage)
    record = read_record(last)
    if record is None:
        raise RunError(f"{last.url}: its {JOB_FILE} is missing, so the index cannot be updated; build a new one")
    wanted = job.identity()
    differing = [
        f"{name}: {record.get(name)!r} there, {value!r} now"
        for name, value in wanted.items()
        if name not in _MAY_DIFFER and record.get(name, value) != value
    ]
    if differing:
        raise RunError(
            f"{root.url}: is an index with other settings (choose another output to build a new one): "
            f"{'; '.join(differing)}"
        )
    check_same_model_files(last, record, job.model)


def _last_generation(before: Snapshot) -> int:
    """The number of the latest generation that the snapshot has a part of."""
    return max(int(part.file.split("/")[1]) for part in before.parts)


def _check_same_model(root: Store, before: Snapshot, now: Facts) -> None:
    if before.facts.fingerprint != now.fingerprint:
        raise RunError(
            f"{root.url}: is an index of other model weights (fingerprint {before.facts.fingerprint} there, "
            f"{now.fingerprint} now); build a new one in another output"
        )


def _facts(store: Store, job: JobConfig) -> Facts:
    """What a reader checks, from the record of a generation."""
    record = read_record(store)
    if record is None:
        raise RunError(f"{store.url}: its {JOB_FILE} was removed while it ran")
    resolved: dict[str, Any] = record[RESOLVED]
    embedding = tuple(float(value) for value in resolved["probe"])
    return Facts(
        model=job.model,
        fingerprint=str(resolved["fingerprint"]),
        layer=int(resolved["layer"]),
        similarity="dot" if resolved["similarity"] == "dot" else "cosine",
        groups=job.unit("document"),
        precision=job.values,
        width=len(embedding),
        prompts={"query": job.prompts.query, "document": job.prompts.document},
        reference=job.reference,
        probe=Probe(PROBE, embedding),
        texts=job.texts,
        trust_remote_code=job.trust_remote_code,
        pickled_weights=job.pickled_weights,
    )


@dataclass(frozen=True)
class _Rows:
    """The rows of documents in parts, as arrays of one entry each; ``file`` is a place in ``files``."""

    files: tuple[Part, ...]
    hash: NDArray[np.uint64]
    text_hash: NDArray[np.uint64]
    file: NDArray[np.uint32]
    row: NDArray[np.uint32]

    @staticmethod
    def of(files: Sequence[Part], ids: pa.Table) -> _Rows:
        """The rows of an ids table."""
        return _Rows(tuple(files), *(ids[name].to_numpy() for name in IDS_SCHEMA.names))

    def select(self, chosen: NDArray[np.bool_]) -> _Rows:
        """Those rows that are ``chosen``."""
        return _Rows(self.files, self.hash[chosen], self.text_hash[chosen], self.file[chosen], self.row[chosen])

    def then(self, more: _Rows) -> tuple[tuple[Part, ...], pa.Table]:
        """These rows and ``more`` as parts and the ids table of a snapshot; parts without a row are left out."""
        files = (*self.files, *more.files)
        file = np.concatenate([self.file, more.file + np.uint32(len(self.files))])
        used, part = np.unique(file, return_inverse=True)
        columns = (
            np.concatenate([self.hash, more.hash]),
            np.concatenate([self.text_hash, more.text_hash]),
            part.astype(np.uint32),
            np.concatenate([self.row, more.row]),
        )
        return tuple(files[at] for at in used.tolist()), pa.table(dict(zip(IDS_SCHEMA.names, columns, strict=True)))


def _fresh(root: Store, generation: str) -> _Rows:
    """The documents that a generation computed."""
    names = root.list(f"{generation}/{RESULT_OF['index']}")
    hashes = [part_hashes(root, name) for name in names]
    files = [Part(name, len(table)) for name, table in zip(names, hashes, strict=True)]
    empty = pa.table({"hash": pa.array([], pa.uint64()), "text_hash": pa.array([], pa.uint64())})
    together = pa.concat_tables([empty, *hashes])
    sizes = [part.documents for part in files]
    return _Rows(
        tuple(files),
        together["hash"].to_numpy(),
        together["text_hash"].to_numpy(),
        np.repeat(np.arange(len(files), dtype=np.uint32), sizes),
        np.concatenate([np.zeros(0, np.uint32), *(np.arange(size, dtype=np.uint32) for size in sizes)]),
    )


def _merged(
    before: _Rows, corpus: pa.Table, fresh: _Rows, *, partial: bool, remove: Sequence[str]
) -> tuple[_Rows, _Rows, Changes]:
    """The rows of ``before`` that stay, those of ``fresh`` that are taken, and what that changes.

    ``corpus`` has the hashes of the documents that the corpus holds now, sorted by ``hash``.
    """
    hashes, texts = corpus["hash"].to_numpy(), corpus["text_hash"].to_numpy()
    place = np.minimum(np.searchsorted(hashes, before.hash), max(len(hashes) - 1, 0))
    named = hashes[place] == before.hash if len(hashes) else np.zeros(len(before.hash), bool)
    same = named & (texts[place] == before.text_hash) if len(hashes) else named
    removed = np.array([id_hash(one) for one in remove], np.uint64)
    stays = (same | ~named if partial else same) & ~np.isin(before.hash, removed)
    taken = fresh.select(~np.isin(fresh.hash, removed))
    new = ~np.isin(taken.hash, before.hash)
    changes = Changes(
        added=int(new.sum()),
        changed=int((~new).sum()),
        removed=len(before.hash) - int(stays.sum()) - int((~new).sum()),
        unchanged=int(stays.sum()),
    )
    return before.select(stays), taken, changes

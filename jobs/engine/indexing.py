"""Builds an index of a corpus, and brings one up to date: a run over what is new or changed, then a snapshot.

Each build or update is a run of its own in ``generations/``, over the documents that the last snapshot lacks or has
with another text. A new snapshot is committed when that run is complete, so readers see the old one or the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.config.job import JobConfig
from jobs.engine.driver import Outcome, run_job
from jobs.engine.index_changes import NO_ROWS, Changes, Rows, computed_rows, merged
from jobs.engine.worker import PROBE, Worker
from jobs.errors import JobError, RunError
from jobs.index.format import id_hash
from jobs.index.generations import generation_name
from jobs.index.reader import Index
from jobs.index.snapshot import (
    Facts,
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
from jobs.run.tables import JOB_FILE, SUCCESS
from jobs.sources import input_files
from jobs.storage.s3 import StorageSettings
from jobs.storage.store import Store

# Settings that may differ between the generations of an index: where the documents come from, how many, and where the
# model lies, whose files are compared.
_MAY_DIFFER = {
    *("model", "corpus", "corpus_columns", "titles", "limit", "sample", "seed", "max_rejects", "shards", "update_of")
}


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
        dead = f", {counted(self.snapshot.dead, 'replaced or removed document')} on disk" if self.snapshot.dead else ""
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
    if partial and verify:
        raise JobError("--verify: needs the whole corpus to compute damaged documents again; leave out --partial")
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
    known = Rows.of(before.parts, read_ids(root, before)) if before is not None else NO_ROWS
    fresh = computed_rows(root, generation) if run is not None else NO_ROWS
    _note_unknown(known, remove, echo)
    stay, taken, changes = merged(known, corpus, fresh, partial=partial, remove=remove)
    if run is None and before is not None and not changes.removed:
        return IndexOutcome(root.url, None, before, changes)
    facts = before.facts if before is not None else _facts(store, job)
    if before is not None and run is not None:
        _check_same_model(root, before, _facts(store, job))
    snapshot = _committed(root, before, facts, stay, taken, len(fresh.hash))
    return IndexOutcome(root.url, run, snapshot, changes)


def remove_documents(
    url: str, storage: StorageSettings | None, remove: Sequence[str], echo: Callable[[str], None] = print
) -> IndexOutcome:
    """Remove the documents of some ids from an index; neither its corpus nor its model is needed.

    Raises RunError where there is no index, or no document would be left.
    """
    root = Store.open(url, storage)
    before = _state(root)
    if before is None:
        raise RunError(f"{root.url}: holds no index, so there is nothing to remove")
    known = Rows.of(before.parts, read_ids(root, before))
    _note_unknown(known, remove, echo)
    stays = ~np.isin(known.hash, np.array([id_hash(one) for one in remove], np.uint64))
    changes = Changes(removed=int((~stays).sum()), unchanged=int(stays.sum()))
    if not changes.removed:
        return IndexOutcome(root.url, None, before, changes)
    return IndexOutcome(root.url, None, _committed(root, before, before.facts, known.select(stays), NO_ROWS), changes)


def _committed(
    root: Store, before: Snapshot | None, facts: Facts, stay: Rows, taken: Rows, computed: int = 0
) -> Snapshot:
    """The next snapshot of an index: rows of ``before`` that stay, and those taken of ``computed`` new ones."""
    parts, ids = stay.then(taken)
    if not len(ids):
        raise RunError(f"{root.url}: no document would be left in the index")
    number = 1 if before is None else before.number + 1
    stored = computed + (before.documents + before.dead if before is not None else 0)
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
    return snapshot


def _note_unknown(known: Rows, remove: Sequence[str], echo: Callable[[str], None]) -> None:
    unknown = [one for one in remove if id_hash(one) not in known.hash]
    if unknown:
        echo(f"note: {counted(len(unknown), 'id')} to remove, such as {unknown[0]!r}: not in the index")


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
    known = Rows.of(before.parts, read_ids(root, before))
    good = np.isin(known.hash, np.array([id_hash(name) for name in names], np.uint64))
    lost = int((~good).sum())
    if lost == len(good):
        raise RunError(f"{root.url}: no document of the index can be read; build a new one in another output")
    echo(f"note: {counted(lost, 'document')} cannot be read and {'is' if lost == 1 else 'are'} computed again")
    return _committed(root, before, before.facts, known.select(good), NO_ROWS)


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

"""Documents of an index as a run of a log needs them: contributions that were stored, in place of computed ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from attribution_core.errors import SettingError
from jobs.errors import RunError
from jobs.index.agreement import differing_facts
from jobs.index.reader import Index
from jobs.index.snapshot import load_snapshot
from jobs.storage.store import Store

if TYPE_CHECKING:
    from attribution_core.attribution import Attributor
    from attribution_core.model.encoder import ReadText
    from attribution_core.results import Contributions
    from jobs.config.job import JobConfig

OTHER_GROUPS = "the index has other groups for this text: it was built by another version"


class IndexedDocuments:
    """The documents of one state of the index that a job names; ``number`` is that of the state.

    Raises SettingError where the index is of another model than ``attributor``, or of other settings.
    """

    def __init__(self, job: JobConfig, attributor: Attributor, number: int) -> None:
        assert job.index is not None, "the job names an index"
        store = Store.open(job.index, job.storage, patient=True)
        self._index = Index(store, load_snapshot(store, number))
        self._attributor = attributor
        differing = differing_facts(job, self._index.facts, attributor.layer, attributor.similarity)
        fingerprint = attributor.fingerprint()
        if fingerprint != self._index.facts.fingerprint:
            differing.append(
                f"the model's weights: fingerprint {self._index.facts.fingerprint} there, {fingerprint} now"
            )
        if differing:
            raise SettingError(f"index {store.url}: does not fit the job: {'; '.join(differing)}")

    def contributions(self, ids: Sequence[str], texts: Sequence[ReadText]) -> list[Contributions | str]:
        """The contributions of documents, or for one that the index cannot give the reason.

        Raises StoreError where the index's store cannot be read.
        """
        found: list[Contributions | str] = [""] * len(ids)
        there: list[int] = []
        documents = []
        for at, (name, text) in enumerate(zip(ids, texts, strict=True)):
            try:
                document = self._index.document(name)
            except RunError as error:
                found[at] = str(error)
                continue
            same = np.array_equal(document.starts, text.start_G) and np.array_equal(document.ends, text.end_G)
            if not same or document.rows.shape[0] != text.group_count:
                found[at] = OTHER_GROUPS
                continue
            there.append(at)
            documents.append(document)
        computed = self._attributor.stored(
            [texts[at] for at in there],
            [one.rows for one in documents],
            [one.embedding for one in documents],
            [one.nodes for one in documents],
            [one.residual for one in documents],
        )
        for at, one in zip(there, computed, strict=True):
            found[at] = one
        return found

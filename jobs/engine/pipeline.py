"""The two stages of a worker that compute: contributions on the device, then tables of pairs.

The threads that call read, tokenise and write shards. Requests that wait for the device are computed together, so that
small shards fill it as large ones do. Each stage is a thread of its own, with a queue of one group between them.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attribution_core.text.tokenized import distinct_texts
from jobs.run.tables import attribution_table

if TYPE_CHECKING:
    from attribution_core.attribution import Attributor
    from attribution_core.contribution_cache import ContributionCache
    from attribution_core.model.encoder import ReadText
    from attribution_core.results import Contributions

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Attributed:
    """The pairs of one request: ``table`` has a row for each pair that has a score.

    ``defined`` are the places of those pairs among the request's; ``undefined`` has, by the places of the others, the
    sides whose embedding is zero. ``texts`` are the request's texts without the values of their contributions.
    ``waited`` and ``computed`` are seconds: before its group began, and its part by pairs of what the group took.
    """

    table: pa.Table
    defined: Ints
    undefined: dict[int, tuple[str, ...]]
    texts: list[Contributions]
    waited: float
    computed: float


@dataclass(eq=False)
class _Request:
    texts: list[ReadText]
    edges: Ints
    ids: pa.Table
    given: Mapping[int, Contributions]
    future: Future[Attributed] = field(default_factory=Future)
    asked: float = field(default_factory=time.perf_counter)


@dataclass(eq=False)
class _Group:
    """Requests that are computed together; ``known`` are the contributions of their distinct texts."""

    requests: list[_Request]
    texts: list[ReadText]
    places: list[Ints]
    edges: Ints
    given: dict[int, Contributions]
    began: float
    known: Any = None
    device_seconds: float = 0.0


class Pipeline:
    """Attributes pairs for several threads; ``store`` "full" keeps their matrices, "top" does not."""

    def __init__(self, attributor: Attributor, cache: ContributionCache, top_k: int, store: str) -> None:
        self._attributor = attributor
        self._cache = cache
        self._top_k = top_k
        self._store = store
        self._asked: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._known: queue.Queue[_Group | None] = queue.Queue(maxsize=1)
        # Daemons: a program that is stopped does not wait for them.
        for stage in (self._device, self._tables):
            threading.Thread(target=stage, name=f"worker-{stage.__name__}", daemon=True).start()

    def attribute(
        self, texts: list[ReadText], edges: Ints, ids: pa.Table, given: Mapping[int, Contributions] | None = None
    ) -> Attributed:
        """Attribute the pairs ``edges`` [P, 2], places in distinct ``texts``; ``ids`` has the ids of their P rows.

        ``given`` has, by their places, the contributions of texts that were stored.
        Waits for the result, and raises what was raised while it was computed.
        """
        request = _Request(texts, edges, ids, given or {})
        self._asked.put(request)
        return request.future.result()

    @property
    def waiting(self) -> int:
        """About how many requests wait for the device."""
        return self._asked.qsize()

    def close(self) -> None:
        """End both threads after what was asked for."""
        self._asked.put(None)

    def _device(self) -> None:
        """Contributions of everything that waits, together."""
        more = True
        while more:
            waiting = [self._asked.get()]
            while not self._asked.empty():
                waiting.append(self._asked.get())
            more = None not in waiting
            requests = [one for one in waiting if one is not None]
            if requests:
                self._compute(requests)
            del waiting, requests
        self._known.put(None)

    def _compute(self, requests: list[_Request]) -> None:
        try:
            self._known.put(self._with_known(requests))
        except BaseException as error:
            self._alone(requests, error)

    def _with_known(self, requests: list[_Request]) -> _Group:
        group = _grouped(requests)
        group.known = self._attributor.known(group.texts, group.edges, self._cache, group.given)
        group.device_seconds = time.perf_counter() - group.began
        return group

    def _tables(self) -> None:
        """Pairs of what is known, and their rows."""
        while (group := self._known.get()) is not None:
            try:
                self._finish(group)
            except BaseException as error:
                self._alone(group.requests, error)
            # Release it before waiting: it is large, and the next group may come much later.
            del group

    def _alone(self, requests: list[_Request], error: BaseException) -> None:
        """Compute each request by itself, so that the error of one does not fail the others."""
        waiting = [request for request in requests if not request.future.done()]
        if len(requests) == 1:
            waiting[0].future.set_exception(error)
            return
        for request in waiting:
            try:
                self._finish(self._with_known([request]))
            except BaseException as own:
                request.future.set_exception(own)

    def _finish(self, group: _Group) -> None:
        began = time.perf_counter()
        texts, pulled = group.known
        columns, defined = self._attributor.columns(
            texts, group.edges, pulled, top_k=self._top_k, cells=self._store == "full"
        )
        ids = pa.concat_tables([request.ids for request in group.requests])
        table = attribution_table(columns, ids.take(pa.array(defined)), self._store)
        first = 0
        seconds = group.device_seconds + time.perf_counter() - began
        for request, places in zip(group.requests, group.places, strict=True):
            count = len(request.edges)
            low, high = np.searchsorted(defined, [first, first + count]).tolist()
            own = defined[low:high] - first
            missing = np.setdiff1d(np.arange(count), own).tolist()
            attributed = Attributed(
                table=table.slice(low, high - low),
                defined=own,
                undefined={at: self._attributor.undefined(columns, group.edges[first + at]).sides for at in missing},
                texts=[texts[at].without_values() for at in places.tolist()],
                # For the device, and for the tables of others.
                waited=began - request.asked - group.device_seconds,
                computed=seconds * count / max(len(group.edges), 1),
            )
            first += count
            request.future.set_result(attributed)


def _grouped(requests: list[_Request]) -> _Group:
    """Requests with their texts numbered together: a text of several is computed once."""
    began = time.perf_counter()
    texts, every = distinct_texts(text for request in requests for text in request.texts)
    ends = np.cumsum([len(request.texts) for request in requests])
    places = np.split(every, ends[:-1])
    edges = np.concatenate([of[request.edges] for request, of in zip(requests, places, strict=True)])
    given = {
        int(of[at]): one for request, of in zip(requests, places, strict=True) for at, one in request.given.items()
    }
    return _Group(requests, texts, places, edges, given, began)

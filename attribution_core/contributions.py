"""Contributions of many texts: read once, batched by length, integrated with as many nodes as each text needs."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from attribution_core.byte_cache import ByteCache
from attribution_core.directions import Products
from attribution_core.directions.cost import flops
from attribution_core.directions.precision import Precision
from attribution_core.directions.windows import windows
from attribution_core.integrator import Goal, Integrator
from attribution_core.memory import USABLE
from attribution_core.model.batch import TextBatch, by_reference, repeat_rows
from attribution_core.model.encoder import REFERENCE_BYTES, Encoder, ReadText, Role
from attribution_core.quadrature.adaptive import adaptive_rule
from attribution_core.quadrature.cache import cached_calibration
from attribution_core.quadrature.calibration import SAMPLE, CalibratedMesh, calibrate
from attribution_core.quadrature.rules import Rule, ladder, mesh_points
from attribution_core.results import Contributions

# At most so many tokens are computed together, by kind of device: enough to keep it busy.
WINDOW_TOKENS = {"cpu": 8192, "cuda": 65536}
# What a call costs beside its arithmetic, in the floating-point operations that could be done meanwhile: by the kind of
# device and not by the clock, so that the same texts are always computed in the same company.
CALL_FLOPS = {"cpu": 3e8, "cuda": 4e10}
USUAL_NODES = 8
LENGTH_CLASS = 1.2
# A text that misses its tolerance with so many nodes gets a rule of its own, which aims at this share of the tolerance.
STEEP_NODES = 64
ADAPTIVE_SHARE = 0.7
# A query is short and is computed once for all of its documents, so what it adds to a pair's error is bought cheaply:
# it gets this share of the tolerance, but none finer than the default.
QUERY_SHARE = 0.1
DEFAULT_TOLERANCE = 2e-3


@dataclass(frozen=True)
class Quadrature:
    """How the path is integrated: ``nodes`` fixes their number, None lets each text have what the tolerance needs."""

    rule: Rule = "gauss"
    tolerance: float = DEFAULT_TOLERANCE
    nodes: int | None = None
    max_nodes: int = 256


class Contributor:
    """Computes contributions with one encoder, one kind of products, one quadrature, within one memory budget."""

    def __init__(
        self,
        encoder: Encoder,
        products: Products,
        quadrature: Quadrature,
        budget: int,
        way: str = "auto",
        precision: Precision = "float32",
        computing: threading.Lock | None = None,
    ) -> None:
        self.encoder = encoder
        self.products = products
        self.quadrature = quadrature
        self.way = way
        self.shape = replace(encoder.layer_shape(), whole=products.whole)
        self.integrator = Integrator(encoder, products, self.shape, quadrature.rule, budget, way, precision)
        self._mesh: CalibratedMesh | None = None
        # A model is hooked while it is read up to the cut, and the budget is one thread's.
        self._computing = computing or threading.Lock()
        self._known: ByteCache[Any, Tensor] = ByteCache(REFERENCE_BYTES)
        self._reference_ends: ByteCache[Any, Tensor] = ByteCache(REFERENCE_BYTES)

    @property
    def mesh(self) -> CalibratedMesh:
        """The mesh of this encoder, learned or read from the cache at first use."""
        if self._mesh is None:
            learn = self.quadrature.rule == "gauss" and not self.encoder.linear
            self._mesh = self._calibrated() if learn else CalibratedMesh()
        return self._mesh

    def forget_references(self) -> None:
        """Drop the references that were computed for earlier texts."""
        with self._computing:
            self._known.clear()
            self._reference_ends.clear()
            self.encoder.forget_references()

    def contributions(self, texts: Sequence[ReadText], *, tolerance: float | None = None) -> list[Contributions]:
        """Contributions of each text, in the order given."""
        return self._every(texts, [None] * len(texts), tolerance)

    def projections(
        self, texts: Sequence[ReadText], cotangents: Sequence[NDArray[Any]], *, tolerance: float | None = None
    ) -> list[Contributions]:
        """The products u · c_i of each text's contributions with its cotangents [K, D], as ``values_GD`` [G, K + 1].

        They are pulled back along the cotangents, so that K directions do the work of all groups. The last product
        is that with the text's own embedding; of late interaction, which has no lift, it is left out.
        """
        return self._every(texts, cotangents, tolerance)

    def embeddings(self, texts: Sequence[ReadText]) -> NDArray[Any]:
        """Embeddings [texts, D] as they are attributed: for cosine without a trailing Normalize."""
        embedded: dict[int, NDArray[Any]] = {}
        for window in self._windows(texts):
            batch = self.encoder.batch([texts[at] for at in window])
            embedded.update(zip(window, self.products.embed(batch.x_BSd, batch).cpu().numpy(), strict=True))
        return np.stack([embedded[at] for at in range(len(texts))])

    def ends(self, texts: Sequence[ReadText]) -> list[Contributions]:
        """Embeddings of texts and of their references, as Contributions without a value."""
        out: dict[int, Contributions] = {}
        with self._computing:
            for window in self._windows(texts):
                own = [texts[at] for at in window]
                batch = self.encoder.batch(own)
                both = (self.products.embed(batch.x_BSd, batch), self._references(own, batch))
                embeddings, references = (one.cpu().numpy() for one in both)
                for row, at in enumerate(window):
                    n = self.encoder.embedding_size(texts[at])
                    found = (embeddings[:0, :n], embeddings[row, :n], references[row, :n])
                    out[at] = Contributions(texts[at], 0, 0.0, True, "none", *found)
        return [out[at] for at in range(len(texts))]

    def references(self, texts: Sequence[ReadText]) -> NDArray[Any]:
        """Return the embeddings of the texts' references [texts, D]; each distinct one goes through the model once."""

        def ends(rows: list[int]) -> Tensor:
            some = [texts[row] for row in rows]
            if not self.encoder.layer_count:  # the reference of a token is no token
                return torch.from_numpy(np.stack([one.reference_D for one in self.ends(some)]))
            with self._computing:
                return torch.from_numpy(self.embeddings([text.blanked(self.encoder.reference_id) for text in some]))

        return by_reference(self._reference_ends, [_reference_key(text) for text in texts], ends).numpy()

    def _every(
        self, texts: Sequence[ReadText], cotangents: Sequence[NDArray[Any] | None], tolerance: float | None
    ) -> list[Contributions]:
        """Results in the order of ``texts``; a text that misses its tolerance is computed again with more nodes."""
        with self._computing:
            return self._by_counts(texts, cotangents, tolerance or self.quadrature.tolerance)

    def _by_counts(
        self, texts: Sequence[ReadText], cotangents: Sequence[NDArray[Any] | None], tolerance: float
    ) -> list[Contributions]:
        results: dict[int, Contributions] = {}
        waiting = self._first_counts(texts)
        # An interval's nodes do not tell where maxima change their rows.
        without_rule = set(range(len(texts))) if self.encoder.takes_maxima else set()
        while waiting:
            count = min(waiting)
            places = waiting.pop(count)
            missed: list[int] = []
            for window in self._windows(
                [texts[at] for at in places],
                [0 if (c := cotangents[at]) is None else len(c) + self.encoder.has_lift for at in places],
            ):
                own = [places[at] for at in window]
                goal = tolerance_of(texts[own[0]].role, tolerance)
                steep = [row for row, at in enumerate(own) if count >= STEEP_NODES and at not in without_rule]
                computed = self._window([texts[at] for at in own], [cotangents[at] for at in own], goal, count, steep)
                without_rule.update(own[row] for row in steep)
                results.update((own[row], one) for row, one in computed.items())
                missed += [at for row, at in enumerate(own) if row not in computed]
            if missed:
                following = next(n for n in ladder(self.quadrature.max_nodes) if n > count)
                waiting.setdefault(following, []).extend(missed)
        return [results[at] for at in range(len(texts))]

    def _windows(self, texts: Sequence[ReadText], partners: Sequence[int] | None = None) -> list[list[int]]:
        """Places of texts in windows of one role, prompt and direction each; no ``partners``: forward passes."""
        known = partners or [0] * len(texts)
        directions = (
            [0] * len(texts) if partners is None else [n or t.group_count for n, t in zip(known, texts, strict=True)]
        )
        nodes = 1 if partners is None else self.quadrature.nodes or USUAL_NODES
        unit = flops(self.shape, tokens=16, nodes=nodes, directions=0) / 16
        fixed = CALL_FLOPS.get(self.encoder.device.type, CALL_FLOPS["cuda"]) / max(unit, 1.0)

        def order(at: int) -> tuple[int, ...]:
            size = int(math.log(max(len(texts[at]), 1)) / math.log(LENGTH_CLASS)) if known[at] else 0
            return size, known[at], len(texts[at]), at

        kinds = [(text.role, text.prompt_length or 0, n > 0) for text, n in zip(texts, known, strict=True)]
        return windows(kinds, [len(text) for text in texts], directions, self._most_texts, fixed, order)

    def _most_texts(self, tokens: int) -> int:
        """How many texts of a length are read at once: a bounded number of tokens, within the budget."""
        fits = int(self.integrator.budget * USABLE) // self.shape.reading_bytes(tokens)
        most = WINDOW_TOKENS.get(self.encoder.device.type, WINDOW_TOKENS["cuda"])
        return max(1, min(most // tokens, fits))

    # One window of texts of like length ------------------------------------------------------------------------

    def _window(
        self,
        texts: list[ReadText],
        cotangents: list[NDArray[Any] | None],
        tolerance: float,
        count: int,
        steep: list[int],
    ) -> dict[int, Contributions]:
        """Contributions of those texts for which ``count`` nodes are enough, by their place in the window.

        Those of ``steep`` for which they are not get a rule of their own, where one is within the allowed nodes.
        """
        batch = self.encoder.batch(texts)
        embedding_BD = self.products.embed(batch.x_BSd, batch)
        reference_BD = self._references(texts, batch)
        embeddings, references = embedding_BD.cpu().numpy(), reference_BD.cpu().numpy()
        whole = Goal(
            target_BD=embedding_BD - reference_BD,
            norm_B=embedding_BD.norm(dim=1).clamp_min(torch.finfo(embedding_BD.dtype).tiny),
            tolerance=tolerance,
            final=self.quadrature.nodes is not None or count >= self.quadrature.max_nodes,
            given=self.quadrature.nodes is not None,
            cotangent_BKD=_stack(cotangents, embeddings, batch.x_BSd, own=self.encoder.has_lift),
        )
        out: dict[int, Contributions] = {}

        def settle(rows: list[int], goal: Goal, count: int, mesh: CalibratedMesh) -> None:
            integral = self.integrator.integrate(batch.select(rows), count, mesh, goal)
            for at, values_GD, residual in zip(
                integral.rows, _fetched(integral.values), integral.residuals, strict=True
            ):
                row = rows[at]
                own, n = cotangents[row], self.encoder.embedding_size(texts[row])
                width = n if own is None else len(own) + self.encoder.has_lift
                out[row] = Contributions(
                    text=texts[row],
                    nodes=count,
                    residual=residual,
                    converged=residual <= self.quadrature.tolerance,
                    way=integral.way,
                    values_GD=values_GD[: texts[row].group_count, :width],
                    embedding_D=embeddings[row, :n],
                    reference_D=references[row, :n],
                )

        settle(list(range(len(texts))), whole, count, self.mesh)
        for row in [row for row in steep if row not in out]:
            rule = self._own_rule(batch.select([row]), tolerance * float(whole.norm_B[row]))
            if rule is not None:
                own_mesh = CalibratedMesh(fitted={len(rule[0]): rule})
                settle([row], replace(whole.select([row]), final=True), len(rule[0]), own_mesh)
        return out

    def _own_rule(self, batch: TextBatch, goal: float) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Nodes and weights for one text for which the mesh of the sample is not enough; None where it needs too
        many."""
        return adaptive_rule(
            lambda alpha, weight: self.integrator.summed(batch, alpha, weight)[0].double().cpu().numpy(),
            lambda alpha: self._along(batch, torch.tensor(alpha))[0].double().cpu().numpy(),
            goal * ADAPTIVE_SHARE,
            self.quadrature.max_nodes,
        )

    def _first_counts(self, texts: Sequence[ReadText]) -> dict[int, list[int]]:
        """Texts by the node count that is tried first: the one asked for, or what texts of that length mostly need."""
        waiting: dict[int, list[int]] = {}
        of_kind: dict[tuple[int, bool], int] = {}
        for at, text in enumerate(texts):
            kind = length, query = len(text), text.role == "query"
            if kind not in of_kind:
                first = self.quadrature.nodes or (1 if self.encoder.linear else self.mesh.start(length, query=query))
                of_kind[kind] = self.quadrature.nodes or min(first, self.quadrature.max_nodes)
            waiting.setdefault(of_kind[kind], []).append(at)
        return waiting

    def _references(self, texts: Sequence[ReadText], batch: TextBatch) -> Tensor:
        """Embeddings of the references, [B, D]; each distinct one is computed once."""
        # Of late interaction the text decides which outputs of its reference are scored.
        scored = [None if text.scored_S is None else text.scored_S.tobytes() for text in texts]
        lengths = [text.prompt_length for text in texts]
        keys = list(zip(lengths, batch.references, scored, strict=True))

        def embedded(rows: list[int]) -> list[Tensor]:
            part = batch.select(rows)
            values = self.products.embed(part.r_BSd, part)
            return [value[: self.encoder.embedding_size(texts[row])] for row, value in zip(rows, values, strict=True)]

        return by_reference(self._known, keys, embedded)

    # Calibration -------------------------------------------------------------------------------------------------

    def _calibrated(self) -> CalibratedMesh:
        """The calibration of this encoder, layer and tolerance; learned where no earlier process did."""
        texts = [text for text in self.encoder.read(SAMPLE, "text", "word") if text.problem is None]
        encoder, asked = self.encoder, self.quadrature
        facts = (
            *(encoder.fingerprint(), encoder.role, encoder.layer, encoder.similarity, encoder.shifted),
            *(str(encoder.dtype), encoder.pad_id, encoder.reference_id),
            *(asked.tolerance, asked.max_nodes),
            *((text.ids, text.types, text.kept) for text in texts),
        )
        return cached_calibration(facts, lambda: self._calibrate(texts))

    def _calibrate(self, texts: list[ReadText]) -> CalibratedMesh:
        """Learn the mesh from the built-in sample, and from which node count on it is worth trying.

        Forward passes only: the path's derivative, for the mesh and for the residuals that tell where to start, is
        that of the polynomial through the embeddings at Chebyshev points.
        """
        along = self._rows_along if self.encoder.takes_maxima else self._along
        paths: list[Tensor] = []
        lengths: list[int] = []
        for window in self._windows(texts):
            batch = self.encoder.batch([texts[at] for at in window])
            lengths.extend(len(texts[at]) for at in window)
            at_once = max(1, self._most_texts(max(len(texts[at]) for at in window)) // len(window))
            paths.append(torch.cat([along(batch, some) for some in torch.tensor(mesh_points()).split(at_once)], 1))
        # Embeddings of late interaction are as long as their texts.
        widest = max(path.shape[2] for path in paths)
        path_BND = torch.cat([F.pad(path, (0, widest - path.shape[2])) for path in paths]).double().cpu().numpy()
        asked = self.quadrature
        of_queries = tolerance_of("query", asked.tolerance)
        calibrated = calibrate(path_BND, lengths, asked.tolerance, asked.max_nodes, of_queries)
        return calibrated.for_polynomials() if self.encoder.takes_maxima else calibrated

    @torch.no_grad()
    def _along(self, batch: TextBatch, alpha_N: Tensor) -> Tensor:
        """Embeddings at some points of each text's path, [B, N, D]."""
        embedded = self.encoder.g(_points(batch, alpha_N), batch, copies=len(alpha_N))
        return embedded.view(len(batch.x_BSd), len(alpha_N), -1)

    @torch.no_grad()
    def _rows_along(self, batch: TextBatch, alpha_N: Tensor) -> Tensor:
        """Summed token embeddings at some points of each text's path, [B, N, M·d]: smooth where a maximum is not."""
        tokens = self.encoder.token_embeddings(_points(batch, alpha_N), batch, len(alpha_N))
        pool = repeat_rows(batch.pool_BMS, len(batch.x_BSd), len(alpha_N))
        return (pool @ tokens).view(len(batch.x_BSd), len(alpha_N), -1)


def tolerance_of(role: Role, tolerance: float) -> float:
    """The tolerance to aim at for a text of a role where ``tolerance`` is asked for."""
    return min(tolerance, max(QUERY_SHARE * tolerance, DEFAULT_TOLERANCE)) if role == "query" else tolerance


def _points(batch: TextBatch, alpha_N: Tensor) -> Tensor:
    """Some points of each text's path, [B·N, S, d]."""
    alpha = alpha_N.to(batch.x_BSd).view(1, -1, 1, 1)
    return (batch.r_BSd.unsqueeze(1) + alpha * batch.delta_BSd.unsqueeze(1)).flatten(0, 1)


def _reference_key(text: ReadText) -> Any:
    """What decides a text's reference: its length, and the tokens that are not replaced."""
    types = None if text.types_S is None else text.types_S.tobytes()
    return len(text), text.ids_S[text.kept_S].tobytes(), text.kept_S.tobytes(), types, text.prompt_length


def _fetched(values: Tensor) -> NDArray[Any]:
    """Values of some texts, copied to the CPU in one transfer."""
    if not values.is_cuda:
        return values.numpy()
    # Pageable memory is copied to at a fraction of the speed.
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values).numpy()


def _stack(
    cotangents: list[NDArray[Any] | None], embeddings: NDArray[Any], like: Tensor, *, own: bool
) -> Tensor | None:
    """Each text's cotangents and its ``own`` embedding, [B, K, D], padded with zeros; None where a window has none."""
    given = [c for c in cotangents if c is not None]
    if not given:
        return None
    assert len(given) == len(cotangents), "a window is all by one way"
    out = np.zeros((len(given), max(map(len, given)) + own, embeddings.shape[1]), dtype=embeddings.dtype)
    for at, c in enumerate(given):
        out[at, : len(c), : c.shape[1]] = c
        if own:
            out[at, len(c)] = embeddings[at]
    return torch.from_numpy(out).to(like)

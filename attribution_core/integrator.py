"""Contributions of some texts with a given number of nodes, within a budget, checked against their known sum.

The sum of a text's contributions is known beforehand (completeness), and computing it costs one direction, while the
contributions cost many. So the layers are linearised at the nodes, the sum is checked, and only for texts with enough
nodes the directions are computed, with the same linearisation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from attribution_core.directions import Linearisation, PathSegment, Products, Slots
from attribution_core.directions.maxima import with_row_weights
from attribution_core.directions.precision import NOISE, Precision, products_in, tangent_dtype
from attribution_core.memory import Chunk, LayerShape, plan_chunk, with_halving
from attribution_core.model.batch import TextBatch, picked
from attribution_core.model.encoder import Encoder
from attribution_core.quadrature.calibration import CalibratedMesh
from attribution_core.quadrature.rules import Doubles, Rule, riemann

# What holds a text's weights back from following its known sum, as a share of the nodes' mean square. With a tenth the
# sum comes ten times nearer, and single contributions stay as exact as they were (tests/benchmarks/RESULTS.md).
DAMPING = 0.1


@dataclass(frozen=True, eq=False)
class Goal:
    """What the contributions of some texts must sum to, ``target_BD``, and how near: ``tolerance`` in units of ‖e‖.

    With ``final`` any result is accepted; ``given`` says that the number of nodes was set. ``cotangent_BKD``, where
    there, are the partners' contributions.
    """

    target_BD: Tensor
    norm_B: Tensor
    tolerance: float
    final: bool
    given: bool = False
    cotangent_BKD: Tensor | None = None

    def residual(self, sum_BD: Tensor) -> Tensor:
        """‖Σ_i c_i − (e − e_r)‖ / ‖e‖, [B]."""
        return (sum_BD - self.target_BD).norm(dim=1) / self.norm_B

    def residual_along(self, values_BQK: Tensor) -> Tensor:
        """The same measured along the cotangents only: the largest of them, [B]."""
        assert self.cotangent_BKD is not None
        expected_BK = torch.einsum("bkD,bD->bk", self.cotangent_BKD, self.target_BD)
        length_BK = self.cotangent_BKD.norm(dim=2).clamp_min(torch.finfo(expected_BK.dtype).tiny)
        return ((values_BQK.sum(1) - expected_BK).abs() / length_BK).amax(1) / self.norm_B

    def met(self, sum_BD: Tensor, noise: float) -> list[int]:
        """The texts whose sum is near enough, where products will add an error of ``noise`` in another direction."""
        limit = math.sqrt(max(self.tolerance**2 - noise**2, self.tolerance**2 / 4))
        return [row for row, residual in enumerate(self.residual(sum_BD).tolist()) if residual <= limit]

    def matched(self, totals_BND: Tensor) -> Tensor:
        """Factors of the weights, [B, N], that bring the sum of ``totals_BND`` nearer to what it must be.

        Damped least squares; the known sum stands for contributions that vary along the path as it does. A text that
        misses its tolerance keeps the rule's weights: what it has is not the sum's shape but too few nodes.
        """
        totals_BND = totals_BND.double()
        sum_BD = totals_BND.sum(1)
        missing_BD = self.target_BD.double() - sum_BD
        gram_BNN = totals_BND @ totals_BND.transpose(1, 2)
        squares_BN = gram_BNN.diagonal(dim1=1, dim2=2)
        damping_B1 = DAMPING * squares_BN.mean(1, keepdim=True) + torch.finfo(squares_BN.dtype).tiny
        gram_BNN = gram_BNN + torch.diag_embed(damping_B1.expand_as(squares_BN))
        right_BN1 = totals_BND @ missing_BD.unsqueeze(2)
        change_BN = torch.linalg.solve_ex(gram_BNN, right_BN1)[0].squeeze(2)
        near_B1 = missing_BD.norm(dim=1, keepdim=True) <= self.tolerance * self.norm_B.unsqueeze(1)
        return (1.0 + torch.where(near_B1, change_BN, 0.0)).to(self.target_BD)

    def select(self, rows: list[int]) -> Goal:
        """The goal of some of the texts."""
        at = picked(rows)
        pulled = None if self.cotangent_BKD is None else self.cotangent_BKD[at]
        return replace(self, target_BD=self.target_BD[at], norm_B=self.norm_B[at], cotangent_BKD=pulled)


@dataclass(frozen=True, eq=False)
class Integral:
    """The integrals of the texts ``rows`` of a batch, those that met the goal.

    ``values`` are contributions [rows, G, D], or their products with the cotangents [rows, G, K], zero where a text has
    fewer groups; ``sums`` are residuals of the cheap sum in full precision, with the rule's own weights, and
    ``residuals`` those, or what the values miss where that is more.
    """

    way: str
    rows: list[int]
    values: Tensor
    residuals: list[float]
    sums: list[float]


@dataclass(eq=False)
class Integrator:
    """One encoder's integrals by one kind of products; ``budget`` (bytes) shrinks where memory runs out."""

    encoder: Encoder
    products: Products
    shape: LayerShape
    rule: Rule
    budget: int
    way: str
    precision: Precision

    def integrate(self, batch: TextBatch, count: int, mesh: CalibratedMesh, goal: Goal) -> Integral:
        """Contributions with ``count`` nodes of those texts whose sum meets the goal."""
        integral = self._within_budget(batch, count, mesh, goal, self.precision)
        if self.precision == "float32":
            return integral
        # What coarse products alone made miss the tolerance is computed again without them; so is what overflowed.
        limits = [goal.tolerance if known <= goal.tolerance else known + goal.tolerance for known in integral.sums]
        rough = [at for at, limit in enumerate(limits) if not integral.residuals[at] <= limit]
        if rough:
            rows = [integral.rows[at] for at in rough]
            again = replace(goal.select(rows), final=True)
            redone = self._within_budget(batch.select(rows), count, mesh, again, "float32")
            integral.values[rough] = redone.values
            for at, residual in zip(rough, redone.residuals, strict=True):
                integral.residuals[at] = residual
        return integral

    def summed(self, batch: TextBatch, alpha: Doubles, weight: Doubles) -> Tensor:
        """Σ_k w_k J_g(γ(α_k)) (x − r), [B, D], in full precision: the sum of contributions alone."""
        slots = Slots.of(batch)
        alpha_N, weight_N = self._tensors(alpha, weight)
        b, s, _ = batch.x_BSd.shape

        def run(budget: int) -> Tensor:
            chunk = plan_chunk(self.shape, budget, tokens=s, texts=b, nodes=len(alpha), directions=1)
            return self._totals(segments_of(batch, alpha_N, weight_N, slots, slice(None), chunk.nodes)).sum(1)

        sum_BD, self.budget = with_halving(run, self.budget)
        return sum_BD

    def _within_budget(
        self, batch: TextBatch, count: int, mesh: CalibratedMesh, goal: Goal, precision: Precision
    ) -> Integral:
        integral, self.budget = with_halving(
            lambda budget: self._in_chunks(batch, count, mesh, goal, precision, budget), self.budget
        )
        return integral

    def _in_chunks(
        self, batch: TextBatch, count: int, mesh: CalibratedMesh, goal: Goal, precision: Precision, budget: int
    ) -> Integral:
        slots = Slots.of(batch)
        alpha_N, weight_N = self._path(count, mesh)
        b, s, _ = batch.x_BSd.shape
        way, pulled_BKD = self._way(goal, slots.count, b)
        directions = slots.count if pulled_BKD is None else pulled_BKD.shape[1]
        width = goal.target_BD.shape[1] if pulled_BKD is None else directions
        shape = replace(self.shape, tangent_bytes=tangent_dtype(precision, self.encoder.dtype).itemsize)
        chunk = plan_chunk(shape, budget, tokens=s, texts=b, nodes=count, directions=directions)
        # Results stay on the device until all are computed: fetching each at once would have the device wait.
        rows_kept: list[int] = []
        values_of: list[Tensor] = []
        residuals: list[Tensor] = []
        sums_of: list[Tensor] = []
        for low in range(0, b, chunk.texts):
            rows = list(range(low, min(b, low + chunk.texts)))
            some, part = goal.select(rows), batch.select(rows)
            at = picked(rows)
            work = replace(some, cotangent_BKD=None if pulled_BKD is None else pulled_BKD[at])
            if slots.count:
                segments = segments_of(part, alpha_N, weight_N, slots, at, chunk.nodes)
                if self.rule == "gauss" and self.encoder.takes_maxima:
                    segments = with_row_weights(self.encoder, segments)
                sum_BD, kept, values = self._pass(segments, work, chunk, precision)
            else:  # every token is its own reference
                sum_BD, kept = torch.zeros_like(some.target_BD), list(range(len(rows)))
                values = some.target_BD.new_zeros(len(rows), 0, width)
            if not kept:
                continue
            judged = some.select(kept)
            sums = judged.residual(sum_BD[picked(kept)])
            # The rule's own miss, before weights are matched: of partners it is all there is, but coarse products show
            # on the values too.
            measured = sums
            if way != "partner":
                measured = torch.maximum(sums, judged.residual(values.sum(1)))
            elif precision != "float32":
                measured = torch.maximum(sums, judged.residual_along(values))
            rows_kept.extend(low + row for row in kept)
            values_of.append(_of_groups(values, slots, at, picked(kept)))
            residuals.append(measured)
            sums_of.append(sums)
        if not values_of:
            values_of.append(goal.target_BD.new_zeros(0, batch.groups, width))
        values = values_of[0] if len(values_of) == 1 else torch.cat(values_of)
        return Integral(way, rows_kept, values, _listed(residuals), _listed(sums_of))

    def _way(self, goal: Goal, slots: int, texts: int) -> tuple[str, Tensor | None]:
        """The way, and the cotangents that are pulled back (None: groups are pushed forward)."""
        if goal.cotangent_BKD is not None:
            return "partner", goal.cotangent_BKD
        width = goal.target_BD.shape[1]
        way = self.way if self.way in ("forward", "reverse") else "forward" if slots <= width else "reverse"
        if way == "forward":
            return way, None
        eye_DD = torch.eye(width, dtype=self.encoder.dtype, device=self.encoder.device)
        return way, eye_DD.expand(texts, -1, -1)

    def _pass(
        self, segments: list[PathSegment], goal: Goal, chunk: Chunk, precision: Precision
    ) -> tuple[Tensor, list[int], Tensor]:
        """Σ_i c_i [B, D], the texts for which that meets the goal, and their values [kept, slots, D or K]."""
        # Nodes are judged in full precision; where they are given, values need be no finer than tangents.
        values_in: Precision = precision if goal.given else "float32"
        kept = list(range(len(goal.target_BD)))
        if goal.given:
            sum_BD = torch.zeros_like(goal.target_BD)
            values: Tensor | None = None
            for segment in segments:
                linear, totals_BND = self._linearised(segment, values_in)
                sum_BD += totals_BND.sum(1)
                added = self._directions(linear, goal, chunk, precision)
                values = added if values is None else values.add_(added)
                del linear  # before the next segment's layers are there
            assert values is not None
            return sum_BD, kept, values
        # Too many nodes to keep them all while they are judged are linearised again for the directions.
        alone: Linearisation | None = None
        if len(segments) == 1:
            alone, totals_BND = self._linearised(segments[0], values_in)
        else:
            totals_BND = self._totals(segments)
        sum_BD = totals_BND.sum(1)
        if not goal.final:
            kept = goal.met(sum_BD, NOISE.get(precision, 0.0))
        if not kept:
            return sum_BD, kept, sum_BD
        some = goal.select(kept)
        weight_BN = torch.cat([segment.weight_BN for segment in segments], 1)[picked(kept)]
        if self.rule == "gauss":
            weight_BN = weight_BN * some.matched(totals_BND[picked(kept)])
        weights = weight_BN.split([len(segment.alpha_N) for segment in segments], 1)
        values = None
        for segment, weight_BN in zip(segments, weights, strict=True):
            linear = self.products.linearise(segment.select(kept)) if alone is None else alone.select(kept)
            added = self._directions(linear.weighed(weight_BN), some, chunk, precision)
            values = added if values is None else values.add_(added)
            del linear
        assert values is not None
        return sum_BD, kept, values

    def _totals(self, segments: list[PathSegment]) -> Tensor:
        """What each node adds to the sum of contributions, [B, N, D]; one segment's layers are in memory at a time."""
        return torch.cat([self._linearised(segment, "float32")[1] for segment in segments], 1)

    def _linearised(self, segment: PathSegment, precision: Precision) -> tuple[Linearisation, Tensor]:
        """The layers at the nodes of a segment, and what each node adds to the sum of contributions, [B, N, D]."""
        with products_in(precision):
            linear = self.products.linearise(segment)
            return linear, linear.totals()

    def _directions(self, linear: Linearisation, goal: Goal, chunk: Chunk, precision: Precision) -> Tensor:
        """Products of one segment, [B, slots, D] or [B, slots, K], so many directions at a time."""
        linear = linear.cast(tangent_dtype(precision, self.encoder.dtype))
        pulled_BKD = goal.cotangent_BKD
        with products_in(precision):
            if pulled_BKD is None:
                return torch.cat([linear.forward(r.start, r.stop) for r in ranges(linear.slots, chunk.directions)], 1)
            parts = ranges(pulled_BKD.shape[1], chunk.directions)
            return torch.cat([linear.reverse(pulled_BKD[:, r.start : r.stop]) for r in parts], 1).transpose(1, 2)

    def _path(self, count: int, mesh: CalibratedMesh) -> tuple[Tensor, Tensor]:
        """Nodes and weights."""
        return self._tensors(*(mesh.nodes(count) if self.rule == "gauss" else riemann(count)))

    def _tensors(self, alpha: Doubles, weight: Doubles) -> tuple[Tensor, Tensor]:
        to = partial(torch.tensor, dtype=self.encoder.dtype, device=self.encoder.device)
        return to(alpha), to(weight)


def segments_of(
    batch: TextBatch, alpha_N: Tensor, weight_N: Tensor, slots: Slots, rows: slice | list[int], nodes: int
) -> list[PathSegment]:
    """The paths of a batch in segments of so many nodes, with the same weights for every text.

    ``rows`` are the batch's texts among those of ``slots``.
    """
    slot_BS, members_BGW = slots.slot_BS[rows], slots.members_BGW[rows]
    weight_BN = weight_N.expand(len(slot_BS), -1)
    runs = [slice(n.start, n.stop) for n in ranges(len(alpha_N), nodes)]
    return [PathSegment(batch, alpha_N[n], weight_BN[:, n], slot_BS, members_BGW) for n in runs]


def _of_groups(values: Tensor, slots: Slots, rows: slice | list[int], kept: slice | list[int]) -> Tensor:
    """Values by slot as values by group, [B, G, ·], zero for groups without a slot, of texts ``kept`` of ``rows``."""
    if slots.same:  # mostly every group moves; slots that a text does not have are zero as well
        return values
    slot_of_BG = slots.slot_of_BG[rows][kept]
    padded = torch.cat([values, values.new_zeros(len(values), 1, values.shape[2])], 1)
    return padded.gather(1, slot_of_BG.unsqueeze(-1).expand(-1, -1, values.shape[2]))


def _listed(values: list[Tensor]) -> list[float]:
    listed: list[float] = torch.cat(values).tolist() if values else []
    return listed


def ranges(count: int, at_once: int) -> Iterator[range]:
    """0 … count in runs of ``at_once``."""
    for low in range(0, count, at_once):
        yield range(low, min(count, low + at_once))

"""Contributions of many texts: read once, batched by length, integrated with as many nodes as each text needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attribution_core.calibration import SAMPLE, CalibratedMesh, calibrate
from attribution_core.directions import PathSegment, Products
from attribution_core.encoder import Encoder, ReadText, TextBatch
from attribution_core.memory import USABLE, LayerShape, plan_chunk, with_halving
from attribution_core.precision import Precision, products_in, tangent_dtype
from attribution_core.quadrature import UNIFORM, Rule, ladder, mesh_points, rule_nodes
from attribution_core.results import Contributions, ExplainedText

WINDOW_TOKENS = 4096
LONGEST_WASTE = 1.15


@dataclass(frozen=True)
class Quadrature:
    """How the path is integrated: ``nodes`` fixes their number, None lets each text have what the tolerance needs."""

    rule: Rule = "gauss"
    tolerance: float = 2e-3
    nodes: int | None = None
    max_nodes: int = 256


class Contributor:
    """Computes contributions with one encoder, one way of multiplying, one quadrature, within one memory budget."""

    def __init__(
        self,
        encoder: Encoder,
        products: Products,
        quadrature: Quadrature,
        budget: int,
        way: str = "auto",
        precision: Precision = "float32",
    ) -> None:
        self.encoder = encoder
        self.products = products
        self.quadrature = quadrature
        self.budget = budget
        self.way = way
        self.precision = precision
        config: Any = encoder.transformer.model.config
        inner: Any = getattr(config, "intermediate_size", None) or getattr(config, "hidden_dim", 4 * encoder.width)
        self.shape = LayerShape(
            d=encoder.width,
            inner=int(inner),
            heads=int(config.num_attention_heads),
            layers=len(encoder.above),
            bytes=torch.finfo(encoder.dtype).bits // 8,
        )
        self._mesh: CalibratedMesh | None = None

    @property
    def mesh(self) -> CalibratedMesh:
        """The mesh of this encoder, learned at first use."""
        if self._mesh is None:
            self._mesh = self._calibrate() if self.quadrature.rule == "gauss" else CalibratedMesh()
        return self._mesh

    def contributions(self, texts: Sequence[ReadText], *, tolerance: float | None = None) -> list[Contributions]:
        """Contributions of each text, in the order given."""
        return self._every(texts, [None] * len(texts), tolerance)

    def projections(self, texts: Sequence[ReadText], cotangents: Sequence[NDArray[Any]]) -> list[Contributions]:
        """The products u · c_i of each text's contributions with its cotangents [K, D], as ``values_GD`` of width K.

        They are pulled back along the cotangents, so that K directions do the work of all groups.
        """
        return self._every(texts, cotangents, None)

    def _every(
        self, texts: Sequence[ReadText], cotangents: Sequence[NDArray[Any] | None], tolerance: float | None
    ) -> list[Contributions]:
        tolerance = tolerance or self.quadrature.tolerance
        found: dict[int, Contributions] = {}
        for window in _windows(texts, [0 if c is None else len(c) for c in cotangents], self._most_texts):
            computed = self._window([texts[at] for at in window], [cotangents[at] for at in window], tolerance)
            found.update(zip(window, computed, strict=True))
        return [found[at] for at in range(len(texts))]

    def _most_texts(self, tokens: int) -> int:
        """How many texts of a length are read at once: a bounded number of tokens, within the budget."""
        fits = int(self.budget * USABLE) // self.shape.reading_bytes(tokens)
        return max(1, min(WINDOW_TOKENS // tokens, fits))

    # One window of texts of like length ------------------------------------------------------------------------

    def _window(
        self, texts: list[ReadText], cotangents: list[NDArray[Any] | None], tolerance: float
    ) -> list[Contributions]:
        batch = self.encoder.batch(texts)
        embedding_BD = self.products.embed(batch.x_BSd, batch)
        reference_BD = self.products.embed(batch.r_BSd, batch)
        target_BD = embedding_BD - reference_BD
        norm_B = embedding_BD.norm(dim=1).clamp_min(torch.finfo(embedding_BD.dtype).tiny)
        nodes = self._choose_nodes(batch, target_BD, norm_B, tolerance)
        out: dict[int, Contributions] = {}
        for count in sorted(set(nodes)):
            rows = [row for row, n in enumerate(nodes) if n == count]
            part = select(batch, rows)
            pulled = _stack([cotangents[row] for row in rows], part.x_BSd)
            values, way = self._contribute(part, count, pulled, self.precision)
            if self.precision != "float32":
                missed_B = _error_of_sums(values, target_BD[rows], norm_B[rows], pulled) > tolerance
                again = missed_B.nonzero().flatten().tolist()
                if again:
                    redone, _ = self._contribute(select(part, again), count, None if pulled is None else pulled[again])
                    values[again] = redone
            # A text explained through its partners has no contributions at hand; their sum costs one direction.
            sum_BD = self._along(part, count) if pulled is not None else values.sum(1)
            residual_B = (sum_BD - target_BD[rows]).norm(dim=1) / norm_B[rows]
            residuals = residual_B.tolist()
            for at, row in enumerate(rows):
                own = cotangents[row]
                out[row] = Contributions(
                    explained=_explained(texts[row], count, residuals[at], self.quadrature.tolerance, way),
                    values_GD=values[at, : len(texts[row].groups), : None if own is None else len(own)].cpu().numpy(),
                    embedding_D=embedding_BD[row].cpu().numpy(),
                    reference_D=reference_BD[row].cpu().numpy(),
                )
        return [out[row] for row in range(len(texts))]

    def _choose_nodes(self, batch: TextBatch, target_BD: Tensor, norm_B: Tensor, tolerance: float) -> list[int]:
        """For each text the smallest node count whose cheap residual meets the tolerance."""
        quadrature = self.quadrature
        if quadrature.nodes is not None:
            return [quadrature.nodes] * len(target_BD)
        nodes = [quadrature.max_nodes] * len(target_BD)
        pending = list(range(len(target_BD)))
        first = min(self.mesh.start, quadrature.max_nodes)
        for count in ladder(quadrature.max_nodes):
            if count < first:
                continue
            if not pending or count == quadrature.max_nodes:
                break
            sum_BD = self._along(select(batch, pending), count)
            residual_B = (sum_BD - target_BD[pending]).norm(dim=1) / norm_B[pending]
            met = [row for row, residual in zip(pending, residual_B.tolist(), strict=True) if residual <= tolerance]
            for row in met:
                nodes[row] = count
            pending = [row for row in pending if row not in set(met)]
        return nodes

    def _along(self, batch: TextBatch, count: int) -> Tensor:
        """Σ_i c_i, [B, D], with ``count`` nodes."""

        def run(budget: int) -> Tensor:
            b, s, _ = batch.x_BSd.shape
            chunk = plan_chunk(self.shape, budget, tokens=s, texts=b, nodes=count, directions=1)
            parts: list[Tensor] = []
            for rows in _ranges(b, chunk.texts):
                part = select(batch, list(rows))
                one_slot = torch.where(part.group_BS < 0, -1, 0)
                segments = self._segments(part, count, chunk.nodes, one_slot, 1)
                parts.append(_total(self.products.linearise(segment).forward(0, 1) for segment in segments))
            return torch.cat(parts).squeeze(1)

        result, self.budget = with_halving(run, self.budget)
        return result

    def _contribute(
        self, batch: TextBatch, count: int, cotangent_BKD: Tensor | None, precision: Precision = "float32"
    ) -> tuple[Tensor, str]:
        """Contributions [B, G, D] of texts that share a node count, or their products with cotangents, and the way."""
        slot_BS, slot_of_BG, slots = moving_groups(batch)
        width = self.encoder.embedding_width
        way = self.way if self.way in ("forward", "reverse") else "forward" if slots <= width else "reverse"
        if cotangent_BKD is not None:
            way = "partner"
        elif way == "reverse":
            eye_DD = torch.eye(width, dtype=self.encoder.dtype, device=self.encoder.device)
            cotangent_BKD = eye_DD.expand(len(batch.x_BSd), -1, -1)
        directions = slots if cotangent_BKD is None else cotangent_BKD.shape[1]
        out_width = width if cotangent_BKD is None else directions
        if slots == 0:
            return batch.x_BSd.new_zeros(len(batch.x_BSd), batch.groups, out_width), way

        def run(budget: int) -> Tensor:
            b, s, _ = batch.x_BSd.shape
            chunk = plan_chunk(self.shape, budget, tokens=s, texts=b, nodes=count, directions=directions)
            parts: list[Tensor] = []
            for rows in _ranges(b, chunk.texts):
                part, part_slots = select(batch, list(rows)), slot_BS[rows.start : rows.stop]
                pulled = None if cotangent_BKD is None else cotangent_BKD[rows.start : rows.stop]
                segments = self._segments(part, count, chunk.nodes, part_slots, slots, precision)
                parts.append(_total(self._products(segment, pulled, chunk.directions) for segment in segments))
            return torch.cat(parts)

        with products_in(precision):
            values_BQD, self.budget = with_halving(run, self.budget)
        padded = torch.cat([values_BQD, values_BQD.new_zeros(len(values_BQD), 1, out_width)], 1)
        return padded.gather(1, slot_of_BG.unsqueeze(-1).expand(-1, -1, out_width)), way

    def _products(self, segment: PathSegment, cotangent_BKD: Tensor | None, at_once: int) -> Tensor:
        """Products of one segment, [B, slots, D] or [B, slots, K], ``at_once`` directions at a time."""
        linear = self.products.linearise(segment)
        if cotangent_BKD is None:
            return torch.cat([linear.forward(r.start, r.stop) for r in _ranges(segment.slots, at_once)], 1)
        ranges = _ranges(cotangent_BKD.shape[1], at_once)
        return torch.cat([linear.reverse(cotangent_BKD[:, r.start : r.stop]) for r in ranges], 1).transpose(1, 2)

    def _segments(
        self,
        batch: TextBatch,
        count: int,
        at_once: int,
        slot_BS: Tensor,
        slots: int,
        precision: Precision = "float32",
    ) -> Iterator[PathSegment]:
        rule = self.quadrature.rule
        alpha, weight = rule_nodes(rule, count, self.mesh.mesh if rule == "gauss" else UNIFORM)
        for r in _ranges(count, at_once):
            nodes = self._nodes(alpha[r.start : r.stop], weight[r.start : r.stop])
            yield PathSegment(batch, *nodes, slot_BS, slots, tangent_dtype(precision, self.encoder.dtype))

    def _nodes(self, alpha: np.ndarray, weight: np.ndarray) -> tuple[Tensor, Tensor]:
        dtype, device = self.encoder.dtype, self.encoder.device
        return torch.tensor(alpha, dtype=dtype, device=device), torch.tensor(weight, dtype=dtype, device=device)

    # Calibration -------------------------------------------------------------------------------------------------

    def _calibrate(self) -> CalibratedMesh:
        """Learn the mesh from the built-in sample, and from which node count on it is worth trying.

        Forward passes only: the path's derivative, for the mesh and for the residuals that tell where to start, is
        that of the polynomial through the embeddings at Chebyshev points.
        """
        texts = [text for text in self.encoder.read(SAMPLE, "text", "word") if text.problem is None]
        paths: list[np.ndarray] = []
        for window in _windows(texts, [0] * len(texts), self._most_texts, waste=2.0):
            batch = self.encoder.batch([texts[at] for at in window])
            delta_BSd = batch.x_BSd - batch.r_BSd
            at_nodes = [self.products.embed(batch.r_BSd + alpha * delta_BSd, batch) for alpha in mesh_points()]
            paths.append(torch.stack(at_nodes, 1).double().cpu().numpy())
        return calibrate(np.concatenate(paths), self.quadrature.tolerance, self.quadrature.max_nodes)


def select(batch: TextBatch, rows: list[int]) -> TextBatch:
    """Some rows of a batch."""
    b = len(batch.x_BSd)
    if rows == list(range(b)):
        return batch
    index = torch.tensor(rows, device=batch.x_BSd.device)

    def pick(value: object) -> object:
        if isinstance(value, Tensor):
            return value[index] if value.ndim and value.shape[0] == b and b > 1 else value
        if isinstance(value, dict):
            return {key: pick(item) for key, item in value.items()}
        if isinstance(value, (tuple, list)):
            return type(value)(pick(item) for item in value)
        return value

    return TextBatch(
        x_BSd=batch.x_BSd[index],
        r_BSd=batch.r_BSd[index],
        pool_BMS=batch.pool_BMS[index],
        mask_BS=batch.mask_BS[index],
        group_BS=batch.group_BS[index],
        groups=batch.groups,
        calls=pick(batch.calls),  # type: ignore[arg-type]
    )


def moving_groups(batch: TextBatch) -> tuple[Tensor, Tensor, int]:
    """Directions for the groups whose rows differ from the reference; the rest contribute exactly nothing.

    Returns slots per token [B, S] (−1: none), the slot of each group [B, G] (``slots`` itself: none), and the number
    of slots, the largest of any text in the batch.
    """
    b = len(batch.x_BSd)
    moves_BS = (batch.x_BSd != batch.r_BSd).any(-1) & (batch.group_BS >= 0)
    group_BS = torch.where(batch.group_BS < 0, batch.groups, batch.group_BS)
    moves_BG = torch.zeros(b, batch.groups + 1, dtype=torch.long, device=group_BS.device)
    moves_BG.scatter_reduce_(1, group_BS, moves_BS.long(), "amax")
    moves_BG = moves_BG[:, : batch.groups]
    slots = int(moves_BG.sum(1).max())
    slot_of_BG = torch.where(moves_BG > 0, moves_BG.cumsum(1) - 1, slots)
    padded_BG = torch.cat([slot_of_BG, torch.full((b, 1), slots, device=slot_of_BG.device)], 1)
    slot_BS = padded_BG.gather(1, group_BS)
    return torch.where(slot_BS == slots, -1, slot_BS), slot_of_BG, slots


def _explained(text: ReadText, nodes: int, residual: float, tolerance: float, way: str) -> ExplainedText:
    return ExplainedText(
        text=text.text,
        role=text.role,
        groups=text.groups,
        tokens=text.tokens,
        prompt=text.prompt,
        truncated=text.truncated,
        cut_at=text.cut_at,
        nodes=nodes,
        residual=residual,
        converged=residual <= tolerance,
        way=way,
    )


def _error_of_sums(values: Tensor, target_BD: Tensor, norm_B: Tensor, cotangent_BKD: Tensor | None) -> Tensor:
    """The residual of each text on its values; on products with cotangents u, the largest along any of them."""
    if cotangent_BKD is None:
        return (values.sum(1) - target_BD).norm(dim=1) / norm_B
    expected_BK = torch.einsum("bkD,bD->bk", cotangent_BKD, target_BD)
    length_BK = cotangent_BKD.norm(dim=2).clamp_min(1e-30)
    return ((values.sum(1) - expected_BK).abs() / length_BK).amax(1) / norm_B


def _stack(cotangents: list[NDArray[Any] | None], like: Tensor) -> Tensor | None:
    """Cotangents of a window as one tensor [B, K, D], padded with zeros; None where the window has none."""
    given = [c for c in cotangents if c is not None]
    if not given:
        return None
    assert len(given) == len(cotangents), "a window is all by one way"
    out = np.zeros((len(given), max(len(c) for c in given), given[0].shape[1]), dtype=given[0].dtype)
    for at, c in enumerate(given):
        out[at, : len(c)] = c
    return torch.from_numpy(out).to(like)


def _windows(
    texts: Sequence[ReadText], partners: Sequence[int], most: Callable[[int], int], waste: float = LONGEST_WASTE
) -> Iterator[list[int]]:
    """Indices of texts in windows of like length and like number of cotangents, of one role and prompt each.

    What is padded away in one window stays below ``waste`` on either axis; ``most`` says how many of a length fit.
    """

    def key(at: int) -> tuple[object, ...]:
        text = texts[at]
        size = int(math.log(max(len(text), 1)) / math.log(waste))
        return text.role, text.prompt_length or 0, partners[at] > 0, size, partners[at], len(text), at

    window: list[int] = []
    longest = 0
    for at in sorted(range(len(texts)), key=key):
        length = max(longest, len(texts[at]))
        same = bool(window) and key(at)[:4] == key(window[0])[:4]
        like = bool(window) and partners[at] <= partners[window[0]] * 1.25 + 2
        if window and not (same and like and len(window) < most(length)):
            yield window
            window, length = [], len(texts[at])
        window.append(at)
        longest = length
    if window:
        yield window


def _ranges(count: int, at_once: int) -> Iterator[range]:
    for low in range(0, count, at_once):
        yield range(low, min(count, low + at_once))


def _total(parts: Iterator[Tensor]) -> Tensor:
    total = next(parts)
    for part in parts:
        total = total + part
    return total

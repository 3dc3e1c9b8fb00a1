"""The results of an attribution: the explained texts, one pair's matrix, its strongest cells.

Shapes use the letters of the package's legend (see ``attribution_core/__init__.py``): I and J are the groups of
the first and the second text, D is the embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attribution_core.hooks import hook
from attribution_core.text.grouping import Groups
from attribution_core.text.tokenized import ReadText

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float32]


class Cell(NamedTuple):
    """One token-pair attribution: group ``i`` of a met group ``j`` of b and gave ``value``.

    ``interaction`` is the same without shares of the references (:attr:`PairAttribution.interactions`).
    """

    i: int
    j: int
    a: str
    b: str
    value: float
    interaction: float | None = None


class Match(NamedTuple):
    """Where a late-interaction model matched: token ``token_i`` of a met ``token_j`` of b, and gave ``value``.

    ``i`` and ``j`` are the groups of these tokens, ``a`` and ``b`` their labels. The values of all matches of a pair
    sum to its score.
    """

    i: int
    j: int
    a: str
    b: str
    token_i: int
    token_j: int
    value: float


@dataclass(frozen=True)
class ExplainedText:
    """One text as the model read it, and how its contributions were computed.

    ``nodes`` is the number of integration nodes used, ``residual`` the completeness error ‖Σ c_i − (e − e_r)‖ / ‖e‖
    that the rule leaves, ``converged`` whether that met the tolerance asked for; then the nodes' weights are matched
    to what the sum must be, which leaves less. ``cut_at`` is the character offset in ``text`` behind the last token
    the model saw, where the text was longer than the model reads.
    """

    text: str
    role: str
    groups: Groups
    tokens: tuple[str, ...]
    prompt: str = ""
    truncated: bool = False
    cut_at: int | None = None
    nodes: int = 0
    residual: float = 0.0
    converged: bool = True
    way: str = "forward"


def unit_of_errors(*, late: bool) -> str:
    """What the errors of pairs are parts of; ``late`` says that the model is one of late interaction."""
    return "‖E(q)‖‖M(d)‖ (the number of query tokens)" if late else "‖e(a)‖‖e(b)‖"


@dataclass(eq=False)
class Contributions:
    """What each group of one text adds to its embedding (path-integrated Jacobian times input difference).

    ``values_GD`` sums over G to ``embedding_D - reference_D`` within ``residual``; what is completed with the reference
    sums to the embedding itself (``attribution_core.pairs.completion``). ``nodes``, ``residual``, ``converged`` and
    ``way`` are those of :class:`ExplainedText`.
    """

    text: ReadText
    nodes: int
    residual: float
    converged: bool
    way: str
    values_GD: Floats
    embedding_D: Floats
    reference_D: Floats

    def without_values(self) -> Contributions:
        """The same without its contributions, which take most of the memory."""
        return self._with(self.text, self.values_GD[:0].copy())

    def by_itself(self) -> Contributions:
        """The same in arrays of its own: those of a window or of many texts do not stay in memory with it."""
        return self._with(self.text.by_itself(), self.values_GD.copy())

    def _with(self, text: ReadText, values_GD: Floats) -> Contributions:
        known = (self.nodes, self.residual, self.converged, self.way)
        return Contributions(text, *known, values_GD, self.embedding_D.copy(), self.reference_D.copy())

    @cached_property
    def explained(self) -> ExplainedText:
        """The text and how its contributions were computed."""
        text = self.text
        return ExplainedText(
            text=text.text,
            role=text.role,
            groups=text.groups,
            tokens=text.tokens,
            prompt=text.prompt,
            truncated=text.truncated,
            cut_at=text.cut_at,
            nodes=self.nodes,
            residual=self.residual,
            converged=self.converged,
            way=self.way,
        )


@dataclass(frozen=True)
class PairAttribution:
    """Which group of a met which group of b to make the score.

    ``matrix[i, j]`` is Â_ij = ĉ_i(a) · ĉ_j(b) / norm, [I, J], with a row for each of ``a.groups.labels`` and a column
    for each of ``b.groups.labels``, special tokens included; norm is ‖e(a)‖‖e(b)‖ for cosine and 1 for dot. NaN marks
    a cell that a finished run did not store, and every cell where word pairs were not asked for (level "words").
    ``total`` is the sum of all cells. ``sums_to`` says what that must be:

    - ``score``: the score itself (the default);
    - ``difference``: the paper's ``score - reference_a - reference_b + reference_ab``, the score against texts whose
      words are all the reference's token (Möller, Nikolaev, Padó 2023, equation 10);
    - ``centred``: what sets this pair apart from an average one, the score of the two embeddings less the mean
      embeddings of a sample.

    ``error`` is ``total`` less what it must be, in units of ‖e(a)‖‖e(b)‖: the numerical error of the integral and
    nothing else. ``reference_a`` is f(a, reference of b), ``reference_b`` f(reference of a, b), ``reference_ab`` that
    of both references. ``row_sums`` [I] and ``col_sums`` [J] are exact also where cells are missing, and so is
    ``special``, the sum over cells of special and prompt tokens, in a pair that was read from a run. ``row_lift`` [I]
    and ``col_lift`` [J], for cosine, say what each group lifts the score above what its text's length lets every part
    have; each sums to 0 (``attribution_core.pairs``). None for dot, and in runs of versions before.

    Of a late-interaction model (``attribution_core.pairs.late``) ``matches`` has one entry for each scored output token
    of a, and ``interactions`` [I, J] the cells without shares of the references, c_i(a) · c_j(b) / norm: they rank word
    pairs better than ``matrix``, whose cells sum to the score. Both are None for other models.
    """

    a: ExplainedText
    b: ExplainedText
    matrix: Floats
    row_sums: Floats
    col_sums: Floats
    score: float
    reference_a: float
    reference_b: float
    reference_ab: float
    total: float
    error: float
    row_lift: Floats | None = None
    col_lift: Floats | None = None
    sums_to: str = "score"
    similarity: str = "cosine"
    layer: int = 0
    model: str = ""
    pair_id: str = ""
    special: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    interactions: Floats | None = None
    matches: tuple[Match, ...] | None = None

    @property
    def converged(self) -> bool:
        """Whether both texts met the tolerance."""
        return self.a.converged and self.b.converged

    @property
    def complete(self) -> bool:
        """Whether every cell of the matrix is known."""
        return not bool(np.isnan(self.matrix).any())

    @property
    def has_word_pairs(self) -> bool:
        """Whether any cell of the matrix is known; none is where word pairs were not asked for."""
        return bool(np.isfinite(self.matrix).any())

    def top(self, k: int = 10, *, special: bool = False) -> list[Cell]:
        """The ``k`` cells largest by absolute value, strongest first; of late interaction the largest interactions.

        Cells in the row or column of a special or prompt token are left out unless ``special`` is true.
        """
        return largest_cells(
            self.matrix, self.a.groups, self.b.groups, k, special=special, interactions=self.interactions
        )

    def plot(self, *, special: bool = False) -> tuple[Figure, Axes]:
        """The matrix as a heatmap with a scale symmetric about zero; needs matplotlib."""
        drawn: tuple[Figure, Axes] = hook("plot_pair")(self, special=special)
        return drawn

    def __repr__(self) -> str:
        a, b = (text.text if len(text.text) <= 40 else text.text[:39] + "…" for text in (self.a, self.b))
        rows, cols = self.matrix.shape
        return f"PairAttribution({a!r} × {b!r}, score={self.score:.4f}, {rows} × {cols} groups, error={self.error:.1e})"

    def __str__(self) -> str:
        return str(hook("pair_text")(self))

    def _repr_html_(self) -> str:
        return str(hook("pair_html")(self))


def largest_cells(
    matrix: Floats, a: Groups, b: Groups, k: int, *, special: bool = False, interactions: Floats | None = None
) -> list[Cell]:
    """The ``k`` cells largest by absolute value, strongest first, ties in reading order; unknown cells are left out.

    Where there are ``interactions`` these say which cells are largest.
    """
    strength = np.abs((matrix if interactions is None else interactions).astype(np.float64))
    allowed = ~np.isnan(strength)
    if not special:
        allowed &= text_cells(a, b)
    order = np.argsort(-np.where(allowed, strength, -1.0), axis=None, kind="stable")[: max(k, 0)]
    cells: list[Cell] = []
    for at in order:
        i, j = divmod(int(at), matrix.shape[1])
        if allowed[i, j]:
            interaction = None if interactions is None else float(interactions[i, j])
            cells.append(Cell(i, j, a.labels[i], b.labels[j], float(matrix[i, j]), interaction))
    return cells


def text_cells(a: Groups, b: Groups) -> NDArray[np.bool_]:
    """Which cells, [I, J], are of two groups of text: neither is a special or prompt token."""
    text_a = np.array([kind == "text" for kind in a.kinds], dtype=bool)
    text_b = np.array([kind == "text" for kind in b.kinds], dtype=bool)
    return text_a[:, None] & text_b[None, :]

"""What an examination finds: plain values, which print as a page or as JSON."""

from __future__ import annotations

from dataclasses import dataclass

# Scores and embeddings in float32 differ by rounding; a padded row that leaks is orders of magnitude above this.
SAME = 1e-4
# Reference terms below this are zero: the model is exact.
EXACT = 1e-6
# A larger error of a pair's sum is a fault: more nodes should have reduced it.
MISSES = 1e-2


@dataclass(frozen=True)
class Outputs:
    """What a late-interaction model makes of the tokens of one role's texts.

    ``projection`` are the widths before and after the Dense modules, ``expansion`` is the token that queries are filled
    up with, to ``length`` tokens, and whether other tokens attend to it; None where they are not filled up. ``skipped``
    are the tokens whose outputs are not scored. ``expanded_share`` is the part of the score that outputs of the
    expansion token have, the median of the sample.
    """

    projection: tuple[int, ...]
    expansion: str | None
    length: int
    attended: bool
    skipped: tuple[str, ...]
    expanded_share: float | None


@dataclass(frozen=True)
class Side:
    """What texts of one role go through.

    ``layers`` counts the layers (0: the cut is at the embeddings), ``reads`` the tokens that are read of a text (None:
    no limit is known), ``reference`` names the token that replaces a word, ``fast`` says whether the layers above the
    cut are linearised by hand. ``outputs`` are facts about a late-interaction model, None for others.
    """

    role: str
    family: str
    modules: tuple[str, ...]
    pooling: tuple[str, ...]
    prompt: str
    layers: int
    width: int
    reads: int | None
    reference: str
    fast: bool
    outputs: Outputs | None = None


@dataclass(frozen=True)
class Scores:
    """Largest differences from ``model.similarity``: of the float32 copy that is attributed, and of the model as it is
    loaded, whose type is ``loaded_type``.
    """

    pairs: int
    copy_difference: float
    loaded_difference: float
    loaded_type: str

    @property
    def same(self) -> bool:
        """Whether what is attributed is what the model says."""
        return self.copy_difference <= SAME


@dataclass(frozen=True)
class LayerCheck:
    """One cut with the default tolerance: nodes and residuals of texts, errors and special tokens of pairs.

    Errors are |sum − score| of pairs in units of ‖e(a)‖‖e(b)‖: what numerical integration misses, and nothing else.
    ``special_median`` is the median size of what pairs with a special or prompt token sum to, in the score's unit.
    """

    layer: int
    nodes_median: int
    nodes_largest: int
    residual_largest: float
    error_median: float
    error_largest: float
    special_median: float
    texts: int
    converged: int
    seconds_a_pair: float


@dataclass(frozen=True)
class References:
    """The score's three terms with a reference, a text with one token in place of every word: medians of their sizes,
    and the largest of any, in units of ‖e(a)‖‖e(b)‖.

    ``reference_a`` is a with the reference of b, ``reference_b`` the reference of a with b, ``reference_ab`` both
    references.
    """

    reference_a: float
    reference_b: float
    reference_ab: float
    largest: float

    @property
    def exact(self) -> bool:
        """Whether references embed to zero, so that the paper's attributions sum to the score as well."""
        return self.largest <= EXACT


@dataclass(frozen=True)
class Sensitivity:
    """How much a text's numbers change with its company, as shares of ‖e‖: the model's own embeddings when encoded in
    a padded batch and alone, and contributions likewise.
    """

    embedding: float
    contributions: float

    @property
    def clean(self) -> bool:
        """Whether company changes nothing."""
        return max(self.embedding, self.contributions) <= SAME


@dataclass(frozen=True)
class Speed:
    """Throughput on the sample at ``layer`` and ``level``, and memory: the model's own bytes, the process's peak and
    the device's."""

    layer: int
    pairs: int
    tokens_a: float
    tokens_b: float
    seconds: float
    pairs_a_second: float
    texts_a_second: float
    device: str
    threads: int
    model_bytes: int
    peak_bytes: int
    level: str = "pairs"


@dataclass(frozen=True)
class Diagnosis:
    """Everything that is known of a model. ``layers`` are the cuts that were tried, of ``cuts`` valid ones;
    ``reference`` is the setting, each side's ``reference`` the token that it comes to.
    """

    model: str
    mode: str
    similarity: str
    reference: str
    prompts: tuple[str, ...]
    sides: tuple[Side, ...]
    cuts: tuple[int, ...]
    scores: Scores
    references: References
    layers: tuple[LayerCheck, ...]
    sensitivity: Sensitivity
    speed: Speed
    notices: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def late(self) -> bool:
        """Whether it is a late-interaction model."""
        return self.sides[0].outputs is not None

    @property
    def default(self) -> LayerCheck:
        """The check of the cut that a job takes."""
        return self.layers_by_number[self.speed.layer]

    @property
    def layers_by_number(self) -> dict[int, LayerCheck]:
        """The checks by their layer."""
        return {check.layer: check for check in self.layers}

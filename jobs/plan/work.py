"""What a job's work comes to before anything is computed: operations and seconds, from the sizes of its model."""

from __future__ import annotations

from dataclasses import dataclass

from attribution_core.model.inspection import INNER_WIDTHS, LAYER_COUNTS, WIDTHS, ModelFiles
from jobs.config.job import JobConfig
from jobs.config.model_folder import folder_at_hand
from jobs.plan.text_lengths import ROLES
from jobs.run.manifest import Work

PAPER_NODES = 50
# From this tolerance on, as for an index, documents need about half as many nodes as at the default.
LOOSE = 1e-2
# What a worker is taken to do where nobody has measured: operations a second of a processor and of a GPU, seconds that
# a distinct text and a pair cost beside them.
CPU_RATE, GPU_RATE = 5e10, 1e13
SECONDS_A_TEXT, SECONDS_A_PAIR = 5e-4, 2e-4


@dataclass(frozen=True)
class LayerSizes:
    """Hidden and feed-forward width, and how many layers are above and below the cut."""

    d: int
    inner: int
    layers: int
    below: int = 0

    @property
    def products(self) -> float:
        """Operations of one layer's weight products a token: projections, their mixing, and feed-forward."""
        return 8.0 * self.d**2 + 4.0 * self.d * self.inner


def total_flops(sizes: LayerSizes, work: Work, nodes: int) -> float:
    """Operations of the matrix products of all texts: attribution_core.directions.cost.flops, summed over texts."""
    d, inner, layers = float(sizes.d), float(sizes.inner), sizes.layers
    direction = layers * sizes.products - 6 * d * d - 2 * d * inner
    attention = layers * 8 * d - 4 * d
    values = layers * (sizes.products * work.tokens + 8 * d * work.squares)
    return nodes * (direction * work.moved + attention * work.moved_squares + values)


def encoding_flops(sizes: LayerSizes, work: Work) -> float:
    """Operations of encoding each text and its reference once, which no level saves."""
    each = sizes.products * work.tokens + 4.0 * sizes.d * work.squares
    return 2 * (sizes.below + sizes.layers) * each


def expected_nodes(job: JobConfig, sizes: LayerSizes) -> tuple[int, bool]:
    """Integration nodes a text, and whether they are assumed: more layers need more, a loose tolerance fewer."""
    if job.quadrature.nodes is not None:
        return job.quadrature.nodes, False
    if job.quadrature.rule == "riemann":
        return PAPER_NODES, False
    usual = 8 if sizes.layers <= 2 else 12 if sizes.layers <= 4 else 24
    if job.quadrature.tolerance >= LOOSE:
        usual = 4 if sizes.layers <= 1 else 5 if sizes.layers <= 2 else usual
    return min(usual, job.quadrature.max_nodes), True


def layer_sizes(job: JobConfig) -> LayerSizes | None:
    """Return the sizes of the model's layers from its description, None where that is not at hand."""
    folder = folder_at_hand(job.model)
    if folder is None:
        return None
    files, role = ModelFiles(folder), ROLES[job.mode][-1]
    d, count = files.size(role, WIDTHS), files.size(role, LAYER_COUNTS)
    if d is None or count is None:
        return None
    first = job.layer + count if job.layer < 0 else job.layer
    return LayerSizes(d, files.size(role, INNER_WIDTHS) or 4 * d, count - first, first)


def is_static(job: JobConfig) -> bool:
    """Return whether the model is at hand and averages one vector a token: it has no layers, and costs nothing."""
    folder = folder_at_hand(job.model)
    return folder is not None and any(one.kind.endswith("StaticEmbedding") for one in ModelFiles(folder).modules[:1])


def assumed_seconds(job: JobConfig, pairs: int, texts: int, cost: int, *, gpu: bool) -> float:
    """Seconds of one worker for a job whose texts cost ``cost``, in tokens × directions.

    A model whose description is not at hand is taken for one of MiniLM's size.
    """
    if is_static(job):
        return SECONDS_A_PAIR * pairs
    sizes = layer_sizes(job) or LayerSizes(384, 1536, 2)
    nodes, _ = expected_nodes(job, sizes)
    operations = nodes * sizes.layers * sizes.products * cost
    rate, launches = (GPU_RATE, 0.1) if gpu else (CPU_RATE, 1.0)
    return operations / rate + SECONDS_A_PAIR * pairs + launches * SECONDS_A_TEXT * texts

"""Examines a model: every number is measured on the model at hand, with the built-in sample."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Router
from sentence_transformers.util import pairwise_cos_sim, pairwise_dot_score

from attribution_core.attribution import Attributor
from attribution_core.directions.structured import supports
from attribution_core.model.inspection import LATE_SIMILARITIES, NO_LIMIT, PROMPT_NAMES, saved_by_sentence_transformers
from attribution_core.model.loading import load_model
from attribution_core.model.modules import AnyModel, route_of
from attribution_core.results import PairAttribution, text_cells, unit_of_errors
from jobs.config.model_folder import folder_at_hand
from jobs.doctor import late
from jobs.doctor.findings import MISSES, SAME, Diagnosis, LayerCheck, References, Scores, Sensitivity, Side, Speed
from jobs.doctor.sample import sample_pairs
from jobs.plan.missing_prompts import prompt_notes

DEFAULT_LAYER = -2
MEASURED_SECONDS = 2.0
SENSITIVITY_NODES = 6

Echo = Callable[[str], None]


def examine(
    name: str,
    *,
    mode: str | None = None,
    similarity: str | None = None,
    reference: str = "pad",
    seconds: float = 60.0,
    device: str | None = None,
    trust_remote_code: bool = False,
    pickled_weights: bool = False,
    echo: Echo = lambda line: None,
) -> Diagnosis:
    """Examine a model: a folder, or a name on the hub.

    ``mode`` is the model's own where not given: retrieval where it has prompts or routes for queries or documents.
    ``reference`` is the token that replaces every word in a reference: pad, unk, mask, or a word.
    Cuts are tried for about ``seconds``, the default one first; ``echo`` is given a line about each step.

    Raises:
        TokenpairError: where the model cannot be attributed, or not with that reference, with the reason.
    """
    echo(f"loading {name}")
    _, loaded = load_model(name, device=device, trust_remote_code=trust_remote_code, pickled_weights=pickled_weights)
    mode = mode or usual_mode(loaded)
    settings: dict[str, Any] = {"mode": mode, "similarity": similarity, "reference": reference}
    lowest = Attributor(loaded, layer=-1, **settings)
    count = max(lowest.encoder_of(role).layer_count for role in lowest.roles)
    default = max(DEFAULT_LAYER, -count) if count else -1
    pairs = sample_pairs()

    def at_layer(layer: int, **more: Any) -> Attributor:
        return Attributor(lowest.encoder.model, layer=layer, shared=True, **settings, **more)

    attributor = at_layer(default)
    echo("comparing scores")
    attributed = attributor.attribute_pairs(pairs)
    scores = _scores(attributor, loaded, attributed, pairs)
    echo("checking padding and batches")
    references, sensitivity = _company(
        at_layer(default, nodes=SENSITIVITY_NODES, quadrature="riemann"), pairs, attributed
    )
    echo("measuring speed")
    # A job of a late-interaction model has no word pairs unless they are asked for.
    speed = _speed(at_layer(default, level="words") if attributor.late else attributor, pairs)
    checks = _layers(at_layer, attributor.layer, count, pairs, seconds, echo)
    sides = tuple(_side(attributor, role, attributed) for role in dict.fromkeys(attributor.roles))
    notices = list(_notices(attributor, sides, scores, checks, count))
    # The notes that a job over a log would print about prefixes that the model needs.
    notices += prompt_notes(name, folder_at_hand(name), {"query": None, "document": None})
    if not saved_by_sentence_transformers(name) and not attributor.late:
        notices.insert(0, f"it was not saved by sentence-transformers, which puts {sides[0].pooling[0]} pooling on top")
    return Diagnosis(
        model=name,
        mode=mode,
        similarity=attributor.similarity,
        reference=reference,
        prompts=tuple(loaded.prompts),
        sides=sides,
        cuts=tuple(range(max(count, 1))),
        scores=scores,
        references=references,
        layers=checks,
        sensitivity=sensitivity,
        speed=speed,
        notices=tuple(notices),
        problems=tuple(_problems(scores, sensitivity, checks, attributor.layer, late=attributor.late)),
    )


def usual_mode(model: AnyModel) -> str:
    """``retrieval`` where the model has prompts or routes for queries or documents or MaxSim, else ``symmetric``."""
    named = any(model.prompts.get(name) for names in PROMPT_NAMES.values() for name in names)
    routed = any(isinstance(module, Router) for module in model)
    return "retrieval" if named or routed or model.similarity_fn_name in LATE_SIMILARITIES else "symmetric"


def _encoded(model: Any, texts: Sequence[str], role: str, batch: int) -> Any:
    """Embeddings [N, D] by the model's own functions, of a late-interaction model a list of [T, D]."""
    encode = {"query": model.encode_query, "document": model.encode_document}.get(role, model.encode)
    tensors = {} if isinstance(model, MultiVectorEncoder) else {"convert_to_tensor": True}
    return encode(list(texts), batch_size=batch, show_progress_bar=False, **tensors)


def _scores(
    attributor: Attributor, loaded: AnyModel, attributed: list[PairAttribution], pairs: list[tuple[str, str]]
) -> Scores:
    """Scores against those of the float32 copy and of the model as loaded, one text at a time."""
    pairwise: Any = pairwise_cos_sim if attributor.similarity == "cosine" else pairwise_dot_score
    differences: list[float] = []
    scores: Any
    unit: Any
    for model in (attributor.encoder.model, loaded):
        sides = [_encoded(model, [pair[side] for pair in pairs], role, 1) for side, role in enumerate(attributor.roles)]
        if attributor.late:
            scores, unit = late.own_scores(model, attributor.similarity, *sides)
        else:
            sides = [side.float() for side in sides]
            scores = pairwise(*sides)
            unit = 1.0 if attributor.similarity == "cosine" else sides[0].norm(dim=1) * sides[1].norm(dim=1)
        own = torch.tensor([pair.score for pair in attributed], device=scores.device)
        differences.append(float(((own - scores) / unit).abs().max()))
    return Scores(len(pairs), differences[0], differences[1], str(loaded.dtype).removeprefix("torch."))


def _company(
    attributor: Attributor, pairs: list[tuple[str, str]], attributed: list[PairAttribution]
) -> tuple[References, Sensitivity]:
    """The sample's texts together in one padded batch, against each alone; and their terms with a reference."""
    embedding = contributions = 0.0
    texts_of: list[list[Any]] = []
    for side, role in enumerate(attributor.roles):
        texts = [pair[side] for pair in pairs]
        model = attributor.encoder.model
        together, alone = _encoded(model, texts, role, len(texts)), _encoded(model, texts, role, 1)
        embedding = max(embedding, *(float((x - y).norm() / y.norm()) for x, y in zip(together, alone, strict=True)))
        read = attributor.read(texts, role)
        texts_of.append(attributor.contributions(read))
        for text, one in zip(read, texts_of[-1], strict=True):
            (single,) = attributor.contributions([text])
            moved = float(np.abs(one.values_GD - single.values_GD).max() / np.linalg.norm(single.embedding_D))
            contributions = max(contributions, moved)
    if attributor.late:
        return late.references(attributed), Sensitivity(embedding, contributions)
    terms: list[tuple[float, float, float]] = []
    for a, b in zip(*texts_of, strict=True):
        unit = float(np.linalg.norm(a.embedding_D) * np.linalg.norm(b.embedding_D))
        products = (a.embedding_D @ b.reference_D, a.reference_D @ b.embedding_D, a.reference_D @ b.reference_D)
        terms.append((abs(products[0]) / unit, abs(products[1]) / unit, abs(products[2]) / unit))
    of_a, of_b, both = (float(statistics.median(term)) for term in zip(*terms, strict=True))
    references = References(of_a, of_b, both, float(max(map(max, terms))))
    return references, Sensitivity(embedding, contributions)


def _speed(attributor: Attributor, pairs: list[tuple[str, str]]) -> Speed:
    """The sample again and again, for about two seconds; the first pass warmed everything up."""
    device = attributor.encoder.device
    texts = len({(role, pair[side]) for pair in pairs for side, role in enumerate(attributor.roles)})
    rounds, began = 0, time.perf_counter()
    while not rounds or time.perf_counter() - began < MEASURED_SECONDS:
        attributed = attributor.attribute_pairs(pairs)
        rounds += 1
    seconds = time.perf_counter() - began
    weights = sum(one.nbytes for one in attributor.encoder.model.parameters())
    on_gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(device) if on_gpu else _peak_resident()
    return Speed(
        layer=attributor.layer,
        pairs=len(pairs),
        tokens_a=statistics.mean(len(pair.a.tokens) for pair in attributed),
        tokens_b=statistics.mean(len(pair.b.tokens) for pair in attributed),
        seconds=seconds,
        pairs_a_second=rounds * len(pairs) / seconds,
        texts_a_second=rounds * texts / seconds,
        device=torch.cuda.get_device_name(device) if on_gpu else "CPU",
        threads=torch.get_num_threads(),
        level=attributor.level,
        model_bytes=weights,
        peak_bytes=int(peak),
    )


def _peak_resident() -> int:
    """Bytes of this process that were in memory at its peak."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _layers(
    at_layer: Callable[[int], Attributor],
    default: int,
    count: int,
    pairs: list[tuple[str, str]],
    seconds: float,
    echo: Echo,
) -> tuple[LayerCheck, ...]:
    """The default cut, the lowest, the highest, and as many of the others as there is time for."""
    began = time.perf_counter()
    order = dict.fromkeys([default, 0, max(count - 1, 0), *_spread(count)])
    checks: dict[int, LayerCheck] = {}
    for layer in order:
        spent = time.perf_counter() - began
        if checks and spent > seconds:
            break
        echo(f"layer {layer}")
        attributor = at_layer(layer)
        attributor.calibrate()
        started = time.perf_counter()
        attributed = attributor.attribute_pairs(pairs)
        took = time.perf_counter() - started
        texts = {(text.role, text.text): text for pair in attributed for text in (pair.a, pair.b)}
        nodes = sorted(text.nodes for text in texts.values())
        errors = sorted(abs(pair.error) for pair in attributed)
        checks[layer] = LayerCheck(
            layer=layer,
            nodes_median=nodes[len(nodes) // 2],
            nodes_largest=nodes[-1],
            residual_largest=max(text.residual for text in texts.values()),
            error_median=statistics.median(errors),
            error_largest=errors[-1],
            special_median=statistics.median(abs(_special(pair)) for pair in attributed),
            texts=len(texts),
            converged=sum(text.converged for text in texts.values()),
            seconds_a_pair=took / len(pairs),
        )
    return tuple(checks[layer] for layer in sorted(checks))


def _special(pair: PairAttribution) -> float:
    """The sum over cells of special and prompt tokens."""
    return float(pair.matrix[~text_cells(pair.a.groups, pair.b.groups)].sum(dtype=np.float64))


def _spread(count: int) -> list[int]:
    """All layers, those first that halve the largest gap."""
    order: list[int] = []
    waiting = [(0, count - 1)]
    while waiting:
        low, high = waiting.pop(0)
        if high - low < 2:
            continue
        middle = (low + high) // 2
        order.append(middle)
        waiting += [(low, middle), (middle, high)]
    return order


def _side(attributor: Attributor, role: Any, attributed: list[PairAttribution]) -> Side:
    encoder = attributor.encoder_of(role)
    return Side(
        role=role,
        family=encoder.family.name,
        modules=tuple(type(module).__name__ for module in route_of(encoder.model, role)),
        pooling=tuple(encoder.pooling_modes),
        prompt=encoder.prompt(role),
        layers=encoder.layer_count,
        width=encoder.embedding_width,
        reads=reads if (reads := encoder.most_tokens(role)) is not None and reads < NO_LIMIT else None,
        reference=encoder.reference_name,
        fast=encoder.layer_parts() is not None if attributor.late else supports(encoder),
        outputs=late.outputs_of(attributor, role, attributed) if attributor.late else None,
    )


def _notices(
    attributor: Attributor,
    sides: tuple[Side, ...],
    scores: Scores,
    checks: tuple[LayerCheck, ...],
    count: int,
) -> list[str]:
    """Notices about what is worth knowing and is not a fault."""
    lines: list[str] = []
    if scores.loaded_type != "float32":
        lines.append(
            f"the checkpoint is {scores.loaded_type}; attributions are of a float32 copy, whose scores differ from the "
            f"checkpoint's by up to {scores.loaded_difference:.1e}"
        )
    for side in sides:
        if side.layers and attributor.encoder.reference == "pad" and "padding" not in side.reference:
            lines.append(f"the tokenizer has no padding token; references use {side.reference}")
        if side.layers and not side.fast:
            lines.append(f"{side.family} layers go through torch.func: about half the speed of layers of BERT's kind")
    missed = [check.layer for check in checks if check.converged < check.texts]
    if missed:
        lines.append(
            f"at layer {', '.join(map(str, missed))} some texts miss the tolerance with 256 nodes; their rows say "
            "converged = false"
        )
    untried = count - len(checks) if count else 0
    if untried > 0:
        lines.append(f"{untried} of {count} cuts were not measured for lack of time (--seconds)")
    return list(dict.fromkeys(lines))


def _problems(
    scores: Scores, sensitivity: Sensitivity, checks: tuple[LayerCheck, ...], default: int, *, late: bool
) -> list[str]:
    """Notices about what makes results wrong."""
    lines: list[str] = []
    if not scores.same:
        lines.append(f"scores differ from model.similarity by up to {scores.copy_difference:.1e}")
    if sensitivity.embedding > SAME:
        lines.append(
            f"the model's own embeddings change with their batch, by up to {sensitivity.embedding:.1e} of ‖e‖: "
            "attention or positions depend on padding; attributions are of each text alone"
        )
    if sensitivity.contributions > SAME:
        lines.append(f"contributions change with their batch, by up to {sensitivity.contributions:.1e} of ‖e‖")
    at = next(check for check in checks if check.layer == default)
    if at.converged < at.texts:
        lines.append(
            f"at the default layer {at.texts - at.converged} of {at.texts} texts miss the tolerance; take a higher "
            "layer, or a larger quadrature.max_nodes"
        )
    if at.error_largest > MISSES:
        lines.append(
            f"at the default layer the sum of a pair misses its score by up to {at.error_largest:.1e} of "
            + unit_of_errors(late=late)
        )
    return lines

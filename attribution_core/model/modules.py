"""The parts of a loaded SentenceTransformer: the route of a role, its transformer, pooling and head."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from sentence_transformers import MultiVectorEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling, StaticEmbedding
from torch import nn

from attribution_core.errors import ModelError, SettingError
from attribution_core.model.inspection import LATE_SIMILARITIES
from attribution_core.model.towers import modules_inside, tower_of

Role = Literal["text", "query", "document"]
Similarity = Literal["cosine", "dot", "maxsim", "meanmaxsim"]
# A model of one vector a text, and a late-interaction model of one a token.
AnyModel = SentenceTransformer | MultiVectorEncoder
POOLING_MODES = ("cls", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", "max")


def pooling_modes(pooling: Any) -> tuple[str, ...]:
    """The names of a pooling module's modes."""
    return (pooling.pooling_mode,) if isinstance(pooling.pooling_mode, str) else tuple(pooling.pooling_mode)


def is_late(model: AnyModel) -> bool:
    """Whether a model has a vector for each token and scores by a sum of maxima."""
    return isinstance(model, MultiVectorEncoder)


def similarity_of(model: AnyModel, asked: str | None) -> Similarity:
    """The similarity that was ``asked`` for, or else the model's own; SettingError where it cannot be attributed."""
    name = str(asked or model.similarity_fn_name or "cosine")
    if is_late(model):
        if name not in LATE_SIMILARITIES:
            raise SettingError(f"similarity {name!r}: a late-interaction model scores by 'maxsim' or 'meanmaxsim'")
        return "maxsim" if name == "maxsim" else "meanmaxsim"
    if name in ("euclidean", "manhattan"):
        raise SettingError(
            f"similarity {name!r} cannot be attributed: it is not a product of two embeddings, so it does not split "
            "into pairs of tokens; ask for 'cosine' or 'dot'"
        )
    if name not in ("cosine", "dot"):
        raise SettingError(f"similarity {name!r} is unknown; ask for 'cosine' or 'dot'")
    return "cosine" if name == "cosine" else "dot"


def route_of(model: AnyModel, role: Role) -> list[nn.Module]:
    """Return the modules that read a text of ``role``, in their order; of a Router those of its route.

    Raises:
        ModelError: where the Router has no route for that role.
    """
    route_modules: list[nn.Module] = []
    for module in model:
        if not isinstance(module, Router):
            route_modules.append(module)
            continue
        try:
            route = module._resolve_route(task=None if role == "text" else role, modality="text")
        except ValueError as error:
            raise ModelError(f"the model has no route for a {role}: {' '.join(str(error).split())}") from None
        route_modules += module.sub_modules[str(route)].children()
    return route_modules


def is_static(modules: list[nn.Module]) -> bool:
    """Whether a route begins with a StaticEmbedding, which has no layers and pools by itself."""
    return bool(modules) and isinstance(modules[0], StaticEmbedding)


def cut_modules(model: AnyModel, role: Role, similarity: Similarity) -> tuple[Any, Any, list[nn.Module]]:
    """Transformer, pooling and head of a model made of modules that can be attributed.

    A StaticEmbedding is its own pooling.

    Raises:
        ModelError: for any other model, with the reason.
    """
    modules = route_of(model, role)
    names = " → ".join(type(module).__name__ for module in modules)
    if (tower := tower_of(modules[0]) if modules else None) is not None:
        modules = [modules[0], *modules_inside(modules[0], tower), *modules[1:]]
    whose = "" if len(modules) == len(model) and role == "text" else f" for a {role}"
    if is_static(modules):
        modules = [modules[0], *modules]
    elif len(modules) < 2 or not isinstance(modules[0], Transformer) or not isinstance(modules[1], Pooling):
        raise ModelError(
            f"the model's modules{whose} are {names}; supported: Transformer → Pooling → (Dense, LayerNorm, Normalize)"
            + _why_not(modules)
        )
    else:
        check_transformer(modules[0])
        if getattr(modules[0], "query_expansion", None) is not None:
            raise ModelError("a model with query expansion and pooling cannot be attributed")
        for mode in pooling_modes(modules[1]):
            if mode not in POOLING_MODES:
                raise ModelError(f"pooling {mode!r} cannot be attributed; supported are {', '.join(POOLING_MODES)}")
        if is_shifted(modules[:1]):
            check_shiftable(modules[1])
    pooling, head = modules[1], modules[2:]
    for module in head:
        if not isinstance(module, (Dense, LayerNorm, Normalize, Dropout)):
            raise ModelError(f"module {type(module).__name__} behind pooling cannot be attributed (modules: {names})")
    head = [module for module in head if not isinstance(module, Dropout)]  # which passes everything on in inference
    while similarity == "cosine" and head and isinstance(head[-1], Normalize):
        head = head[:-1]
    return modules[0], pooling, head


def is_shifted(modules: Iterable[nn.Module]) -> bool:
    """Whether a model, or some of its modules, subtracts the embedding of the reference."""
    return any(callable(getattr(module, "unshifted", None)) for module in modules)


def check_shiftable(pooling: Any) -> None:
    """ModelError for a pooling behind which subtracting the reference's tokens is not subtracting its embedding."""
    if "max" in pooling_modes(pooling):
        raise ModelError(
            "a model with max pooling cannot be shifted: the maximum of differences is not the difference of the maxima"
        )


def check_transformer(transformer: Any) -> None:
    """ModelError for a transformer that does not read plain text with weights that have a derivative."""
    modalities = getattr(transformer, "modality_config", {})
    if "message" in modalities and "text" not in modalities:
        raise ModelError("the model reads chat messages alone, so its tokens have no place in a text")
    if getattr(transformer, "backend", "torch") != "torch":
        raise ModelError(f"a model on the {transformer.backend} backend has no derivatives; load it with torch")
    backbone = transformer.model
    method = getattr(getattr(backbone, "config", None), "quantization_config", None)
    if method is not None or getattr(backbone, "is_quantized", False):
        raise ModelError(
            "the model's weights are quantised, so they cannot be copied to the float type that attributions need; "
            "use the checkpoint that it was made from"
        )


def _why_not(modules: list[nn.Module]) -> str:
    """An explanation for kinds of models that are often tried, as the second half of the message."""
    names = {type(module).__name__ for module in modules}
    modalities = {one for module in modules for one in getattr(module, "modalities", [])}
    if modalities & {"image", "audio", "video"} or "CLIPModel" in names:
        return (
            ". It is a multimodal model; supported are the texts of CLIP, MetaCLIP 2, SigLIP, SigLIP 2 and "
            "EmbeddingGemma 2"
        )
    if names & {"SpladePooling", "SparseAutoEncoder", "SparseStaticEmbedding"}:
        return ". It is a sparse encoder, with a value for each entry of a vocabulary: that is not supported"
    if names & {"BoW", "WordEmbeddings", "LSTM", "CNN"}:
        return ". It is a word-embedding model of another kind; a StaticEmbedding can be attributed"
    return ""


def text_lengths(model: AnyModel) -> list[tuple[object, ...]]:
    """How many tokens each transformer of the model reads, by role."""
    names = ("query_length", "document_length", "max_seq_length")
    return [tuple(getattr(m, name) for name in names) for m in model.modules() if isinstance(m, Transformer)]

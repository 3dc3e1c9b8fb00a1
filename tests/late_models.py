"""Tiny random late-interaction models, saved and loaded as real sentence-transformers folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from tiny_models import MAX_LENGTH, Shape, TinyModels, published, randomise
from torch import nn

PROMPTS = {"query": "[Q] ", "document": "[D] "}
FIXED = {"strategy": "fixed", "attend": False, "length": 12}


def late_folder(
    tiny: TinyModels,
    family: str = "bert",
    *,
    projection: int | None = 10,
    expansion: dict[str, Any] | None = None,
    prompts: dict[str, str] | None = None,
    skip: tuple[str, ...] = (".", ","),
    similarity: str = "maxsim",
    normalize: bool = True,
    document_length: int | None = 40,
    seed: int = 0,
) -> Path:
    """The folder of a late-interaction model: Transformer, Dense, MultiVectorMask, Normalize."""
    shape = Shape(seed=seed)
    prompts = PROMPTS if prompts is None else prompts
    name = repr((family, projection, expansion, prompts, skip, similarity, normalize, document_length, seed))
    key = f"late-{family}-{sum(ord(c) * (at + 1) for at, c in enumerate(name)):x}"

    def build(aside: Path) -> None:
        torch.manual_seed(seed)
        transformer = Transformer(
            str(tiny.backbone(family, shape)),
            max_seq_length=MAX_LENGTH,
            document_length=document_length,
            query_expansion=expansion,  # type: ignore[arg-type]
        )
        modules: list[nn.Module] = [transformer]
        if projection is not None:
            width = transformer.get_embedding_dimension()
            dense = Dense(
                width, projection, bias=False, activation_function=nn.Identity(), module_input_name="token_embeddings"
            )
            randomise(dense, seed + 1)
            modules.append(dense)
        modules.append(MultiVectorMask(skiplist_words=list(skip)))
        if normalize:
            modules.append(Normalize(module_input_name="token_embeddings"))
        model = MultiVectorEncoder(
            modules=modules, device="cpu", prompts=dict(prompts) or None, similarity_fn_name=similarity
        )
        model.save(str(aside), create_model_card=False)

    return published(tiny.room / key, build)

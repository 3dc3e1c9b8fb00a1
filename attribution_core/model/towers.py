"""The text side of models for images and texts whose text tower pools inside itself: CLIP, SigLIP and their like.

The tower is cut into what every model is made of here: layers, a final norm, the row of the last token, and a
projection. CLIP pools at the first end-of-text token. SigLIP pools at the last place of a fixed length, which padding
fills, and lets words attend to padding.
"""

from __future__ import annotations

from typing import Any

from sentence_transformers.base.modality import infer_modality
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn

from attribution_core.errors import ModelError
from attribution_core.model.families import FAMILIES, Family, at_path
from attribution_core.text.plain import Ints

# Old CLIP checkpoints set eos_token_id to 2; their end-of-text token is the one with the highest id.
OLD_END = 2
MEDIA = {"image": "an image", "video": "a video", "audio": "a sound"}
LENGTHS = ("a", "a text of a few more words")


def tower_of(transformer: Any) -> Family | None:
    """The family of a Transformer module that gives embeddings of texts, not of tokens; None for other modules."""
    if not isinstance(transformer, Transformer) or transformer.module_output_name != "sentence_embedding":
        return None
    kind = transformer.model.config.model_type
    return next((one for one in FAMILIES if one.projection and kind in one.model_types), None)


def modules_inside(transformer: Any, family: Family) -> list[nn.Module]:
    """What the text tower of ``transformer`` does behind its final norm, as modules: pooling and projection.

    Raises:
        ModelError: where padding is part of the text and texts are not padded to one length.
    """
    if _end_of(transformer) is None:
        _check_padding(transformer)
    linear = at_path(transformer.model, family.projection)
    assert isinstance(linear, nn.Linear)
    dense = Dense(linear.in_features, linear.out_features, activation_function=nn.Identity())
    dense.linear, dense.bias = linear, linear.bias is not None
    return [Pooling(linear.in_features, "lasttoken"), dense]


def why_no_text(transformer: Any, text: str, ids_S: Ints) -> str | None:
    """Why a model for images and texts does not read ``text``, whose tokens are ``ids_S``, as words up to its end."""
    kind = infer_modality(text, transformer.modalities)
    if kind != "text":
        return f"the address of {MEDIA.get(str(kind), 'a file')}, which the model reads in its place"
    end = _end_of(transformer) if tower_of(transformer) else None
    if end is not None:
        old = end == OLD_END and transformer.model.config.model_type == "clip"
        first = int(ids_S.argmax() if old else (ids_S == end).argmax())
        if first != len(ids_S) - 1:
            return "an end-of-text token inside; the model ignores the text after it"
    return None


def _end_of(transformer: Any) -> int | None:
    """The token at which the tower pools; None where that is the last place of a fixed length."""
    end = getattr(transformer.model.text_model, "eos_token_id", None)
    return None if end is None else int(end)


def _check_padding(transformer: Any) -> None:
    read = [transformer.preprocess([{"text": text}]) for text in LENGTHS]
    masks = [one["attention_mask"].all() for one in read if "attention_mask" in one]
    if len({one["input_ids"].shape[1] for one in read}) > 1 or not all(masks):
        raise ModelError(
            f"{type(transformer.model).__name__} reads padding as it reads words, and other texts of a batch would "
            'change a text\'s embedding; pad every text to one length with processing_kwargs {"text": {"padding": '
            '"max_length"}} in sentence_bert_config.json and model_input_names ["input_ids"] in tokenizer_config.json'
        )

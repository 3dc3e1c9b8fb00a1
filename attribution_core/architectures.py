"""Where each model family keeps its layers, and what can be said about a layer.

A family is known by the ``model_type`` of its transformers config. Everything that differs between families stands
here; the rest of the package speaks of "the layers above the cut".
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from attribution_core.errors import ModelError


@dataclass(frozen=True)
class LayerParts:
    """The weights of one post-LayerNorm encoder layer (Devlin et al. 2019), whatever its family calls them.

    y = LN(x + O·attention(Q x, K x, V x)); layer(x) = LN(y + W₂ act(W₁ y)).
    """

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear
    attention_norm: nn.LayerNorm
    up: nn.Linear
    activation: Callable[[Tensor], Tensor]
    down: nn.Linear
    output_norm: nn.LayerNorm
    heads: int

    def cast(self, dtype: torch.dtype) -> LayerParts:
        """A copy with its weights in another type."""
        modules = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("activation", "heads")}
        return replace(self, **{name: copy.deepcopy(module).to(dtype) for name, module in modules.items()})


@dataclass(frozen=True)
class Family:
    """One model family.

    ``layers`` is the dotted path from the transformers model to its list of layers. ``uniform`` says that every
    layer is called with the same masks and biases, so that one captured call serves them all. ``parts`` reads the
    weights of a layer of BERT's kind for the structured fast path.
    """

    name: str
    model_types: tuple[str, ...]
    layers: str
    uniform: bool
    parts: Callable[[nn.Module], LayerParts] | None = None

    def find_layers(self, transformer: nn.Module) -> nn.ModuleList:
        """The list of layers inside a transformers model of this family."""
        found = reduce(getattr, self.layers.split("."), transformer)
        assert isinstance(found, nn.ModuleList)
        return found


def _bert_parts(layer: Any) -> LayerParts:
    attention = layer.attention.self
    return LayerParts(
        query=attention.query,
        key=attention.key,
        value=attention.value,
        output=layer.attention.output.dense,
        attention_norm=layer.attention.output.LayerNorm,
        up=layer.intermediate.dense,
        activation=layer.intermediate.intermediate_act_fn,
        down=layer.output.dense,
        output_norm=layer.output.LayerNorm,
        heads=attention.num_attention_heads,
    )


def _mpnet_parts(layer: Any) -> LayerParts:
    attention = layer.attention.attn
    return LayerParts(
        query=attention.q,
        key=attention.k,
        value=attention.v,
        output=attention.o,
        attention_norm=layer.attention.LayerNorm,
        up=layer.intermediate.dense,
        activation=layer.intermediate.intermediate_act_fn,
        down=layer.output.dense,
        output_norm=layer.output.LayerNorm,
        heads=attention.num_attention_heads,
    )


def _distilbert_parts(layer: Any) -> LayerParts:
    attention = layer.attention
    return LayerParts(
        query=attention.q_lin,
        key=attention.k_lin,
        value=attention.v_lin,
        output=attention.out_lin,
        attention_norm=layer.sa_layer_norm,
        up=layer.ffn.lin1,
        activation=layer.ffn.activation,
        down=layer.ffn.lin2,
        output_norm=layer.output_layer_norm,
        heads=attention.n_heads,
    )


FAMILIES = (
    Family("BERT", ("bert",), "encoder.layer", True, _bert_parts),
    Family("RoBERTa", ("roberta",), "encoder.layer", True, _bert_parts),
    Family("XLM-RoBERTa", ("xlm-roberta",), "encoder.layer", True, _bert_parts),
    Family("MPNet", ("mpnet",), "encoder.layer", True, _mpnet_parts),
    Family("DistilBERT", ("distilbert",), "transformer.layer", True, _distilbert_parts),
)


def family_of(transformer: Any) -> Family:
    """The family of a transformers model.

    Raises:
        ModelError: for a family that is not supported, with the list of those that are.
    """
    model_type = getattr(getattr(transformer, "config", None), "model_type", type(transformer).__name__)
    for family in FAMILIES:
        if model_type in family.model_types:
            if getattr(transformer.config, "is_decoder", False) or getattr(
                transformer.config, "add_cross_attention", False
            ):
                raise ModelError(f"{family.name} configured as a decoder cannot be attributed; use it as an encoder")
            return family
    supported = ", ".join(family.name for family in FAMILIES)
    raise ModelError(f"models of type {model_type!r} cannot be attributed yet; supported are {supported}")


def first_layer_above(layer: int, count: int) -> int:
    """The index 0 … count−1 of the first layer above the cut, from a possibly negative one.

    Raises:
        ModelError: when there is no such layer.
    """
    index = layer + count if layer < 0 else layer
    if not 0 <= index < count:
        raise ModelError(
            f"layer {layer} does not exist: the model has {count} layers, so layer is {-count} … {count - 1}"
        )
    return index


def hidden_of(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The hidden state of a layer's return value (some families return it in a tuple)."""
    return output if isinstance(output, torch.Tensor) else output[0]

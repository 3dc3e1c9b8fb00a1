"""Where the layers of each model family are, and the properties of a layer.

The ``model_type`` of the transformers config names the family. Everything that differs between families is here; the
rest of the package only uses "the layers above the cut".
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
    """The weights of one post-LayerNorm encoder layer (Devlin et al. 2019), under names common to all families.

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

    @property
    def plain(self) -> bool:
        """Whether these are the modules that they look like, and not an adapter or a quantised one in their place."""
        linear = (self.query, self.key, self.value, self.output, self.up, self.down)
        norms = (self.attention_norm, self.output_norm)
        return all(type(one) is nn.Linear for one in linear) and all(type(one) is nn.LayerNorm for one in norms)

    def cast(self, dtype: torch.dtype) -> LayerParts:
        """A copy with its weights in another type."""
        modules = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("activation", "heads")}
        return replace(self, **{name: copy.deepcopy(module).to(dtype) for name, module in modules.items()})


@dataclass(frozen=True)
class Family:
    """One model family.

    ``layers`` is the dotted path from the transformers model to its list of layers, and ``top`` the paths of the
    modules between the last layer and the token embeddings (a final norm). ``uniform`` says that every layer is called
    with the same masks and biases, so that one captured call serves them all; ``shared`` names arguments of a layer
    that belong to the model and not to a text. ``parts`` reads the weights of BERT-like layers for the structured fast
    path: of one entry of the list, which may stand for several of them. ``in_call_order`` gives the layers in the order
    in which they are called where that is not their order in the list, and ``first`` what to call in place of the
    lowest one where more than that belongs to it. ``casts`` says that parts are computed in float32 whatever the
    model's type. ``beside`` says that the first further argument of every layer, [B, S, p], is made of the tokens
    alone: those of the layers above the cut are features too, beside the hidden states. ``projection`` is the path of
    what a text tower has behind pooling (``towers.py``).
    """

    name: str
    model_types: tuple[str, ...]
    layers: str
    uniform: bool
    parts: Callable[[Any], list[LayerParts]] | None = None
    top: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    in_call_order: Callable[[Any, nn.ModuleList], list[nn.Module]] | None = None
    first: Callable[[Any, nn.Module], nn.Module] | None = None
    casts: bool = False
    beside: bool = False
    projection: str = ""

    def find_layers(self, transformer: nn.Module) -> list[nn.Module]:
        """The layers inside a transformers model of this family, one for each call: a shared layer is repeated."""
        listed = at_path(transformer, self.layers)
        assert isinstance(listed, nn.ModuleList)
        return list(listed) if self.in_call_order is None else self.in_call_order(transformer, listed)

    def find_above(self, transformer: nn.Module, layer: int) -> list[nn.Module]:
        """What to call from ``layer`` on, each with the arguments that the model gives its layer."""
        layers = self.find_layers(transformer)
        if self.first is not None:
            layers[0] = self.first(transformer, layers[0])
        return [_Beside(one) if self.beside else one for one in layers[layer:]]

    def width(self, transformer: nn.Module, above: int) -> int:
        """How many values a token's features have at a cut below so many layers."""
        config = transformer.config.get_text_config()  # type: ignore[union-attr, operator]
        return int(config.hidden_size) + (above * int(config.hidden_size_per_layer_input) if self.beside else 0)

    def find_top(self, transformer: nn.Module) -> list[nn.Module]:
        """The modules between the last layer and the token embeddings."""
        return [at_path(transformer, path) for path in self.top]


def at_path(module: Any, path: str) -> Any:
    """What is at a dotted path inside a module."""
    return reduce(getattr, path.split("."), module)


def _bert_parts(layer: Any) -> list[LayerParts]:
    attention = layer.attention.self
    parts = LayerParts(
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
    return [parts]


def _mpnet_parts(layer: Any) -> list[LayerParts]:
    attention = layer.attention.attn
    parts = LayerParts(
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
    return [parts]


def _distilbert_parts(layer: Any) -> list[LayerParts]:
    attention = layer.attention
    parts = LayerParts(
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
    return [parts]


def _albert_parts(group: Any) -> list[LayerParts]:
    return [
        LayerParts(
            query=layer.attention.query,
            key=layer.attention.key,
            value=layer.attention.value,
            output=layer.attention.dense,
            attention_norm=layer.attention.LayerNorm,
            up=layer.ffn,
            activation=layer.activation,
            down=layer.ffn_output,
            output_norm=layer.full_layer_layer_norm,
            heads=layer.attention.num_attention_heads,
        )
        for layer in group.albert_layers
    ]


def _albert_calls(transformer: Any, groups: nn.ModuleList) -> list[nn.Module]:
    """ALBERT's layers share their weights: the model calls its few groups again and again."""
    count = transformer.config.num_hidden_layers
    return [groups[int(call / (count / len(groups)))] for call in range(count)]


class _WithConvolution(nn.Module):
    """DeBERTa-v2's lowest layer with the convolution beside it, which reads the layer's own input."""

    def __init__(self, layer: nn.Module, convolution: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.convolution = convolution

    def forward(self, hidden_BSd: Tensor, mask_B1SS: Tensor, **arguments: Any) -> Tensor:
        out = hidden_of(self.layer(hidden_BSd, mask_B1SS, **arguments))
        # The model multiplies a mask of tokens with itself; its diagonal is the mask of tokens again.
        mixed: Tensor = self.convolution(hidden_BSd, out, mask_B1SS.diagonal(dim1=-2, dim2=-1).squeeze(1))
        return mixed


def _deberta_first(transformer: Any, layer: nn.Module) -> nn.Module:
    convolution = transformer.encoder.conv
    return layer if convolution is None else _WithConvolution(layer, convolution)


class _Beside(nn.Module):
    """A layer of features in which what it and the layers above it get of the tokens stands beside its input."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer
        self.widths = (int(layer.config.hidden_size), int(layer.config.hidden_size_per_layer_input))

    def forward(self, features_BSd: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        rest = features_BSd.shape[-1] - sum(self.widths)
        hidden_BSd, own_BSp, rest_BSr = features_BSd.split([*self.widths, rest], -1)
        return torch.cat([hidden_of(self.layer(hidden_BSd, own_BSp, *args, **kwargs)), rest_BSr], -1)


FAMILIES = (
    Family("BERT", ("bert",), "encoder.layer", True, _bert_parts),
    Family("RoBERTa", ("roberta", "camembert"), "encoder.layer", True, _bert_parts),
    Family("XLM-RoBERTa", ("xlm-roberta",), "encoder.layer", True, _bert_parts),
    Family("MPNet", ("mpnet",), "encoder.layer", True, _mpnet_parts),
    Family("DistilBERT", ("distilbert",), "transformer.layer", True, _distilbert_parts),
    Family("ELECTRA", ("electra",), "encoder.layer", True, _bert_parts),
    Family("ERNIE", ("ernie",), "encoder.layer", True, _bert_parts),
    Family("ALBERT", ("albert",), "encoder.albert_layer_groups", True, _albert_parts, in_call_order=_albert_calls),
    Family(
        "DeBERTa-v2/v3",
        ("deberta-v2",),
        "encoder.layer",
        True,
        shared=("rel_embeddings", "relative_pos"),
        first=_deberta_first,
    ),
    Family("ModernBERT", ("modernbert",), "layers", False, top=("final_norm",), casts=True),
    Family("EuroBERT", ("eurobert",), "layers", True, top=("norm",), casts=True),
    Family("Nomic-BERT", ("nomic_bert",), "layers", True, casts=True),
    Family("GTE", ("gte",), "layers", True),
    Family("Jina v3", ("jina_embeddings_v3",), "layers", True),
    Family("T5 encoder", ("t5", "mt5"), "encoder.block", False, top=("encoder.final_layer_norm",), casts=True),
    Family("Qwen2/Qwen3", ("qwen2", "qwen3"), "layers", False, top=("norm",), casts=True),
    Family("Gemma 3", ("gemma3_text",), "layers", False, top=("norm",), casts=True),
    Family(
        "CLIP's texts",
        ("clip", "metaclip_2"),
        "text_model.encoder.layers",
        True,
        top=("text_model.final_layer_norm",),
        casts=True,
        projection="text_projection",
    ),
    Family(
        "SigLIP's texts",
        ("siglip", "siglip2"),
        "text_model.encoder.layers",
        True,
        top=("text_model.final_layer_norm",),
        casts=True,
        projection="text_model.head",
    ),
    Family(
        "EmbeddingGemma 2",
        ("embedding_gemma2",),
        "language_model.layers",
        False,
        top=("language_model.norm", "language_model.embedding_projection"),
        casts=True,
        beside=True,
    ),
    Family(
        "EmbeddingGemma 2's text model",
        ("embedding_gemma2_text",),
        "layers",
        False,
        top=("norm", "embedding_projection"),
        casts=True,
        beside=True,
    ),
    # llama_bidirec is a subclass of Llama that comes with the models' own code.
    Family("Llama/Mistral", ("llama", "llama_bidirec", "mistral"), "layers", False, top=("norm",), casts=True),
)
# How configurations call the number of experts of a layer.
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
STATIC = Family("static embedding", (), "", True)


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
            try:
                family.find_layers(transformer)
            except AttributeError:
                raise ModelError(
                    f"the layers of {type(transformer).__name__} are not where transformers' own {family.name} has "
                    "them: the model's own code cannot be attributed; use a checkpoint for transformers' class"
                ) from None
            return family
    experts = experts_of(getattr(transformer, "config", None))
    if experts:
        raise ModelError(
            f"models of type {model_type!r} cannot be attributed: a router picks some of {experts} experts for "
            "each token, so that the embedding is not continuous along the path from the reference"
        )
    supported = ", ".join(family.name for family in (*FAMILIES, STATIC))
    raise ModelError(f"models of type {model_type!r} cannot be attributed yet; supported are {supported}")


def experts_of(config: Any) -> int:
    """How many experts a layer of a mixture of experts has; 0 of other models."""
    counts = (getattr(config, name, None) for name in EXPERT_COUNTS)
    return next((int(count) for count in counts if isinstance(count, int) and count > 1), 0)


def hidden_of(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The hidden state of a layer's return value (some families return it in a tuple)."""
    return output if isinstance(output, torch.Tensor) else output[0]

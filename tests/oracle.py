"""The paper's formula as slow loops in float64: the judge of every faster way.

Computes nothing with ``attribution_core``. The whole transformers model is run on ids and reference ids, with the
hidden state replaced at the input of layer L; full Jacobians come from D backward passes; right-hand Riemann sums;
and the pair attribution is summed over hidden widths (Möller, Nikolaev, Padó 2023, equations 8 to 10):

    A_st = Σ_{d,e} (x_a − r_a)_sd [J_aᵀ J_b]_{sd,te} (x_b − r_b)_te / norm,    J = 1/N Σ_k ∂e/∂γ(k/N)

Completed cells add to each text token's contribution, one token after the other, its part of the reference's embedding.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from torch import Tensor, nn

from attribution_core.results import PairAttribution

# The layers in the order in which they are called.
LAYER_LISTS = {
    "albert": lambda model: [
        model.encoder.albert_layer_groups[call * model.config.num_hidden_groups // model.config.num_hidden_layers]
        for call in range(model.config.num_hidden_layers)
    ],
    "distilbert": lambda model: model.transformer.layer,
    **dict.fromkeys(("t5", "mt5"), lambda model: model.encoder.block),
    **dict.fromkeys(
        ("modernbert", "eurobert", "nomic_bert", "gte", "jina_embeddings_v3", "qwen2", "qwen3", "gemma3_text"),
        lambda model: model.layers,
    ),
    **dict.fromkeys(("llama", "mistral", "embedding_gemma2_text"), lambda model: model.layers),
    **dict.fromkeys(("clip", "metaclip_2", "siglip", "siglip2"), lambda model: model.text_model.encoder.layers),
}


def layers_of(model: Any) -> list[nn.Module]:
    """The layers of a transformers model, one for each call."""
    return list(LAYER_LISTS.get(model.config.model_type, lambda one: one.encoder.layer)(model))


Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """One text: Jacobian [D, S, d], x − r [S, d], embeddings [D] of text and reference, which tokens [S] are text."""

    jacobian_DSd: Tensor
    delta_Sd: Tensor
    embedding_D: Tensor
    reference_D: Tensor
    text_S: list[bool]

    def completed_SD(self, sums_to: str, centre_D: Doubles | None = None) -> Doubles:
        """What every token contributes once the reference is dealt out among the tokens of the text."""
        out = self.contributions_SD.copy()
        for s, is_text in enumerate(self.text_S):
            if is_text and sums_to != "difference":
                origin = centre_D if sums_to == "centred" and centre_D is not None else 0.0
                out[s] += (self.reference_D.numpy() - origin) / sum(self.text_S)
        return out

    @property
    def contributions_SD(self) -> Doubles:
        """Σ_d J_sd (x − r)_sd for every token."""
        return torch.einsum("Dsd,sd->sD", self.jacobian_DSd, self.delta_Sd).numpy()


@dataclass(frozen=True)
class OraclePair:
    """Token matrix [S, S], the similarity, its three reference terms, and ‖e(a)‖‖e(b)‖."""

    matrix: Doubles
    score: float
    reference_a: float
    reference_b: float
    reference_ab: float
    norms: float
    norm: float
    a: Side
    b: Side

    def grouped(
        self,
        of_token_a: Sequence[int],
        of_token_b: Sequence[int],
        sums_to: str = "difference",
        centres: tuple[Doubles | None, Doubles | None] = (None, None),
    ) -> Doubles:
        """The matrix summed over groups, by a loop over its cells; the paper's own unless ``sums_to`` says another."""
        out = np.zeros((max(of_token_a) + 1, max(of_token_b) + 1))
        if sums_to != "difference":
            left, right = self.a.completed_SD(sums_to, centres[0]), self.b.completed_SD(sums_to, centres[1])
            for s, i in enumerate(of_token_a):
                for t, j in enumerate(of_token_b):
                    out[i, j] += float(left[s] @ right[t]) / self.norm
            return out
        for s, i in enumerate(of_token_a):
            for t, j in enumerate(of_token_b):
                out[i, j] += self.matrix[s, t]
        return out


class Oracle:
    """Attributes with one model at one cut; ``reference_id`` replaces every word, padding unless given."""

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        layer: int,
        similarity: str = "cosine",
        nodes: int = 50,
        reference_id: int | None = None,
    ) -> None:
        self.model = copy.deepcopy(model).double().eval()
        self.similarity = similarity
        self.nodes = nodes
        self.reference_id: int = self.model.tokenizer.pad_token_id if reference_id is None else reference_id
        transformer: Any = self.model[0]
        self.backbone: Any = transformer.model
        layers = layers_of(self.backbone)
        self.layer = layers[layer]
        # EmbeddingGemma 2's layers each get something of the tokens themselves, which moves with what the lowest gets.
        self.beside = layers[layer:] if hasattr(self.layer, "ple_block") else []
        self.lowest = layer % len(layers) == 0
        # A layer that is called many times is cut at one of its calls.
        self.earlier = layers[: layer % len(layers)].count(self.layer)
        # A tower of texts takes the row of the last token and projects it by itself.
        self.tower = transformer.module_output_name == "sentence_embedding"
        modules = list(self.model)[1 if self.tower else 2 :]
        if similarity == "cosine" and modules and isinstance(modules[-1], Normalize):
            modules = modules[:-1]
        self.head = modules

    def pair(self, a: str, b: str, *, prompt: str = "") -> OraclePair:
        """Attribute one pair of texts, both behind the same prompt."""
        side_a, side_b = self.side(a, prompt), self.side(b, prompt)
        norms = float(side_a.embedding_D.norm() * side_b.embedding_D.norm())
        norm = norms if self.similarity == "cosine" else 1.0
        matrix = torch.einsum(
            "sd,Dsd,Dte,te->st", side_a.delta_Sd, side_a.jacobian_DSd, side_b.jacobian_DSd, side_b.delta_Sd
        )
        return OraclePair(
            matrix=matrix.numpy() / norm,
            score=float(side_a.embedding_D @ side_b.embedding_D) / norm,
            reference_a=float(side_a.embedding_D @ side_b.reference_D) / norm,
            reference_b=float(side_a.reference_D @ side_b.embedding_D) / norm,
            reference_ab=float(side_a.reference_D @ side_b.reference_D) / norm,
            norms=norms,
            norm=norm,
            a=side_a,
            b=side_b,
        )

    def side(self, text: str, prompt: str = "") -> Side:
        """Jacobian and embeddings of one text."""
        features, reference, text_S = self._inputs(text, prompt)
        x, e = self._run(features, None)
        r, e_r = self._run(reference, None)
        path = torch.cat([r + k / self.nodes * (x - r) for k in range(1, self.nodes + 1)]).requires_grad_()
        # The masks and positions of the text serve the whole path, as in the paper: only the cut's features move.
        many = {
            key: value.expand(self.nodes, -1) if isinstance(value, Tensor) else value for key, value in features.items()
        }
        _, out = self._run(many, path)
        rows = [torch.autograd.grad(out[:, at].sum(), path, retain_graph=True)[0].mean(0) for at in range(out.shape[1])]
        return Side(torch.stack(rows), (x - r)[0].detach(), e[0].detach(), e_r[0].detach(), text_S)

    def _inputs(self, text: str, prompt: str) -> tuple[dict[str, Any], dict[str, Any], list[bool]]:
        read = self.model.tokenizer(
            prompt + text,
            truncation=True,
            **{"max_length": self.model.max_seq_length} | self.model[0].processing_kwargs.get("text", {}),
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_tensors="pt",
        )
        kept = read.pop("special_tokens_mask").bool() | (read.pop("offset_mapping")[..., 1] <= len(prompt))
        features: dict[str, Any] = dict(read)
        if prompt:
            features["prompt_length"] = len(self.model.tokenizer(prompt)["input_ids"]) - 1
        blank = torch.full_like(features["input_ids"], self.reference_id)
        reference = {**features, "input_ids": torch.where(kept, features["input_ids"], blank)}
        return features, reference, [not one for one in kept[0].tolist()]

    def _run(self, features: dict[str, Any], hidden: Tensor | None) -> tuple[Tensor, Tensor]:
        """Hidden state at the cut and embedding, with the hidden state replaced where one is given."""
        seen: list[Tensor] = []

        def at_cut(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            seen.append(args[0])
            return args if hidden is None or len(seen) != self.earlier + 1 else (hidden, *args[1:])

        def beside(at: int) -> Any:
            def replaced(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
                seen[0] = torch.cat([args[0] if at == 0 else seen[0], args[1]], -1)
                if hidden is None:
                    return args
                d, p = args[0].shape[-1], args[1].shape[-1]
                own = hidden[..., d + at * p : d + (at + 1) * p]
                return (hidden[..., :d] if at == 0 else args[0], own, *args[2:])

            return replaced

        hooks = [self.layer.register_forward_pre_hook(at_cut)]
        if self.beside:
            hooks[0].remove()
            seen.append(torch.empty(0))
            hooks += [layer.register_forward_pre_hook(beside(at)) for at, layer in enumerate(self.beside)]
        # DeBERTa-v2's convolution reads what the lowest layer reads.
        convolution = getattr(getattr(self.backbone, "encoder", None), "conv", None)
        if hidden is not None and convolution is not None and self.lowest:
            hooks.append(convolution.register_forward_pre_hook(lambda _, args: (hidden, *args[1:])))
        try:
            inputs = {key: value for key, value in features.items() if key != "prompt_length"}
            states = (self.backbone.text_model if self.tower else self.backbone)(**inputs).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        out: dict[str, Any] = {**features, "token_embeddings": states}
        if self.tower:
            project = getattr(self.backbone, "text_projection", None) or self.backbone.text_model.head
            out["sentence_embedding"] = project(states[:, -1])
        for module in self.head if self.tower else (self.model[1], *self.head):
            out = module(out)
        embedding: Tensor = out["sentence_embedding"]
        return seen[self.earlier].detach(), embedding[:, : self.model.truncate_dim]


def check_pair(pair: PairAttribution, judge: OraclePair, tolerance: float = 1e-5) -> None:
    """Matrix and all terms equal, in units of ‖e(a)‖‖e(b)‖ where the similarity is dot."""
    unit = 1.0 if pair.similarity == "cosine" else judge.norms
    expected = judge.grouped(pair.a.groups.of_token, pair.b.groups.of_token, pair.sums_to) / unit
    # What float32 can resolve of matrices whose cells cancel.
    allowed = tolerance * max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(pair.matrix / unit, expected, atol=allowed, rtol=0)
    np.testing.assert_allclose(pair.row_sums / unit, expected.sum(1), atol=10 * allowed, rtol=0)
    for name in ("score", "reference_a", "reference_b", "reference_ab"):
        assert getattr(pair, name) / unit == pytest.approx(getattr(judge, name) / unit, abs=tolerance), name
    assert pair.total / unit == pytest.approx(expected.sum(), abs=20 * allowed)


def grouped(side: Side, of_token: tuple[int, ...]) -> Doubles:
    """The oracle's token contributions summed over groups: [G, D]."""
    out = np.zeros((max(of_token) + 1, side.contributions_SD.shape[1]))
    np.add.at(out, np.array(of_token), side.contributions_SD)
    return out

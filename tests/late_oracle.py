"""Late interaction as slow loops in float64: the judge of ``attribution_core.pairs.late``.

Computes nothing with ``attribution_core``. The model's own ``preprocess`` reads the texts and its own modules mask,
project and normalise; the hidden state is replaced at the input of layer L, the Jacobian of every output token comes
from backward passes along a right-hand Riemann sum, and the matches are those of the whole texts.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from oracle import layers_of
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class LateSide:
    """One text: contributions [S, T, D] of each token to each scored output, outputs of text and reference [T, D].

    ``place_T`` are the outputs' places among the S tokens, ``text_S`` says which tokens are of kind text.
    """

    raw_STD: Doubles
    e_TD: Doubles
    reference_TD: Doubles
    place_T: list[int]
    text_S: list[bool]

    @property
    def completed_STD(self) -> Doubles:
        """With each text token's share of the reference's outputs."""
        out = self.raw_STD.copy()
        for s, is_text in enumerate(self.text_S):
            if is_text:
                out[s] += self.reference_TD / sum(self.text_S)
        return out


class LateOracle:
    """Attributes with one model at one cut."""

    def __init__(self, model: MultiVectorEncoder, *, layer: int, nodes: int) -> None:
        self.model = copy.deepcopy(model).double().eval()
        self.nodes = nodes
        transformer: Any = self.model[0]
        self.layer = layers_of(transformer.model)[layer]

    def pair(self, query: str, document: str) -> tuple[Doubles, Doubles, float, list[tuple[int, int]]]:
        """Cells Â and c · c of all token pairs [S, S], MaxSim, and the places of the tokens that met."""
        a, b = self.side(query, "query"), self.side(document, "document")
        cells, raw = (np.zeros((len(a.text_S), len(b.text_S))) for _ in range(2))
        score, met = 0.0, []
        for i in range(len(a.e_TD)):
            products = [float(a.e_TD[i] @ b.e_TD[j]) for j in range(len(b.e_TD))]
            j = int(np.argmax(products))
            score += products[j]
            met.append((a.place_T[i], b.place_T[j]))
            for s in range(len(a.text_S)):
                for t in range(len(b.text_S)):
                    cells[s, t] += float(a.completed_STD[s, i] @ b.completed_STD[t, j])
                    raw[s, t] += float(a.raw_STD[s, i] @ b.raw_STD[t, j])
        return cells, raw, score, met

    def side(self, text: str, role: str) -> LateSide:
        """Contributions and outputs of one text."""
        prompt = self.model.prompts.get(role) or ""
        features = dict(self.model.preprocess([text], prompt=prompt or None, task=role))
        ids, tokenizer = features["input_ids"], self.model.tokenizer
        added = torch.tensor(tokenizer.get_special_tokens_mask(ids[0].tolist(), already_has_special_tokens=True))
        of_prompt = len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) if prompt else 0
        text_S = [not one and at > of_prompt for at, one in enumerate(added.bool().tolist())]
        blank = torch.tensor([text_S])
        reference = {**features, "input_ids": torch.where(blank, tokenizer.pad_token_id, ids)}
        x, e, place_T = self._run(features, None, role, ids)
        r, e_r, _ = self._run(reference, None, role, ids)
        path = torch.cat([r + k / self.nodes * (x - r) for k in range(1, self.nodes + 1)]).requires_grad_()
        out = self._run(features, path, role, ids)[1]
        raw = np.zeros((len(text_S), *e[0].shape))
        for t in range(e.shape[1]):
            for d in range(e.shape[2]):
                slope = torch.autograd.grad(out[:, t, d].sum(), path, retain_graph=True)[0].mean(0)
                raw[:, t, d] = (slope * (x - r)[0]).sum(-1).numpy()
        return LateSide(raw, e[0].detach().numpy(), e_r[0].detach().numpy(), place_T, text_S)

    def _run(
        self, features: dict[str, Any], hidden: Tensor | None, role: str, ids: Tensor
    ) -> tuple[Tensor, Tensor, list[int]]:
        """Hidden state at the cut, scored outputs [·, T, D] and their places; the mask is that of the whole text."""
        seen: list[Tensor] = []

        def at_cut(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            seen.append(args[0])
            return args if hidden is None else (hidden, *args[1:])

        count = 1 if hidden is None else len(hidden)
        many = {key: one.expand(count, -1) if isinstance(one, Tensor) else one for key, one in features.items()}
        hook = self.layer.register_forward_pre_hook(at_cut)
        try:
            out: Any = self.model[0](batch_to_device(many, torch.device("cpu")))
        finally:
            hook.remove()
        out["input_ids"] = ids.expand(count, -1)
        for module in list(self.model)[1:]:
            kwargs = {"task": role} if "task" in getattr(module, "forward_kwargs", ()) else {}
            out = module(out, **kwargs)
        scored = out["attention_mask"][0].bool()
        return seen[0].detach(), out["token_embeddings"][:, scored], torch.nonzero(scored).flatten().tolist()

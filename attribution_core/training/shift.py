"""The shift: an encoder that subtracts the token embeddings of the reference before pooling.

Source: Möller, Nikolaev, Padó, EMNLP 2023, section 2.2. The reference of a text keeps its special and prompt tokens and
has padding, under full attention, in place of every other, at the same length; so e(reference) = 0 for every length.
Contributions then inherit nothing from it: cells that sum to the score are those of the paper's difference.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from torch import Tensor, nn

from attribution_core.errors import ModelError
from attribution_core.model.families import family_of
from attribution_core.model.modules import check_shiftable, cut_modules
from attribution_core.text.reference import blank_token
from attribution_core.training.dropout import shared_dropout
from attribution_core.training.references import (
    ReferenceCache,
    is_per_row,
    layouts,
    reference_features,
    stacked,
    weights_state,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Which tokens the reference keeps, [B, S]; preprocess adds it beside the ids.
KEPT = "kept_mask"
# What preprocess needs of the tokenizer to tell that.
MARKS = {"offset_mapping": "return_offsets_mapping", "special_tokens_mask": "return_special_tokens_mask"}


class ShiftedTransformer(Transformer):
    """A ``Transformer`` whose token embeddings are those of the text less those of its reference.

    References are computed once per layout; without gradients they are cached until weights change. In training
    gradients flow through them and nothing is cached. Under dropout a text and its reference have to lose the same
    units at the same positions for the reference to be zero: all rows of a batch do.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._references = ReferenceCache()
        self._refuse_unless_text()

    @classmethod
    def of(cls, transformer: Transformer) -> ShiftedTransformer:
        """The shifted form of a transformer; they share their weights."""
        # As copy.copy does it: the parent's initialiser would load the model from disk again.
        made = cls.__new__(cls)
        made.__dict__.update(transformer.__dict__)
        made._references = ReferenceCache()
        made._refuse_unless_text()
        return made

    @property
    def pad_id(self) -> int:
        """The token that replaces every word in a reference."""
        assert self.tokenizer is not None, "checked when it was made"
        return blank_token(self.tokenizer)[0]

    def preprocess(
        self, inputs: Any, prompt: str | None = None, processing_kwargs: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """As the parent's, with the tokens that the reference keeps under ``kept_mask``."""
        asked: dict[str, Any] = processing_kwargs or {}
        text: dict[str, Any] = asked.get("text") or {}
        marked: Any = {**asked, "text": text | dict.fromkeys(MARKS.values(), True)}
        try:
            read = super().preprocess(inputs, prompt=prompt, processing_kwargs=marked, **kwargs)
        except NotImplementedError as error:
            raise ModelError("the model's tokenizer gives no character offsets; a fast tokenizer is needed") from error
        if not read:
            return read
        kept_BS = read["special_tokens_mask"].bool() & read["attention_mask"].bool()
        if prompt:
            kept_BS |= (read["offset_mapping"][..., 1] <= len(prompt)) & read["attention_mask"].bool()
        read[KEPT] = kept_BS.to(read["attention_mask"].dtype)
        for name, asking in MARKS.items():
            if not text.get(asking):
                del read[name]
        return read

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """As the parent's, with the reference's token embeddings subtracted at every token."""
        kept_BS = features.get(KEPT)
        if kept_BS is None:
            raise ModelError(f"a shifted model needs {KEPT} beside the token ids; model.preprocess gives both")
        reference = reference_features(features, kept_BS, self.pad_id)
        if self.training:
            if getattr(self.model, "is_activation_checkpointing", False):
                raise ModelError("a shifted model cannot be trained with gradient checkpointing: dropout would differ")
            with shared_dropout():
                return self._in_one_batch(features, reference, kwargs)
        features.update(self.unshifted(features, **kwargs))
        token_BSd = features["token_embeddings"]
        reference_BSd = self._shared(reference, token_BSd, kwargs)
        features["token_embeddings"] = token_BSd - reference_BSd * features["attention_mask"].unsqueeze(-1)
        return features

    def _in_one_batch(
        self, features: dict[str, Any], reference: dict[str, Any], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Texts and their distinct references as rows of one batch, which lose the same units by dropout."""
        of_row = layouts(reference)
        first = {one: row for row, one in reversed(list(enumerate(of_row)))}
        b, rows = len(of_row), list(first.values())
        joined = {
            name: torch.cat([value, reference[name][rows]]) if is_per_row(value, b) else value
            for name, value in features.items()
        }
        out = self.unshifted(joined, **kwargs)
        token_BSd, reference_USd = out["token_embeddings"][:b], out["token_embeddings"][b:]
        place = {one: at for at, one in enumerate(first)}
        of_row_B = torch.tensor([place[one] for one in of_row], device=token_BSd.device)
        features["token_embeddings"] = token_BSd - reference_USd[of_row_B] * features["attention_mask"].unsqueeze(-1)
        return features

    def unshifted(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """The parent's forward pass: token embeddings without the shift."""
        return super().forward({name: value for name, value in features.items() if name != KEPT}, **kwargs)

    def forget_references(self) -> None:
        """Drop cached references. Call this after writing weights through ``.data``; other changes are detected."""
        self._references.forget()

    def train(self, mode: bool = True) -> ShiftedTransformer:
        """As the parent's; cached references are dropped at the begin and end of training."""
        if mode != self.training:
            self._references.forget()
        super().train(mode)
        return self

    def _shared(self, reference: dict[str, Any], token_BSd: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """Token embeddings of the references of a batch, [B, S, d]: each distinct one computed once."""
        of_row = layouts(reference)
        distinct = list(dict.fromkeys(of_row))

        def compute(some: list[Any]) -> list[Tensor]:
            out_USd = self.unshifted(stacked(some, reference, self.pad_id), **kwargs)["token_embeddings"]
            return [out_Sd[: len(one)] for one, out_Sd in zip(some, out_USd, strict=True)]

        if torch.is_grad_enabled():
            found = compute(distinct)
        else:
            kind = token_BSd.device.type
            state = weights_state(self)
            types = (token_BSd.dtype, token_BSd.device, torch.is_autocast_enabled(kind), tuple(sorted(kwargs)))
            found = self._references.embeddings(
                distinct, None if state is None else (state, types), lambda some: [one.clone() for one in compute(some)]
            )
        s = token_BSd.shape[1]
        rows_USd = torch.stack([nn.functional.pad(one, (0, 0, 0, s - len(one))) for one in found])
        place = {one: at for at, one in enumerate(distinct)}
        return rows_USd[torch.tensor([place[one] for one in of_row], device=rows_USd.device)]

    def __repr__(self) -> str:
        return f"Shifted{super().__repr__()}"

    def _should_flatten_inputs(self, *args: Any, **kwargs: Any) -> bool:
        # Rows laid end to end for flash attention have no positions to subtract a reference at.
        return False

    def _refuse_unless_text(self) -> None:
        if self.tokenizer is None or not self.tokenizer.is_fast:
            raise ModelError("the model's tokenizer gives no character offsets; a fast tokenizer is needed")
        if self.module_output_name != "token_embeddings":
            raise ModelError("a text tower pools inside itself, so its token embeddings cannot be shifted")
        if "message" in self.modalities:
            raise ModelError("a model that reads chat messages cannot be shifted: it has no reference of plain tokens")
        if self.query_expansion is not None:
            raise ModelError("a model that expands its queries with mask tokens cannot be shifted")
        blank_token(self.tokenizer)


def shift_model(model: SentenceTransformer) -> SentenceTransformer:
    """A shifted copy of a model: its trailing Normalize dropped, its similarity a cosine where it was one in effect.

    A bias of a linear Dense cancels in e(text) − e(reference) and is dropped, which is the shift after that Dense.

    Raises:
        ModelError: where some module cannot map zero to zero, or the model cannot be attributed; with the reason.
    """
    from sentence_transformers import SentenceTransformer

    if any(isinstance(module, Router) for module in model):
        raise ModelError("a model with a Router has a transformer for each role; shifting it is not supported")
    if any(isinstance(module, ShiftedTransformer) for module in model):
        return copy.deepcopy(model)
    # Normalize at zero is singular, and cosine divides by the norm anyway.
    transformer, pooling, head = cut_modules(model, "text", "cosine")
    if not isinstance(transformer, Transformer):
        name = type(transformer).__name__
        raise ModelError(f"a {name} cannot be shifted: a text without words is zero in it already")
    family_of(transformer.model)
    check_shiftable(pooling)
    normalized = any(isinstance(module, Normalize) for module in list(model)[-1:])
    transformer, pooling, head = copy.deepcopy((transformer, pooling, head))
    made = SentenceTransformer(
        modules=[ShiftedTransformer.of(transformer), pooling, *(_through_zero(module) for module in head)],
        device=str(model.device),
        prompts={name: prompt or "" for name, prompt in model.prompts.items()},
        default_prompt_name=model.default_prompt_name,
        similarity_fn_name="cosine" if normalized else model.similarity_fn_name,
        truncate_dim=model.truncate_dim,
    )
    return made.eval()


def _through_zero(module: nn.Module) -> nn.Module:
    """The module to use after a shift: it has to map zero to zero."""
    name = type(module).__name__
    if isinstance(module, Normalize):
        raise ModelError(
            "a Normalize before other modules cannot be shifted: it is not continuous at zero, where references embed"
        )
    if not isinstance(module, Dense):
        raise ModelError(f"a {name} behind pooling cannot be shifted: it does not map zero to zero")
    with torch.no_grad():
        at_zero = module.activation_function(torch.zeros(1))
    linear = isinstance(module.activation_function, nn.Identity)
    if module.linear.bias is not None and not linear:
        activation = type(module.activation_function).__name__
        raise ModelError(
            f"a Dense with a bias before its {activation} cannot be shifted: behind it a reference would not be zero, "
            "and without its bias it would be another model"
        )
    if bool(at_zero.abs().max() > 0):
        raise ModelError("a Dense whose activation is not zero at zero cannot be shifted")
    if module.linear.bias is not None:
        module.linear.register_parameter("bias", None)
        module.bias = False
    return module

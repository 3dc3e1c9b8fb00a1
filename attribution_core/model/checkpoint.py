"""Compares a model's checkpoint with the model that was built from it, so that no number comes from random weights.

transformers fills weights that a checkpoint lacks with random numbers, drops those that no layer takes, and builds its
own class where a configuration names another. Each of these is an error here, unless the embedding cannot depend on it.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from sentence_transformers.base.modules import Transformer
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from attribution_core.errors import ModelError
from attribution_core.model.families import experts_of
from attribution_core.model.inspection import STANFORD
from attribution_core.model.modules import AnyModel

NAMES_SHOWN = 4
# Of the rows of a table of token embeddings, the share that a tokenizer must have tokens for.
FEWEST_TOKENS = 0.5
METHOD = "from_pretrained"
# Buffers that hold positions and masks; they follow from the configuration.
POSITIONS = re.compile(r"(^|\.)(position_ids|token_type_ids|inv_freq|original_inv_freq|attn\.(masked_)?bias)$")
# What the usual training tasks put on top of an encoder, where the named class is not one of transformers'.
HEADS = frozenset({"cls", "lm_head", "classifier", "qa_outputs", "score", "pooler"})
POOLER = re.compile(r"(^|\.)pooler\.")
# What configurations say where every token attends to every other.
BIDIRECTIONAL = (("is_causal", False), ("use_bidirectional_attention", True))
# One architecture under several names.
ALIKE = {"XLMRoberta": "Roberta", "Camembert": "Roberta", "MT5": "T5", "UMT5": "T5"}


@dataclass(frozen=True)
class _Loading:
    """What transformers reported of one model that it built from a checkpoint."""

    model: Any
    missing: frozenset[str]
    unexpected: frozenset[str]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]


class LoadingReports:
    """The reports of every model that transformers builds while ``recording()``."""

    def __init__(self) -> None:
        self._reports: list[_Loading] = []

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Ask ``PreTrainedModel.from_pretrained`` for its report in every call inside the block.

        It is one method for all threads, so the caller holds a lock.
        """
        own = PreTrainedModel.__dict__[METHOD]
        reports = self._reports

        def reported(cls: type, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("output_loading_info"):
                return own.__get__(None, cls)(*args, **kwargs)
            # A shape that differs is an error of ours, which names the weight.
            kwargs = kwargs | {"output_loading_info": True, "ignore_mismatched_sizes": True}
            model, info = own.__get__(None, cls)(*args, **kwargs)
            mismatched = tuple((name, tuple(there), tuple(here)) for name, there, here in info["mismatched_keys"])
            reports.append(
                _Loading(model, frozenset(info["missing_keys"]), frozenset(info["unexpected_keys"]), mismatched)
            )
            return model

        logger = transformers_logging.get_logger("transformers.modeling_utils")
        level = logger.level
        setattr(PreTrainedModel, METHOD, classmethod(reported))
        # Its table of the same report; what matters of it is an error here.
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            setattr(PreTrainedModel, METHOD, own)
            logger.setLevel(level)

    def check(self, name: str, model: AnyModel) -> None:
        """Compare every transformer of ``model``, which ``name`` is, with the checkpoint that it was built from.

        A module that is set to read more tokens than it has positions for reads as many as it has.

        Raises:
            ModelError: naming the weights that are missing, left over or of another shape, or the class that the
                configuration names in place of the one that was built; or where the tokenizer has other tokens than
                the checkpoint has embeddings for.
        """
        for module in model.modules():
            if not isinstance(module, Transformer):
                continue
            _check_experts(name, module.model)
            _check_class(name, module.model)
            _check_vocabulary(name, module)
            _check_attention(name, module)
            _limit_to_positions(module)
            for report in self._reports:
                if report.model is module.model:
                    _check_report(name, module, report)


def check_finite(name: str, model: nn.Module) -> None:
    """Check that every weight is a finite number.

    Raises:
        ModelError: naming the weights that have NaN or infinite values.
    """
    bad = [weight for weight, value in model.named_parameters() if not value.detach().isfinite().all()]
    unused = _unused_of(model, bad) if bad else set()
    bad = [weight for weight in bad if weight not in unused]
    if bad:
        raise ModelError(
            f"model {name} cannot be attributed: NaN or infinite values in its weights {_named(bad)}; download it "
            "again, or take a checkpoint from before they appeared"
        )


def _check_report(name: str, module: Any, report: _Loading) -> None:
    if report.mismatched:
        weight, there, here = sorted(report.mismatched)[0]
        more = f" (and {len(report.mismatched) - 1} more)" if len(report.mismatched) > 1 else ""
        raise ModelError(
            f"model {name} cannot be loaded: its weight {weight} has shape {_shape(there)} in the checkpoint and "
            f"{_shape(here)} by config.json{more}; the two files are not of the same model"
        )
    missing = {weight for weight in report.missing if POSITIONS.search(weight) is None}
    if missing:
        missing -= _unused(module, missing)
    if missing:
        raise ModelError(
            f"model {name} cannot be attributed: its checkpoint lacks {_named(missing, report.model)}, which would be "
            "random numbers; the download is incomplete, or config.json is of another model"
        )
    heads = _heads(report.model)
    left = {
        weight
        for weight in report.unexpected
        if POSITIONS.search(weight) is None and POOLER.search(weight) is None and weight.split(".")[0] not in heads
    }
    if left:
        raise ModelError(
            f"model {name} cannot be attributed: nothing in {type(report.model).__name__} uses {_named(left)} of its "
            "checkpoint, so another model was trained; config.json may be of another model, or the model "
            "may need code of its own (trust_remote_code)"
        )


def _check_experts(name: str, built: Any) -> None:
    """Refuse a mixture of experts of which transformers builds a class without experts."""
    experts = experts_of(built.config)
    if experts and not any("expert" in path or "router" in path for path, _ in built.named_modules()):
        raise ModelError(
            f"model {name} cannot be attributed: config.json names a mixture of {experts} experts, and "
            f"{type(built).__name__} has none and would ignore their weights; use a model without experts"
        )


def _check_attention(name: str, module: Any) -> None:
    """Compare what the configuration says of attention with what the model does: some classes ignore it."""
    config = module.model.config.get_text_config()
    said = next(
        (f"{key}: {str(value).lower()}" for key, value in BIDIRECTIONAL if getattr(config, key, None) is value), ""
    )
    if not said or module.module_output_name != "token_embeddings":
        return
    features = module.preprocess(["a short text of a few words"])
    features = {key: one.to(module.model.device) if hasattr(one, "to") else one for key, one in features.items()}
    ids = features["input_ids"]
    other = ids.clone()
    other[:, 1] = ids[:, -2]
    with torch.no_grad():
        first, second = (module(dict(features, input_ids=one))["token_embeddings"][:, 0] for one in (ids, other))
    if torch.equal(first, second):
        raise ModelError(
            f"model {name} cannot be attributed: its config.json says {said}, but {type(module.model).__name__} of "
            "transformers ignores that field and builds a causal decoder, not the model that was trained; set "
            "is_causal: false in config.json, which transformers' decoders follow, or trust_remote_code if the model "
            "comes with code of its own"
        )


def _check_class(name: str, built: Any) -> None:
    """Compare the class that was built with those that the configuration names."""
    kind = type(built)
    mapped = getattr(built.config, "auto_map", None)
    own = mapped.get("AutoModel") if isinstance(mapped, dict) else None
    remote = kind.__module__.startswith("transformers_modules")
    if isinstance(own, str) and not remote:
        raise ModelError(
            f"model {name} cannot be attributed: its config.json names code of its own ({own}) and transformers built "
            f"its {kind.__name__} in its place, which may compute something else; set trust_remote_code if you trust "
            "the model's authors, or remove auto_map from a copy of config.json if you know that the two are the same"
        )
    named = getattr(built.config, "architectures", None)
    named = str(named[0]) if isinstance(named, list) and named else None
    if named in (None, STANFORD) or remote or _family(named) == _family(kind.__name__):
        return
    known = getattr(transformers, named, None)
    if known is not None and getattr(known, "config_class", None) is type(built.config):
        return
    raise ModelError(
        f"model {name} cannot be attributed: its config.json names the class {named} and transformers built "
        f"{kind.__name__}, by model_type {built.config.model_type!r}; correct config.json, or set trust_remote_code "
        "if the model comes with code of its own"
    )


def _check_vocabulary(name: str, module: Any) -> None:
    """Compare vocabulary sizes: a tokenizer that was built without its vocabulary file reads every word as unknown."""
    table = getattr(module.model, "text_model", module.model).get_input_embeddings()
    rows = getattr(getattr(table, "weight", None), "shape", (0,))[0]
    tokens = len(module.tokenizer) if module.tokenizer is not None else 0
    # Rows beyond the tokenizer's last token are common: tables are padded to a round number.
    if rows and not rows * FEWEST_TOKENS <= tokens <= rows:
        raise ModelError(
            f"model {name} cannot be attributed: its tokenizer has {tokens:,} tokens and its checkpoint embeddings of "
            f"{rows:,}, so they do not belong together; the tokenizer's files (tokenizer.json, or a vocabulary) are "
            "missing or of another model"
        )


def _limit_to_positions(module: Any) -> None:
    """Cut texts that are longer than the table of positions: the model cannot read beyond it."""
    for name, table in module.model.named_modules():
        text = not name.startswith("vision")
        if text and name.endswith(("position_embeddings", "position_embedding")) and hasattr(table, "num_embeddings"):
            # Where padding has a position of its own, the first token's is the one after it.
            first = 0 if table.padding_idx is None else table.padding_idx + 1
            most = table.num_embeddings - first
            if module.max_seq_length is not None and module.max_seq_length > most:
                module.max_seq_length = most


def _family(kind: str) -> str:
    """The architecture in the name of a class: BertForMaskedLM, BertModel → Bert."""
    family = re.sub(r"(For[A-Z]\w*|(Encoder|Text|LMHead|PreTrained)?Model)$", "", kind)
    return ALIKE.get(family, family)


def _heads(built: Any) -> set[str]:
    """Names of what the class that the configuration names has beside its encoder: the heads of training tasks."""
    listed = getattr(built.config, "architectures", None)
    named = str(listed[0]) if isinstance(listed, list) and listed else ""
    if named == STANFORD:  # its projection is a module behind the transformer
        return {"linear"}
    known = getattr(transformers, named, None) if named else None
    if known is None:
        return set(HEADS) if "For" in named else set()
    if _family(named) != _family(type(built).__name__) or not re.search(r"For[A-Z]|LMHead", named):
        return set()
    with contextlib.suppress(Exception), torch.device("meta"):
        whole = known(built.config)
        heads = {name for name, _ in whole.named_children() if name != whole.base_model_prefix}
        return heads - {name for name, _ in built.named_children()}
    return set(HEADS)


def _unused(module: Any, weights: Collection[str]) -> set[str]:
    """Those of ``weights`` of a Transformer module on which no token's embedding depends, by its derivative."""
    present = dict(module.model.named_parameters())
    asked = {name: present[name] for name in weights if name in present}
    features = module.preprocess(["a short text of a few words"])
    features = {key: one.to(module.model.device) if hasattr(one, "to") else one for key, one in features.items()}
    frozen = {name: value.requires_grad for name, value in asked.items()}
    try:
        for value in asked.values():
            value.requires_grad_(True)
        with torch.enable_grad():
            embeddings = module(features)[module.module_output_name]
            slopes = torch.autograd.grad(embeddings.float().sum(), list(asked.values()), allow_unused=True)
    finally:
        for name, value in asked.items():
            value.requires_grad_(frozen[name])
    return {name for name, slope in zip(asked, slopes, strict=True) if slope is None}


def _unused_of(model: nn.Module, weights: Iterable[str]) -> set[str]:
    """Those of ``weights`` of a whole model that belong to a transformer and are unused there."""
    unused: set[str] = set()
    for path, module in model.named_modules():
        if isinstance(module, Transformer):
            # The transformers model is the child `model` of its module.
            for child, backbone in module.named_children():
                if backbone is module.model:
                    prefix = f"{path}.{child}." if path else f"{child}."
                    inside = {one.removeprefix(prefix) for one in weights if one.startswith(prefix)}
                    if inside:
                        unused |= {prefix + one for one in _unused(module, inside)}
    return unused


def _named(weights: Iterable[str], model: Any = None) -> str:
    """Names of weights for a message: a module where all of its weights are meant, and a few of many.

    Without ``model``, whose modules are unknown then, weights of one numbered layer are named together.
    """
    names = sorted(weights, key=_by_numbers)
    names = _modules(names, model) if model is not None else _layers(names)
    shown = ", ".join(names[:NAMES_SHOWN])
    return shown + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")


def _modules(names: list[str], model: Any) -> list[str]:
    """``names`` with the largest modules of which every weight is among them in place of those, as ``module.*``."""
    meant = set(names)
    every = [name for name, _ in model.named_parameters()]
    short: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        prefixes = [".".join(parts[:length]) + "." for length in range(1, len(parts))]
        inside = {prefix: [one for one in every if one.startswith(prefix)] for prefix in prefixes}
        whole = (prefix + "*" for prefix in prefixes if len(inside[prefix]) > 1 and meant.issuperset(inside[prefix]))
        short[next(whole, name)] = None
    return list(short)


def _layers(names: list[str]) -> list[str]:
    """``names`` with those of one numbered layer together, as ``layer.4.*``."""
    layer_of = {name: start[0] if (start := re.match(r".*?\.\d+\.", name)) else name for name in names}
    shared = Counter(layer_of.values())
    return list(dict.fromkeys(layer + "*" if shared[layer] > 1 else name for name, layer in layer_of.items()))


def _by_numbers(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]


def _shape(sizes: tuple[int, ...]) -> str:
    return " × ".join(map(str, sizes))

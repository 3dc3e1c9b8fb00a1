"""Embeddings of queries: those of the index's model, those of a search service, and the checks of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attribution_core.errors import SettingError
from attribution_core.results import Floats
from jobs.config.model_folder import check_one_vector
from jobs.errors import RunError
from jobs.index.snapshot import Facts

if TYPE_CHECKING:
    from attribution_core.attribution import Attributor  # torch

# A query's text to its embedding [D].
Encode = Callable[[str], Any]
# The least cosine of the stored embedding of the probe and that of another program or processor.
LEAST_COSINE = 0.999
# The largest ratio of their lengths, which matter only with dot.
MOST_LENGTH_RATIO = 1.02


def checked_vector(vector: Any, facts: Facts, name: str = "the query's embedding") -> Floats:
    """Return an embedding as float32 [D].

    Raises:
        SettingError: where it has another width than the index, a value that is not finite, or no value but zero.
    """
    try:
        found: Floats = np.asarray(vector, dtype=np.float32)
    except (TypeError, ValueError):
        raise SettingError(f"{name} is not an array of numbers") from None
    if found.shape != (facts.width,):
        wanted = f"the index of {facts.model} needs [{facts.width}]"
        raise SettingError(f"{name} has the shape {list(found.shape)}; {wanted}")
    if not np.isfinite(found).all():
        raise SettingError(f"{name} has values that are not finite")
    if not found.any():
        raise SettingError(f"{name} is zero")
    return found


def check_probe(vector: Any, facts: Facts, source: str) -> None:
    """Compare an embedding of the probe with the stored one; ``source`` is where it comes from, for the message.

    Raises:
        SettingError: where it is of another model, prompt or normalisation.
    """
    found = checked_vector(vector, facts, f"the probe's embedding by {source}")
    stored = np.asarray(facts.probe.embedding, np.float32)
    lengths = float(np.linalg.norm(found)), float(np.linalg.norm(stored))
    cosine = float(found @ stored) / (lengths[0] * lengths[1])
    if cosine < LEAST_COSINE:
        raise SettingError(
            f"{source} is not the index's model {facts.model} with its query prompt: "
            f"the cosine of both embeddings of {facts.probe.text!r} is {cosine:.3f}, not 1"
        )
    ratio = max(lengths) / min(lengths)
    if facts.similarity == "dot" and ratio > MOST_LENGTH_RATIO:
        raise SettingError(
            f"{source} does not scale embeddings as the index's model {facts.model}: that of {facts.probe.text!r} "
            f"has the length {lengths[0]:.4g}, not {lengths[1]:.4g}, and the similarity is dot"
        )


def checked_encoder(encode: Encode, facts: Facts, source: str = "encode") -> Encode:
    """Return ``encode``, after its embedding of the probe was compared with the stored one (:func:`check_probe`)."""
    check_probe(encode(facts.probe.text), facts, source)
    return encode


def model_encoder(
    facts: Facts,
    url: str,
    *,
    model: str | None = None,
    trust_remote_code: bool = False,
    pickled_weights: bool = False,
) -> ModelEncoder:
    """Return the encoder of queries by the model that the index was built with, checked; loads the model.

    Whether the model's own code may run, or its pickled weights be opened, is for the caller to say: the index may be
    somebody else's.

    Raises:
        RunError: where the model of that name is not the one that the index was built with.
        ModelError: where it cannot be loaded, or has a vector for each token.
    """
    # A search service that has embeddings of its own needs no torch.
    from attribution_core.attribution import Attributor

    check_one_vector(model or facts.model, "an index has one for each text")
    loaded = Attributor(
        model or facts.model,
        layer=facts.layer,
        groups="sentence",
        mode="retrieval",
        similarity=facts.similarity,
        reference=facts.reference,
        prompt_a=facts.prompts.get("query"),
        prompt_b=facts.prompts.get("document"),
        trust_remote_code=trust_remote_code,
        pickled_weights=pickled_weights,
    )
    if loaded.fingerprint() != facts.fingerprint:
        raise RunError(
            f"{url}: was built with other weights of {model or facts.model} (fingerprint {facts.fingerprint} there, "
            f"{loaded.fingerprint()} here); load those, or build a new index"
        )

    encode = ModelEncoder(loaded)
    check_probe(encode(facts.probe.text), facts, facts.model)
    return encode


class ModelEncoder:
    """Encodes queries by a model."""

    def __init__(self, model: Attributor) -> None:
        self._model = model

    def __call__(self, text: str) -> Floats:
        """Return the embedding [D] of one query; SettingError where the model reads no token of it."""
        (found,) = self.many([text])
        if isinstance(found, str):
            raise SettingError(f"the query has {found}: {text[:60]!r}")
        return found

    def many(self, texts: Sequence[str]) -> list[Floats | str]:
        """Return the embedding [D] of each query, computed together, or in its place what is wrong with it."""
        read = self._model.read(list(texts), "query")
        good = [one for one in read if one.problem is None]
        embedded = iter(self._model.routes.of("query").embeddings(good) if good else ())
        return [next(embedded) if one.problem is None else one.problem for one in read]

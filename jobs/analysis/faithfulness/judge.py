"""The model that scores changed texts: it encodes them as the run encoded the whole texts."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from attribution_core.model.embedding import embeddings_of
from attribution_core.model.encoder import Encoder, Role
from attribution_core.model.factory import make_encoder
from attribution_core.model.loading import load_model
from attribution_core.model.multi_vector import LateEncoder
from attribution_core.model.static import StaticEncoder
from attribution_core.text.tokenized import ReadText
from jobs.analysis.faithfulness.orders import Scored, Values, of_matches
from jobs.analysis.faithfulness.perturbation import Side
from jobs.analysis.faithfulness.scores import Texts
from jobs.errors import RunError
from jobs.run.reader import Run

# Texts that are collected before they are encoded together: what bounds the memory.
TEXTS_AT_ONCE = 1024
# Where texts are cut to be encoded: references, which are read up to the cut, then cost nothing.
LAYER = 0


class Judge:
    """A loaded model with the run's mode and prompts; with ``model`` another one than the run's, with its own prompts.

    ``flag`` is the option of the command that names another model, for messages.

    Raises:
        ModelError: where the model cannot be loaded or used.
        RunError: where the run's own model has other weights by now.
    """

    def __init__(
        self, run: Run, model: str | None = None, *, trust_remote_code: bool = False, flag: str = "--judge"
    ) -> None:
        self.own = model is None
        own = run.setting("model")
        if self.own and not own:
            raise RunError(f"{run.url}: its job.yaml names no model; name the model to score with: {flag} MODEL")
        self.name, loaded = load_model(model or str(own), trust_remote_code=trust_remote_code)
        prompts = _prompts(run) if self.own else {}
        similarity = run.setting("similarity") if self.own else None
        first_role, second_role = run.roles
        first = make_encoder(loaded, layer=LAYER, similarity=similarity, prompts=prompts, role=first_role)
        self._encoders: dict[Role, Encoder] = {first_role: first}
        if second_role != first_role:
            # One copy of the weights serves both roles.
            self._encoders[second_role] = make_encoder(
                first.model, layer=LAYER, similarity=similarity, prompts=prompts, role=second_role, private=True
            )
        self.similarity = first.similarity
        self.fingerprint = first.fingerprint()
        if self.own and run.setting("fingerprint") not in (None, self.fingerprint):
            raise RunError(
                f"{run.url}: its model {self.name} has other weights now than when the run was made; "
                f"{flag} {self.name} scores with them anyway"
            )

    def embed(self, texts: Iterable[tuple[str, str]]) -> Texts:
        """Embeddings by (role, text), each distinct one encoded once, as they are attributed: for cosine not divided by
        their length, of late interaction one for each scored token. RunError where a text, such as the empty one, has
        none."""
        embeddings: Texts = {}
        wanted = list(dict.fromkeys(texts))
        for role, encoder in self._encoders.items():
            of_role = [text for of, text in wanted if of == role]
            if isinstance(encoder, LateEncoder):
                values = encoder.outputs(encoder.read(of_role, role, "token"))
            else:
                values = raw_embeddings(encoder, role, of_role)
            if not all(np.isfinite(value).all() and value.size for value in values):
                raise RunError(f"{self.name}: gives no embedding of an empty text, so no word can be deleted for it")
            embeddings.update({(role, text): value for text, value in zip(of_role, values, strict=True)})
        return embeddings

    def prompt(self, role: Role) -> str:
        """The prompt put before a text of a role; "" where there is none."""
        return self._encoders[role].prompt(role)

    def with_prompts(self, prompts: dict[Role, str]) -> Judge:
        """The same model with these prompts by role, "" for none; it shares the weights."""
        other = copy.copy(self)
        other._encoders = {
            role: make_encoder(
                encoder.model,
                layer=LAYER,
                similarity=self.similarity,
                prompts={**prompts},
                role=role,
                private=True,
            )
            for role, encoder in self._encoders.items()
        }
        return other

    def word_vectors(self, side: Side, role: Role, *, mean: bool = False) -> Values:
        """:func:`word_vectors` by the encoder of a role, [n, d]."""
        return word_vectors(self._encoders[role], side, role, mean=mean)

    def matches(self, a: Side, b: Side, roles: tuple[Role, Role]) -> tuple[Scored, Scored]:
        """:func:`matches_of` by the encoders of a model of late interaction."""
        return matches_of(a, b, roles, self._encoders)


def matches_of(a: Side, b: Side, roles: tuple[Role, Role], encoders: Mapping[Role, Encoder]) -> tuple[Scored, Scored]:
    """Matched similarities and margins of a pair's words (:func:`of_matches`), by the encoders of both roles."""

    def outputs(side: Side, role: Role) -> tuple[Values, NDArray[np.int64]]:
        encoder = encoders[role]
        assert isinstance(encoder, LateEncoder)
        read = encoder.read([side.text], role, "token")[0]
        assert read.scored_S is not None, "a model of late interaction says which tokens it scores"
        return encoder.outputs([read])[0], _words_of_tokens(read, side)[read.scored_S]

    (a_TD, words_a), (b_TD, words_b) = outputs(a, roles[0]), outputs(b, roles[1])
    return of_matches(a_TD, b_TD, words_a, words_b, (len(a), len(b)))


def raw_embeddings(encoder: Encoder, role: Role, texts: Sequence[str]) -> list[Values]:
    """Embeddings [D] of texts in their order, for cosine without the Normalize at a model's end."""
    return [value.astype(np.float64) for value in embeddings_of(encoder, encoder.read(texts, role, "token"))]


def word_vectors(encoder: Encoder, side: Side, role: Role, *, mean: bool = False) -> Values:
    """Each word's token embeddings (of the last layer, where there is one), summed, or their ``mean``, [n, d]; zero for
    words that the model did not read.

    With mean pooling the dot products of two texts' vectors, special tokens apart, sum to the product of their
    embeddings: the plainest way to split a score into pairs of words.
    """
    read = encoder.read([side.text], role, "token")[0]
    tokens = _token_embeddings(encoder, side.text, role, read)
    assert len(tokens) == len(read), "both read the text by the same rules"
    words = _words_of_tokens(read, side)
    there = words >= 0
    vectors = np.zeros((len(side), tokens.shape[1]))
    np.add.at(vectors, words[there], tokens[there])
    counts = np.bincount(words[there], minlength=len(side))
    return vectors / np.maximum(counts, 1)[:, None] if mean else vectors


def _words_of_tokens(read: ReadText, side: Side) -> NDArray[np.int64]:
    """The word that each token of a text, read by token, stands in; -1 where in none, [tokens]."""
    words = np.full(read.group_count, -1)
    word = 0
    for at, (start, end, kind) in enumerate(zip(read.groups.starts, read.groups.ends, read.groups.kinds, strict=True)):
        if kind != "text":
            continue
        while word < len(side) and side.spans[word][1] <= start:
            word += 1
        if word < len(side) and side.spans[word][0] < max(end, start + 1):
            words[at] = word
    return words[read.of_token_S]


def _token_embeddings(encoder: Encoder, text: str, role: Role, read: ReadText) -> Values:
    """What the model pools over, [tokens, d]."""
    if isinstance(encoder, StaticEncoder):
        # A static embedding gives its mean alone.
        weight_Vd: Tensor = encoder.transformer.embedding.weight
        tokens_Td = weight_Vd.detach()[list(read.ids)]
    else:
        out: Any = encoder.model.encode(
            [text], prompt=encoder.prompt(role), output_value=None, show_progress_bar=False, **_task(role)
        )[0]
        tokens_Td = out["token_embeddings"][out["attention_mask"].bool()]
    return np.asarray(tokens_Td.double().cpu().numpy())


def _task(role: str) -> dict[str, Any]:
    return {} if role == "text" else {"task": role}


def _prompts(run: Run) -> dict[str, str | None]:
    asked = run.job.get("prompts")
    return {role: asked.get(role) for role in run.roles} if isinstance(asked, dict) else {}

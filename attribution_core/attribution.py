"""The public entry: explain pairs of texts with one model."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attribution_core.contribution_cache import ContributionCache
from attribution_core.contributions import DEFAULT_TOLERANCE, Contributor, Quadrature
from attribution_core.directions.precision import choose_precision
from attribution_core.errors import ModelError, SettingError, TextError
from attribution_core.memory import DEFAULT_BUDGET, budget_bytes
from attribution_core.model.encoder import Encoder, ReadText, Role
from attribution_core.model.loading import load_model
from attribution_core.model.modules import AnyModel, is_late
from attribution_core.model.own_precision import own_precision
from attribution_core.pairs.columns import PairColumns, Setting, Undefined, why_undefined
from attribution_core.pairs.completion import SUMS_TO, Completion, check_centre_size
from attribution_core.pairs.late import SUMS_TO as LATE_SUMS
from attribution_core.pairs.late import LatePairs, LateProducts
from attribution_core.pairs.products import PairProducts
from attribution_core.pairs.tiles import SHORTEST, Pulled
from attribution_core.quadrature.rules import check_rule
from attribution_core.results import Contributions, Floats, PairAttribution
from attribution_core.rounds.late import known_for_late
from attribution_core.rounds.refinement import refine
from attribution_core.rounds.routes import routes_of
from attribution_core.rounds.single import known_for_cells, known_for_words
from attribution_core.settings import (
    LEVELS,
    MODES,
    PRODUCTS,
    WAYS,
    checked_text,
    jacobian_products,
    one_of,
    prompts_by_role,
    units_by_role,
)
from attribution_core.text.tokenized import distinct_texts

PAPER_NODES = 50


class Attributor:
    """Explains the similarity of two texts by which of their tokens met.

    ``layer`` is the first layer above the cut (0 … n−1, or negative); ``groups`` is token, word or sentence, or in
    retrieval mode a mapping with one of them for ``query`` and for ``document``;
    ``mode`` says whether both texts are encoded by ``encode``'s rules (symmetric) or the first as a query and the
    second as a document (retrieval, which a late-interaction model has where none is given).
    ``quadrature`` is gauss (nodes chosen a text so that ‖Σ c − (e − e_r)‖ ≤
    ``tolerance``·‖e‖, up to ``max_nodes``; queries, which cost little, get a tenth of a tolerance looser than the
    default) or riemann (the paper's right-hand rule); ``nodes`` fixes the number.
    A pair whose error passes ``pair_tolerance`` (in units of ‖e(a)‖‖e(b)‖) gets more nodes. ``sums_to`` says what a
    pair's cells sum to: score, difference (the paper's, against two texts of the reference's token alone) or centred,
    which subtracts the mean embedding of the texts ``centre`` (50 distinct ones or more; by role in retrieval mode).
    ``level`` words computes what each group adds to the whole score, without word pairs, in about half the time.
    ``reference`` is the token that replaces every word in a reference: pad (the paper's), unk, mask, or a
    word that is one token. ``memory`` bounds
    the activations of one chunk, in bytes or, below 1, as a share of the device's memory.
    ``prompt_a`` and ``prompt_b`` name one of the model's prompts or give one.
    ``products`` and ``way`` override what is chosen for speed: hand-linearised layers where the family has them, else
    torch.func; forward with one direction a group, reverse with one a coordinate of the embedding, or partner with one
    a group of the texts it is paired with, for one text of each pair. ``precision`` is that of tangents (float32, tf32,
    fp16, bf16; auto: fp16 on GPUs); a text whose residual then misses the tolerance is computed again in float32.
    ``shared`` takes the model as it is in place of a copy: that of another Attributor (``encoder.model``).

    Raises:
        ModelError: where the model cannot be loaded or attributed.
        SettingError: where a setting has a value that is not allowed.
    """

    def __init__(
        self,
        model: AnyModel | str | Path,
        *,
        layer: int = -2,
        similarity: str | None = None,
        groups: str | Mapping[str, str] = "word",
        mode: str | None = None,
        quadrature: str = "gauss",
        tolerance: float = DEFAULT_TOLERANCE,
        pair_tolerance: float = 1e-2,
        nodes: int | None = None,
        max_nodes: int = 256,
        sums_to: str = "score",
        level: str = "pairs",
        reference: str = "pad",
        centre: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        memory: int | float = DEFAULT_BUDGET,
        device: str | None = None,
        dtype: str = "float32",
        prompt_a: str | None = None,
        prompt_b: str | None = None,
        trust_remote_code: bool = False,
        pickled_weights: bool = False,
        products: str = "auto",
        way: str = "auto",
        precision: str = "auto",
        shared: bool = False,
    ) -> None:
        rule = check_rule(quadrature, nodes, max_nodes, tolerance)
        if dtype not in ("float32", "float64"):
            raise SettingError(f"dtype {dtype!r} is unknown; allowed are float32 and float64")
        self.model_name, loaded = load_model(
            model, device=device, trust_remote_code=trust_remote_code, pickled_weights=pickled_weights
        )
        self.late = is_late(loaded)
        self.mode = one_of("mode", mode or ("retrieval" if self.late else "symmetric"), MODES)
        self.units = units_by_role(self.roles, groups)
        dtype_ = torch.float64 if dtype == "float64" else torch.float32
        prompts = prompts_by_role(self.mode, prompt_a, prompt_b)
        if rule == "riemann" and nodes is None:
            nodes = PAPER_NODES
        self.quadrature = Quadrature(rule, tolerance, nodes, max_nodes)
        self.pair_tolerance = pair_tolerance
        self.completion = Completion(one_of("sums_to", sums_to, SUMS_TO))
        self.level = one_of("level", level, LEVELS)
        if self.late and sums_to not in LATE_SUMS:
            raise SettingError(
                f"sums_to {sums_to!r} needs one vector a text; of late interaction it is {' or '.join(LATE_SUMS)}"
            )
        if self.late and way == "reverse":
            raise SettingError("way 'reverse' does not serve late interaction; take auto, forward or partner")
        asked = one_of("products", products, PRODUCTS)

        # Two routes share modules, and the memory.
        computing = threading.Lock()

        def contributor(encoder: Encoder) -> Contributor:
            return Contributor(
                encoder,
                jacobian_products(encoder, asked),
                self.quadrature,
                budget_bytes(memory, encoder.device),
                one_of("way", way, WAYS),
                choose_precision(precision, encoder.device, encoder.dtype),
                computing,
            )

        common: dict[str, Any] = {
            "layer": layer,
            "similarity": similarity,
            "dtype": dtype_,
            "prompts": prompts,
            "reference": reference,
        }
        self.routes = routes_of(loaded, self.roles, contributor, device=device, private=shared, **common)
        self.contributor = self.routes.usual
        self.encoder = self.contributor.encoder
        # Of a checkpoint in half precision: how far its own scores are from those that are attributed.
        self.own_precision = None if shared else own_precision(loaded, self.encoder.model, self.roles)
        if layer > 0 and not any(self.encoder_of(role).layer_count for role in self.roles):
            raise ModelError(f"layer {layer} does not exist: the model has no layers and is cut at its embeddings")
        if centre is not None:
            self._centre_on_texts(centre)

    @property
    def layer(self) -> int:
        """The first layer above the cut, counted from 0; of two routes that of the first one with layers."""
        encoders = [self.routes.of(role).encoder for role in self.roles]
        return next((encoder.layer for encoder in encoders if encoder.layer_count), 0)

    @property
    def similarity(self) -> str:
        """The similarity that is attributed: cosine or dot, of late interaction maxsim or meanmaxsim."""
        return self.encoder.similarity

    @property
    def groups(self) -> str | dict[str, str]:
        """What is attributed as one: token, word or sentence, by role where the roles differ."""
        kinds = set(self.units.values())
        return kinds.pop() if len(kinds) == 1 else dict(self.units)

    @property
    def references(self) -> dict[str, str]:
        """The token that replaces every word in a reference, by role."""
        return {role: self.routes.of(role).encoder.reference_name for role in self.roles}

    @property
    def roles(self) -> tuple[Role, Role]:
        """The roles in which the first and the second text of a pair are encoded."""
        return ("query", "document") if self.mode == "retrieval" else ("text", "text")

    def attribute(self, a: str, b: str) -> PairAttribution:
        """Explain one pair.

        Raises:
            TextError: where one of the texts has nothing to attribute.
        """
        return self.attribute_pairs([(a, b)])[0]

    def attribute_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[PairAttribution]:
        """Explain many pairs; each distinct text is computed once.

        Raises:
            TextError: where a text has nothing to attribute, naming the pair.
        """
        read: list[dict[str, ReadText]] = []
        for side, role in enumerate(self.roles):
            distinct = list(dict.fromkeys(checked_text(pair[side], at, side) for at, pair in enumerate(pairs)))
            read.append(dict(zip(distinct, self.read(distinct, role), strict=True)))
        texts = [(read[0][a], read[1][b]) for a, b in pairs]
        for at, pair in enumerate(texts):
            for name, text in zip(("first", "second"), pair, strict=True):
                if text.problem is not None:
                    raise TextError(f"pair {at}: the {name} text has {text.problem}: {text.text[:60]!r}")
        explained: list[PairAttribution] = []
        for at, one in enumerate(self.pairs(texts)):
            if isinstance(one, Undefined):
                raise TextError(f"pair {at}: {why_undefined(one, pairs[at])}")
            explained.append(one)
        return explained

    def read(self, texts: Sequence[str], role: Role) -> list[ReadText]:
        """Tokenise texts for a role; ``problem`` of each says whether it can be attributed."""
        return self.routes.of(role).encoder.read(texts, role, self.units[role])

    def contributions(self, texts: Sequence[ReadText], cache: ContributionCache | None = None) -> list[Contributions]:
        """Contributions of texts, in their order; equal texts share one result, and cached ones are not computed."""
        distinct, places = distinct_texts(texts)
        computed = self.routes.computed_alone(distinct, cache)
        return [computed[place] for place in places.tolist()]

    def pairs(
        self, pairs: Sequence[tuple[ReadText, ReadText]], cache: ContributionCache | None = None
    ) -> list[PairAttribution | Undefined]:
        """Explain pairs of texts that have been read, in their order; each distinct text is computed once.

        Contributions that ``cache`` holds are used, and others are put there. A pair with an embedding of norm zero has
        no cosine, and comes back as undefined.

        Raises:
            SettingError: where sums are to be centred, and no centre is given.
        """
        distinct, places = distinct_texts([*(a for a, _ in pairs), *(b for _, b in pairs)])
        edges = places.reshape(2, -1).T
        columns, defined = self.pair_columns(distinct, edges, cache=cache, cells=True)
        found: list[PairAttribution | Undefined] = [Undefined(())] * len(pairs)
        for at, place in enumerate(defined.tolist()):
            found[place] = columns.pair(at)
        for place in set(range(len(pairs))) - set(defined.tolist()):
            found[place] = self.undefined(columns, edges[place])
        return found

    def pair_columns(
        self,
        texts: Sequence[ReadText],
        edges: NDArray[np.int64],
        *,
        top_k: int | None = None,
        cells: bool = False,
        cache: ContributionCache | None = None,
    ) -> tuple[PairColumns, NDArray[np.int64]]:
        """Attributions of the pairs ``edges`` [P, 2] of distinct texts, and which of the pairs have one.

        A pair with an embedding of norm zero has no cosine (:meth:`undefined`). ``top_k`` cells of each pair are found,
        and its sums; None: neither. ``cells`` keeps the matrices. ``cache`` as in :meth:`pairs`.

        Raises:
            SettingError: where sums are to be centred, and no centre is given.
        """
        known, pulled = self.known(texts, edges, cache)
        return self.columns(known, edges, pulled, top_k=top_k, cells=cells)

    def columns(
        self,
        known: Sequence[Contributions],
        edges: NDArray[np.int64],
        pulled: Pulled | LatePairs,
        *,
        top_k: int | None = None,
        cells: bool = False,
    ) -> tuple[PairColumns, NDArray[np.int64]]:
        """The second half of :meth:`pair_columns`, which needs the model only for pairs that are refined."""
        columns, defined = self._columns(known, edges, pulled, top_k, cells)
        if self.quadrature.nodes is None:
            again = partial(self._again, top_k=top_k, cells=cells)
            for at in np.flatnonzero(np.abs(columns.error) > self.pair_tolerance).tolist():
                refine(columns, at, again, self.quadrature, self.pair_tolerance)
        return columns, defined

    def undefined(self, columns: PairColumns, edge: NDArray[np.int64]) -> Undefined:
        """Why a pair of two numbered texts of ``columns`` has no score."""
        lengths = (np.linalg.norm(columns.texts[at].embedding_D.astype(np.float64)) for at in edge)
        return Undefined(tuple(side for side, length in zip("ab", lengths, strict=True) if length <= SHORTEST))

    def stored(
        self,
        texts: Sequence[ReadText],
        completed: Sequence[NDArray[Any]],
        embeddings: Sequence[NDArray[Any]],
        nodes: Sequence[int],
        residuals: Sequence[float],
    ) -> list[Contributions]:
        """Return the contributions of texts of one role, which were computed and stored before.

        ``completed`` has ĉ [G, D] of each text, which sum to its embedding [D] in ``embeddings``
        (:mod:`attribution_core.pairs.completion`). Only references go through the model, once each.
        """
        if not texts:
            return []
        references_ND = self.routes.of(texts[0].role).references(texts).astype(np.float32)
        return [
            Contributions(
                text=text,
                nodes=count,
                residual=residual,
                converged=residual <= self.quadrature.tolerance,
                way="stored",
                values_GD=values_GD - np.outer(text.shares_G, reference_D).astype(np.float32),
                embedding_D=embedding_D,
                reference_D=reference_D,
            )
            for text, values_GD, embedding_D, reference_D, count, residual in zip(
                texts, completed, embeddings, references_ND, nodes, residuals, strict=True
            )
        ]

    def known(
        self,
        texts: Sequence[ReadText],
        edges: NDArray[np.int64],
        cache: ContributionCache | None = None,
        given: Mapping[int, Contributions] | None = None,
    ) -> tuple[list[Contributions], Pulled | LatePairs]:
        """The first half of :meth:`pair_columns`: contributions of distinct texts, or their products with partners.

        First those that are computed alone, then those that need their partners. ``given`` maps places in
        ``texts`` to stored contributions (:meth:`stored`); all others are then computed alone.
        """
        if self.completion.sums_to == "centred" and not self.completion.centres:
            raise SettingError("sums_to 'centred' needs a sample of texts to take the mean of: give centre=[…]")
        if self.late:
            assert not given, "an index has no outputs of late interaction"
            return self._known_for_late(texts, edges, cache)
        products = self._products(None, cells=False)
        if given:
            rest = [at for at in range(len(texts)) if at not in given]
            computed = self.routes.computed_alone([texts[at] for at in rest], cache)
            both = dict(given) | dict(zip(rest, computed, strict=True))
            return [both[at] for at in range(len(texts))], Pulled({})
        if self.level == "words":
            return known_for_words(self.routes, products, texts, edges, cache)
        return known_for_cells(self.routes, products, texts, edges, cache)

    def centre_on(self, centres: Mapping[str, Floats]) -> None:
        """Use ``centres`` [D] by role as the mean embeddings that ``centred`` sums subtract."""
        assert set(centres) == set(self.roles), "a centre for each role"
        self.completion = Completion(self.completion.sums_to, dict(centres))

    def mean_embedding(self, texts: Sequence[str], role: Role) -> Floats:
        """The mean embedding [D] of those of the distinct ``texts`` that have a token, in a role.

        Raises:
            SettingError: where they are fewer than 50.
        """
        read = [text for text in self.read(sorted(set(texts)), role) if text.problem is None]
        check_centre_size(role, len(read))
        mean_D: Floats = self.routes.of(role).embeddings(read).astype(np.float64).mean(0).astype(np.float32)
        return mean_D

    def encoder_of(self, role: str) -> Encoder:
        """Return the encoder of texts of ``role``."""
        return self.routes.of(role).encoder

    def forget_references(self) -> None:
        """Drop the references of earlier texts, so that the next results do not depend on those texts at all.

        References are computed once, beside the texts that first need them, and so differ in the last digits.
        """
        for role in dict.fromkeys(self.roles):
            self.routes.of(role).forget_references()

    def calibrate(self) -> None:
        """Calibrate the quadrature of the model and layer now, not at the first text."""
        for role in self.roles:
            _ = self.routes.of(role).mesh

    def fingerprint(self) -> str:
        """A hash of everything in the model that decides its attributions."""
        return self.encoder.fingerprint()

    def settings(self) -> dict[str, Any]:
        """The settings in force, as plain values."""
        return {
            "model": self.model_name,
            "layer": self.layer,
            "similarity": self.similarity,
            "groups": self.groups,
            "mode": self.mode,
            "quadrature": self.quadrature.rule,
            "tolerance": self.quadrature.tolerance,
            "nodes": self.quadrature.nodes,
            "max_nodes": self.quadrature.max_nodes,
            "sums_to": self.completion.sums_to,
            "level": self.level,
            "reference": self.encoder.reference,
        }

    def _known_for_late(
        self,
        texts: Sequence[ReadText],
        edges: NDArray[np.int64],
        cache: ContributionCache | None = None,
        tolerance: float | None = None,
    ) -> tuple[list[Contributions], LatePairs]:
        words, sums_to = self.level == "words", self.completion.sums_to
        return known_for_late(self.routes, texts, edges, cache, words=words, sums_to=sums_to, tolerance=tolerance)

    def _again(self, texts: Sequence[ReadText], tolerance: float, *, top_k: int | None, cells: bool) -> PairColumns:
        """One pair of texts, computed with another tolerance."""
        edge = np.array([[0, 1]])
        pulled: Pulled | LatePairs = Pulled({})
        if self.late:
            both, pulled = self._known_for_late(texts, edge, tolerance=tolerance)
        else:
            both = self.routes.contributions(texts, tolerance=tolerance)
        return self._columns(both, edge, pulled, top_k, cells)[0]

    def _columns(
        self,
        known: Sequence[Contributions],
        edges: NDArray[np.int64],
        pulled: Pulled | LatePairs,
        top_k: int | None,
        cells: bool,
    ) -> tuple[PairColumns, NDArray[np.int64]]:
        if isinstance(pulled, LatePairs):
            words = self.level == "words"
            late = LateProducts(self._setting, None if words else top_k, cells and not words, words)
            return late.columns(known, edges, pulled)
        return self._products(top_k, cells=cells).columns(known, edges, pulled)

    @property
    def _setting(self) -> Setting:
        return Setting(self.completion.sums_to, self.similarity, self.layer, self.model_name)

    def _products(self, top_k: int | None, *, cells: bool) -> PairProducts:
        return PairProducts(self.completion, self._setting, top_k, cells=cells, words=self.level == "words")

    def _centre_on_texts(self, centre: Sequence[str] | Mapping[str, Sequence[str]]) -> None:
        roles = dict.fromkeys(self.roles)
        if not isinstance(centre, Mapping):
            if len(roles) > 1:
                raise SettingError("centre: in retrieval mode give texts by role: {'query': […], 'document': […]}")
            centre = {self.roles[0]: centre}
        missing = [role for role in roles if role not in centre]
        if missing:
            raise SettingError(f"centre: has no texts for the role {missing[0]!r}")
        self.centre_on({role: self.mean_embedding(centre[role], role) for role in roles})

"""Reads a model's configuration files, without its weights and without torch; all other code uses this reader."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from attribution_core.errors import ModelError
from attribution_core.model.hub import place_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SETTINGS, MODULES, CONFIG = "config_sentence_transformers.json", "modules.json", "config.json"
# The prompts that encode_query and encode_document look for, in this order.
PROMPT_NAMES: dict[str, tuple[str, ...]] = {
    "text": (),
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}
# Where the families that can be attributed keep their sizes: hidden width, feed-forward width, number of layers.
WIDTHS = ("hidden_size", "dim", "d_model")
INNER_WIDTHS = ("intermediate_size", "hidden_dim", "d_ff")
LAYER_COUNTS = ("num_hidden_layers", "n_layers", "num_layers")
# A tokenizer without a limit of its own says so with a number as large as this.
NO_LIMIT = 1 << 20
# The similarities of late interaction.
LATE_SIMILARITIES = ("maxsim", "meanmaxsim")
KINDS = {
    "SparseEncoder": "it is a sparse encoder, with a value for each entry of a vocabulary: contributions as wide as "
    "that are not supported",
    "CrossEncoder": "it is a cross-encoder, which reads both texts at once: there are no two embeddings whose product "
    "could be split into pairs of tokens",
}
# Architectures with code of their own that transformers has by now, under another name: what to do.
OWN_CODE = {
    "new": "transformers has its architecture 'new' as 'gte'; take a checkpoint of that model_type, such as "
    "alibaba-nlp-community/gte-multilingual-base",
    "XLMRobertaLoRA": "transformers has its architecture as 'jina_embeddings_v3'; take a checkpoint of that "
    "model_type, such as jinaai/jina-embeddings-v3-hf",
}


class ListedModule(NamedTuple):
    """A module that ``modules.json`` lists: its folder below the model's, "" for that itself, and its class."""

    path: str
    kind: str


# What late-interaction models are called by sentence-transformers, PyLate and Stanford's ColBERT.
LATE_TYPES = ("MultiVectorEncoder", "ColBERT")
STANFORD = "HF_ColBERT"
# sentence-transformers gives every model that it loads these two: a prompt called "passage" alone, or a default one
# alone, is then not the prompt of a document.
EMPTY_PROMPTS = {"query": "", "document": ""}


class ModelFiles:
    """The descriptions of the model at ``place``: a folder, or a name on the hub, whose files are then downloaded.

    A file that is missing or damaged counts as empty: loading the model says what is wrong with it.
    """

    def __init__(self, place: str | Path) -> None:
        self._place = place
        self._read: dict[str, Any] = {}

    def object(self, *path: str) -> dict[str, Any]:
        """Return the object in one JSON file, given as parts of its path below the model's folder."""
        value = self._json(*path)
        return value if isinstance(value, dict) else {}

    @property
    def modules(self) -> list[ListedModule]:
        """The modules that sentence-transformers saved; empty for a model that it did not save."""
        value = self._json(MODULES)
        listed = [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
        return [ListedModule(str(one.get("path") or ""), str(one.get("type") or "")) for one in listed]

    @property
    def late(self) -> bool:
        """Whether the model has an embedding for each token and scores by a sum of maxima (late interaction)."""
        kind = self.object(SETTINGS).get("model_type")
        if kind is not None:  # as sentence-transformers decides it
            return kind in LATE_TYPES
        kinds = self.object(CONFIG).get("architectures")
        return isinstance(kinds, list) and STANFORD in kinds

    def config(self, role: str = "text") -> dict[str, Any]:
        """Return the configuration of the transformer that reads texts of ``role``, with that of its text tower."""
        config = self.object(self._transformer(role), CONFIG)
        inner = config.get("text_config")
        return (inner | config) if isinstance(inner, dict) else config

    def size(self, role: str, names: tuple[str, ...]) -> int | None:
        """Return the first of the configuration's fields ``names`` that is a size; None where it has none of them."""
        config = self.config(role)
        return next((size for name in names if (size := _positive(config.get(name))) is not None), None)

    def prompt(self, role: str, asked: str | None = None) -> str:
        """Return the prompt before a text of ``role``, as :func:`prompt_of` says it."""
        settings = self.object(SETTINGS)
        prompts = settings.get("prompts")
        own = prompts if isinstance(prompts, dict) else {}
        return prompt_of(role, asked, EMPTY_PROMPTS | own, settings.get("default_prompt_name"))

    def most_tokens(self, role: str) -> int | None:
        """Return how many tokens the model reads of a text of ``role``; None where no file says."""
        module = self._transformer(role)
        settings = self.object(module, "sentence_bert_config.json")
        # Folders of PyLate have the two lengths among the model's own settings.
        lengths = self.object(SETTINGS) | settings
        own = {"query": lengths.get("query_length"), "document": lengths.get("document_length")}.get(role)
        expansion = settings.get("query_expansion")
        if role == "query" and isinstance(expansion, dict) and expansion.get("strategy") == "fixed":
            own = expansion.get("length")
        limits = (
            own or settings.get("max_seq_length"),
            self.object(module, "tokenizer_config.json").get("model_max_length"),
            self.object(module, CONFIG).get("max_position_embeddings"),
        )
        return min((limit for one in limits if (limit := _positive(one)) is not None), default=None)

    def tokenizer(self, role: str) -> Tokenizer | None:
        """Return the tokenizer of texts of ``role``, which cuts and pads nothing; None where there is no file of it."""
        path = self._path(self._transformer(role), "tokenizer.json") or self._path("tokenizer.json")
        if path is None:
            return None
        from tokenizers import Tokenizer  # a fifth of a second, for a check that most jobs do not need

        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception:  # the library raises nothing narrower
            return None
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def _transformer(self, role: str) -> str:
        """The folder of the transformer that reads texts of ``role``: the first module, or the first of its route."""
        first = self.modules[0].path if self.modules else ""
        router = self.object(first, "router_config.json")
        structure = router.get("structure")
        if not isinstance(structure, dict) or not structure:
            return first
        parameters = router.get("parameters")
        default = parameters.get("default_route") if isinstance(parameters, dict) else None
        route = structure.get(role) or structure.get(default or "") or next(iter(structure.values()))
        return str(PurePosixPath(first, str(route[0]))) if route else first

    def _json(self, *path: str) -> Any:
        name = str(PurePosixPath(*path))
        if name not in self._read:
            self._read[name] = None
            file = self._path(name)
            if file is not None:
                with contextlib.suppress(OSError, ValueError, RecursionError):
                    self._read[name] = json.loads(file.read_bytes())
        return self._read[name]

    def _path(self, *path: str) -> Path | None:
        name = str(PurePosixPath(*path))
        local = Path(self._place, name)
        if local.is_file() or Path(self._place).is_dir():
            return local if local.is_file() else None
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            return Path(hf_hub_download(str(self._place), name, library_name="sentence-transformers"))
        except (OSError, ValueError, EntryNotFoundError):
            return None


def prompt_of(role: str, asked: str | None, prompts: Mapping[str, str | None], default: str | None) -> str:
    """Return the prompt before a text of ``role``, by the rules of encode, encode_query and encode_document.

    ``prompts`` are the model's by name, ``default`` the name of the one for all texts. ``asked`` is the name of one of
    them, or else the prompt itself; None leaves it to the model.
    """
    if asked is not None:
        return prompts.get(asked, asked) or ""
    name = next((name for name in PROMPT_NAMES[role] if name in prompts), default)
    return (prompts.get(name) or "") if name is not None else ""


def first_layer_above(layer: int, count: int) -> int:
    """Return the index 0 … count−1 of the first layer above the cut, from a possibly negative one.

    Raises:
        ModelError: where the model has no such layer.
    """
    index = layer + count if layer < 0 else layer
    if not 0 <= index < count:
        raise ModelError(
            f"layer {layer} does not exist: the model has {count} layers, so layer is {-count} … {count - 1}"
        )
    return index


def refuse_by_description(name: str) -> None:
    """Refuse a model whose own files say that it cannot be attributed; ``name`` is a folder or a name on the hub.

    sentence-transformers would load a saved sparse encoder or cross-encoder as an ordinary model: it takes the
    transformer and puts mean pooling on top. Attributions would then explain a model that was never trained.

    Raises:
        ModelError: with the reason.
    """
    files = ModelFiles(place_of(name))
    config = files.object(CONFIG)
    kind = str(files.object(SETTINGS).get("model_type") or "")
    architectures = config.get("architectures")
    first = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    if not files.modules and first.endswith("ForSequenceClassification"):
        kind = "CrossEncoder"
    if kind in KINDS:
        raise ModelError(f"model {name} cannot be attributed: {KINDS[kind]}")
    for architecture in (str(config.get("model_type")), first):
        if architecture in OWN_CODE:
            raise ModelError(
                f"model {name} cannot be attributed: it runs code of its own, and {OWN_CODE[architecture]}"
            )
    own = [files.object(module.path, CONFIG) for module in files.modules[:1]]
    if any(one.get("quantization_config") for one in (config, *own)):
        raise ModelError(
            f"model {name} cannot be attributed: its weights are quantised, so they have no float copy to "
            "differentiate; use the checkpoint that it was made from"
        )


def saved_by_sentence_transformers(name: str) -> bool:
    """Return whether the model lists its modules; otherwise sentence-transformers puts pooling of its own on top."""
    return bool(ModelFiles(place_of(name)).modules)


def _positive(value: object) -> int | None:
    """A size or limit as a whole number; None for other values, and for those that mean no limit."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < NO_LIMIT:
        return None
    return int(value)

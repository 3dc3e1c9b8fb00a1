"""Tiny random encoders of every family, saved and loaded as real sentence-transformers folders; nothing is fetched.

Each has four layers, four heads, a fast tokenizer built in code, and weights so large that attention is far from
uniform and the path from reference to text far from straight.
"""

from __future__ import annotations

import contextlib
import json
import random
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

FAMILIES = ("bert", "roberta", "xlm-roberta", "mpnet", "distilbert")
POOLINGS: tuple[str | tuple[str, ...], ...] = (
    "cls",
    "mean",
    "mean_sqrt_len_tokens",
    "weightedmean",
    "lasttoken",
    ("mean", "cls"),
    ("weightedmean", "lasttoken"),
)
LAYERS = 4
POSITIONS = 80
MAX_LENGTH = 64

_TEXT = """
the a of to in coffee is this not good bad how do I copy file rain falls red dog ball where station station's
wave pressure heat flow library book reader bridge river paper report question answer query document model
number three seven open close write reading walked walking fastest don't isn't
"""
WORDS = tuple(_TEXT.split())
_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'\"-()[]{}/%&äöüßéèçñ«»…–"


@dataclass(frozen=True)
class Shape:
    """What a tiny model is made of beside its family."""

    pooling: str | tuple[str, ...] = "mean"
    dense: tuple[int, str] | None = None  # output width; "tanh", "relu" or "identity"
    normalize: bool = False
    include_prompt: bool = True
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str | None = None
    truncate_dim: int | None = None
    max_length: int = MAX_LENGTH
    layers: int = LAYERS
    seed: int = 0


class TinyModels:
    """Builds models below one folder, each once, whichever process of a session needs it first."""

    def __init__(self, room: Path) -> None:
        self.room = room

    def folder(self, family: str, **shape: Any) -> Path:
        """The folder of a saved model; keywords are the fields of :class:`Shape`."""
        wanted = Shape(**shape)
        key = zlib.crc32(json.dumps(asdict(wanted), sort_keys=True).encode())
        folder = self.room / f"{family}-{wanted.seed}-{key:08x}"
        backbone = self.backbone(family, wanted)
        return published(
            folder, lambda aside: _build(family, wanted, backbone).save(str(aside), create_model_card=False)
        )

    def load(self, family: str, **shape: Any) -> SentenceTransformer:
        """A model read from its folder, as a user would."""
        return SentenceTransformer(
            str(self.folder(family, **shape)), device="cpu", truncate_dim=Shape(**shape).truncate_dim
        )

    def backbone(self, family: str, shape: Shape) -> Path:
        """The folder of the transformers model and its tokenizer alone."""
        from tiny_families import processor

        def build(aside: Path) -> None:
            tokenizer = _tokenizer(family)
            model = _transformer(family, tokenizer, shape.layers)
            randomise(model, shape.seed)
            model.save_pretrained(aside)
            processor(family, tokenizer).save_pretrained(aside)

        return published(self.room / f"backbone-{family}-{shape.seed}-{shape.layers}", build)


def published(folder: Path, build: Callable[[Path], None]) -> Path:
    """``folder``, built aside and renamed, so that another process sees all of it or nothing."""
    if folder.exists():
        return folder
    aside = Path(tempfile.mkdtemp(dir=folder.parent)) / folder.name
    build(aside)
    # Another process may have been first: its folder has the same content.
    with contextlib.suppress(OSError):
        aside.rename(folder)
    return folder


def random_text(rng: random.Random, words: int, *, sentences: bool = False) -> str:
    """A text of known and unknown words, numbers and marks."""
    unknown = ("Zwölf", "naïve", "3.14", "qwerty", "x-ray", "(see", "below)", "Ünïcode", "1,000")
    chosen = [rng.choice(WORDS) if rng.random() < 0.8 else rng.choice(unknown) for _ in range(words)]
    if sentences:
        for at in range(2, words - 1, 4):
            chosen[at] += rng.choice(".?!")
    return " ".join(chosen) + rng.choice((".", "?", ""))


def _build(family: str, shape: Shape, backbone: Path) -> SentenceTransformer:
    from tiny_families import FIXED, OUT

    fixed: Any = {"text": {"padding": "max_length", "max_length": FIXED}} if family.startswith("siglip") else None
    transformer = Transformer(str(backbone), max_seq_length=shape.max_length, processing_kwargs=fixed)
    width = OUT if family == "embedding-gemma2" else transformer.get_embedding_dimension()
    pooling = Pooling(width, shape.pooling, include_prompt=shape.include_prompt)
    modules: list[nn.Module] = [transformer, pooling]
    if transformer.module_output_name == "sentence_embedding":  # a tower of texts, which pools inside itself
        modules = [transformer]
    if shape.dense is not None:
        out, name = shape.dense
        activation = {"tanh": nn.Tanh(), "relu": nn.ReLU(), "identity": nn.Identity()}[name]
        dense = Dense(pooling.get_embedding_dimension(), out, activation_function=activation)
        randomise(dense, shape.seed + 1)
        modules.append(dense)
    if shape.normalize:
        modules.append(Normalize())
    return SentenceTransformer(
        modules=modules,
        device="cpu",
        prompts=dict(shape.prompts) or None,
        default_prompt_name=shape.default_prompt_name,
        similarity_fn_name=shape.similarity,  # type: ignore[arg-type]
    )


def _tokenizer(family: str) -> PreTrainedTokenizerFast:
    from tiny_families import MORE_TOKENIZERS

    return {**TOKENIZERS, **MORE_TOKENIZERS}[family]()


def _transformer(family: str, tokenizer: PreTrainedTokenizerFast, layers: int) -> PreTrainedModel:
    vocabulary = len(tokenizer)
    common: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 24,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "max_position_embeddings": POSITIONS,
    }
    if family == "bert":
        return BertModel(BertConfig(**common, pad_token_id=0))
    if family == "roberta":
        return RobertaModel(RobertaConfig(**common, type_vocab_size=1))
    if family == "xlm-roberta":
        return XLMRobertaModel(XLMRobertaConfig(**{**common, "hidden_size": 32}, type_vocab_size=1))
    if family == "mpnet":
        return MPNetModel(MPNetConfig(**common))
    if family == "distilbert":
        config: dict[str, Any] = {"n_layers": layers, "n_heads": 4, "dim": 24, "hidden_dim": 40}
        return DistilBertModel(
            DistilBertConfig(vocab_size=vocabulary, max_position_embeddings=POSITIONS, pad_token_id=0, **config)
        )
    from tiny_families import backbone

    return backbone(family, tokenizer, layers)


# Queries and keys are larger than the rest: attention then depends on the tokens, and embeddings differ.
_KEEN = (".query", ".key", ".q", ".k", ".q_lin", ".k_lin", ".q_proj", ".k_proj", ".query_proj", ".key_proj", ".Wqkv")


def randomise(model: nn.Module, seed: int) -> None:
    """Weights that give attention scores and activations of the order of one, whatever transformers would draw."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for path, module in model.named_modules():
            gain = 1.5 if path.endswith(_KEEN) else 1.2
            kind = type(module).__name__
            for name, value in module.named_parameters(recurse=False):
                noise = torch.randn(value.shape, generator=draw)
                if kind.endswith("Norm"):
                    # Gemma's norms add one to their weight themselves.
                    value.copy_(0.2 * noise + (1.0 if name == "weight" and "Gemma" not in kind else 0.0))
                elif isinstance(module, nn.Embedding):
                    # The padding token's row too: it is what references are made of.
                    value.copy_(noise / float(getattr(module, "scalar_embed_scale", 1.0)))
                elif kind == "Linear" and path.endswith("SelfAttention.q"):
                    value.copy_(noise / value.shape[-1] ** 0.5 / 2)  # T5 does not divide its scores
                else:
                    value.copy_((gain / value.shape[-1] ** 0.5 if value.ndim == 2 else 0.1) * noise)


# Tokenizers --------------------------------------------------------------------------------------------------------


def _wordpiece(pad: str, unknown: str, first: str, last: str, mask: str, *, types: bool) -> PreTrainedTokenizerFast:
    """BERT's kind: cleaned, lower-cased, without accents, "##" inside words."""
    pieces = [first, pad, last, unknown, mask] if pad == "<pad>" else [pad, unknown, first, last, mask]
    pieces += dict.fromkeys(word.lower() for word in WORDS if "'" not in word)
    pieces += [f"##{end}" for end in ("ing", "ed", "est", "s")]
    letters = dict.fromkeys(_CHARACTERS.lower())
    pieces += [letter for letter in letters if letter not in pieces] + [f"##{letter}" for letter in letters]
    tokenizer = Tokenizer(models.WordPiece({piece: at for at, piece in enumerate(pieces)}, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return _fast(tokenizer, pad, unknown, first, last, mask, types=types)


def _byte_level() -> PreTrainedTokenizerFast:
    """RoBERTa's kind: bytes, merged; a word's piece begins with its space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)], trainer)
    return _fast(tokenizer, "<pad>", "<unk>", "<s>", "</s>", "<mask>", types=False)


def _unigram() -> PreTrainedTokenizerFast:
    """XLM-R's kind: SentencePiece unigrams, "▁" for a space, zero-width characters taken away."""
    pieces = [(piece, 0.0) for piece in ("<s>", "<pad>", "</s>", "<unk>")] + [("▁", -3.0)]
    pieces += [(f"▁{word}", -5.0 - at / 100) for at, word in enumerate(dict.fromkeys(WORDS))]
    pieces += [(letter, -8.0 - at / 100) for at, letter in enumerate(dict.fromkeys(_CHARACTERS))]
    pieces += [(end, -6.0) for end in ("ing", "ed", "st")] + [("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    return _fast(tokenizer, "<pad>", "<unk>", "<s>", "</s>", "<mask>", types=False)


def _fast(
    tokenizer: Tokenizer, pad: str, unknown: str, first: str, last: str, mask: str, *, types: bool
) -> PreTrainedTokenizerFast:
    ids = [(token, tokenizer.token_to_id(token)) for token in (first, last)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", pair=f"{first} $A {last} {last} $B {last}", special_tokens=ids
    )
    names = ["input_ids", "token_type_ids", "attention_mask"] if types else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unknown,
        cls_token=first,
        sep_token=last,
        bos_token=first,
        eos_token=last,
        mask_token=mask,
        model_input_names=names,
        model_max_length=MAX_LENGTH,
    )


_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "bert": lambda: _wordpiece(*_BERT, types=True),
    "distilbert": lambda: _wordpiece(*_BERT, types=False),
    "mpnet": lambda: _wordpiece("<pad>", "[UNK]", "<s>", "</s>", "<mask>", types=False),
    "roberta": _byte_level,
    "xlm-roberta": _unigram,
}

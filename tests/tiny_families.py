"""Tiny random backbones of the families whose layers are not BERT's, and tokenizers of their kinds.

Local attention is so narrow, and relative positions are so few, that short texts already tell a wrong mask or bias.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tiny_models import _byte_level, _unigram, _wordpiece
from tokenizers import processors
from transformers import (
    AlbertConfig,
    AlbertModel,
    CamembertConfig,
    CamembertModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    DebertaV2Config,
    DebertaV2Model,
    ElectraConfig,
    ElectraModel,
    EmbeddingGemma2TextConfig,
    EmbeddingGemma2TextModel,
    ErnieConfig,
    ErnieModel,
    EuroBertConfig,
    EuroBertModel,
    Gemma3TextConfig,
    Gemma3TextModel,
    GteConfig,
    GteModel,
    JinaEmbeddingsV3Config,
    JinaEmbeddingsV3Model,
    LlamaConfig,
    LlamaModel,
    MetaClip2Config,
    MetaClip2Model,
    MistralConfig,
    MistralModel,
    ModernBertConfig,
    ModernBertModel,
    MT5Config,
    MT5EncoderModel,
    NomicBertConfig,
    NomicBertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    Siglip2Processor,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipProcessor,
    T5Config,
    T5EncoderModel,
)

WIDTH, INNER, HEADS, POSITIONS, LOCAL = 24, 40, 4, 80, 6
# Those with layers of BERT's kind.
FAST = ("electra", "albert", "albert-groups")
# The others, through torch.func alone.
GENERIC = (
    *("deberta-v2", "deberta-v3", "modernbert", "nomic-bert", "t5", "t5-gated"),
    *("qwen3", "qwen3-right", "qwen3-bidirectional", "gemma3", "gemma3-bidirectional"),
)
# Other names for the same code, and code much like it, of which a look is enough.
ALIASES = (
    *("ernie", "camembert", "eurobert", "gte", "jina-v3", "mt5"),
    *("qwen2", "qwen2-bidirectional", "llama", "llama-bidirectional", "mistral"),
    *("clip", "metaclip-2", "siglip", "siglip2", "embedding-gemma2"),
)
# How many tokens SigLIP pads every text to.
FIXED = 14
# The width of token embeddings where that is not the layers'.
OUT = 20
MORE_FAMILIES = (*FAST, *GENERIC)
# What a family is called in a transformers configuration.
MODEL_TYPES = {
    "albert-groups": "albert",
    "deberta-v3": "deberta-v2",
    "nomic-bert": "nomic_bert",
    "jina-v3": "jina_embeddings_v3",
    "t5-gated": "t5",
    "metaclip-2": "metaclip_2",
    "embedding-gemma2": "embedding_gemma2_text",
    "qwen2-bidirectional": "qwen2",
    "llama-bidirectional": "llama",
    "qwen3-right": "qwen3",
    "qwen3-bidirectional": "qwen3",
    "gemma3": "gemma3_text",
    "gemma3-bidirectional": "gemma3_text",
}


def backbone(family: str, tokenizer: PreTrainedTokenizerFast, layers: int) -> PreTrainedModel:
    """A tiny transformers model, for the vocabulary of ``tokenizer``."""
    ids = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    common: dict[str, Any] = {
        **ids,
        "hidden_size": WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": POSITIONS,
    }
    decoder = {**common, "num_key_value_heads": 2, "head_dim": 8}
    t5 = {**ids, "d_model": WIDTH, "d_kv": 6, "d_ff": INNER, "num_layers": layers, "num_heads": HEADS}
    t5 |= {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}
    deberta = {**common, "relative_attention": True, "position_buckets": 4, "pos_att_type": "p2c|c2p"}
    gemma = {**decoder, "sliding_window": LOCAL, "query_pre_attn_scalar": 8}
    gemma["layer_types"] = ["full_attention" if layer % 2 else "sliding_attention" for layer in range(layers)]
    gemma2 = {key: value for key, value in gemma.items() if key != "query_pre_attn_scalar"} | {
        **{"sliding_window": LOCAL // 2, "hidden_size_per_layer_input": 10, "embedding_dim": OUT},
        **{"global_head_dim": 12, "num_global_key_value_heads": 1},
    }
    modern = {"local_attention": LOCAL, "global_attn_every_n_layers": 2}
    modern |= {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    # Projections, and layers of the image's side, are of sizes of their own.
    image: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1}
    image |= {"num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    sides = {"text_config": common, "vision_config": image, "projection_dim": 12}
    # Those of before the end-of-text token was corrected have this one in its place.
    old_sides = sides | {"text_config": {**common, "eos_token_id": 2}}
    siglip = {"text_config": {**common, "projection_size": 16}, "vision_config": image}
    siglip2 = siglip | {"vision_config": {**image, "num_patches": 4}}
    builders: dict[str, Callable[[], PreTrainedModel]] = {
        "electra": lambda: ElectraModel(ElectraConfig(**common, embedding_size=12)),
        "albert": lambda: AlbertModel(AlbertConfig(**common, embedding_size=12)),
        "albert-groups": lambda: AlbertModel(
            AlbertConfig(**common, embedding_size=12, num_hidden_groups=2, inner_group_num=2)
        ),
        # v2 of the larger sizes has a convolution beside its first layer, v3 none; both share attention's keys.
        "deberta-v2": lambda: DebertaV2Model(
            DebertaV2Config(**deberta, share_att_key=True, norm_rel_ebd="layer_norm", conv_kernel_size=3)
        ),
        "deberta-v3": lambda: DebertaV2Model(DebertaV2Config(**deberta, position_biased_input=False)),
        "modernbert": lambda: ModernBertModel(ModernBertConfig(**common, **modern)),
        "eurobert": lambda: EuroBertModel(EuroBertConfig(**common, num_key_value_heads=2)),
        "nomic-bert": lambda: NomicBertModel(NomicBertConfig(**common)),
        # gte-base-en-v1.5 has no token types, and longer rotations than it was pretrained with.
        "gte": lambda: GteModel(GteConfig(**common, type_vocab_size=0)),
        "jina-v3": lambda: JinaEmbeddingsV3Model(JinaEmbeddingsV3Config(**common)),
        "t5": lambda: T5EncoderModel(T5Config(**t5, feed_forward_proj="relu")),
        "t5-gated": lambda: T5EncoderModel(T5Config(**t5, feed_forward_proj="gated-gelu")),
        "qwen3": lambda: Qwen3Model(Qwen3Config(**decoder)),
        "gemma3": lambda: Gemma3TextModel(Gemma3TextConfig(**gemma)),
        "gemma3-bidirectional": lambda: Gemma3TextModel(Gemma3TextConfig(**gemma, use_bidirectional_attention=True)),
        "qwen3-bidirectional": lambda: Qwen3Model(Qwen3Config(**decoder, is_causal=False)),
        "ernie": lambda: ErnieModel(ErnieConfig(**common, use_task_id=True)),
        "camembert": lambda: CamembertModel(CamembertConfig(**common, type_vocab_size=1)),
        "mt5": lambda: MT5EncoderModel(MT5Config(**t5, feed_forward_proj="gated-gelu")),
        "qwen2": lambda: Qwen2Model(Qwen2Config(**common, num_key_value_heads=2)),
        "qwen2-bidirectional": lambda: Qwen2Model(Qwen2Config(**common, num_key_value_heads=2, is_causal=False)),
        "llama": lambda: LlamaModel(LlamaConfig(**common, num_key_value_heads=2)),
        "llama-bidirectional": lambda: LlamaModel(LlamaConfig(**common, num_key_value_heads=2, is_causal=False)),
        "mistral": lambda: MistralModel(MistralConfig(**common, num_key_value_heads=2, sliding_window=LOCAL)),
        "clip": lambda: CLIPModel(CLIPConfig(**old_sides)),
        "metaclip-2": lambda: MetaClip2Model(MetaClip2Config(**sides)),
        "embedding-gemma2": lambda: EmbeddingGemma2TextModel(EmbeddingGemma2TextConfig(**gemma2)),
        "siglip": lambda: SiglipModel(SiglipConfig(**siglip)),
        "siglip2": lambda: Siglip2Model(Siglip2Config(**siglip2)),
    }
    builders["qwen3-right"] = builders["qwen3"]
    return builders[family]()


def processor(family: str, tokenizer: PreTrainedTokenizerFast) -> Any:
    """What reads texts for a family: its tokenizer, or what reads images as well."""
    small = {"size": {"height": 8, "width": 8}}
    made: dict[str, Callable[[], Any]] = {
        "clip": lambda: CLIPProcessor(CLIPImageProcessorPil(**small), tokenizer),
        "metaclip-2": lambda: CLIPProcessor(CLIPImageProcessorPil(**small), tokenizer),
        "siglip": lambda: SiglipProcessor(SiglipImageProcessorPil(**small), tokenizer),
        "siglip2": lambda: Siglip2Processor(Siglip2ImageProcessorPil(patch_size=4), tokenizer),
    }
    return made[family]() if family in made else tokenizer


# Tokenizers --------------------------------------------------------------------------------------------------------


def _sentencepiece(*, first: str | None, last: str | None, padding: str = "<pad>") -> PreTrainedTokenizerFast:
    """SentencePiece unigrams with a token before and behind the text, or without."""
    tokenizer = _unigram()
    return _framed(tokenizer, first, last, padding, "right")


def _decoder(*, last: str | None, padding: str | None, side: str) -> PreTrainedTokenizerFast:
    """A decoder's kind: bytes, nothing before the text, padded on one side."""
    tokenizer = _byte_level()
    return _framed(tokenizer, None, last, padding, side)


def _framed(
    tokenizer: PreTrainedTokenizerFast, first: str | None, last: str | None, padding: str | None, side: str
) -> PreTrainedTokenizerFast:
    backend = tokenizer.backend_tokenizer
    frame = [token for token in (first, last) if token is not None]
    backend.post_processor = processors.TemplateProcessing(
        single=" ".join([*([first] if first else []), "$A", *([last] if last else [])]),
        special_tokens=[(token, backend.token_to_id(token)) for token in frame],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=padding,
        unk_token="<unk>",
        bos_token=first,
        eos_token="</s>",
        padding_side=side,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=tokenizer.model_max_length,
    )


def _clip() -> PreTrainedTokenizerFast:
    """CLIP's kind: the tokens around a text are the last of the vocabulary, and the end pads as well."""
    tokenizer = _byte_level()
    first, last = "<|startoftext|>", "<|endoftext|>"
    tokenizer.backend_tokenizer.add_special_tokens([first, last])
    framed = _framed(tokenizer, first, last, last, "right")
    framed.eos_token = last
    return framed


def _siglip() -> PreTrainedTokenizerFast:
    """SigLIP's kind: an end behind the text, and no mask of attention."""
    tokenizer = _sentencepiece(first=None, last="</s>")
    tokenizer.model_input_names = ["input_ids"]
    return tokenizer


_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MORE_TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    **{name: lambda: _wordpiece(*_BERT, types=True) for name in ("electra", "ernie", "nomic-bert", "gte")},
    **{name: lambda: _wordpiece(*_BERT, types=False) for name in ("modernbert", "deberta-v2")},
    **dict.fromkeys(("albert", "albert-groups", "deberta-v3", "camembert", "jina-v3", "metaclip-2"), _unigram),
    **dict.fromkeys(("t5", "t5-gated", "mt5"), lambda: _sentencepiece(first=None, last="</s>")),
    **dict.fromkeys(
        ("gemma3", "gemma3-bidirectional", "embedding-gemma2"), lambda: _sentencepiece(first="<s>", last="</s>")
    ),
    "clip": _clip,
    **dict.fromkeys(("siglip", "siglip2"), _siglip),
    "qwen3": lambda: _decoder(last="</s>", padding="</s>", side="left"),
    "qwen3-right": lambda: _decoder(last=None, padding="<pad>", side="right"),
    "qwen3-bidirectional": lambda: _decoder(last="</s>", padding="<pad>", side="left"),
    **dict.fromkeys(
        ("qwen2", "qwen2-bidirectional", "eurobert"), lambda: _decoder(last="</s>", padding="<pad>", side="left")
    ),
    **dict.fromkeys(("llama", "llama-bidirectional"), lambda: _decoder(last=None, padding="</s>", side="left")),
    "mistral": lambda: _sentencepiece(first="<s>", last="</s>", padding="</s>"),
}

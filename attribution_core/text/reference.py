"""The token that replaces every word in a reference, and the errors about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attribution_core.errors import ModelError, SettingError

# The tokenizer's own tokens; any other setting is a word.
NAMED = ("pad", "unk", "mask")


def blank_token(tokenizer: Any) -> tuple[int, str]:
    """Return the id of the token that is used as padding in a reference, and its name for messages.

    It is the padding token; where a tokenizer has none its end-of-text token, which models without a padding token are
    padded with, or else its unknown token. A tokenizer without a padding token is given the one that was chosen.

    Raises:
        ModelError: where there is none of them.
    """
    for kind, name in (("padding", "pad_token"), ("end-of-text", "eos_token"), ("unknown", "unk_token")):
        token = getattr(tokenizer, name, None)
        if token is not None:
            tokenizer.pad_token = token
            return int(tokenizer.pad_token_id), f"{token} ({kind} token)"
    raise ModelError(
        "the tokenizer has no padding, end-of-text or unknown token, so there is no reference to attribute against"
    )


def reference_token(tokenizer: Any, asked: str) -> tuple[int, str]:
    """Return the id of the token that replaces every word in a reference, and its name for messages.

    A tokenizer without a padding token is given one, as by :func:`blank_token`.

    ``asked`` is pad (:func:`blank_token`), unk or mask for the tokenizer's own, or a word that is one token.

    Raises:
        ModelError: where ``pad`` is asked for and there is no token for it.
        SettingError: where the tokenizer has no such token, or the word is several tokens or none.
    """
    blank = blank_token(tokenizer)
    if asked == "pad":
        return blank
    if asked in NAMED:
        token = getattr(tokenizer, f"{asked}_token", None)
        kind = {"unk": "unknown", "mask": "mask"}[asked]
        if token is None:
            raise SettingError(f"reference {asked!r}: the model's tokenizer has no {kind} token; use 'pad' or a word")
        return int(tokenizer.convert_tokens_to_ids(token)), f"{token} ({kind} token)"

    def ids_of(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        return ids

    single = one_token(asked, ids_of, tokenizer.unk_token_id)
    return single, f"{tokenizer.convert_ids_to_tokens([single])[0]} (the word {asked!r})"


def one_token(word: str, ids_of: Callable[[str], list[int]], unknown: int | None = None) -> int:
    """Return the id of a word that is one token; ``ids_of`` tokenises a text without special tokens.

    Raises:
        SettingError: where it is several tokens, none, or the token ``unknown``.
    """
    # Where a space is part of a token, the word in a sentence is another token than the word that begins a text.
    readings = [ids_of(text) for text in (word, f" {word}")] if word.strip() else []
    known = [ids for ids in readings if ids and ids != [unknown]]
    single = [ids[0] for ids in known if len(ids) == 1]
    if not single:
        count = f"{len(known[0])} tokens of this model" if known else "no token of this model"
        raise SettingError(f"reference {word!r} is {count}; use 'pad', 'unk', 'mask' or a word of one token")
    return single[-1]

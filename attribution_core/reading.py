"""One text as a model's tokenizer read it: tokens, what they are, the groups they form, and its reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from attribution_core.errors import ModelError
from attribution_core.grouping import Groups, Kind, Span, Unit, group_tokens
from attribution_core.modules import Role


@dataclass(frozen=True, eq=False)
class RawText:
    """What a tokenizer made of a prompt and a text: an entry a token.

    ``added`` marks tokens that stand in no text, ``spans`` are character ranges in the prompt and the text behind it.
    """

    ids: tuple[int, ...]
    types: tuple[int, ...] | None
    added: tuple[bool, ...]
    spans: tuple[Span, ...]
    tokens: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ReadText:
    """One text as the tokenizer read it.

    ``ids``, ``types``, ``kept``, ``tokens`` and ``groups.of_token`` have one entry a token; ``kept`` marks the
    tokens that the reference keeps. ``problem`` says why the text cannot be attributed, if so.
    """

    text: str
    role: Role
    prompt: str
    prompt_length: int | None
    ids: tuple[int, ...]
    types: tuple[int, ...] | None
    kept: tuple[bool, ...]
    tokens: tuple[str, ...]
    groups: Groups
    truncated: bool
    cut_at: int | None
    problem: str | None

    def __len__(self) -> int:
        return len(self.ids)

    def reference(self, pad_id: int) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
        """Ids and types of the reference: kept tokens stay, every other one becomes padding.

        Texts of one length mostly share theirs, so it is the key under which its features are kept.
        """
        ids = tuple(one if kept else pad_id for one, kept in zip(self.ids, self.kept, strict=True))
        return ids, self.types


def read_text(
    text: str,
    raw: RawText,
    role: Role,
    prompt: str,
    prompt_length: int | None,
    unit: Unit,
    limit: int | None,
    has_tokens: Callable[[str], bool],
) -> ReadText:
    """A text with its kinds, groups and what was cut off; ``limit`` is how many tokens the model reads, if known."""
    spans = [(start - len(prompt), end - len(prompt)) for start, end in raw.spans]
    kinds: list[Kind] = [
        "special" if added else "prompt" if end <= 0 and prompt else "text"
        for added, (_, end) in zip(raw.added, spans, strict=True)
    ]
    last = max((end for (_, end), kind in zip(spans, kinds, strict=True) if kind == "text"), default=0)
    # A full row alone does not tell: the text may just fit. Nor does text behind the last token: normalisers shift
    # offsets by a combining mark.
    full = limit is None or len(raw.ids) >= limit
    truncated = full and bool(text[last:].strip()) and has_tokens(text[last:])
    problem = None if "text" in kinds else "no token to attribute"
    if problem and truncated:
        problem = "the prompt leaves no room for the text"
    return ReadText(
        text=text,
        role=role,
        prompt=prompt,
        prompt_length=prompt_length,
        ids=raw.ids,
        types=raw.types,
        kept=tuple(kind != "text" for kind in kinds),
        tokens=raw.tokens,
        groups=group_tokens(text, raw.tokens, spans, kinds, unit),
        truncated=truncated,
        cut_at=last if truncated else None,
        problem=problem,
    )


def blank_token(tokenizer: Any) -> tuple[int, str]:
    """The id of the token that stands for nothing in a reference, and what to call it.

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

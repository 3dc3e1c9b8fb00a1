"""One text as a model's tokenizer read it: tokens, what they are, and the groups they form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attribution_core.text.characters import Span, clusters_of, trimmed
from attribution_core.text.grouping import Groups, Kind, Unit, group_tokens

if TYPE_CHECKING:
    from attribution_core.model.modules import Role  # torch, which reading texts does not need


@dataclass(frozen=True, eq=False)
class RawText:
    """The tokens of a prompt and a text, one entry per token.

    ``added`` marks tokens that are in no text, ``spans`` are character ranges in the prompt and the text behind it.
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

    def reference(self, reference_id: int) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
        """Ids and types of the reference: kept tokens stay, every other one becomes the reference's token.

        Texts of one length mostly share theirs, so it is the key under which its features are cached.
        """
        ids = tuple(one if kept else reference_id for one, kept in zip(self.ids, self.kept, strict=True))
        return ids, self.types


def read_text(
    text: str,
    raw: RawText,
    role: Role,
    prompt: str,
    prompt_length: int | None,
    unit: Unit,
    limit: int | None,
    count_tokens: Callable[[str], int],
) -> ReadText:
    """A text with its kinds, groups and what was cut off.

    ``limit`` is how many tokens the model reads, if known; ``count_tokens`` says how many a text has.
    """
    spans = [(start - len(prompt), end - len(prompt)) for start, end in raw.spans]
    kinds: list[Kind] = [
        "special" if added else "prompt" if end <= 0 and prompt else "text"
        for added, (_, end) in zip(raw.added, spans, strict=True)
    ]
    last = max((end for (_, end), kind in zip(spans, kinds, strict=True) if kind == "text"), default=0)
    # A full row alone does not tell: the text may just fit.
    full = limit is None or len(raw.ids) >= limit
    cut = _cut(prompt, text, last, raw.added.count(False), count_tokens) if full else None
    groups = group_tokens(text, raw.tokens, spans, kinds, unit, cut)
    problem = None
    if "text" not in kinds:
        problem = "no token to attribute" if cut is None else "the prompt leaves no room for the text"
    elif not groups.visible:
        problem = "no visible character to attribute"
    return ReadText(
        text=text,
        role=role,
        prompt=prompt,
        prompt_length=prompt_length,
        ids=raw.ids,
        types=raw.types,
        kept=tuple(kind != "text" for kind in kinds),
        tokens=raw.tokens,
        groups=groups,
        truncated=cut is not None,
        cut_at=cut,
        problem=problem,
    )


def _cut(prompt: str, text: str, last: int, tokens: int, count_tokens: Callable[[str], int]) -> int | None:
    """The offset at which a model with a full context stopped reading a text; None where it read all of it.

    ``last`` is where the last of the ``tokens`` of prompt and text ends. Text behind it is no evidence: tokenizers drop
    accents and other characters.
    """
    clusters = clusters_of(text)
    cut = clusters.end[last - 1] if clusters is not None and last > 0 else last
    start, end = trimmed(text, cut, len(text))
    if end > start:
        return cut if count_tokens(text[cut:]) else None
    # A byte-level tokenizer may have stopped inside the last character.
    inside = not text[max(cut - 1, 0) : cut].isascii() and count_tokens(prompt + text) > tokens
    return cut if inside else None

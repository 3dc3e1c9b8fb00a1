"""Texts read together are what each is when it is read with care by itself, and plain text is read fast.

``TOKENPAIR_EXAMPLES=10000`` tries that many lists of texts in place of a few.
"""

from __future__ import annotations

import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import FAMILIES, MAX_LENGTH, TinyModels, random_text
from tokenizer_kinds import every_kind
from tokenizers import Tokenizer

from attribution_core.model.encoder import Encoder
from attribution_core.text import tokenized
from attribution_core.text.grouping import UNITS, Unit
from attribution_core.text.plain import Tokens, group_plain
from attribution_core.text.tokenized import RawText, ReadText, read_text, read_texts

MANY = settings(
    max_examples=int(os.environ.get("TOKENPAIR_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
PLAIN = ("coffee", "is", "Not", "good.", "isn't", "3.14", "1,000", "x-ray", "...", '"', "hello,", "café", "–", "½", "ﬁ")
SPACES = (" ", " ", " ", "  ", "\n", "\t", " \r\n", "\u00a0", "\x1c", "")
NASTY = (
    *(
        "\x00",
        "\x7f",
        "\u200b",
        "\u00ad",
        "不好。",
        "は",
        "ไทย",
        "मराठी",
        "e\u0301",
        "\u0301",
        "😀",
        "👍🏽",
        "👩🏽\u200d🚀",
        "한국",
    ),
    *("I. e. so. ", "so? No! ", "\n\n", "[SEP]", "▁", "Ġ", "<0x41>", "##s", "\u2028", "ＡＢ"),
)
plain_text = st.lists(st.tuples(st.sampled_from(PLAIN), st.sampled_from(SPACES)).map("".join), max_size=8).map("".join)
nasty_text = st.lists(
    st.one_of(plain_text, st.sampled_from(NASTY), st.text(st.characters(codec="utf-8"), max_size=3)), max_size=5
).map("".join)
SENTENCES = (
    "The coffee isn't good.",
    "A man is playing a large flute. He likes it!",
    "Three men, all in red, are walking to the station's 2 exits.",
    "How do I copy a file to 192.168.0.1?",
)
ODD = (
    *(
        "naïve café — Ünïcode",
        "👍🏽 good 👨\u200d👩\u200d👧 coffee 😀😀",
        "zero\u200bwidth\ufeff book",
        "tab\there\r\n\x07bell\x00",
    ),
    *(
        "e\u0301 combining",
        "コーヒーは良くない。",
        "   spaces   around   ",
        "[SEP] </s> [PAD] <pad> inside",
        "",
        " \n",
        "!?…",
    ),
)


@pytest.fixture(scope="module")
def kinds() -> dict[str, Tokenizer]:
    return every_kind()


def check_alike(read: ReadText, careful: ReadText) -> None:
    """Every field of the two is the same, and the arrays say what the tuples say."""
    for name in ("text", "role", "prompt", "prompt_length", "ids", "types", "kept", "tokens", "groups"):
        assert getattr(read, name) == getattr(careful, name), name
    for name in ("truncated", "cut_at", "problem", "group_count", "unit"):
        assert getattr(read, name) == getattr(careful, name), name
    assert len(read) == len(careful) == len(read.ids)
    assert read.reference(7) == careful.reference(7)
    groups = read.groups
    assert read.group_count == len(groups)
    for one in (read, careful):
        for array, expected, dtype in (
            (one.ids_S, one.ids, np.int32),
            (one.kept_S, one.kept, np.bool_),
            (one.of_token_S, groups.of_token, np.int32),
            (one.text_G, [kind == "text" for kind in groups.kinds], np.bool_),
            (one.start_G, groups.starts, np.int32),
            (one.end_G, groups.ends, np.int32),
            (one.shares_G, groups.token_shares, np.float64),
        ):
            assert array.dtype == dtype
            assert array.tolist() == list(expected)
        assert (one.types_S is None) == (one.types is None)


def cut(tokenizer: Tokenizer, whole: list[str], limit: int | None, between: int = 1 << 30) -> list[RawText]:
    """The tokens of texts, ``limit`` at most, with a special one at either end and behind token ``between``."""
    raw = []
    for one in tokenizer.encode_batch(whole, add_special_tokens=False):
        if limit is not None:
            one.truncate(limit - 2)
        rows = [(token, False, span, name) for token, span, name in zip(one.ids, one.offsets, one.tokens, strict=True)]
        special = [(500, True, (0, 0), "<>")]
        rows = special + rows[:between] + (special + rows[between:] if len(rows) > between else []) + special
        ids, added, spans, tokens = zip(*rows, strict=True)
        raw.append(RawText(ids, None, added, spans, tokens))
    return raw


def as_arrays(raw: list[RawText]) -> Tokens:
    return Tokens(
        at_N=np.cumsum([0, *(len(one.ids) for one in raw)]),
        ids_T=np.array([token for one in raw for token in one.ids], np.int32),
        types_T=None,
        special_T=np.array([added for one in raw for added in one.added], np.bool_),
        start_T=np.array([start for one in raw for start, _ in one.spans], np.int64),
        end_T=np.array([end for one in raw for _, end in one.spans], np.int64),
    )


@given(
    texts=st.lists(st.one_of(plain_text, nasty_text), min_size=1, max_size=4, unique=True),
    prompt=st.sampled_from(["", "question: ", "say"]),
    limit=st.one_of(st.none(), st.just(1 << 30), st.integers(2, 14)),
    between=st.sampled_from([1, 2, 1 << 30]),
    unit=st.sampled_from(UNITS),
)
@MANY
def test_texts_read_together_are_as_each_with_care(
    kinds: dict[str, Tokenizer], texts: list[str], prompt: str, limit: int | None, between: int, unit: Unit
) -> None:
    """A text among others must get its own words, whatever they are and whichever of them are plain."""
    whole = [prompt + text for text in texts]
    for name, tokenizer in kinds.items():
        raw = cut(tokenizer, whole, limit, between)
        called = {text: one.tokens for text, one in zip(whole, raw, strict=True)}

        def count(some: str, tokenizer: Tokenizer = tokenizer) -> int:
            return len(tokenizer.encode(some, add_special_tokens=False).ids)

        def names(text: str, ids: list[int], called: dict[str, Any] = called) -> tuple[str, ...]:
            return tuple(called[text])

        read = read_texts(texts, as_arrays(raw), "query", prompt, 3, unit, limit, count, names)
        for text, one, of in zip(texts, read, raw, strict=True):
            try:
                check_alike(one, read_text(text, of, "query", prompt, 3, unit, limit, count))
            except AssertionError as error:
                raise AssertionError(f"{name}: {text!r}") from error


@pytest.mark.parametrize("unit", UNITS)
def test_sentences_are_plain_for_every_tokenizer(kinds: dict[str, Tokenizer], unit: Unit) -> None:
    """Else every text would be read with care, slowly, and no result would show it."""
    for name, tokenizer in kinds.items():
        for prompt in ("", "question: "):
            if unit == "token" and not prompt and ("prefix" in name or name.startswith("unigram")):
                continue  # the space put before a text shares its first character with the first token
            tokens = as_arrays(cut(tokenizer, [prompt + text for text in SENTENCES], None))
            assert group_plain(SENTENCES, tokens, prompt, unit, None).plain_N.all(), f"{name}, {prompt!r}"


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokenizer_alone_reads_what_the_model_reads(
    family: str, unit: Unit, tiny: TinyModels, rng: random.Random
) -> None:
    """The model's own rules decide; the tokenizer alone is only faster."""
    model = tiny.load(family, prompts={"query": "question: "})
    texts = [
        *SENTENCES,
        *ODD,
        random_text(rng, 3 * MAX_LENGTH),
        *(random_text(rng, rng.randint(1, 40)) for _ in range(9)),
    ]
    direct, ruled = Encoder(model), Encoder(model)
    for role in ("text", "query", "document"):
        read = direct.read(texts, role, unit)
        (way,) = [one for key, one in direct.reader._direct.items() if key[0] == role]
        assert way is not None
        ruled.reader._direct[role, ruled.prompt(role), ruled.most_tokens(role)] = None
        for one, other in zip(read, ruled.read(texts, role, unit), strict=True):
            check_alike(one, other)
        assert any(one.truncated for one in read)


def test_plain_sentences_are_not_read_one_by_one(tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a log mostly consists of goes neither through the model's rules nor through the grouping of nasty texts."""
    encoder = Encoder(tiny.load("bert"))
    encoder.read(["a text"], "text", "word")
    seen: list[str] = []
    monkeypatch.setattr(tokenized, "read_text", lambda text, *_: seen.append(text))
    monkeypatch.setattr(encoder.model, "preprocess", lambda *_, **__: pytest.fail("rules were asked again"))
    encoder.read([*SENTENCES, "a\u00adb", *SENTENCES], "text", "word")
    assert seen == ["a\u00adb"]


def test_a_model_with_rules_of_its_own_keeps_them(tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module may strip or change texts before they are tokenised."""
    encoder = Encoder(tiny.load("roberta"))
    own = encoder.model.preprocess
    monkeypatch.setattr(
        encoder.model, "preprocess", lambda texts, **rest: own([text.lower() for text in texts], **rest)
    )
    (read,) = encoder.read(["The COFFEE"], "text", "word")
    assert read.ids == Encoder(tiny.load("roberta")).read(["the coffee"], "text", "word")[0].ids
    assert read.groups.labels[1:-1] == ("The", "COFFEE")


def test_what_others_leave_on_the_tokenizer_changes_nothing(tiny: TinyModels, rng: random.Random) -> None:
    """Encoding and counting tokens set padding and truncation on the same tokenizer."""
    encoder = Encoder(tiny.load("bert"))
    texts = ["rain", random_text(rng, 3 * MAX_LENGTH)]
    before = encoder.read(texts, "text", "word")
    backend = encoder.tokenizer.backend_tokenizer
    backend.enable_truncation(5)
    backend.enable_padding(length=9)
    backend.encode_special_tokens = True
    for one, other in zip(encoder.read(texts, "text", "word"), before, strict=True):
        check_alike(one, other)


def test_threads_that_share_a_tokenizer_do_not_disturb_each_other(tiny: TinyModels, rng: random.Random) -> None:
    """Would catch one thread's padding on the tokens of another: calibration reads beside the worker's next shard."""
    model = tiny.load("bert")
    texts = [random_text(rng, words=rng.randint(1, 30)) for _ in range(40)]
    alone = Encoder(model, layer=0)
    expected = [text.ids_S.tolist() for text in alone.read(texts, "document", "word")]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def read(number: int) -> bool:
        # A new reader begins with the probes, which are padded.
        read = Encoder(model, layer=0, private=True).read(texts, "document", "word")
        return [text.ids_S.tolist() for text in read] == expected

    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(read, range(24)))
    finally:
        sys.setswitchinterval(switch)

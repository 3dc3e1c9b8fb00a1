"""Words are ranges of the text as it stands, whatever a tokenizer makes of it, and one rule says which are the same.

``TOKENPAIR_EXAMPLES=10000`` tries that many texts in place of a few.
"""

from __future__ import annotations

import os
import unicodedata
from itertools import pairwise

import pytest
import regex
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny_models import TinyModels
from tokenizer_kinds import every_kind
from tokenizers import Tokenizer

from attribution_core.attribution import Attributor
from attribution_core.display.view import printable
from attribution_core.errors import TextError
from attribution_core.results import ExplainedText
from attribution_core.text.grouping import UNITS, Groups, Unit
from attribution_core.text.tokenized import RawText, read_text
from attribution_core.text.words import word_key, word_spans
from jobs.analysis.faithfulness.perturbation import Side

EXAMPLES = int(os.environ.get("TOKENPAIR_EXAMPLES", "100"))
MANY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

ENGLAND = "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
PIECES = (
    *("a", "café", "cafe\u0301", "Naïve", "e\u0301\u0302\u0303", "\u0301", "x²", "İ", "ß", "ﬁ", "½", "ＡＢ", "①", "Å"),
    *("don't", "l’e\u0301te\u0301", "3.14", "1,000", "...", "-", "''", "_", "…", "«", "\u060012", "\ufffd"),
    *("x\u200dy", "می\u200cخواهم", "so\u00adfa", "\u200d", "\u200b", "\u2060", "\u00ad", "\ufeff", "\u3164", "\u180e"),
    *("❤\ufe0f", "1\ufe0f\u20e3", "#\ufe0f\u20e3", "👍🏽", "👩🏽\u200d🚀", "👨\u200d👩\u200d👧", "🇩🇪", "🇫🇷", ENGLAND),
    *(
        "中文",
        "字\u20dd",
        "漢\U000e0100",
        "日本語",
        "か\u3099",
        "ｶﾞ",
        "人々",
        "한국",
        "\u1100\u1161\u11a8",
        "ไทย",
        "กำ",
        "a\u0e31",
    ),
    *("मराठी", "क्\u200dष", "العَرَبِيَّة", "שָׁלוֹם", "\u202eabc\u202c", "\u200fא", "\U000e0067", "\x00", "\x1b"),
    *(" ", "  ", "\n\n", "\t", "\r\n", "\u00a0", "\u2028", "\u3000", "\n    "),
)
TEXTS = st.lists(
    st.one_of(st.sampled_from(PIECES), st.sampled_from(PIECES), st.text(max_size=3), st.just(" ")), max_size=9
).map("".join)

# Python's own tables and not those that the code under test uses. Of the characters that Unicode calls
# default-ignorable these are the ones whose category does not say so.
_IGNORED = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10)}
_IGNORED |= {*range(0xE0000, 0xE1000), 0x2065, *range(0xFFF0, 0xFFF9)}


def unseen(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) in ("Cc", "Cf") or ord(character) in _IGNORED


@pytest.fixture(scope="module")
def kinds() -> dict[str, Tokenizer]:
    return every_kind()


def grouped(tokenizer: Tokenizer, text: str, unit: Unit, limit: int | None = None) -> tuple[Groups, RawText]:
    """The groups of a text, of which the model reads ``limit`` tokens."""

    def count(some: str) -> int:
        return len(tokenizer.encode(some, add_special_tokens=False).ids)

    made = tokenizer.encode(text, add_special_tokens=False)
    if limit is not None:
        made.truncate(limit)
    raw = RawText(tuple(made.ids), None, (False,) * len(made.ids), tuple(made.offsets), tuple(made.tokens))
    most = 1 << 30 if limit is None else limit
    return read_text(text, raw, "text", "", None, unit, most, count).groups, raw


def check(text: str, groups: Groups, raw: RawText) -> None:
    """What must hold of the words or sentences of any text and tokenizer."""
    spans = [(a, b) for a, b in zip(groups.starts, groups.ends, strict=True) if b > a]
    assert spans == [*zip(groups.starts, groups.ends, strict=True)] or not groups.visible
    assert all(first[1] <= second[0] for first, second in pairwise(spans)), "words overlap"
    for label, (start, end) in zip(groups.labels, spans, strict=False):
        assert label == text[start:end]
        assert not unseen(label[0])
        assert not unseen(label[-1]) or label.endswith(ENGLAND[-1])
    owner = {at: word for word, (start, end) in enumerate(spans) for at in range(start, end)}
    read = {at for start, end in raw.spans for at in range(start, end)}
    assert all(at in owner for at in read if not unseen(text[at])), "a character that was read is in no word"
    for cluster in regex.finditer(r"\X", text):
        owners = {owner.get(at) for at in range(*cluster.span()) if not unseen(text[at])}
        assert len(owners) <= 1, "a character is split"
    assert list(groups.of_token) == sorted(groups.of_token)
    assert set(groups.of_token) == set(range(len(groups)))


@given(text=TEXTS, limit=st.one_of(st.none(), st.integers(1, 12)))
@example(text="hello\n\nworld", limit=None)
@example(text="naïve\u00ad x", limit=1)
@MANY
def test_words_and_sentences_are_whole_visible_and_apart(
    kinds: dict[str, Tokenizer], text: str, limit: int | None
) -> None:
    """A dropped accent, the bytes of an emoji or a line break in a token would make labels that no reader sees."""
    for name, tokenizer in kinds.items():
        for unit in ("word", "sentence"):
            groups, raw = grouped(tokenizer, text, unit, limit)
            try:
                check(text, groups, raw)
            except AssertionError as error:
                raise AssertionError(f"{name}, {unit}: {groups}") from error


@pytest.mark.parametrize(
    ("name", "limit", "label"),
    [
        ("WordPiece", 5, "zqxv"),
        ("WordPiece", 6, "zqxve\u0301"),
        ("bytes", 5, "zqx"),
        ("bytes", 6, "zqxve\u0301"),
        ("unigram, never", 5, "zqx"),
    ],
)
def test_a_word_ends_where_the_model_stopped_reading(
    kinds: dict[str, Tokenizer], name: str, limit: int, label: str
) -> None:
    """Else a label shows letters that had no part in the numbers; a letter keeps its accent."""
    assert grouped(kinds[name], "x zqxve\u0301jk", "word", limit)[0].labels == ("x", label)


@given(text=TEXTS)
@MANY
def test_tokens_are_labelled_with_visible_text_or_their_own_name(kinds: dict[str, Tokenizer], text: str) -> None:
    """Else a list of tokens shows the same character for each of its bytes, or nothing."""
    for tokenizer in kinds.values():
        groups, raw = grouped(tokenizer, text, "token")
        assert len(groups) == len(raw.tokens)
        for label, start, end, token in zip(groups.labels, groups.starts, groups.ends, raw.tokens, strict=True):
            assert 0 <= start <= end <= len(text)
            assert label in (token, text[start:end])
            assert start == end or not (unseen(text[start]) or (unseen(text[end - 1]) and text[end - 1] != ENGLAND[-1]))


def _letters(text: str) -> str:
    """The letters and digits that a tokenizer may not lose, in one form."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(character for character in plain if character.isalnum() and not unseen(character))


def _content(name: str, pieces: list[str]) -> str:
    """What some tokens stand for."""
    if name.startswith("bytes"):
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        of = {character: byte for byte, character in bytes_to_unicode().items()}
        return bytes(of[character] for piece in pieces for character in piece).decode("utf-8", "replace")
    parts = [
        bytes([int(piece[3:5], 16)]) if regex.fullmatch("<0x..>", piece) else piece.removeprefix("##").encode()
        for piece in pieces
    ]
    return b"".join(parts).decode("utf-8", "replace")


@given(text=TEXTS.filter(lambda text: "\u0345" not in unicodedata.normalize("NFD", text)))
@MANY
def test_a_word_holds_what_its_tokens_say(kinds: dict[str, Tokenizer], text: str) -> None:
    """Offsets in a normalised text would shift every word behind a ligature or an accent."""
    for name, tokenizer in kinds.items():
        groups, raw = grouped(tokenizer, text, "word")
        for g, label in enumerate(groups.labels):
            pieces = [token for token, of in zip(raw.tokens, groups.of_token, strict=True) if of == g]
            if groups.ends[g] > groups.starts[g] and not any("unk" in piece.lower() for piece in pieces):
                assert _letters(_content(name, pieces)) == _letters(label), f"{name}: {groups}"


@given(text=TEXTS)
@MANY
def test_the_words_of_a_text_do_not_depend_on_its_normal_form(text: str) -> None:
    """A decomposed accent is no border of a word."""
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    words = [[word_key(one[a:b]) for a, b in word_spans(one)] for one in (composed, decomposed)]
    assert words[0] == words[1]


@given(word=st.one_of(TEXTS, st.text(max_size=6)))
@MANY
def test_words_are_the_same_in_every_normal_form_and_letter_case(word: str) -> None:
    """Two runs, or a run and its statistics, would count other words as the same."""
    key = word_key(word)
    assert word_key(key) == key
    assert word_key(unicodedata.normalize("NFD", word)) == key
    assert word_key(unicodedata.normalize("NFC", word)) == key
    assert word_key(word.casefold()) == key


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Café", "cafe\u0301", True),
        ("CAFE\u0301", "café", True),
        ("cafe", "café", False),
        ("STRASSE", "straße", True),
        ("ΣΊΣΥΦΟΣ", "Σίσυφος", True),
        ("\u212b", "å", True),
        ("한", "\u1112\u1161\u11ab", True),
        ("ﬁ", "fi", True),
        ("①", "1", False),
        (ENGLAND, "🏴", False),
        ("क", "ख", False),
    ],
)
def test_which_words_are_the_same(one: str, other: str, same: bool) -> None:
    """Composed and letter case aside: nothing more is the same, and nothing less."""
    assert (word_key(one) == word_key(other)) is same


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cafe\u0301's open", ["cafe\u0301's", "open"]),
        ("hello\n\n\tworld", ["hello", "world"]),
        ("so\u00adfa x\u200dy \ufeffz\u00ad", ["so\u00adfa", "x\u200dy", "z"]),
        ("I ❤\ufe0f 👩🏽\u200d🚀!", ["I", "❤", "👩🏽\u200d🚀", "!"]),
        ("x \u0301ab c", ["x", "\u0301ab", "c"]),
        (f"🇩🇪 🇫🇷 {ENGLAND} 1\ufe0f\u20e3", ["🇩🇪", "🇫🇷", ENGLAND, "1\ufe0f\u20e3"]),
        ("می\u200cخواهم שָׁלוֹם", ["می\u200cخواهم", "שָׁלוֹם"]),
        ("ﬁne ＡＢ, ½", ["ﬁne", "ＡＢ", ",", "½"]),
        ("\u202eabc\u202c d", ["abc", "d"]),
    ],
)
def test_words_are_the_same_for_every_tokenizer(kinds: dict[str, Tokenizer], text: str, words: list[str]) -> None:
    """Scripts with spaces have words of their own, which two models' attributions are compared by."""
    for name, tokenizer in kinds.items():
        if name != "bytes, across words":
            assert list(grouped(tokenizer, text, "word")[0].labels) == words, name


def test_characters_of_several_tokens_are_one_word(kinds: dict[str, Tokenizer]) -> None:
    """The bytes of one character were words of their own, all with its label."""
    for name in ("bytes", "bytes, trimmed", "byte fallback"):
        assert grouped(kinds[name], "書く 😀か\u3099", "word")[0].labels == ("書", "く", "😀", "か\u3099")


def test_the_space_put_before_a_text_is_no_letter(kinds: dict[str, Tokenizer]) -> None:
    """SentencePiece's first space has the offsets of the first letter, which is another token."""
    groups, raw = grouped(kinds["unigram, always"], "xe", "token")
    assert raw.tokens == ("▁", "x", "e")
    assert groups.labels == ("▁", "x", "e")


def test_an_accent_that_a_tokenizer_drops_stays_with_its_token(kinds: dict[str, Tokenizer]) -> None:
    """Labels of tokens are the text's too."""
    groups, _ = grouped(kinds["WordPiece"], "cafe\u0301 x", "token")
    assert groups.labels == ("cafe\u0301", "x")


@pytest.mark.parametrize("unit", UNITS)
def test_a_text_of_invisible_characters_is_refused(tiny: TinyModels, unit: Unit) -> None:
    """It has tokens, which would be words that nobody sees."""
    attributor = Attributor(tiny.load("roberta"), groups=unit)
    for text in ("\u200d", "\u00ad\u200b", " \ufeff\n"):
        with pytest.raises(TextError, match="the second text has no visible character to attribute"):
            attributor.attribute("coffee", text)


def test_a_text_cut_inside_a_character_counts_as_cut(tiny: TinyModels) -> None:
    """A byte-level model reads as many bytes as it has room for."""
    attributor = Attributor(tiny.load("roberta"))
    room = attributor.encoder.most_tokens("text")
    assert room is not None
    cut, whole = attributor.read(["x" * (room - 3) + "😀", "x" * (room - 6) + "😀"], "text")
    assert (cut.truncated, cut.cut_at) == (True, room - 2)
    assert (whole.truncated, whole.cut_at) == (False, None)
    assert cut.groups.labels[-2] == whole.groups.labels[-2] == "😀"


def test_a_flag_is_printed_with_its_tags_and_hidden_text_is_not() -> None:
    """England's flag is not Scotland's; tags behind anything else can carry text that no reader sees."""
    assert printable(ENGLAND) == ENGLAND
    for hidden in ("a\U000e0062\U000e0063\U000e007f", "🏴" + "\U000e0062" * 9 + "\U000e007f", "🏴\U000e0062\U000e0063"):
        assert printable(hidden).isprintable()
        assert word_spans(hidden) == [(0, 1)]


def test_a_deleted_word_takes_its_invisible_characters_along() -> None:
    """A variation selector left behind would turn to another character."""
    text = "I ❤\ufe0f👍 \ufeffit"
    spans = ((0, 1), (2, 3), (4, 5), (7, 9))
    groups = Groups("word", ("I", "❤", "👍", "it"), *zip(*spans, strict=True), ("text",) * 4, (0, 1, 2, 3))
    side = Side.of(ExplainedText(text=text, role="text", groups=groups, tokens=()))
    assert side.without([1]) == "I 👍 \ufeffit"
    assert side.without([2]) == "I ❤\ufe0f \ufeffit"
    assert side.without([3]) == "I ❤\ufe0f👍"

"""Every token is in exactly one group, and groups are ranges of the original text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution_core.text.characters import Span, is_invisible
from attribution_core.text.grouping import UNITS, Groups, Kind, Unit, group_tokens
from attribution_core.text.words import sentence_spans, word_spans

TEXTS = st.text(
    alphabet=st.one_of(
        st.sampled_from("abc ABC .,!?'’-_ 12 éß \n\t\u200b\u0301😀👍🏽好不は"),
        st.characters(codec="utf-8"),
    ),
    max_size=40,
)


@st.composite
def tokenised(draw: st.DrawFn) -> tuple[str, list[str], list[Span], list[Kind]]:
    """A text cut anywhere into tokens in order; some are empty or share characters, as byte-level pieces do."""
    text = draw(TEXTS)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=14)))
    spans = list(zip([0, *cuts], [*cuts, len(text)], strict=True))
    for at in draw(st.lists(st.integers(0, len(spans) - 1), max_size=3)):
        spans.insert(at, spans[at])
    prompt: list[Kind] = ["prompt"] * draw(st.integers(0, 2))
    body: list[Kind] = ["text"] * len(spans)
    kinds: list[Kind] = ["special", *prompt, *body, "special"]
    spans = [(0, 0)] * (len(kinds) - len(spans) - 1) + spans + [(0, 0)]
    return text, [f"t{at}" for at in range(len(spans))], spans, kinds


@given(case=tokenised(), unit=st.sampled_from(UNITS))
@settings(max_examples=300, deadline=None)
def test_every_token_is_in_one_group_and_groups_are_ordered_ranges(
    case: tuple[str, list[str], list[Span], list[Kind]], unit: Unit
) -> None:
    """A token in no group would be lost from the sums; one in two would count twice."""
    text, tokens, spans, kinds = case
    groups = group_tokens(text, tokens, spans, kinds, unit)
    assert len(groups.of_token) == len(tokens)
    assert sorted(set(groups.of_token)) == list(range(len(groups)))
    assert list(groups.of_token) == sorted(groups.of_token)
    assert len(groups.labels) == len(groups.starts) == len(groups.ends) == len(groups.kinds)
    starts = [start for start, kind in zip(groups.starts, groups.kinds, strict=True) if kind == "text"]
    visible = [
        (a, b) for a, b, k in zip(groups.starts, groups.ends, groups.kinds, strict=True) if k == "text" and b > a
    ]
    assert visible == sorted(visible)
    assert all(0 <= start <= len(text) for start in starts)
    for group, (start, end, kind) in enumerate(zip(groups.starts, groups.ends, groups.kinds, strict=True)):
        assert 0 <= start <= end <= len(text)
        members = [s for s, g in enumerate(groups.of_token) if g == group]
        assert {kinds[s] for s in members} == {kind}
        if kind != "text":
            assert (start, end) == (0, 0)
            assert groups.labels[group] == tokens[members[0]]
        if kind != "text" or unit == "token":
            assert len(members) == 1


@given(text=TEXTS)
@settings(max_examples=300, deadline=None)
def test_words_and_sentences_are_ordered_ranges_that_leave_out_only_space_and_the_unseen(text: str) -> None:
    """A visible character in no word would make its token a word of its own."""
    for spans in (word_spans(text), sentence_spans(text)):
        assert spans == sorted(spans)
        assert all(a < b for a, b in spans)
        assert all(first[1] <= second[0] for first, second in pairwise(spans))
        assert all(a >= 0 and b <= len(text) for a, b in spans)
    inside = {at for a, b in word_spans(text) for at in range(a, b)}
    assert all(at in inside for at, char in enumerate(text) if char.isascii() and char.isalnum())
    in_sentences = {at for a, b in sentence_spans(text) for at in range(a, b)}
    assert all(at in in_sentences for at, char in enumerate(text) if not is_invisible(char))


@given(text=st.text(alphabet="ab'.,1 -é\n", max_size=30), seed=st.integers(0, 99))
def test_words_do_not_depend_on_the_tokenizer(text: str, seed: int) -> None:
    """Two tokenizers that cut inside words give the same words, so that two models' attributions compare."""

    def words_of(step: int) -> list[str]:
        spans = [(at, min(at + step, end)) for start, end in word_spans(text) for at in range(start, end, step)]
        groups = group_tokens(text, ["?"] * len(spans), spans, ["text"] * len(spans), "word")
        return list(groups.labels)

    assert words_of(1) == words_of(1 + seed % 5) == [text[a:b] for a, b in word_spans(text)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The coffee isn't bad.", ["The", "coffee", "isn't", "bad", "."]),
        ("x-ray at 3.5 mm, 1,000 times", ["x", "-", "ray", "at", "3.5", "mm", ",", "1,000", "times"]),
        ("l’été, naïve", ["l’été", ",", "naïve"]),
        ("Well...", ["Well", ".", ".", "."]),
        ("'quoted' words'", ["'", "quoted", "'", "words", "'"]),
        ("snake_case = 7", ["snake_case", "=", "7"]),
        ("e\u0301t\u0301", ["e\u0301t\u0301"]),
        ("मराठी भाषा", ["मराठी", "भाषा"]),
        ("", []),
    ],
)
def test_words_are_what_a_reader_would_point_at(text: str, words: list[str]) -> None:
    """Apostrophes and decimal marks inside, hyphens and punctuation apart."""
    assert [text[a:b] for a, b in word_spans(text)] == words


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It rains. Why? Nobody knows!", ["It rains.", "Why?", "Nobody knows!"]),
        ("Dr. Smith met Mrs. Jones. They spoke.", ["Dr. Smith met Mrs. Jones.", "They spoke."]),
        ("J. S. Bach wrote it.", ["J. S. Bach wrote it."]),
        ("pi is 3.14 or so", ["pi is 3.14 or so"]),
        ("A title\n\nA paragraph", ["A title", "A paragraph"]),
        ('He said "no." Then left.', ['He said "no."', "Then left."]),
        ("好。不好。", ["好。", "不好。"]),
        ("   ", []),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, sentences: list[str]) -> None:
    """Abbreviations, initials and decimals do not end a sentence."""
    assert [text[a:b].strip() for a, b in sentence_spans(text)] == sentences


def grouped(text: str, spans: list[Span], unit: Unit) -> Groups:
    return group_tokens(text, [f"t{at}" for at in range(len(spans))], spans, ["text"] * len(spans), unit)


def test_a_token_without_visible_characters_joins_its_neighbour() -> None:
    """A lone SentencePiece space belongs to the word it opens."""
    groups = grouped("a bc", [(0, 1), (1, 2), (2, 4)], "word")
    assert groups.labels == ("a", "bc")
    assert groups.of_token == (0, 1, 1)


def test_a_token_over_two_words_ties_them_together() -> None:
    """A merged piece cannot be split between words: they are one group, and still sum to the text's."""
    groups = grouped("good bad day", [(0, 6), (6, 8), (9, 12)], "word")
    assert groups.labels == ("good bad", "day")
    assert groups.of_token == (0, 0, 1)


def test_tokens_of_a_script_without_spaces_are_words() -> None:
    """There a whole clause would be one word otherwise."""
    assert grouped("不好。", [(0, 1), (1, 2), (2, 3)], "word").labels == ("不", "好", "。")


def test_pieces_of_one_character_do_not_all_show_it() -> None:
    """The bytes of an emoji share its offsets; only the first is labelled with it."""
    assert grouped("😀", [(0, 1), (0, 1), (0, 1)], "token").labels == ("😀", "t1", "t2")

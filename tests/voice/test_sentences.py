"""Sentences in a text that comes in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from actorflow.voice._sentences import LONGEST, SentenceCutter


def sentences_of(*pieces: str) -> list[str]:
    cutter = SentenceCutter()
    return [*(it for piece in pieces for it in cutter.cut(piece)), *cutter.last()]


@pytest.mark.spec("A134")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It rains. Take a coat.", ["It rains. ", "Take a coat."]),
        ("Really?! Yes.", ["Really?! ", "Yes."]),
        ('"Go." He went.', ['"Go." ', "He went."]),
        ("It is 3.14 or so. Yes", ["It is 3.14 or so. ", "Yes"]),
        ("One\nTwo", ["One\n", "Two"]),
        ("雨です。傘を。", ["雨です。", "傘を。"]),
        ("  \n It rains.", ["  \n It rains."]),
        ("Wait... what", ["Wait... ", "what"]),
        ("", []),
        ("   ", ["   "]),
    ],
)
def test_text_is_cut_where_sentences_end(text: str, expected: list[str]) -> None:
    assert sentences_of(text) == expected
    assert sentences_of(*text) == expected


@pytest.mark.spec("A134")
def test_sentence_is_there_as_soon_as_its_end_is() -> None:
    cutter = SentenceCutter()

    assert cutter.cut("It ra") == []
    assert cutter.cut("ins. ") == ["It rains. "]


@pytest.mark.spec("A134")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("word " * 61, ["word " * 60, "word "]),
        ("x" * 301, ["x" * 300, "x"]),
        (" " + "x" * 300, [" " + "x" * 299, "x"]),
        ("a" * 290 + " " + "b" * 20 + ". c", ["a" * 290 + " ", "b" * 20 + ". ", "c"]),
    ],
)
def test_text_without_an_end_is_cut_at_a_space(text: str, expected: list[str]) -> None:
    assert sentences_of(text) == expected
    assert sentences_of(*text) == expected


@pytest.mark.spec("A134")
def test_text_without_an_end_does_not_wait_for_one() -> None:
    cutter = SentenceCutter()

    assert cutter.cut("word " * 60) == []
    assert cutter.cut("w") == ["word " * 60]
    assert cutter.cut("x" * (LONGEST - 1)) == []
    assert cutter.cut("x") == ["w" + "x" * (LONGEST - 1)]


@pytest.mark.spec("A134")
@given(st.lists(st.text(alphabet='ab .!?\n。")', max_size=8), max_size=12))
def test_no_character_is_lost(pieces: list[str]) -> None:
    assert "".join(sentences_of(*pieces)) == "".join(pieces)

"""Answers followed through grammars: what is allowed, where it may end, and what no grammar can be made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.errors import InvalidRequest
from pensieve.inference.constraints.constraint import Constraint, JsonOf
from pensieve.inference.constraints.following import MAX_GRAMMARS, Follower, byte_matchers
from pensieve.inference.constraints.lark import to_lark

MATCHERS = byte_matchers()
WORDS = to_lark(
    Constraint(JsonOf({"type": "array", "items": {"enum": ["é😀", "<|im_end|>"]}, "maxItems": 2}, "schema"))
)


@given(st.lists(st.integers(1, 9), max_size=20))
def test_a_text_is_followed_wherever_it_is_cut(sizes: list[int]) -> None:
    """It may end at its end alone."""
    follower, text = Follower(MATCHERS.matcher(WORDS)), '["é😀", "<|im_end|>"]'
    for size in sizes:
        assert follower.take(text[:size])
        text = text[size:]
        assert follower.is_whole == (not text)
    assert follower.take(text)
    assert follower.is_whole


@pytest.mark.parametrize("text", ["[1", '["é"', "no", '["é😀"]]', '["é😀"] ', "\udcff"])
def test_what_a_grammar_does_not_allow_is_told_and_stays_told(text: str) -> None:
    """Whatever comes after it."""
    follower = Follower(MATCHERS.matcher(WORDS))
    assert [follower.take(text), follower.take("["), follower.is_whole] == [False, False, False]


@pytest.mark.parametrize("grammar", ["start: /[/", "start: nowhere", "", 'start: "a" <[100000]>'])
def test_a_grammar_that_cannot_be_read_is_refused(grammar: str) -> None:
    """Each time, before anything is generated."""
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="too complex"):
            MATCHERS.matcher(grammar)


def test_answers_of_one_grammar_do_not_meet() -> None:
    """Nor do few grammars push the others out."""
    matchers = byte_matchers()
    first, second = (Follower(matchers.matcher(WORDS)) for _ in range(2))
    assert first.take("[")
    assert second.take("[")
    for number in range(2 * MAX_GRAMMARS):
        assert Follower(matchers.matcher(f'start: "{number}"')).take(str(number))
    assert len(matchers._known) == MAX_GRAMMARS
    assert Follower(matchers.matcher(WORDS)).take("[")

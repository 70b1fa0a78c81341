"""Foreign text made safe for a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.cli.text import one_line, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext, naïve, 日本, 👩‍🚀", "plain\n\ttext, naïve, 日本, 👩‍🚀"),
        ("\x1b[31mred\x1b]0;title\x07", "[31mred]0;title"),
        ("a\rb\x00c\x7fd\x9be", "abcde"),
        ("user\u202etxt.exe\u2066x\u2069", "usertxt.exex"),
        ("half a pair \ud83d", "half a pair \ufffd"),
    ],
)
def test_what_could_steer_a_terminal_is_taken_out(text: str, shown: str) -> None:
    """Escape sequences lose their escape; newlines, tabs and every script stay."""
    assert printable(text) == shown


@given(st.text(), st.integers(0, 20))
def test_text_may_be_cleaned_in_pieces(text: str, at: int) -> None:
    """A stream cleaned chunk by chunk is the text cleaned whole, and can always be encoded."""
    assert printable(text[:at]) + printable(text[at:]) == printable(text)
    assert printable(text).encode().decode() == printable(printable(text))


def test_one_line_is_one_line() -> None:
    """An error's text cannot forge a second line."""
    assert one_line("first\nerror: \x1b[2Ksecond\t \u2028 third\r") == "first error: [2Ksecond third"

"""Blocks of three quotes, and lines of a pipe."""

from __future__ import annotations

import io

import pytest

from pensieve.cli.chat.keyboard import LineKeyboard, is_open_block, unquoted


@pytest.mark.parametrize(
    ("text", "is_open", "meant"),
    [
        ("plain", False, "plain"),
        ('"""', True, ""),
        ('"""a', True, "a"),
        ('"""a"""', False, "a"),
        ('"""\na\n\nb\n"""', False, "a\n\nb"),
        ('"""a""', True, 'a""'),
        ('say """x"""', False, 'say """x"""'),
        ('""""""', False, ""),
    ],
)
def test_blocks_of_quotes(text: str, is_open: bool, meant: str) -> None:
    """They begin a text, and their quotes are not part of it."""
    assert is_open_block(text) is is_open
    assert unquoted(text) == meant


def test_a_block_in_a_pipe_is_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one that the end of the input breaks off."""
    monkeypatch.setattr("sys.stdin", io.StringIO('first\n"""a\nb\n"""\n"""c\nd'))
    keyboard = LineKeyboard()
    assert [keyboard.read(), keyboard.read(), keyboard.read()] == ["first", "a\nb", "c\nd"]
    with pytest.raises(EOFError):
        keyboard.read()

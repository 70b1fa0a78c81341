"""The screen for pipes and simple terminals."""

from __future__ import annotations

import io

import pytest

from pensieve.cli.chat.plain import PlainScreen, table_lines
from pensieve.cli.chat.screen import Table
from pensieve.errors import UsageError

ROWS = (("1", "7 min ago", "What is the capital of France, and since when"), ("2", "now", "A walk"))


def test_an_editor_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what says which one is used."""
    monkeypatch.setenv("VISUAL", "no-editor-of-this-name")
    with pytest.raises(UsageError, match="EDITOR says which one"):
        PlainScreen(io.StringIO(), io.StringIO(), is_interactive=True).edit("a question")


def test_a_table_is_as_wide_as_what_stands_in_it() -> None:
    """Where there is room, and where nobody says how much."""
    lines = [line for line, _ in table_lines(Table(ROWS, ("ID", "SAID", "TITLE")))]
    assert lines == [line for line, _ in table_lines(Table(ROWS, ("ID", "SAID", "TITLE")), 80)]
    assert lines[1] == "1   7 min ago  What is the capital of France, and since when"


def test_several_wide_columns_give_alike() -> None:
    """None is crushed for the others, and no line is wider than the window."""
    wide = Table((("a b " * 10, "c d " * 10, "1"),))
    lines = [line for line, _ in table_lines(wide, 40)]
    assert max(map(len, lines)) <= 40
    assert (len(lines), lines[0]) == (3, "a b a b a b a b a  c d c d c d c d c   1")


def test_the_widest_column_of_a_table_gives_where_the_window_is_narrow() -> None:
    """Its words go on below it, and headings stay marked as such."""
    assert table_lines(Table(ROWS, ("ID", "SAID", "TITLE"), "Kept"), 40) == [
        ("Kept", True),
        ("ID  SAID       TITLE", True),
        ("1   7 min ago  What is the capital of", False),
        ("               France, and since when", False),
        ("2   now        A walk", False),
    ]

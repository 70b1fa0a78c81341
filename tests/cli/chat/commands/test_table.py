"""How a line is read, what is suggested and how it is completed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.cli.chat.commands.table import Answer, Candidate, Command, Invocation, Leave, Table, Text, Unknown

NAMES = ("red", "green")
ENTER = Command[list[str]]("enter", lambda desk, argument: desk.append(argument), "Come in.", usage="NAME")
LEAVE = Command[list[str]]("leave", lambda _desk, _argument: Leave(), "Go.", aliases=("quit", "q"))
PAINT = Command[list[str]](
    "paint",
    lambda _desk, _argument: Answer(),
    "Paint it.",
    complete=lambda _desk, typed: (Candidate(name) for name in NAMES if name.startswith(typed)),
)
TABLE = Table((ENTER, LEAVE, PAINT))


def test_a_line_calls_a_command_with_what_follows_it() -> None:
    """Blanks around it are dropped, and capitals make no difference."""
    assert TABLE.read("  /Enter  the  house \n") == Invocation(ENTER, "the  house")


def test_an_alias_calls_the_same_command() -> None:
    """With nothing behind it."""
    assert TABLE.read("/q") == Invocation(LEAVE, "")


@pytest.mark.parametrize(("typed", "nearest"), [("entre", "enter"), ("pai", "paint"), ("zzz", "")])
def test_an_unknown_command_suggests_the_nearest(typed: str, nearest: str) -> None:
    """Where one is near."""
    found = TABLE.read(f"/{typed} now")
    assert found == Unknown(typed, nearest)
    assert (f"did you mean /{nearest}?" in str(found)) == bool(nearest)


@pytest.mark.parametrize("line", ["hello", "/etc/hosts: what is that?", "/", "1/2", "/ab1"])
def test_other_lines_are_text(line: str) -> None:
    """Paths too."""
    assert TABLE.read(line) == Text(line)


def test_two_slashes_stand_for_one_in_a_text() -> None:
    """So that any text can be sent."""
    assert TABLE.read("//enter is a command") == Text("/enter is a command")


def test_names_are_completed_with_their_summaries() -> None:
    """Each command once, by the first of its names that fits."""
    assert TABLE.complete([], "/q") == (Candidate("/quit", "Go."),)
    assert [candidate.text for candidate in TABLE.complete([], "/")] == ["/enter", "/leave", "/paint"]


def test_an_argument_is_completed_by_its_command() -> None:
    """And by nobody where the command knows nothing or is unknown."""
    assert TABLE.complete([], "/paint gr") == (Candidate("green"),)
    assert TABLE.complete([], "/enter x") == TABLE.complete([], "/nobody x") == TABLE.complete([], "text") == ()


@given(st.text())
def test_no_line_is_lost(line: str) -> None:
    """Every line is a command, a mistake that is told, or text that holds all of it."""
    match TABLE.read(line):
        case Text(text):
            assert text in line
        case Unknown(name, _):
            assert name in line.lower()
        case Invocation(_, argument):
            assert argument in line

"""The chat in windows: what is drawn and what keys do, on the scripted backend of the commands' tests."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from window import Window

Open = Callable[..., Window]
CTRL_C, CTRL_D = "\x03", "\x04"
pytestmark = pytest.mark.usefixtures("served_home")


def ask(chat: Window, question: str, answer: str) -> str:
    """Ask at the next prompt; the transcript once the answer and another prompt are there."""
    chat.expect_prompt()
    chat.type(f"{question}\r")
    chat.expect(answer)
    return chat.expect_prompt()


def test_markdown_thinking_and_calls_are_drawn(window: Open) -> None:
    """Thinking folded into a line, code in colour, a call with its arguments; the whole transcript."""
    chat = window("chat", columns=100)
    shown = ask(chat, "tour", "the end")
    _, *lines = re.sub(r"for \d+ s", "for 0 s", shown).split("\n")
    assert lines[: lines.index(">")] == TOUR
    assert chat.style_at("Heading").bold
    assert chat.style_at("def ").fg == "magenta"


TOUR = [
    "> tour",
    "  thought for 0 s, about 3 tokens",
    "Heading",
    "",
    "• bold and code",
    "",
    "── python",
    "def f():",
    "    return 1",
    "──",
    '  → weather(city="Paris")',
    "the end",
]


def test_what_a_model_says_cannot_reach_the_terminal(window: Open) -> None:
    """No colour, no title, no bell, no change of direction: only letters."""
    chat = window("chat")
    shown = ask(chat, "escape", "end")
    assert "[31mred 2J ]0;title bell bidi" in shown
    assert chat.style_at("red").fg == "default"
    assert b"\x1b]0;" not in chat.raw
    assert "\u202e".encode() not in chat.raw


@pytest.mark.parametrize("columns", [60, 20])
def test_a_narrow_window_is_enough(window: Open, columns: int) -> None:
    """Nothing is lost and nothing crashes."""
    chat = window("chat", columns=columns)
    shown = ask(chat, "the capital?", "Paris.")
    assert "The capital of France is Paris." in shown.replace("\n", " ")
    chat.type(CTRL_D)
    assert chat.end() == 0


@pytest.mark.parametrize("sizes", [[(40, 24), (100, 30)], [(120, 10), (30, 40)]])
def test_resizing_during_an_answer_loses_nothing(window: Open, sizes: list[tuple[int, int]]) -> None:
    """All words come, in their order."""
    chat = window("chat")
    chat.expect_prompt()
    chat.type("long\r")
    for columns, rows in sizes:
        chat.expect("tokens ·")
        chat.resize(columns, rows)
    chat.expect("over")
    assert re.sub(r"\s+", " ", chat.expect_prompt()).count(" a") >= 50


def test_alt_enter_quotes_and_paste_make_many_lines(window: Open) -> None:
    """Only Enter sends, and not while a block of quotes is open."""
    chat = window("chat")
    chat.expect_prompt()
    chat.paste("one line\n\nfirst piped\nlast piped")
    chat.expect("last piped")
    chat.type("\r")
    chat.expect("Both arrived.")
    chat.expect_prompt()
    chat.type('"""\rone line\r\rfirst piped\rlast piped\r"""\r')
    chat.expect("Both arrived.", times=2)
    chat.expect_prompt()
    chat.type("one line\x1b\r\x1b\rfirst piped\x1b\rlast piped\r")
    chat.expect("Both arrived.", times=3)


def test_what_was_typed_is_there_in_the_next_chat(window: Open, served_home: Path) -> None:
    """In a file that nobody else can read."""
    first = window("chat")
    ask(first, "the capital?", "Paris.")
    first.type(CTRL_D)
    assert first.end() == 0
    kept = served_home / "state" / "input-history.jsonl"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    again = window("chat")
    again.expect_prompt()
    again.type("\x1b[A\r")
    again.expect("Paris.")


def test_commands_are_completed(window: Open) -> None:
    """From the table, with what each one does; one that is typed wrong is named."""
    chat = window("chat", columns=100)
    chat.expect_prompt()
    chat.type("/hist")
    chat.expect("Show what was said")
    chat.type("\t\r\r")
    chat.expect("nothing was said yet")


def test_keys_pressed_during_an_answer_wait_for_the_prompt(window: Open) -> None:
    """Nothing typed is lost, and nothing of it is drawn into the answer."""
    chat = window("chat")
    chat.expect_prompt()
    chat.type("long\r")
    chat.expect("tokens ·")
    chat.type("the capital?\r")
    chat.expect("Paris.")


def test_thinking_is_unfolded_and_colours_are_chosen(window: Open) -> None:
    """The whole transcript; answers after that are drawn so."""
    chat = window("chat", columns=100)
    ask(chat, "think", "Thought.")
    ask(chat, "/think show", "thinking is shown")
    ask(chat, "/theme", "*  terminal")
    ask(chat, "/theme mono", "the theme is mono")
    ask(chat, "/theme blue", "there is no theme blue: there are terminal, dark, light, mono, none")
    shown = ask(chat, "tour", "the end")
    _, *lines = re.sub(r"for \d+ s", "for 0 s", shown).split("\n")
    assert [line.rstrip() for line in lines[: lines.index("> tour")]] == CHOSEN
    assert "  Let me see.\n  thought for" in shown
    assert chat.style_at("def ").fg == "default"


CHOSEN = [
    "> think",
    "  thought for 0 s, about 3 tokens",
    "Thought.",
    "> /think show",
    "  Let me see.",
    "thinking is shown",
    "> /theme",
    "*  terminal",
    "   dark",
    "   light",
    "   mono",
    "   none",
    "> /theme mono",
    "the theme is mono",
    "> /theme blue",
    "error: there is no theme blue: there are terminal, dark, light, mono, none",
]


def test_colours_can_be_left_out(window: Open) -> None:
    """NO_COLOR is obeyed; bold stays."""
    chat = window("chat", environ={"NO_COLOR": "1"})
    ask(chat, "tour", "the end")
    assert not re.search(rb"\x1b\[[0-9;]*3[0-7][;m]", chat.raw)
    assert chat.style_at("Heading").bold


def test_a_chat_that_goes_on_greets_first(window: Open) -> None:
    """So that the last words of the conversation stand above the prompt that they are answered at."""
    first = window("chat")
    ask(first, "the capital?", "Paris.")
    first.type(CTRL_D)
    assert first.end() == 0
    shown = window("chat", "--continue", columns=100).expect_prompt().splitlines()
    assert shown[1] == "going on with 1: the capital? (1 turn)"
    assert shown[2:5] == ["> the capital?", "The capital of France is Paris.", ">"]


def test_a_dumb_terminal_gets_plain_text(window: Open) -> None:
    """Not a single escape code."""
    chat = window("chat", environ={"TERM": "dumb"})
    chat.expect("\n>")
    chat.type("the capital?\r")
    chat.expect("Paris.")
    chat.type("/exit\r")
    assert chat.end() == 0
    assert b"\x1b" not in chat.raw


def test_a_private_chat_says_so_and_keeps_no_line(window: Open, served_home: Path) -> None:
    """Where it begins and below the prompt; what was typed is found with the arrow while it lasts."""
    chat = window("chat", "--no-save", columns=120)
    chat.expect("Private: nothing of this chat is kept.")
    ask(chat, "the capital?", "is Paris.")
    chat.expect("scripted · private")
    chat.type("\x1b[A")
    chat.expect("> the capital?", times=2)
    chat.type(CTRL_C + CTRL_D)
    assert chat.end() == 0
    assert not (served_home / "state" / "input-history.jsonl").exists()
    assert not list(served_home.rglob("conversations.db*"))

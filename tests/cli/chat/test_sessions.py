"""Whole sessions typed by keys in windows, over every command: all that was drawn and stays is compared with a file.

The files are `transcripts/*.txt`; `tests/transcripts.py` says what of them is put aside, and how they are written anew.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pensieve.cli.chat.commands.all import TABLE
from scripted_server import answering, put_run_file, saying, serving
from transcripts import ALT_ENTER, CTRL_C, CTRL_D, FOLDER, Chat, commands_in, compare, without_answers
from window import Window

HOUR = {"type": "delay", "seconds": 3600}
CRASH = {"type": "fail", "error": "WorkerCrashed", "facts": {"model": "scripted", "exit_status": "killed"}}
BROKEN = {"type": "fail", "error": "BackendFailure", "facts": {"problem": "it broke"}}
SCRIPT = {
    "context_tokens": 400,
    "turns": [
        answering("Summarise our conversation", saying("We spoke of towns, and of a gull.")),
        answering("capital", saying("The capital of France is Paris.")),
        answering("gull", saying("A gull is a bird of the sea."), chunk_delay_seconds=0.01),
        answering("think", {"type": "thinking", "text": "Let me see."}, saying("Thought.")),
        answering("slow", saying("early"), HOUR, saying("late")),
        answering("break", saying("half"), BROKEN),
        answering("crash", saying("half"), CRASH),
        answering("one line\nanother line", saying("Both arrived.")),
        answering("code", saying("Here:\n\n```python\nprint(1)\n```\n")),
        answering("many words", saying("word " * 150)),
        answering("table", saying("| a | b |\n|---|---|\n| 1 | two |\n\n1. first\n2. second\n\n> said\n")),
        answering("tool", {"type": "tool_call", "id": "call_1", "name": "weather", "arguments": {"city": "Paris"}}),
    ],
}
OTHER = {
    "model": "gull",
    "context_tokens": 1_000,
    "capabilities": ["images"],
    "turns": [
        answering("dot", saying("A dot.")),
        answering("capital", saying("Paris, says the gull.")),
    ],
}
EDITOR = """#!/bin/sh
# Each time as the file says: another text, none, or an error.
if test -s "$EDITED"; then cat "$EDITED" > "$1"; else exit 3; fi
"""


class Place(NamedTuple):
    """Where sessions are held."""

    home: Path
    run_files: dict[str, bytes]
    """By model."""
    edited: Path
    """What the editor makes of any text; while it is empty, the editor fails."""
    open: Callable[..., Chat]


@pytest.fixture(scope="session")
def run_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, bytes]]:
    """Of a server that can do nothing special, and of one whose model sees."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(serving(script, tmp_path_factory.mktemp(name)))
            for name, script in (("scripted", SCRIPT), ("gull", OTHER))
        }


@pytest.fixture
def place(tmp_path: Path, pensieve_home: Path, run_files: dict[str, bytes], window: Callable[..., Window]) -> Place:
    """A home with the first server, and a PATH without any program that could reach somebody's clipboard."""
    programs, edited = tmp_path / "bin", tmp_path / "edited.md"
    programs.mkdir()
    edited.touch()
    for name in ("sh", "cat"):
        (programs / name).symlink_to(shutil.which(name) or name)
    (programs / "editor").write_text(EDITOR)
    (programs / "editor").chmod(0o700)
    put_run_file(pensieve_home, run_files["scripted"])
    variables = {"PATH": str(programs), "EDITOR": "editor", "EDITED": str(edited), "PAGER": "cat"}
    variables |= {"PENSIEVE_MODEL": "scripted", "VISUAL": "", "NO_COLOR": ""}

    def start(*words: str, environ: dict[str, str] | None = None, **more: Any) -> Chat:
        return Chat(window("chat", *words, rows=40, environ=variables | (environ or {}), **more))

    return Place(pensieve_home, run_files, edited, start)


def test_talking(place: Place) -> None:
    """What was said last is seen, taken back, said otherwise, copied, summarised."""
    chat = place.open(columns=100)
    chat.say("/help", "/h copy", "/? fork", "/help histroy", "/history", "/retry", "/undo", "/copy", "/compact")
    chat.say("the capital?", "/history", "/retry", "/again", "/retry now", "/fork", "/undo", "/undo 0", "/edit")
    chat.say("what is a gull?", "and its capital?", "/history 1", "/history all", "/history 0", "/undo 2", "/fork 2")
    chat.say("/branch", "/fork 9", "/fork me", "/edit what is a gull, then?", "/edit")
    place.edited.write_text("what is a gull,\nagain?\n")
    chat.say("/edit", "/edit", "/copy", "/copy code", "/copy all", "show code", "/copy code", "/compact now")
    assert b"\x1b]52;c;cHJpbnQoMSkK\x07" in chat.window.raw
    chat.say("/compact", "/history", "/retry", "/new now", "/new")
    chat.clear()
    chat.say("what is a gull?", "/undo", "/copy")
    chat.leave("/exit")
    compare(chat, "talking")


def test_typing(place: Place) -> None:
    """Lines of all kinds, answers that stop, break and crash, and a window that fills."""
    chat = place.open("--verbose", columns=100)
    for keys in (f"one line{ALT_ENTER}another line", '"""\rone line\ranother line\r"""'):
        chat.say(keys)
    chat.type("\x1b[200~one line\nanother line\x1b[201~")
    chat.press("\r")
    chat.say("/histroy 5", "/xyzzy", "//history of the gull", "/etc/hosts has no gull", "think first")
    chat.start("slow", "early")
    chat.press(CTRL_C)
    chat.say("/history 1", "break it", "crash it", "/history 2")
    chat.type("half a question")
    chat.press(CTRL_C)
    chat.say("a table?", "a tool?", "many words", "many words", "many words")
    chat.leave(CTRL_D)
    compare(chat, "typing")


def test_asking(place: Place) -> None:
    """How is asked: presets, parameters, thinking; another model takes over and gives back."""
    chat = place.open(columns=100)
    chat.say("/system", "/system Answer in one line.", "/system", "the capital?", "/system none", "/system teacher")
    chat.say("/preset", "/preset cder", "/preset translator", "/preset coder", "/system default")
    chat.say("/set", "/set temperature", "/set temperature 0.9", "/set temperature warm", "/set temperature 99")
    chat.say("/set warmth 1", "/set max-tokens=50", "/set max_tokens 0", "/set top_p none", "/params", "/parameters x")
    chat.say("/think", "/think on", "/think 500", "/think off", "/think hard", "/think default", "/think 0")
    chat.say("think", "/think show", "think", "/think show", "/theme", "/theme light", "/theme blue", "/theme none")
    chat.say("/model", "/models", "/model gull", "/model scripted")
    put_run_file(place.home, place.run_files["gull"])
    chat.say(
        "/model gull", "the capital?", "/think on", "/think default", "/models", "/model scripted", "/model nowhere"
    )
    chat.say("/history 1")
    chat.leave("/quit")
    compare(chat, "asking")


def test_keeping(place: Place) -> None:
    """Conversations are listed, opened, found, named, deleted, written, exported and read, after asking."""
    chat = place.open(columns=100)
    for name, text in (("odd.json", "[1, 2"), ("empty.json", "[]")):
        (place.home / name).write_text(text)
    chat.say("/list", "/search", "/search gull", "/save", "/export md all.md", "/rename", "/rename Birds", "/delete")
    chat.say("what is a gull?", "/new", "the capital?", "/list", "/ls 1", "/list all", "/search gull", "/find nothing")
    chat.say("/open 1", "/resume 2", "/open", "/open 9", "/open gull", "/rename Towns of  France", "/title Towns")
    chat.say("/save", "/save nowhere/deep.json", "/save .")
    chat.reply("/save towns", "\r")
    chat.reply("/save towns", "y\r")
    chat.say("/export", "/export pdf a.pdf", "/export md a.md", "/export json a", "/export a.html", "/export txt a.txt")
    chat.reply("/export a.txt", "no\r")
    chat.reply("/export md a.md", "YES\r")
    chat.say("/load", "/load none.json", "/load odd.json", "/load empty.json", "/load towns.json", "/import a")
    chat.say("the capital?", "/load towns.json", "/list")
    chat.reply("/delete", "\r")
    chat.reply("/delete 1", CTRL_C)
    chat.reply("/delete 2", "y\r")
    chat.say("/delete 9", "/delete gull", "/list", "/history")
    chat.leave("/q")
    compare(chat, "keeping")


def test_adding(place: Place) -> None:
    """Files go into the next message, large ones after asking; images only where the model sees."""
    chat = place.open(columns=100)
    files = {
        "one.txt": b"a gull",
        "two.txt": b"a town",
        "large.md": b"word " * 150,
        "odd.bin": b"a\0b",
        "none.txt": b"",
    }
    for name, content in (files | {"dot.png": b"\x89PNG\r\n\x1a\nx"}).items():
        (place.home / name).write_bytes(content)
    chat.say("/attach", "/attach one.txt", "/attach t*.txt", "/attach", "/attach clear", "/attach [ot]*.txt")
    chat.say("/attach nowhere.txt", "/attach *.none", "/attach odd.bin", "/attach none.txt", "/attach dot.png")
    chat.say("/attach state", "/attach 'one.txt'", "/attach clear")
    chat.reply("/attach large.md", "n\r")
    chat.reply("/attach large.md", "y\r")
    chat.reply("/attach [!n]*.[tm]*", "\r")
    chat.say(
        "the capital in it?", "/attach", "/tokens", "/tokens three little words", "/history", "/debug now", "/debug"
    )
    chat.say("/image", "/image dot.png")
    put_run_file(place.home, place.run_files["gull"])
    chat.say(
        "/model gull", "/image one.txt", "/image none.png", "/image dot.png", "/attach", "what dot is it?", "/history 1"
    )
    chat.leave("/bye")
    compare(chat, "adding")


def test_telling(place: Place) -> None:
    """What the chat tells of itself, in a window so wide that any home's name fits."""
    chat = place.open("--system", "Be brief.", columns=250)
    chat.say("/debug", "/info", "/stats", "/tokens", "what is a gull?", "/retry", "/info", "/stats", "/tokens")
    chat.say("/memory", "/mem", "/theme dark", "what is a gull?")
    chat.look_below()
    chat.leave(CTRL_D)
    compare(chat, "telling")


def test_a_narrow_window_without_colours(place: Place) -> None:
    """Sixty columns, and NO_COLOR: tables and messages fold, nothing is lost."""
    chat = place.open(columns=60, environ={"NO_COLOR": "1"})
    chat.say("/help", "/theme", "what is a gull, and which others fly over the sea and the towns at it?", "a table?")
    chat.say(
        "/list",
        "/search gull",
        "/fork",
        "/models",
        "/params",
        "/preset",
        "/histroy",
        "/think",
        "show code",
        "many words",
    )
    chat.reply("/delete", "y\r")
    chat.leave(CTRL_D)
    assert not re.search(rb"\x1b\[[0-9;]*3[0-7][;m]", chat.window.raw)
    compare(chat, "narrow")


def test_a_dumb_terminal(place: Place) -> None:
    """Plain lines without a single control code."""
    chat = place.open(columns=80, environ={"TERM": "dumb", "NO_COLOR": "1"})
    chat.say(
        "/help", "/theme", "think", "/think show", "a table?", "a tool?", "break it", "crash it", "/retry", "/copy"
    )
    chat.say_block("one line", "another line")
    chat.leave("/exit")
    assert b"\x1b" not in chat.window.raw
    compare(chat, "dumb")


@pytest.mark.model
def test_a_real_model(place: Place, starter_model: Path) -> None:
    """It takes a conversation over, answers, and is told of; then a server goes on. Its words are its build's own."""
    models = place.home / "data" / "models"
    shutil.copytree(starter_model.parent, models / starter_model.parent.name, copy_function=os.symlink)
    chat = place.open("--temperature", "0", columns=100)
    chat.say("the capital?", "/model smollm2-135m", "/model", "/think on", "/think default", "/set max_tokens 24")
    chat.say(
        "Say that again, please.", "/retry", "/tokens The capital of France is Paris.", "/history", "/model scripted"
    )
    chat.say("the capital?", "/list")
    chat.leave("/exit")
    compare(chat, "starter", lambda transcript: without_answers(transcript, "> Say that again, please.", "> /retry"))


def test_every_command_is_typed_in_a_session() -> None:
    """By its name and by each of its aliases."""
    typed = {name for path in FOLDER.glob("*.txt") for name in commands_in(path.read_text(encoding="utf-8"))}
    known = {name for command in TABLE.commands for name in (command.name, *command.aliases)}
    assert known - typed == set()


def test_every_file_belongs_to_a_session() -> None:
    """So that no command counts as typed because it once was."""
    compared = re.findall(r'^    compare\(chat, "(\w+)"', Path(__file__).read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(compared) == sorted(path.stem for path in FOLDER.glob("*.txt"))

"""A whole session on a real terminal: kept conversations chosen, gone on with, branched and left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Open = Callable[..., Any]
CTRL_D = "\x04"


@pytest.mark.usefixtures("served_home")
def test_a_session_over_commands_on_a_terminal(window: Open, pensieve_home: Path) -> None:
    """Each line is answered below it; the conversation is there again for the next chat, which chooses it."""
    chat = window("chat", columns=100)
    for typed, told in (
        ("the capital?", "The capital of France is Paris."),
        ("/retry", "The capital of France is Paris."),
        ("/fork", "another branch"),
        ("/rename Gull", "this conversation is called Gull"),
        ("/histroy", "did you mean /history?"),
        ("/save gull", "wrote gull.json"),
    ):
        chat.expect_prompt()
        chat.type(f"{typed}\r")
        chat.expect(told)
    chat.expect_prompt()
    chat.type("/save gull\r")
    chat.expect("Overwrite it? [y/N]")
    chat.type("n\r")
    chat.expect("nothing was written")
    chat.expect_prompt()
    chat.type(CTRL_D)
    assert chat.end() == 0
    assert (pensieve_home / "gull.json").is_file()

    later = window("chat", "--resume", columns=100)
    later.expect("Which one? ID")
    later.type("1\r")
    later.expect("going on with 1: Gull (1 turn)")
    later.expect_prompt()
    later.type("/exit\r")
    assert later.end() == 0

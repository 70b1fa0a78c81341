"""What the status line is told: figures of the conversation that is open, and of no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from pensieve.generation import Usage
from pensieve.inference.script import Fail, Say, Script, Turn
from talks import talking


@pytest.mark.parametrize("command", ["/new", "/undo"])
def test_figures_of_an_answer_that_is_not_here_are_not_shown(tmp_path: Path, command: str) -> None:
    """Neither its context nor its speed, until there is another answer."""
    turns = tuple(Turn(steps=(Say(text),), prompt_tokens=size) for text, size in (("one", 70), ("two", 90)))
    with talking(tmp_path, Script(turns=turns)) as talk:
        talk.say("first")
        known = talk.meter.status
        assert (known.usage, known.context_tokens) == (Usage(70, 0, 1), 71)
        assert known.first_token_seconds is not None
        talk.say(command)
        gone = talk.meter.status
        assert (gone.usage, gone.context_tokens, gone.first_token_seconds) == (None, None, None)
        talk.say("second")
        assert talk.meter.status.context_tokens == 91


def test_an_answer_that_broke_off_leaves_the_figures_before_it(tmp_path: Path) -> None:
    """It told none; below the prompt and in /info."""
    broken = Turn(steps=(Say("half"), Fail("BackendFailure", {"problem": "it broke"})))
    with talking(tmp_path, Script(turns=(Turn(steps=(Say("one"),), prompt_tokens=70), broken))) as talk:
        talk.say("first", "second")
        assert talk.meter.status.context_tokens == 71
        assert "71 of 32,768 tokens" in talk.say("/info")


def test_a_conversation_that_is_opened_brings_its_context(tmp_path: Path) -> None:
    """As it was told when it was answered."""
    with talking(tmp_path, Script(turns=(Turn(steps=(Say("one"),), prompt_tokens=70),))) as talk:
        talk.say("first", "/new", "/open 1")
        assert talk.meter.status.context_tokens == 71

"""The conversation itself: what is remembered, what leaves, and what is not answered yet."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from pensieve.cli.chat.session import ChatSession, Forgot
from pensieve.cli.recipe import Recipe
from pensieve.errors import BackendFailure, ContextOverflow
from pensieve.generation import GenerationEvent, TextDelta
from pensieve.inference.script import Delay, Fail, Say, Script, Think, Turn
from pensieve.inference.scripted import ScriptedBackend
from pensieve.messages import say

SYSTEM = say("system", "Be brief.")


def session_of(script: Script) -> tuple[ChatSession, ScriptedBackend]:
    """A conversation over a scripted backend."""
    backend = ScriptedBackend(script)
    return ChatSession(backend, Recipe("scripted", "Be brief.")), backend


async def submit(session: ChatSession, text: str) -> list[GenerationEvent | Forgot]:
    """All events of one question."""
    return [event async for event in session.submit(text)]


async def test_what_was_said_goes_into_the_next_request() -> None:
    """System text first, then every turn in order, all under one session key."""
    session, backend = session_of(Script.saying("one", "two"))
    await submit(session, "first")
    await submit(session, "second")
    first, second = backend.requests
    assert second.messages == (SYSTEM, say("user", "first"), say("assistant", "one"), say("user", "second"))
    assert first.affinity_key == second.affinity_key != ""
    assert first.id != second.id


async def test_an_answer_that_was_stopped_is_kept_as_interrupted() -> None:
    """The model sees what it had said so far."""
    session, _ = session_of(Script(turns=(Turn(steps=(Say("early"), Delay(3600.0))),)))
    async with aclosing(session.submit("slow")) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    [turn] = session.turns
    assert turn.is_interrupted
    assert turn.answer.text == "early"
    assert session.unanswered == ""


@pytest.mark.parametrize("steps", [(Delay(3600.0),), (Think("hm"), Delay(3600.0))], ids=["nothing", "thinking"])
async def test_a_question_stopped_before_a_word_of_answer_stays_unanswered(steps: tuple[Delay | Think, ...]) -> None:
    """No turn is kept that would leave the model without its side."""
    session, _ = session_of(Script(turns=(Turn(steps=steps),)))
    async with aclosing(session.submit("slow")) as events:
        await anext(events)
    assert session.turns == ()
    assert session.unanswered == "slow"


async def test_a_question_that_failed_stays_unanswered() -> None:
    """The half answer is not remembered, and the text can be sent again."""
    script = Script(
        turns=(Turn(steps=(Say("half"), Fail("BackendFailure", {"problem": "x"}))), Turn(steps=(Say("ok"),)))
    )
    session, backend = session_of(script)
    with pytest.raises(BackendFailure):
        await submit(session, "question")
    assert (session.turns, session.unanswered) == ((), "question")
    await submit(session, session.unanswered)
    assert session.unanswered == ""
    assert backend.requests[1].messages == (SYSTEM, say("user", "question"))


async def test_a_full_context_lets_the_oldest_turns_go_with_one_note() -> None:
    """Whole turns leave, the system text stays, and what is left leaves room for the answer."""
    session, backend = session_of(Script(turns=(Turn(steps=(Say("word " * 8),)),), context_tokens=33))
    forgotten = []
    for number in range(4):
        events = await submit(session, f"question {number}")
        forgotten.append([event for event in events if isinstance(event, Forgot)])
    assert forgotten == [[], [], [], [Forgot(1)]]
    assert backend.requests[-1].messages[:2] == (SYSTEM, say("user", "question 1"))
    assert [turn.question.text for turn in session.turns] == ["question 1", "question 2", "question 3"]


async def test_after_an_answer_that_the_full_context_cut_off_there_is_room_again() -> None:
    """Else a question that just fits would never be answered."""
    session, _ = session_of(Script(turns=(Turn(steps=(Say("word " * 8),)),), context_tokens=24))
    for number in range(3):
        await submit(session, f"question {number}")
    assert session.unanswered == "question 2"
    events = await submit(session, session.unanswered)
    assert events[0] == Forgot(1)
    assert session.unanswered == ""


async def test_a_question_longer_than_the_context_fails_and_forgets_nothing() -> None:
    """No forgetting could make room for it."""
    session, _ = session_of(Script(turns=(Turn(steps=(Say("yes"),)),), context_tokens=10))
    await submit(session, "short")
    with pytest.raises(ContextOverflow):
        await submit(session, "word " * 20)
    assert len(session.turns) == 1


async def test_clearing_begins_a_new_conversation() -> None:
    """Nothing of the old one is sent, not even its key."""
    session, backend = session_of(Script.saying("one"))
    await submit(session, "first")
    session.clear()
    await submit(session, "second")
    assert backend.requests[1].messages == (SYSTEM, say("user", "second"))
    assert backend.requests[0].affinity_key != backend.requests[1].affinity_key

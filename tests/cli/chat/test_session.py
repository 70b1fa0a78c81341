"""The conversation itself: what is remembered and kept, what leaves, what is tried again, what waits for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from pensieve.cli.chat.archive import Archive
from pensieve.cli.chat.retries import retry_delay_seconds
from pensieve.cli.chat.session import ChatSession, Event, Retrying
from pensieve.cli.chat.window import Forgot
from pensieve.cli.recipe import Recipe
from pensieve.errors import (
    BackendFailure,
    ConnectionLost,
    ContextOverflow,
    ConversationNotFound,
    CrashingRequest,
    HistoryUnusable,
    InvalidRequest,
    LoadFailed,
    Overloaded,
    PensieveError,
    ServerUnreachable,
    UsageError,
    WorkerCrashed,
)
from pensieve.generation import TextDelta
from pensieve.inference.script import Delay, Fail, Say, Script, Think, Turn
from pensieve.inference.scripted import ScriptedBackend
from pensieve.messages import Message, TextPart, ThinkingPart, say

SYSTEM = say("system", "Be brief.")
CRASH = Fail("WorkerCrashed", {"model": "scripted", "exit_status": "killed"})
GOOD = tuple(Turn(steps=(Say(text),)) for text in ("one", "two"))


class Made:
    """A session and what is around it."""

    def __init__(self, path: Path) -> None:
        self.archive = Archive(path)
        self.pauses: list[float] = []

    def session(self, script: Script) -> tuple[ChatSession, ScriptedBackend]:
        """A conversation over a scripted backend."""
        backend = ScriptedBackend(script)
        return ChatSession(backend, Recipe("scripted", "Be brief."), self.archive, pause=self._pause), backend

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Made]:
    """What sessions are made with; closed at the end."""
    made = Made(tmp_path / "conversations.db")
    yield made
    await made.archive.aclose()


async def submit(session: ChatSession, text: str) -> list[Event]:
    """All events of one question."""
    return [event async for event in session.submit(text)]


def answers(session: ChatSession) -> list[str]:
    """The answers of the conversation as it is spoken now."""
    return [turn.answer.text if turn.answer else "" for turn in session.turns]


async def test_what_was_said_goes_into_the_next_request(made: Made) -> None:
    """System text first, then every turn in order, all under one session key."""
    session, backend = made.session(Script.saying("one", "two"))
    await submit(session, "first")
    await submit(session, "second")
    first, second = backend.requests
    assert second.messages == (SYSTEM, say("user", "first"), say("assistant", "one"), say("user", "second"))
    assert first.affinity_key == second.affinity_key != ""
    assert first.id != second.id


async def test_every_turn_is_kept_as_it_happens(made: Made) -> None:
    """Another program sees the question while it is answered, then the words so far, then the whole answer."""
    script = Script(turns=(Turn(steps=(Say("early "), Delay(0.05), Say("late"))),))
    session, _ = made.session(script)
    other, seen = Archive(made.archive.path), list[str]()
    async with aclosing(session.submit("question")) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                seen.append((await other.do(lambda store: store.open(1))).turns[0].text)
    assert (await other.do(lambda store: store.open(1))).turns == session.turns
    await other.aclose()
    assert seen[0].startswith("question")
    assert answers(session) == ["early late"]


async def test_an_answer_that_was_stopped_is_kept_as_interrupted(made: Made) -> None:
    """The model sees what it had said so far."""
    session, _ = made.session(Script(turns=(Turn(steps=(Say("early"), Delay(3600.0))),)))
    async with aclosing(session.submit("slow")) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    [turn] = session.turns
    assert turn.is_interrupted
    assert answers(session) == ["early"]
    assert session.unanswered is None


@pytest.mark.parametrize("steps", [(Delay(3600.0),), (Think("hm"), Delay(3600.0))], ids=["nothing", "thinking"])
async def test_a_question_stopped_before_a_word_of_answer_waits(made: Made, steps: tuple[Delay | Think, ...]) -> None:
    """It is in the archive; another question takes its place, and it stays a branch."""
    session, backend = made.session(Script(turns=(Turn(contains="slow", steps=steps), Turn(steps=(Say("yes"),)))))
    async with aclosing(session.submit("slow")) as events:
        await anext(events)
    assert session.unanswered == say("user", "slow")
    await submit(session, "quick")
    assert backend.requests[-1].messages == (SYSTEM, say("user", "quick"))
    assert session.conversation is not None
    kept = await made.archive.do(lambda store: store.open(1))
    assert [turn.text for turn in kept.turns] == ["slow", "quick\n\nyes"]
    assert kept.children(None) == kept.turns


async def test_thinking_is_kept_though_no_answer_came(made: Made) -> None:
    """The question still waits; asked again, it is another branch."""
    thoughts = Turn(steps=(Think("hm"), Fail("BackendFailure", {"problem": "x"})))
    session, backend = made.session(Script(turns=(thoughts, Turn(steps=(Say("yes"),)))))
    with pytest.raises(BackendFailure):
        await submit(session, "slow")
    kept = await made.archive.do(lambda store: store.open(1))
    assert kept.turns[0].messages == (say("user", "slow"), Message("assistant", (ThinkingPart("hm"),)))
    assert session.unanswered == say("user", "slow")
    await session.again()
    assert [event async for event in session.answer()]
    assert (backend.requests[-1].messages, answers(session)) == ((SYSTEM, say("user", "slow")), ["yes"])
    assert len((await made.archive.do(lambda store: store.open(1))).turns) == 2


async def test_an_answer_that_failed_can_be_asked_for_again(made: Made) -> None:
    """What came of it stays a branch, and is not sent."""
    script = Script(
        turns=(Turn(steps=(Say("half"), Fail("BackendFailure", {"problem": "x"}))), Turn(steps=(Say("ok"),)))
    )
    session, backend = made.session(script)
    with pytest.raises(BackendFailure):
        await submit(session, "question")
    assert session.failed == "x"
    await session.again()
    assert [event async for event in session.answer()]
    assert (session.failed, answers(session)) == ("", ["ok"])
    assert backend.requests[1].messages == (SYSTEM, say("user", "question"))
    assert session.conversation is not None
    assert len(session.conversation.turns) == 2


async def test_a_worker_that_crashed_is_asked_once_more(made: Made) -> None:
    """The answer begins anew, and only the second one is kept."""
    session, backend = made.session(Script(turns=(Turn(steps=(Say("half "), CRASH)), Turn(steps=(Say("whole"),)))))
    events = await submit(session, "question")
    [retrying] = [event for event in events if isinstance(event, Retrying)]
    assert retrying.problem == "the worker of scripted ended (killed)"
    assert answers(session) == ["whole"]
    assert len(backend.requests) == 2
    kept = await made.archive.do(lambda store: store.open(1))
    assert kept.turns == session.turns


async def test_a_second_try_takes_the_place_of_the_first_one_also_on_the_disk(made: Made) -> None:
    """If the program is killed in the middle of it, only its own words are found."""
    second = Turn(steps=(Say("whole"), Delay(3600.0)))
    session, _ = made.session(Script(turns=(Turn(steps=(Say("half "), Delay(0.05), CRASH)), second)))
    async with aclosing(session.submit("question")) as events:
        async for event in events:
            if event == TextDelta("whole"):
                break
        await asyncio.sleep(0)
        kept = await made.archive.do(lambda store: store.open(1))
        assert kept.turns[0].text == "question\n\nwhole"


async def test_it_is_not_asked_a_third_time(made: Made) -> None:
    """The second failure is told."""
    session, backend = made.session(Script(turns=(Turn(steps=(CRASH,)),)))
    with pytest.raises(WorkerCrashed):
        await submit(session, "question")
    assert len(backend.requests) == 2
    assert session.unanswered == say("user", "question")


async def test_a_busy_server_is_given_its_time(made: Made) -> None:
    """As long as it asked for."""
    busy = Fail("Overloaded", {"problem": "busy", "retry_after_seconds": 7.0})
    session, _ = made.session(Script(turns=(Turn(steps=(busy,)), Turn(steps=(Say("there"),)))))
    await submit(session, "question")
    assert made.pauses == [7.0]
    assert answers(session) == ["there"]


@pytest.mark.parametrize(
    ("error", "delay"),
    [
        (WorkerCrashed(), 0.0),
        (ConnectionLost("broke off"), 3.0),
        (ServerUnreachable("gone"), 3.0),
        (Overloaded("busy", 30.0), 30.0),
        (Overloaded("busy", 31.0), None),
        (InvalidRequest("wrong"), None),
        (ContextOverflow(), None),
        (CrashingRequest(""), None),
        (LoadFailed("damaged"), None),
        (BackendFailure("odd"), None),
    ],
)
def test_what_is_tried_again(error: PensieveError, delay: float | None) -> None:
    """Only what another try can help."""
    assert retry_delay_seconds(error) == delay


async def test_a_full_context_lets_the_oldest_turns_go_with_one_note(made: Made) -> None:
    """Whole turns leave, the system text stays, and the conversation keeps everything."""
    script = Script(turns=(Turn(steps=(Say("word " * 8),)),), context_tokens=60)
    session, backend = made.session(script)
    told = list[list[Any]]()
    for number in range(12):
        events = await submit(session, f"question {number}")
        told.append([event for event in events if isinstance(event, Forgot)])
    assert [len(each) for each in told].count(1) == 1
    assert max([await backend.count_tokens(request) for request in backend.requests]) <= 45
    assert all(request.messages[0] == SYSTEM for request in backend.requests)
    assert backend.requests[-1].messages[1].role == "user"
    assert len(session.turns) == 12
    assert session.window.num_left > 0


async def test_what_left_stays_out_so_that_the_prompt_keeps_its_beginning(made: Made) -> None:
    """Most prompts begin as the one before, which caches need."""
    session, backend = made.session(Script(turns=(Turn(steps=(Say("word " * 8),)),), context_tokens=120))
    for number in range(20):
        await submit(session, f"question {number}")
    pairs = zip(backend.requests, list(backend.requests)[1:], strict=False)
    changed = sum(later.messages[: len(earlier.messages)] != earlier.messages for earlier, later in pairs)
    assert 1 <= changed <= 4


async def test_a_conversation_that_outgrew_the_context_is_gone_on_with(made: Made) -> None:
    """The last prompt's length says nothing then: turns had left it that are in the next one again."""
    script = Script(turns=(Turn(steps=(Say("word " * 80),)),), context_tokens=1200)
    session, _ = made.session(script)
    for number in range(12):
        await submit(session, f"question {number}")
    assert session.window.num_left > 0
    later, _ = made.session(script)
    await later.open(1)
    assert any(isinstance(event, Forgot) for event in await submit(later, "one more"))


async def test_what_is_told_first_counts_anew_when_it_changes(made: Made) -> None:
    """A longer one may leave no room for the oldest turns."""
    session, _ = made.session(Script(turns=(Turn(steps=(Say("word " * 80),)),), context_tokens=1200))
    for number in range(4):
        await submit(session, f"question {number}")
    await session.set_system("word " * 700)
    assert any(isinstance(event, Forgot) for event in await submit(session, "one more"))


async def test_a_question_longer_than_the_context_fails_and_forgets_nothing(made: Made) -> None:
    """No forgetting could make room for it."""
    session, _ = made.session(Script(turns=(Turn(steps=(Say("yes"),)),), context_tokens=10))
    await submit(session, "short")
    with pytest.raises(ContextOverflow):
        await submit(session, "word " * 20)
    assert session.window.num_left == 0
    assert session.unanswered is not None


async def test_a_summary_stands_for_what_was_said(made: Made) -> None:
    """The prompt begins with it, and nothing is deleted."""
    session, backend = made.session(Script.saying("one", "We counted.", "two"))
    await submit(session, "first")
    assert [event async for event in session.compact()]
    await submit(session, "second")
    texts = [message.text for message in backend.requests[-1].messages]
    assert (texts[0], texts[2:]) == ("Be brief.", ["We counted.", "second"])
    assert [turn.is_summary for turn in session.turns] == [False, True, False]
    assert answers(session) == ["one", "We counted.", "two"]


async def test_a_summary_is_not_asked_for_as_a_question(made: Made) -> None:
    """What to do instead is said."""
    session, _ = made.session(Script.saying("one", "We counted."))
    await submit(session, "first")
    assert [event async for event in session.compact()]
    with pytest.raises(UsageError, match="/undo takes it back"):
        await session.again()
    assert answers(session) == ["one", "We counted."]


@pytest.mark.parametrize("turn", [Turn(), Turn(steps=(Say("again"),), finish="repetition")], ids=["none", "a loop"])
async def test_what_is_no_summary_changes_nothing(made: Made, turn: Turn) -> None:
    """The conversation goes on as it was."""
    session, _ = made.session(Script(turns=(Turn(steps=(Say("one"),)), turn)))
    await submit(session, "first")
    with pytest.raises(UsageError, match="nothing was changed"):
        assert [event async for event in session.compact()]
    assert answers(session) == ["one"]


async def test_a_new_conversation_begins_without_the_old_one(made: Made) -> None:
    """Nothing of the old one is sent, not even its key; it is kept."""
    session, backend = made.session(Script.saying("one"))
    await submit(session, "first")
    session.new()
    await submit(session, "second")
    assert backend.requests[1].messages == (SYSTEM, say("user", "second"))
    assert backend.requests[0].affinity_key != backend.requests[1].affinity_key
    assert [each.title for each in await made.archive.do(lambda store: store.list())] == ["second", "first"]


async def test_what_is_attached_goes_with_the_next_question_also_of_a_new_conversation(made: Made) -> None:
    """As was said when it was attached."""
    session, backend = made.session(Script.saying("one"))
    session.attachments = (TextPart("a file"),)
    session.new()
    await submit(session, "first")
    assert backend.requests[0].messages[-1].parts == (TextPart("a file"), TextPart("first"))
    assert not len(session.attachments)


async def test_a_conversation_is_gone_on_with_in_another_session(made: Made) -> None:
    """As it was, with its own system text."""
    session, _ = made.session(Script.saying("one"))
    await submit(session, "first")
    await session.set_system("Be kind.")
    later, backend = made.session(Script.saying("two"))
    await later.open(1)
    await submit(later, "second")
    assert [message.text for message in backend.requests[0].messages] == ["Be kind.", "first", "one", "second"]


async def test_text_that_the_archive_did_not_take_is_not_lost(made: Made) -> None:
    """It can be sent once the archive is there again."""
    session, _ = made.session(Script.saying("one"))
    made.archive.path.mkdir()
    with pytest.raises(PensieveError):
        await submit(session, "first")
    assert session.waiting == (say("user", "first"),)
    made.archive.path.rmdir()
    await session.again()
    assert [event async for event in session.answer()]
    assert not len(session.waiting)
    assert answers(session) == ["one"]


async def refuse(made: Made) -> None:
    """Let the file take nothing any more, as a full disk does."""
    await made.archive.do(lambda store: store._database._connection.execute("PRAGMA query_only = ON"))


async def accept(made: Made) -> None:
    """Let the file take things again."""
    await made.archive.do(lambda store: store._database._connection.execute("PRAGMA query_only = OFF"))


async def test_all_that_was_typed_while_nothing_could_be_kept_is_asked_in_its_order(made: Made) -> None:
    """Each with what was attached to it; what is typed once more is asked once."""
    session, backend = made.session(Script.saying("one", "two", "three", "four"))
    await submit(session, "first")
    await refuse(made)
    session.attachments = (TextPart("a file"),)
    for text in ("second", "third", "fourth"):
        with pytest.raises(HistoryUnusable):
            await submit(session, text)
    await accept(made)
    await submit(session, "third")
    assert [message.text for message in session.waiting] == ["a filesecond", "fourth"]
    while session.waiting:
        await session.again()
        assert [event async for event in session.answer()]
    assert [turn.question.text for turn in session.turns if turn.question] == [
        "first",
        "third",
        "a filesecond",
        "fourth",
    ]
    assert (await made.archive.do(lambda store: store.open(1))).turns == session.turns
    assert len(backend.requests) == 4


async def test_an_answer_that_came_while_nothing_could_be_kept_is_kept_later(made: Made) -> None:
    """Whole, with the next question."""
    session, _ = made.session(Script(turns=(Turn(steps=(Say("early "), Delay(0.01), Say("late"))),)))
    await session.put("first")
    await refuse(made)
    with pytest.raises(HistoryUnusable):
        assert [event async for event in session.answer()]
    await accept(made)
    await submit(session, "second")
    kept = await made.archive.do(lambda store: store.open(1))
    assert [(turn.text, turn.is_interrupted) for turn in kept.turns] == [
        ("first\n\nearly late", False),
        ("second\n\nearly late", False),
    ]


async def test_what_is_kept_late_does_not_take_the_place_of_a_later_attempt(made: Made) -> None:
    """An answer that could neither be given nor kept, asked for again, is whole in the file, too."""
    session, _ = made.session(Script(turns=(Turn(steps=(Fail("BackendFailure", {"problem": "it broke"}),)), *GOOD)))
    await session.put("first")
    await refuse(made)
    with pytest.raises(HistoryUnusable):
        assert [event async for event in session.answer()]
    await accept(made)
    await session.again()
    assert [event async for event in session.answer()]
    await submit(session, "second")
    kept = await made.archive.do(lambda store: store.open(1))
    assert [(turn.text, turn.is_interrupted) for turn in kept.turns] == [
        ("first\n\none", False),
        ("second\n\ntwo", False),
    ]


async def test_the_rest_is_kept_at_the_end(made: Made) -> None:
    """An answer that nothing was asked behind, and a question that was typed twice, once."""
    session, _ = made.session(Script.saying("one", "two"))
    await session.put("first")
    await refuse(made)
    for act in (session.answer(), session.submit("second"), session.submit("second")):
        with pytest.raises(HistoryUnusable):
            assert [event async for event in act]
    await accept(made)
    session.withdraw()
    session.withdraw()
    await session.keep_rest()
    assert (await made.archive.do(lambda store: store.open(1))).turns[0].text == "first\n\none"
    await refuse(made)
    for act in (session.submit("second"), session.submit("second")):
        with pytest.raises(HistoryUnusable):
            assert [event async for event in act]
    await accept(made)
    await session.keep_rest()
    kept = await made.archive.do(lambda store: store.open(1))
    assert [turn.text for turn in kept.turns] == ["first\n\none", "second"]


async def test_an_answer_that_the_archive_did_not_take_is_told_and_gone_on_with(made: Made) -> None:
    """It is in the next prompt all the same."""
    session, backend = made.session(Script.saying("one", "two"))
    await submit(session, "first")
    await session.put("second")
    await made.archive.do(lambda store: store.delete(1))  # another program did
    with pytest.raises(ConversationNotFound):
        assert [event async for event in session.answer()]
    assert answers(session) == ["one", "two"]
    assert len(backend.requests) == 2

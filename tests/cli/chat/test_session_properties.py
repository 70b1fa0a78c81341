"""Whatever a person does in a chat, the session and the archive agree, and nothing that was typed is lost."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given, settings
from hypothesis import strategies as st

from pensieve.cli.chat.archive import Archive
from pensieve.cli.chat.session import ChatSession
from pensieve.cli.recipe import Recipe
from pensieve.errors import PensieveError
from pensieve.inference.script import Fail, Say, Script, Turn
from pensieve.inference.scripted import ScriptedBackend

CRASH = Fail("WorkerCrashed", {"model": "scripted", "exit_status": "killed"})
SCRIPT = Script(
    turns=(
        Turn(steps=(Say("A whole answer."),)),
        Turn(steps=(Say("half"), Fail("BackendFailure", {"problem": "broke"}))),
        Turn(),
        Turn(steps=(CRASH,)),
        Turn(steps=(Say("Another one of more words."),)),
    ),
    context_tokens=40,
)
ACTIONS = ("ask", "ask", "ask", "retry", "edit", "undo", "compact", "new", "open", "fork", "stop")
Steps = list[tuple[str, int]]


class Walk:
    """A session that does what it is told, and all that was typed in it."""

    def __init__(self, path: Path) -> None:
        self.archive = Archive(path)
        self.session = ChatSession(ScriptedBackend(SCRIPT), Recipe("scripted"), self.archive, pause=self._pause)
        self.typed: list[str] = []
        self._numbers = itertools.count()

    async def do(self, action: str, which: int) -> None:
        """One step; what fails, fails as a person would see it."""
        with suppress(PensieveError):
            await self._do(action, which)

    async def _do(self, action: str, which: int) -> None:
        session, conversation = self.session, self.session.conversation
        match action:
            case "ask" | "stop":
                await self._drain(session.submit(self._type()), 1 if action == "stop" else None)
            case "retry" | "edit":
                is_question = bool(session.turns) and not session.turns[-1].is_summary
                await session.again(self._type() if action == "edit" and is_question else None)
                await self._drain(session.answer())
            case "undo":
                await session.undo()
            case "compact":
                await self._drain(session.compact())
            case "new":
                session.new()
            case "open":
                await session.open(which)
            case "fork" if conversation is not None:
                await session.go(conversation.turns[which % len(conversation.turns)].id)

    def _type(self) -> str:
        self.typed.append(f"question number {next(self._numbers)}.")
        return self.typed[-1]

    async def _drain(self, events: object, most: int | None = None) -> None:
        num_seen = 0
        async for _ in events:  # type: ignore[attr-defined]
            num_seen += 1
            if most is not None and num_seen >= most:
                break
        await events.aclose()  # type: ignore[attr-defined]

    async def _pause(self, seconds: float) -> None:
        del seconds


async def walk(steps: Steps, path: Path) -> None:
    """Take the steps; after each, the archive has what the session shows."""
    walked = Walk(path)
    try:
        for action, which in steps:
            await walked.do(action, which)
            here = walked.session.conversation
            if here is not None:
                kept = await walked.archive.do(lambda store, number=here.id: store.open(number))  # type: ignore[misc]
                assert (kept.turns, kept.head, kept.title) == (here.turns, here.head, here.title)
        listed = await walked.archive.do(lambda store: [store.open(each.id) for each in store.list()])
        kept_texts = "\n".join(turn.text for conversation in listed for turn in conversation.turns)
        assert [text for text in walked.typed if text not in kept_texts] == []
    finally:
        await walked.archive.aclose()


@example([("ask", 1), ("ask", 1), ("ask", 1), ("compact", 1), ("edit", 1)])
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(1, 6)), max_size=12))
@settings(max_examples=25, deadline=None)
def test_the_archive_has_what_the_session_shows(steps: Steps) -> None:
    """After any steps."""
    with TemporaryDirectory() as folder:
        asyncio.run(walk(steps, Path(folder) / "conversations.db"))

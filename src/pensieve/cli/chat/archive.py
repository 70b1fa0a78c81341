"""The conversations' file on a thread of its own, for an event loop; and an answer, kept while it comes.

Knows no backend and no terminal.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from pensieve.conversation.conversation import Turn
from pensieve.conversation.database import MEMORY
from pensieve.conversation.store import ConversationStore
from pensieve.errors import ConversationNotFound, DiskFull, HistoryUnusable, PensieveError
from pensieve.generation import Collector, Finished, GenerationEvent, PromptProgress, Started
from pensieve.messages import Message

Result = TypeVar("Result")


class Archive:
    """Calls on one store, one after the other; the file is opened with the first."""

    def __init__(self, path: Path, *, is_private: bool = False) -> None:
        self.path = path
        self.is_private = is_private
        """Whether nothing reaches the file: what is said is in memory alone, and ends with the program."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pensieve-store")
        self._store: ConversationStore | None = None
        self.problem: PensieveError | None = None
        """Why nothing is kept, if so."""

    async def open(self) -> None:
        """Open the file; where it cannot be used, go on without it: everything works, and ends with the program."""
        try:
            await self.do(lambda _: None)
        except (HistoryUnusable, DiskFull) as error:
            self.problem = error
            self._store = await asyncio.to_thread(ConversationStore, MEMORY)

    async def do(self, call: Callable[[ConversationStore], Result]) -> Result:
        """What the call gives back; raises what the store raises. A caller that leaves does not stop the call."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: call(self._opened()))

    async def kept(self, call: Callable[[ConversationStore], Result]) -> Result:
        """What the call gives back of the file itself, for a private archive that otherwise leaves it alone."""
        return await asyncio.to_thread(self._of_file, call)

    async def aclose(self) -> None:
        """Close the file, after everything that was asked for is done; safe to call twice."""
        await asyncio.to_thread(self._close)

    def _opened(self) -> ConversationStore:
        if self._store is None:
            self._store = ConversationStore(MEMORY if self.is_private else self.path)
        return self._store

    def _of_file(self, call: Callable[[ConversationStore], Result]) -> Result:
        with ConversationStore(self.path if os.path.lexists(self.path) else MEMORY) as store:
            return call(store)

    def _close(self) -> None:
        self._thread.shutdown()
        if self._store is not None:
            self._store.close()


class Recorder:
    """Keeps the events of one answer as fast as the disk takes them; never makes the answer wait."""

    def __init__(self, archive: Archive, turn: Turn) -> None:
        self._archive = archive
        self._turn = turn
        self._fresh: list[GenerationEvent] = []
        self._is_anew = False
        """Whether what was kept so far goes when the next events come."""
        self._writing: asyncio.Task[None] | None = None
        self._has_failed = False

    def add(self, event: GenerationEvent) -> None:
        """Keep the event, soon."""
        if self._has_failed or isinstance(event, Started | PromptProgress):
            return
        self._fresh.append(event)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    def begin_anew(self) -> None:
        """The answer begins once more: what had come of it is kept only until the first of its words."""
        self._fresh, self._is_anew = [], True

    async def finish(self, answer: Message, finished: Finished | None) -> Turn:
        """Keep the whole answer in the place of its pieces; raises what the store raises."""
        if self._writing is not None:
            await self._writing
        answers = (answer,) if answer.parts else ()
        return await self._archive.do(
            lambda store: store.finish(self._turn.id, answers, finished=finished, is_interrupted=finished is None)
        )

    async def _write(self) -> None:
        while self._fresh:
            events, is_anew = self._fresh, self._is_anew
            self._fresh, self._is_anew = [], False
            extend = functools.partial(ConversationStore.extend, turn_id=self._turn.id, events=events, is_anew=is_anew)
            try:
                await self._archive.do(extend)
            except PensieveError:
                self._has_failed = True  # `finish` tries once more with everything, and tells
                return


def end_late(store: ConversationStore, unended: Mapping[int, tuple[Message, Finished | None]]) -> None:
    """Keep whole answers that came while the file could not be written."""
    for turn_id, (answer, finished) in unended.items():
        answers = (answer,) if answer.parts else ()
        with suppress(ConversationNotFound):  # another program deleted it
            store.finish(turn_id, answers, finished=finished, is_interrupted=finished is None)


def ended_here(turn: Turn, collector: Collector) -> Turn:
    """The turn as the archive would have kept it."""
    finished, answer = collector.finished, collector.message
    return msgspec.structs.replace(
        turn,
        messages=(*turn.messages, answer) if answer.parts else turn.messages,
        is_interrupted=finished is None,
        usage=turn.usage if finished is None else finished.usage,
        reason=None if finished is None else finished.reason,
    )

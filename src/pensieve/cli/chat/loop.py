"""An event loop in a thread of its own, so that the main thread has the keyboard and Ctrl-C to itself.

The loop runs on while a person types: a worker's frames are read and its deadlines kept. Knows no chat.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, aclosing
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from pensieve.cli.chat.signals import Signals

Result = TypeVar("Result")
Item = TypeVar("Item")
FRAME_SECONDS = 1 / 15
"""Items of a stream are given out together, so often."""


class LoopThread:
    """Runs coroutines for the main thread, one at a time; a context manager that ends its thread."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pensieve-loop", daemon=True)
        self._signals = Signals(self._loop)
        self._task: asyncio.Task[Any] | None = None

    def __enter__(self) -> Self:
        self._signals.start()
        self._thread.start()
        return self

    def listen(self) -> None:
        """Hear of signals again, after somebody else did."""
        self._signals.listen()

    def held(self) -> AbstractContextManager[None]:
        """What stands inside is done whole: Ctrl-C is raised after it."""
        return self._signals.held()

    def start(self, coroutine: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Run beside everything else; the loop's end cancels it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def stream(self, items: AsyncGenerator[Item, None]) -> Stream[Item]:
        """The items, for the main thread; see `Stream`."""
        return Stream(self, items)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._signals.stop()
        self._runner.close()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """The coroutine's result. Ctrl-C cancels it, waits for its end, and is raised then."""
        ended = asyncio.run_coroutine_threadsafe(self._ended(coroutine), self._loop)
        is_cancelled = False
        while True:
            try:
                task = ended.result()
                break
            except KeyboardInterrupt:
                # Only once: a second cancellation would hit the cleaning up.
                if not is_cancelled:
                    self._loop.call_soon_threadsafe(self._cancel)
                is_cancelled = True
        if task.cancelled():
            raise KeyboardInterrupt
        return task.result()

    async def _ended(self, coroutine: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = self._loop.create_task(coroutine)
        self._task = task
        await asyncio.wait({task})
        return task

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


class Stream(Generic[Item]):
    """Items of an asynchronous generator as lists, some a frame; an empty list says that time has passed.

    A context manager: its end closes the generator and waits for that. What had come until then is `rest`.
    """

    def __init__(self, loop: LoopThread, items: AsyncGenerator[Item, None]) -> None:
        self._loop = loop
        self._queue: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._task: asyncio.Task[None] | None = None
        self._ended = loop.start(self._run(items))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._loop.held():
            if not self._ended.done():
                self._loop.start(self._cancel())
            concurrent.futures.wait([self._ended])

    def __iter__(self) -> Iterator[list[Item]]:
        """Until the generator ends; raises what it raises."""
        while not self._ended.done():
            try:
                first = [self._queue.get(timeout=FRAME_SECONDS)]
            except queue.Empty:
                first = []
            yield [*first, *self.rest()]
            if first:
                concurrent.futures.wait([self._ended], FRAME_SECONDS)  # what comes meanwhile goes with the next
        if left := self.rest():
            yield left
        self._ended.result().result()

    def rest(self) -> list[Item]:
        """What has come and was not given out."""
        items: list[Item] = []
        while True:
            try:
                items.append(self._queue.get_nowait())
            except queue.Empty:
                return items

    async def _run(self, items: AsyncGenerator[Item, None]) -> asyncio.Task[None]:
        self._task = asyncio.create_task(self._pump(items))
        await asyncio.wait({self._task})
        return self._task

    async def _pump(self, items: AsyncGenerator[Item, None]) -> None:
        async with aclosing(items):
            async for item in items:
                self._queue.put(item)

    async def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

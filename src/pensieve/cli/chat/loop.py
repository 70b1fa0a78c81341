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
from contextlib import aclosing, contextmanager
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

    def __enter__(self) -> Self:
        self._signals.start()
        self._thread.start()
        return self

    def listen(self) -> None:
        """Hear of signals again, after somebody else did."""
        self._signals.listen()

    def start(self, coroutine: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Run beside everything else; the loop's end cancels it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    @contextmanager
    def stream(self, items: AsyncGenerator[Item, None]) -> Iterator[Stream[Item]]:
        """The items, for the main thread. At the end, and by Ctrl-C, the generator is closed; then Ctrl-C is raised."""
        stream = Stream(_Job(self._loop), items)
        with self._signals.given_to(stream.interrupt):
            stream.begin()
            try:
                yield stream
            finally:
                stream.end()
        if stream.is_interrupted:
            raise KeyboardInterrupt

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._signals.stop()
        self._runner.close()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """The coroutine's result. Ctrl-C cancels it, waits for its end, and is raised then."""
        job = _Job[Result](self._loop)
        with self._signals.given_to(job.cancel):
            task = job.begin(coroutine).result()
        if task.cancelled():
            raise KeyboardInterrupt
        return task.result()


class _Job(Generic[Result]):
    """A coroutine on the loop, which the main thread may cancel at any time, also before it has begun."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._task: asyncio.Task[Result] | None = None
        self._is_cancelled = False

    def begin(self, coroutine: Coroutine[Any, Any, Result]) -> Future[asyncio.Task[Result]]:
        """Its task, once that has ended."""
        return asyncio.run_coroutine_threadsafe(self._run(coroutine), self._loop)

    def cancel(self) -> None:
        """Cancel it, only once: a second cancellation would hit the tidying up."""
        self._loop.call_soon_threadsafe(self._cancel)

    async def _run(self, coroutine: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        self._task = asyncio.create_task(coroutine)
        if self._is_cancelled:
            self._task.cancel()
        await asyncio.wait({self._task})
        return self._task

    def _cancel(self) -> None:
        if self._task is not None and not self._is_cancelled:
            self._task.cancel()
        self._is_cancelled = True


class Stream(Generic[Item]):
    """Items of an asynchronous generator as lists, some a frame; an empty list says that time has passed."""

    def __init__(self, job: _Job[None], items: AsyncGenerator[Item, None]) -> None:
        self._job = job
        self._items = items
        self._queue: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._ended: Future[asyncio.Task[None]] = Future()
        self.is_interrupted = False
        """Whether Ctrl-C came meanwhile."""

    def begin(self) -> None:
        """Have the first item made."""
        self._ended = self._job.begin(self._pump())

    def interrupt(self) -> None:
        """Close the generator, because of Ctrl-C."""
        self.is_interrupted = True
        self._job.cancel()

    def end(self) -> None:
        """Close the generator, and wait for that; what came until then is `rest`. Safe to call twice."""
        if not self._ended.done():
            self._job.cancel()
        concurrent.futures.wait([self._ended])

    def __iter__(self) -> Iterator[list[Item]]:
        """Until the generator ends; raises what it raises, and `KeyboardInterrupt` where it was interrupted."""
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
        task = self._ended.result()
        if task.cancelled():
            raise KeyboardInterrupt
        task.result()

    def rest(self) -> list[Item]:
        """What has come and was not given out."""
        items: list[Item] = []
        while True:
            try:
                items.append(self._queue.get_nowait())
            except queue.Empty:
                return items

    async def _pump(self) -> None:
        async with aclosing(self._items):
            async for item in self._items:
                self._queue.put(item)

"""An event loop in a thread of its own, so that the main thread has the keyboard and Ctrl-C to itself.

The loop runs on while a person types: a worker's frames are read and its deadlines kept. Knows no chat.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from pensieve.cli.chat.signals import Signals

Result = TypeVar("Result")


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

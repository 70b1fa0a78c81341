"""Prompts are rendered and tokenized on a thread of their own, so that a long one stalls neither loop nor engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pensieve.errors import BackendFailure, Overloaded

Rendered = TypeVar("Rendered")

RENDER_SECONDS = 60.0
"""Longest wait for the text thread: a template that never ends must not keep requests waiting without a word."""


class RenderThread:
    """Runs text work in order, a bounded number of pieces at a time."""

    def __init__(self, *, queue_limit: int) -> None:
        self._thread = ThreadPoolExecutor(1, "text")
        self._queue_limit = queue_limit
        self._num_rendering = 0

    async def render(self, work: Callable[[], Rendered]) -> Rendered:
        """What `work` gives. Raises what it raises, `Overloaded`, or `BackendFailure` when it hangs."""
        if self._num_rendering >= self._queue_limit:
            raise Overloaded(f"{self._num_rendering} prompts are already waiting to be read", 5.0)
        self._num_rendering += 1
        try:
            async with asyncio.timeout(RENDER_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except TimeoutError as error:
            raise BackendFailure(f"the prompt was not rendered within {RENDER_SECONDS:.0f} s") from error
        finally:
            self._num_rendering -= 1

    def close(self) -> None:
        """Wait for the work in progress."""
        self._thread.shutdown()

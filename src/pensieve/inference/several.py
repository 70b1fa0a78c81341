"""Several answers to one request, from a backend that gives one at a time: one stream, its events marked by `Switched`.

The prompt is read once: the others begin when the first has been read, and find it in the cache. Knows no engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import msgspec

from pensieve.errors import BackendFailure
from pensieve.generation import (
    Finished,
    GenerationEvent,
    GenerationRequest,
    PromptProgress,
    Started,
    Switched,
    Usage,
)
from pensieve.sampling.params import RANGES

Generate = Callable[[GenerationRequest], AsyncGenerator[GenerationEvent, None]]


async def several(generate: Generate, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
    """All `num_answers`; what one of them fails with ends all. The last `Finished` counts the tokens of every one."""
    chorus = _Chorus(generate, request)
    try:
        async for event in chorus.events():
            yield event
    finally:
        await chorus.aclose()


class _Chorus:
    def __init__(self, generate: Generate, request: GenerationRequest) -> None:
        self._generate, self._request = generate, request
        self._queue: asyncio.Queue[tuple[int, GenerationEvent | BaseException]] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._started = Started(0, 0)
        self._num_tokens = 0

    async def events(self) -> AsyncGenerator[GenerationEvent, None]:
        num_open, last = self._request.num_answers, 0
        self._start(0)
        while num_open:
            index, event = await self._queue.get()
            if isinstance(event, BaseException):
                raise event
            if isinstance(event, Started | PromptProgress):
                if index == 0:
                    self._started = event if isinstance(event, Started) else self._started
                    yield event
                continue
            while len(self._tasks) < self._request.num_answers:
                self._start(len(self._tasks))
            if index != last:
                last = index
                yield Switched(index)
            num_open -= isinstance(event, Finished)
            yield self._counted(event) if isinstance(event, Finished) else event

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    def _counted(self, finished: Finished) -> Finished:
        """What all have said so far; the prompt counts once, as the first answer found it."""
        self._num_tokens += finished.usage.completion_tokens
        usage = Usage(self._started.prompt_tokens, self._started.cached_tokens, self._num_tokens)
        return msgspec.structs.replace(finished, usage=usage)

    def _start(self, index: int) -> None:
        task = asyncio.create_task(self._read(index))
        self._tasks.append(task)
        task.add_done_callback(lambda done: self._ended(index, done))

    async def _read(self, index: int) -> None:
        event: GenerationEvent | None = None
        async with aclosing(self._generate(_one(self._request, index))) as events:
            async for event in events:
                self._queue.put_nowait((index, event))
        if not isinstance(event, Finished):
            raise BackendFailure("the answer broke off")

    def _ended(self, index: int, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._queue.put_nowait((index, error))


def _one(request: GenerationRequest, index: int) -> GenerationRequest:
    """The request for one answer; the same seed a second time would give the same answer."""
    sampling = request.sampling
    if sampling.seed is not None:
        sampling = msgspec.structs.replace(sampling, seed=(sampling.seed + index) % (int(RANGES["seed"].high) + 1))
    own_id = f"{request.id}.{index}" if index else request.id
    return msgspec.structs.replace(request, id=own_id, num_answers=1, sampling=sampling)

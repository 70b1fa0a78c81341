"""Many jobs through one backend, some at once: each ends in a line, whatever happens to it. Knows no file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing

from pensieve.cli.batch.lines import Job, Unclear, answered, failed
from pensieve.errors import Overloaded, PensieveError, UsageError, WorkerCrashed
from pensieve.generation import collect
from pensieve.inference.backend import Backend

MAX_CRASHES = 3
"""A line during which the worker died so often gets an error."""
FIRST_PAUSE_SECONDS = 0.5

Keep = Callable[[bytes, int], None]
"""Takes a line of the output, and how many tokens it took."""


async def work(jobs: Iterable[Job | Unclear], backend: Backend, keep: Keep, num_at_once: int) -> None:
    """Answer all of them; raises only what no other job would fare better with."""
    left = iter(jobs)
    async with asyncio.TaskGroup() as group:
        for _ in range(num_at_once):
            group.create_task(_take(left, backend, keep))


async def _take(left: Iterator[Job | Unclear], backend: Backend, keep: Keep) -> None:
    for job in left:
        match job:
            case Unclear(error=error):
                keep(failed(job, error), 0)
            case Job():
                keep(*await _answer(job, backend))


async def _answer(job: Job, backend: Backend) -> tuple[bytes, int]:
    num_crashes, pause_seconds = 0, FIRST_PAUSE_SECONDS
    while True:
        try:
            async with aclosing(backend.generate(job.request)) as events:
                answer = await collect(events)
            return answered(job, answer), answer.usage.completion_tokens
        except UsageError:
            raise  # the server is gone: the others would fail as well
        except Overloaded as error:
            await asyncio.sleep(max(pause_seconds, min(error.retry_after_seconds, 60.0)))
            pause_seconds = min(2 * pause_seconds, 30.0)
        except WorkerCrashed as error:
            num_crashes += 1
            if num_crashes == MAX_CRASHES:
                return failed(job, error), 0
            await asyncio.sleep(pause_seconds)
        except PensieveError as error:
            return failed(job, error), 0

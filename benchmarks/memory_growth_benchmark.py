"""Whether the worker's memory stays where it was: 200 mixed requests, with a prompt cache that the first 20 fill.

Lengths differ, some run together, some are cancelled halfway. The worker's resident memory is read after each,
once the engine has given back what it keeps for the next.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import report
import rivals
from own_worker import request_of
from pensieve.config.settings import MlxSettings, ModelSettings, Settings
from pensieve.generation import Finished, TextDelta
from pensieve.inference.worker.host import WorkerBackend
from pensieve.models.registry import Registry
from random_models import LABEL, SHAPES, prompt

PARALLEL = (1, 1, 1, 2, 4)
CANCELLED_SHARE = 0.2
SETTLING_SECONDS = 0.7
"""The engine gives spare buffers back half a second after the last request."""


class Reading(NamedTuple):
    """The worker after so many requests."""

    num_requests: int
    resident_bytes: int
    peak_bytes: int
    """What the engine says of the last request; 0: nothing."""


def resident_bytes(pid: int) -> int:
    """Of a process, from Linux."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


async def ask(backend: WorkerBackend, num_tokens: int, seed: str, *, is_cancelled: bool) -> int:
    """One request, given up after its first text if it is to be cancelled; the engine's peak memory in bytes."""
    request = request_of(prompt(num_tokens, seed), 24)
    async with aclosing(backend.generate(request)) as events:
        async for event in events:
            if is_cancelled and isinstance(event, TextDelta):
                return 0
            if isinstance(event, Finished) and event.timings is not None:
                return event.timings.peak_memory_bytes
    return 0


@asynccontextmanager
async def worker(model: Path, cache_mib: int, home: Path) -> AsyncIterator[WorkerBackend]:
    """A worker whose cache of prompts has that budget."""
    settings = Settings(
        mlx=MlxSettings(prefix_cache_mib=cache_mib, disk_cache_mib=0), model=ModelSettings(context_tokens=8192)
    )
    backend = WorkerBackend(Registry(home).find(str(model)), settings, home)
    try:
        yield backend
    finally:
        await backend.aclose()


async def measure(backend: WorkerBackend, num_requests: int, lengths: Sequence[int]) -> list[Reading]:
    """Ask, and read the worker's memory after each request or batch."""
    source = random.Random(1)
    readings: list[Reading] = []
    sent = 0
    while sent < num_requests:
        num_together = min(source.choice(PARALLEL), num_requests - sent)
        asked = [
            ask(
                backend,
                source.choice(lengths),
                f"request {sent + place}",
                is_cancelled=source.random() < CANCELLED_SHARE,
            )
            for place in range(num_together)
        ]
        peaks = await asyncio.gather(*asked)
        sent += num_together
        await asyncio.sleep(SETTLING_SECONDS)
        resident = resident_bytes(backend.status.pid)
        readings += [Reading(sent, resident, max(peaks))] * num_together
        if sent % 20 < num_together:
            print(f"{sent:4} requests: {resident / 2**20:8.1f} MiB")
    return readings


async def run(arguments: argparse.Namespace, home: Path) -> list[Reading]:
    """The readings of one worker."""
    model = arguments.folder or home / arguments.shape
    async with worker(rivals.made_model(arguments.shape, model), arguments.cache_mib, home) as backend:
        return await measure(backend, arguments.requests, arguments.lengths)


def main() -> None:
    """Run, print the ratio, write and plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="tiny-phi-3")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--lengths", type=int, nargs="+", default=[40, 300, 900, 1800])
    parser.add_argument("--cache-mib", type=int, default=4, help="budget of the cache of prompts")
    parser.add_argument("--folder", type=Path, help="where the model is made, or is already")
    parser.add_argument("--out", type=Path, default=Path(".cache/benchmarks"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        readings = asyncio.run(run(arguments, Path(home)))
    early, late = readings[min(20, len(readings)) - 1], readings[-1]
    mib = [reading.resident_bytes / 2**20 for reading in readings]
    text = (
        f"After {early.num_requests} requests {early.resident_bytes / 2**20:.1f} MiB, after {late.num_requests} "
        f"{late.resident_bytes / 2**20:.1f} MiB: {late.resident_bytes / early.resident_bytes:.3f}x. "
        f"Budget of the cache of prompts: {arguments.cache_mib} MiB."
    )
    title = f"Resident memory of the worker over {len(readings)} mixed requests ({arguments.shape}, {LABEL})"
    print(title, text, sep="\n")
    name = f"memory-growth-{arguments.shape}"
    report.write(arguments.out, name, title, text, {"readings": [reading._asdict() for reading in readings]})
    report.plot_lines(
        arguments.out / f"{name}.png", title, {"worker": mib}, x_label="requests", y_label="resident memory (MiB)"
    )


if __name__ == "__main__":
    main()

"""Workers killed at random under load, a server killed outright, and memory after many requests."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

import report
from pensieve.devices.processes import read_process

from .conftest import SMALL_CACHES, Kept, Serve
from .crowd import KINDS, Crowd, press
from .kept import half_written, read_back

pytestmark = pytest.mark.model

LIMIT_BYTES = 3 * 10**9
TOGETHER = 5
"""Requests that are sent at once."""

SETTLING_SECONDS = 2.0
"""What is given back when nothing runs is given back then."""

RESULTS = "SAFETY_RESULTS"
"""Names the folder of the environment where curves are kept."""


def pids_of(server: int) -> list[int]:
    """The server's children."""
    children = Path(f"/proc/{server}/task/{server}/children").read_text()
    return [int(pid) for pid in children.split()]


def server_in(pids: list[int]) -> int:
    """The process of which the others are children."""
    return min(pids)


def num_prefixes(home: Path) -> int:
    """Prompts on disk."""
    return len(list((home / "state").rglob("*.safetensors")))


async def until_written(crowd: Crowd, kept: Kept) -> None:
    """MLX writes down prompts that come again: until there is one, a kill has nothing to tear."""
    async with asyncio.timeout(60):
        while kept.engine == "mlx" and not await asyncio.to_thread(num_prefixes, kept.home):
            await crowd.ask("long", 1)
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("num_kills", [5, pytest.param(50, marks=[pytest.mark.stress, pytest.mark.timeout(3600)])])
async def test_a_worker_killed_under_load_is_always_back(serve_in_cage: Serve, kept: Kept, num_kills: int) -> None:
    """Nobody hangs, every request ends in an answer or one clear error, and no file is half there."""
    settings = SMALL_CACHES | {"TMPDIR": str(kept.temporary)}
    cage, url = await asyncio.to_thread(serve_in_cage, LIMIT_BYTES, "--model", str(kept.model), **settings)
    crowd, stop = Crowd(url), asyncio.Event()
    server, source = server_in(cage.pids), random.Random(7)
    try:
        assert await crowd.ask("short", 0) == "answer"
        await until_written(crowd, kept)
        pressing = asyncio.create_task(press(crowd, 4, stop))
        for _ in range(num_kills):
            await crowd.until_answered()
            await asyncio.sleep(source.random())
            for pid in await asyncio.to_thread(pids_of, server):
                os.kill(pid, signal.SIGKILL)
        told = await crowd.until_answered()
        stop.set()
        await pressing
    finally:
        await crowd.aclose()
    files = await asyncio.to_thread(read_back, kept.home / "state", kept.home / "data")
    engines = [folder.name for folder in kept.temporary.glob("pensieve-*")]
    print(f"{kept.engine}: {num_kills} kills, {told['worker']['crashes']} seen; requests: {dict(crowd.endings)}")
    print(f"whole files: {dict(files)}; half-written: {half_written(kept.home)}; folders of engines: {len(engines)}")
    assert told["worker"]["crashes"] >= num_kills
    assert told["status"] == "healthy"
    assert server in cage.pids
    assert files["run files"] == 1
    assert (files["prefixes"] > 0) == (kept.engine == "mlx"), "only what was written can have been torn"
    assert half_written(kept.home) == []
    assert len(engines) == (kept.engine == "llama.cpp"), "that of the worker that lives"


async def test_no_worker_outlives_a_server_that_is_killed(serve_in_cage: Serve, starter_model: Path) -> None:
    """Two seconds later nothing of it is left."""
    cage, url = await asyncio.to_thread(serve_in_cage, LIMIT_BYTES, "--model", str(starter_model))
    crowd = Crowd(url)
    assert await crowd.ask("short", 0) == "answer"
    await crowd.aclose()
    assert len(cage.pids) == 2
    os.kill(server_in(cage.pids), signal.SIGKILL)
    killed = time.monotonic()
    while cage.pids:
        assert time.monotonic() - killed < 2.0, f"{cage.pids} are left"
        await asyncio.sleep(0.01)


class Held(NamedTuple):
    """What server and worker hold together, in bytes."""

    resident_bytes: int
    """With the pages of files that they map: weights, libraries."""
    private_bytes: int


@pytest.mark.parametrize(
    ("num_requests", "num_early"),
    [(100, 50), pytest.param(1000, 50, marks=[pytest.mark.stress, pytest.mark.timeout(3600)])],
)
async def test_memory_stays_where_it_was_over_many_requests(
    serve_in_cage: Serve, kept: Kept, num_requests: int, num_early: int
) -> None:
    """Of server and worker together: after the last request within 3 % of what it was after the first fifty."""
    cage, url = await asyncio.to_thread(serve_in_cage, LIMIT_BYTES, "--model", str(kept.model), **SMALL_CACHES)
    crowd, source, readings = Crowd(url), random.Random(3), list[Held]()
    try:
        for number in range(0, num_requests, TOGETHER):
            kinds = source.choices(KINDS, k=TOGETHER)
            await asyncio.gather(*(crowd.ask(kind, number + place) for place, kind in enumerate(kinds)))
            is_noted = number + TOGETHER in {num_early, num_requests}
            await asyncio.sleep(SETTLING_SECONDS if is_noted else 0.0)
            readings.append(held_by(cage.pids))
        told = await crowd.health()
    finally:
        await crowd.aclose()
    early, late = readings[num_early // TOGETHER - 1], readings[-1]
    name = f"{kept.engine}: {num_requests} requests"
    growth = [last / first - 1 for first, last in zip(early, late, strict=True)]
    print(f"{name} {dict(crowd.endings)}: {early}, then {late}: resident {growth[0]:+.1%}, private {growth[1]:+.1%}")
    note(kept.engine, readings, dict(crowd.endings), growth)
    assert told["worker"]["loads"] == 1
    assert max(growth) <= 0.03


def held_by(pids: list[int]) -> Held:
    """The sum over these processes."""
    found = [memory for pid in pids if (memory := read_process(pid)) is not None]
    return Held(sum(each.resident_bytes for each in found), sum(each.private_bytes for each in found))


def note(engine: str, readings: list[Held], endings: dict[str, int], growth: list[float]) -> None:
    """Keep the curve where the environment names a folder for it."""
    if RESULTS not in os.environ:
        return
    folder, name = Path(os.environ[RESULTS]), f"endurance-{engine.replace('.', '')}"
    title = f"Memory of server and worker over {len(readings) * TOGETHER} mixed requests, {engine}"
    lines = {field: [reading[place] / 1e6 for reading in readings] for place, field in enumerate(Held._fields)}
    text = "\n".join(
        (
            f"Requests by ending: {endings}.",
            "",
            "| | after 50 requests | after the last | growth |",
            "|---|---|---|---|",
            *(
                f"| {field.partition('_')[0]} MB | {values[50 // TOGETHER - 1]:.1f} | {values[-1]:.1f} | {part:+.1%} |"
                for (field, values), part in zip(lines.items(), growth, strict=True)
            ),
        )
    )
    report.write(folder, name, title, text, {"megabytes": lines, "endings": endings, "requests_a_reading": TOGETHER})
    plotted: dict[str, Sequence[float]] = {field.partition("_")[0]: values for field, values in lines.items()}
    report.plot_lines(folder / f"{name}.png", title, plotted, x_label=f"{TOGETHER} requests each", y_label="megabytes")

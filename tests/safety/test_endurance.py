"""Workers killed at random under load, a server killed outright, and memory after many requests."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from pensieve.devices.processes import read_process

from .conftest import Serve
from .crowd import KINDS, Crowd, press

pytestmark = pytest.mark.model

LIMIT_BYTES = 3 * 10**9
TOGETHER = 5
"""Requests that are sent at once."""


def pids_of(server: int) -> list[int]:
    """The server's children."""
    children = Path(f"/proc/{server}/task/{server}/children").read_text()
    return [int(pid) for pid in children.split()]


def server_in(pids: list[int]) -> int:
    """The process of which the others are children."""
    return min(pids)


@pytest.mark.parametrize("num_kills", [5, pytest.param(50, marks=[pytest.mark.stress, pytest.mark.timeout(1200)])])
async def test_a_worker_killed_under_load_is_always_back(
    serve_in_cage: Serve, starter_model: Path, num_kills: int
) -> None:
    """Nobody hangs, and every request ends in an answer or one clear error."""
    cage, url = await asyncio.to_thread(serve_in_cage, LIMIT_BYTES, "--model", str(starter_model))
    crowd, stop = Crowd(url), asyncio.Event()
    server, source = server_in(cage.pids), random.Random(7)
    try:
        assert await crowd.ask("short", 0) == "answer"
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
    print(f"{num_kills} kills, {told['worker']['crashes']} seen; requests: {dict(crowd.endings)}")
    assert told["worker"]["crashes"] >= num_kills
    assert told["status"] == "healthy"
    assert server in cage.pids


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


@pytest.mark.parametrize(
    ("num_requests", "num_early"),
    [(100, 50), pytest.param(1000, 50, marks=[pytest.mark.stress, pytest.mark.timeout(1800)])],
)
async def test_memory_stays_where_it_was_over_many_requests(
    serve_in_cage: Serve, starter_model: Path, num_requests: int, num_early: int
) -> None:
    """Of server and worker together: after the last request within 3 % of what it was after the first fifty."""
    settings: dict[str, Any] = {"PENSIEVE_CONTEXT_TOKENS": "1024", "PENSIEVE_LLAMACPP_POOL_TOKENS": "2048"}
    cage, url = await asyncio.to_thread(serve_in_cage, LIMIT_BYTES, "--model", str(starter_model), **settings)
    crowd, source, readings = Crowd(url), random.Random(3), list[int]()
    try:
        for number in range(0, num_requests, TOGETHER):
            kinds = source.choices(KINDS, k=TOGETHER)
            await asyncio.gather(*(crowd.ask(kind, number + place) for place, kind in enumerate(kinds)))
            is_noted = number + TOGETHER in {num_early, num_requests}
            await asyncio.sleep(2.0 if is_noted else 0.0)  # what is given back when nothing runs is given back then
            held = [read_process(pid) for pid in cage.pids]
            readings.append(sum(each.private_bytes for each in held if each is not None))
    finally:
        await crowd.aclose()
    early, late = readings[num_early // TOGETHER - 1], readings[-1]
    print(f"{num_requests} requests {dict(crowd.endings)}: {early / 1e6:.1f} MB, then {late / 1e6:.1f} MB")
    note(readings, num_requests)
    assert late <= early * 1.03


def note(readings: list[int], num_requests: int) -> None:
    """Keep the curve where the environment names a folder for it."""
    folder = os.environ.get("PENSIEVE_TEST_RESULTS")
    if folder:
        lines = [f"{(place + 1) * TOGETHER} {num_bytes}" for place, num_bytes in enumerate(readings)]
        (Path(folder) / f"memory-{num_requests}.txt").write_text("\n".join(lines) + "\n")

"""Memory that really goes, and comes back: the server lives, every request ends, and nothing sticks."""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from cage import MEGABYTE, Cage
from gguf_files import write_sparse

from .conftest import Serve
from .crowd import Crowd, press

pytestmark = pytest.mark.model

GIGABYTE = 1000 * MEGABYTE


class Size(NamedTuple):
    """How much is asked of the machine."""

    seconds: float
    num_clients: int


SMALL = Size(30.0, 4)
FULL = pytest.param(Size(300.0, 16), marks=[pytest.mark.stress, pytest.mark.timeout(900)])


async def breathe(cage: Cage, seconds: float) -> None:
    """Swing the balloon between nothing and nearly all of the limit, in steps that a guard can see."""
    began, held = time.monotonic(), 0
    while (now := time.monotonic() - began) < seconds:
        others = await asyncio.to_thread(unreclaimable_megabytes, cage, held)
        room = 985 - others
        wanted = round(max(0.0, room * (0.5 - 0.5 * math.cos(now * 2 * math.pi / 15))))
        held = held + max(-60, min(15, wanted - held))
        await asyncio.to_thread(cage.inflate, held)
        await asyncio.sleep(0.05)
    await asyncio.to_thread(cage.inflate, 0)


def unreclaimable_megabytes(cage: Cage, held: int) -> int:
    """What the others in the cage hold beside the balloon."""
    return max(0, cage.private_bytes // MEGABYTE - held)


@pytest.mark.parametrize("size", [SMALL, FULL])
async def test_a_balloon_that_breathes_never_ends_the_server(
    serve_in_cage: Serve, starter_model: Path, size: Size
) -> None:
    """All requests end in an answer or one clear error; afterwards the model answers as before."""
    cage, url = await asyncio.to_thread(serve_in_cage, GIGABYTE, "--model", str(starter_model))
    crowd, stop = Crowd(url), asyncio.Event()
    try:
        assert await crowd.ask("short", 0) == "answer"
        pressing = asyncio.create_task(press(crowd, size.num_clients, stop))
        await breathe(cage, size.seconds)
        stop.set()
        await pressing
        told = await crowd.until_answered()
    finally:
        await crowd.aclose()
    print(f"{sum(crowd.endings.values())} requests: {dict(crowd.endings)}")
    print(f"lowest {told['lowest_available_gb']} GB; {told['worker']}; now {told['memory']}")
    assert told["status"] == "healthy"
    assert told["lowest_available_gb"] < 0.125, "memory never became short: this run shows nothing"
    assert set(crowd.endings) <= ENDINGS


ENDINGS = {
    "answer",
    "cancelled",
    "400 invalid_request_error",
    "503 overloaded_error",
    "500 api_error",
    "error in a stream",
}


async def test_a_limit_that_shrinks_is_felt_level_by_level(serve_in_cage: Serve, starter_model: Path) -> None:
    """In order, down to the unloading of the model; a limit that grows again brings it back by itself."""
    cage, url = await asyncio.to_thread(serve_in_cage, 2 * GIGABYTE, "--model", str(starter_model))
    crowd, seen = Crowd(url), list[str]()
    try:
        assert await crowd.ask("short", 0) == "answer"
        limit = 2 * GIGABYTE
        while "Emergency" not in seen and limit > 50 * MEGABYTE:
            limit -= 5 * MEGABYTE if limit < 700 * MEGABYTE else 50 * MEGABYTE
            await asyncio.to_thread(cage.limit, limit)
            await asyncio.sleep(0.06)
            level = (await crowd.health())["memory"]["status"]
            seen += [level] if level not in seen else []
        assert seen == ["Safe", "Warning", "Critical", "Emergency"]
        await asyncio.to_thread(cage.limit, 2 * GIGABYTE)
        told = await crowd.until("ready")
        assert (told["worker"]["unloads"], told["worker"]["loads"]) == (1, 2)
        assert await crowd.ask("short", 1) == "answer"
    finally:
        await crowd.aclose()


async def test_a_model_too_big_for_its_container_is_refused_before_it_is_loaded(
    serve_in_cage: Serve, tmp_path: Path
) -> None:
    """With the numbers and what would fit; no worker was ever started."""
    model = tmp_path / "huge.gguf"
    await asyncio.to_thread(write_sparse, model, 3 * GIGABYTE)
    cage, url = await asyncio.to_thread(serve_in_cage, GIGABYTE, "--model", str(model))
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}
        refused = await client.post("/v1/messages", json=body)
        told = (await client.get("/health")).json()
    assert refused.status_code == 500
    assert refused.headers["x-should-retry"] == "false"
    message = refused.json()["error"]["message"]
    assert "it needs 3." in message
    assert "take smollm2-135m, which fits" in message
    assert (told["worker"]["loads"], len(cage.pids)) == (0, 1)

"""Health, figures and the reset of a server, over a real worker whose memory is as the test wants it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from live_server import Live, serving
from pensieve.config.settings import MemorySettings, Settings
from pensieve.inference.scripted import Script
from pensieve.inference.worker.host import WorkerBackend
from pensieve.models.spec import ModelSpec
from weather import Weather

SCRIPT = '[[turns]]\nsteps = [{type = "text", text = "one two"}]\n'
QUICK = Settings(memory=MemorySettings(interval_seconds=0.02, recovery_seconds=0.0))


@asynccontextmanager
async def serving_worker(folder: Path, weather: Weather, script: str = SCRIPT) -> AsyncIterator[Live]:
    """A server over a worker of its own."""
    path = folder / "script.toml"
    path.write_text(script)
    spec = ModelSpec(name="scripted", location=str(path), format="script", context_tokens=8192)
    backend = WorkerBackend(spec, QUICK, read=weather)
    try:
        async with serving(Script.saying(""), instead=backend) as live:
            yield live
    finally:
        await backend.aclose()


async def health(live: Live) -> dict[str, Any]:
    """What /health says."""
    found: dict[str, Any] = (await live.client.get("/health")).json()
    return found


async def test_critical_memory_is_a_refusal_that_clients_repeat(tmp_path: Path) -> None:
    """503 with a time to come back, told by /health; then all is well again."""
    weather = Weather()
    async with serving_worker(tmp_path, weather) as live:
        assert (await live.ask()).status_code == 200
        weather.available_gb = 0.9
        refused = await live.ask()
        assert (refused.status_code, refused.json()["error"]["type"]) == (503, "overloaded_error")
        assert (refused.headers["x-should-retry"], refused.headers["retry-after"]) == ("true", "5")
        told = await health(live)
        assert (told["status"], told["refused_for_memory"]) == ("degraded", 1)
        assert told["memory"] == {"status": "Critical", "available_gb": 0.9, "accepting_requests": False}
        weather.available_gb = 32.0
        assert (await live.ask()).status_code == 200
        assert (await health(live))["status"] == "healthy"


async def test_health_tells_of_the_worker_and_of_what_happened_last(tmp_path: Path) -> None:
    """Without a path or a word of a prompt."""
    async with serving_worker(tmp_path, Weather(1.5)) as live:
        await live.ask("a secret prompt")
        told = await health(live)
        assert told["worker"]["loads"] == 1
        assert told["worker"]["memory_gb"] > 0.01
        assert told["worker"]["cache_gb"] == 0.0
        assert told["last_event"]["what"] == "memory: Unknown -> Warning, 1.50 GB left"
        assert not re.search("secret|/", str(told))


def samples(response: httpx.Response) -> dict[str, float]:
    """The figures by name and labels; every line is one or a comment."""
    assert response.headers["content-type"].startswith("text/plain")
    lines = [line for line in response.text.splitlines() if not line.startswith("# ")]
    assert all(re.fullmatch(r'[a-z_]+(\{[a-z]+="[^"]+"(,[a-z]+="[^"]+")*\})? \S+', line) for line in lines)
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


async def test_metrics_count_what_happened(tmp_path: Path) -> None:
    """Memory by kind, levels, refusals, loads, tokens and times."""
    weather = Weather()
    async with serving_worker(tmp_path, weather) as live:
        await live.ask("one two three")
        weather.available_gb = 0.9
        await live.ask()
        found = samples(await live.client.get("/metrics"))
    assert found['pensieve_memory_bytes{kind="available"}'] == 900_000_000
    assert found['pensieve_memory_level{level="Critical"}'] == 1
    assert found['pensieve_memory_levels_entered_total{level="Critical"}'] == 1
    assert found["pensieve_memory_refusals_total"] == 1
    assert found["pensieve_worker_loads_total"] == 1
    assert found['pensieve_worker_memory_bytes{kind="private"}'] > 10_000_000
    assert found['pensieve_tokens_total{kind="prompt"}'] == 3
    assert found['pensieve_requests_total{ending="completed"}'] == 1
    assert found["pensieve_request_seconds_count"] == found['pensieve_request_seconds_bucket{le="+Inf"}'] == 1


async def test_metrics_are_there_without_a_worker(live: Live) -> None:
    """The machine's memory and the requests."""
    found = samples(await live.client.get("/metrics"))
    assert found['pensieve_memory_bytes{kind="available"}'] > 0
    assert "pensieve_worker_ready" not in found


async def test_metrics_and_reset_ask_for_the_key() -> None:
    """As all but /health does."""
    async with serving(Script.saying("x"), api_key="a-secret-key-for-tests") as live:
        assert (await live.client.get("/metrics")).status_code == 401
        assert (await live.client.post("/reset")).status_code == 401
        assert (await live.client.post("/reset", headers={"x-api-key": "a-secret-key-for-tests"})).status_code == 200


DYING = """
[[turns]]
contains = "die"
steps = [{type = "fail", error = "WorkerCrashed", facts = {model = "m", exit_status = "as the script says"}}]
[[turns]]
steps = [{type = "text", text = "one two"}]
"""


async def test_reset_lets_a_request_be_tried_again_that_saw_two_workers_die(tmp_path: Path) -> None:
    """Until then it is refused for good; other requests are answered all the while."""
    async with serving_worker(tmp_path, Weather(), DYING) as live:
        statuses = [await live.ask("die") for _ in range(3)]
        assert [answer.headers["x-should-retry"] for answer in statuses] == ["true", "true", "false"]
        assert "pensieve reset" in statuses[-1].json()["error"]["message"]
        assert (await live.ask("live")).status_code == 200
        assert (await live.client.post("/reset")).json() == {"state": "ready"}
        assert (await live.ask("die")).headers["x-should-retry"] == "true"

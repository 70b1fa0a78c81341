"""What is done about workers that hang, grow, die again and again, and about memory that runs out. Real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from pensieve.config.settings import MemorySettings, Settings, WorkerSettings
from pensieve.devices.processes import read_process
from pensieve.errors import CrashingRequest, Overloaded, WorkerCrashed, WorkerFailed
from pensieve.generation import GenerationRequest, collect
from pensieve.inference.worker import card as cards
from pensieve.inference.worker import reloads
from pensieve.inference.worker import watch as watching
from pensieve.inference.worker.host import WorkerBackend
from pensieve.inference.worker.process import WorkerProcess
from pensieve.messages import say
from pensieve.models.spec import ModelSpec
from weather import Weather

SCRIPT = """
[[turns]]
contains = "slowly"
steps = [{type = "text", text = "one"}, {type = "delay", seconds = 60}, {type = "text", text = " two"}]

[[turns]]
contains = "shortly"
steps = [{type = "text", text = "one"}, {type = "delay", seconds = 0.3}, {type = "text", text = " two"}]

[[turns]]
pattern = ".*"
steps = [{type = "text", text = "Hello there"}]
"""
QUICK = MemorySettings(interval_seconds=0.02, recovery_seconds=0.05)


def request(text: str) -> GenerationRequest:
    """One question."""
    return GenerationRequest(id="r", model="m", messages=(say("user", text),))


async def ask(backend: WorkerBackend, text: str = "hi") -> str:
    """The text of one answer."""
    return (await collect(backend.generate(request(text)))).message.text


async def until(condition: Callable[[], bool]) -> None:
    """Wait until that is so; a test that waits for ever is ended by its timeout."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - processes and memory set no event
            await asyncio.sleep(0.01)


@asynccontextmanager
async def hosting(folder: Path, settings: Settings, **parts: Any) -> AsyncIterator[WorkerBackend]:
    """A worker that plays `SCRIPT`, ended with the block."""
    path = folder / "script.toml"
    path.write_text(SCRIPT)
    spec = ModelSpec(name="scripted", location=str(path), format="script", context_tokens=8192)
    backend = WorkerBackend(spec, settings, **parts)
    try:
        yield backend
    finally:
        await backend.aclose()
        assert not backend.status.pid


async def test_a_hung_worker_is_found_and_replaced(tmp_path: Path) -> None:
    """Stopped in the middle of an answer: that ends with a word about it, and a fresh process comes by itself."""
    async with hosting(tmp_path, Settings(worker=WorkerSettings(hang_seconds=0.6))) as backend:
        async with aclosing(backend.generate(request("slowly"))) as events:
            await anext(events)
            await anext(events)
            hung = backend.status.pid
            os.kill(hung, signal.SIGSTOP)
            with pytest.raises(WorkerCrashed, match="no sign of life"):
                await anext(events)
        await until(lambda: backend.status.pid not in {0, hung})
        assert await ask(backend) == "Hello there"
        assert (backend.status.num_hangs, backend.status.num_crashes) == (1, 1)


async def test_a_worker_at_work_is_not_taken_for_a_hung_one(tmp_path: Path) -> None:
    """Its answer is silent for many times as long as a worker may be."""
    settings = Settings(worker=WorkerSettings(hang_seconds=0.3))
    async with hosting(tmp_path, settings) as backend, aclosing(backend.generate(request("slowly"))) as events:
        await anext(events)
        await anext(events)
        pid = backend.status.pid
        await asyncio.sleep(1.5)
        assert (backend.status.pid, backend.status.num_hangs) == (pid, 0)


async def test_three_crashes_in_a_row_end_in_a_state_that_a_command_leaves(tmp_path: Path) -> None:
    """Said at once to whoever asks, and not to be tried again; `reset` makes a fresh start."""
    async with hosting(tmp_path, Settings()) as backend:
        for place in range(3):
            async with aclosing(backend.generate(request(f"slowly {place}"))) as events:
                await anext(events)
                os.kill(backend.status.pid, signal.SIGKILL)
                with pytest.raises(WorkerCrashed):
                    await collect(events)
        for _ in range(2):
            with pytest.raises(WorkerFailed, match="3 times in a row") as caught:
                await ask(backend)
        assert (backend.status.state, caught.value.retryable) == ("failed", False)
        backend.reset()
        assert await ask(backend) == "Hello there"


async def test_a_request_that_saw_two_workers_die_is_refused(tmp_path: Path) -> None:
    """Not to be tried again; other requests are answered, and `reset` clears it."""
    async with hosting(tmp_path, Settings()) as backend:
        for _ in range(2):
            async with aclosing(backend.generate(request("slowly"))) as events:
                await anext(events)
                os.kill(backend.status.pid, signal.SIGKILL)
                with pytest.raises(WorkerCrashed):
                    await collect(events)
        with pytest.raises(CrashingRequest, match="twice") as caught:
            await ask(backend, "slowly")
        assert not caught.value.retryable
        assert await ask(backend) == "Hello there"
        backend.reset()
        async with aclosing(backend.generate(request("slowly"))) as events:
            await anext(events)


async def test_critical_memory_refuses_new_requests_and_lets_running_ones_go_on(tmp_path: Path) -> None:
    """Until there is more again."""
    weather = Weather()
    hosted = hosting(tmp_path, Settings(memory=QUICK), read=weather)
    async with hosted as backend, aclosing(backend.generate(request("slowly"))) as events:
        await anext(events)
        weather.available_gb = 0.8
        with pytest.raises(Overloaded, match="memory is short"):
            await ask(backend)
        assert await anext(events)
        weather.available_gb = 32.0
        await until(lambda: backend.memory.level == "Safe")
        assert await ask(backend) == "Hello there"


async def test_an_emergency_ends_what_runs_and_the_model_comes_back_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clear error for each answer, the process gone, no crash counted, and a new process once memory is there."""
    monkeypatch.setattr(reloads, "FIRST_DELAY_SECONDS", 0.2)
    weather = Weather()
    async with hosting(tmp_path, Settings(memory=QUICK), read=weather) as backend:
        async with aclosing(backend.generate(request("slowly"))) as events:
            await anext(events)
            await anext(events)
            pid = backend.status.pid
            weather.available_gb = 0.3
            with pytest.raises(Overloaded, match="memory ran out"):
                await anext(events)
        await until(lambda: backend.status.state == "out of memory")
        await until(lambda: read_process(pid) is None)
        with pytest.raises(Overloaded):
            await ask(backend)
        weather.available_gb = 32.0
        await until(lambda: backend.status.state == "ready")
        assert await ask(backend) == "Hello there"
        assert (backend.status.num_crashes, backend.status.num_unloads, backend.status.num_loads) == (0, 1, 2)


async def test_a_model_does_not_come_back_where_it_would_not_leave_memory_safe(tmp_path: Path) -> None:
    """It held some megabytes, and 2.2 GB are to be left: whoever asks is told both numbers."""
    weather = Weather()
    async with hosting(tmp_path, Settings(memory=QUICK), read=weather) as backend:
        await ask(backend)
        await until(lambda: backend.status.memory is not None)
        await asyncio.sleep(0.2)
        weather.available_gb = 0.3
        await until(lambda: backend.status.state == "out of memory")
        weather.available_gb = 2.201
        await until(lambda: backend.memory.level == "Safe")
        with pytest.raises(Overloaded, match=r"it needs 0\.\d\d GB, and 0\.00 GB can be had"):
            await ask(backend)
        assert backend.status.num_loads == 1


async def test_an_emergency_while_loading_ends_the_loading(tmp_path: Path) -> None:
    """Whoever waits for it is told to come again."""
    weather = Weather()
    async with hosting(tmp_path, Settings(memory=QUICK), read=weather) as backend:
        waiting = asyncio.create_task(ask(backend))
        await until(lambda: backend.status.state == "loading")
        weather.available_gb = 0.3
        with pytest.raises(Overloaded, match="memory ran out"):
            await waiting
        assert (backend.status.state, backend.status.pid) == ("out of memory", 0)


async def test_a_worker_that_grew_is_replaced_between_two_requests(tmp_path: Path) -> None:
    """It keeps its last requests, and this one has forty megabytes; nobody's answer is lost."""
    async with hosting(tmp_path, Settings(memory=QUICK), slack_bytes=2**20) as backend:
        assert await ask(backend) == "Hello there"
        await asyncio.sleep(0.2)
        first = backend.status.pid
        assert await ask(backend, "x" * 40_000_000) == "Hello there"
        os.kill(first, signal.SIGSTOP)  # it takes its time to end, and holds its memory until then
        await until(lambda: backend.status.num_outgrown == 1)
        waiting = asyncio.create_task(ask(backend))
        await asyncio.sleep(0.1)
        assert backend.status.state == "unloaded", "no second one is loaded beside it"
        os.kill(first, signal.SIGCONT)
        assert await waiting == "Hello there"
        assert (backend.status.num_crashes, backend.status.num_loads) == (0, 2)


async def test_a_worker_that_grew_is_replaced_although_it_is_never_idle(tmp_path: Path) -> None:
    """It is drained: who runs is answered to the end, who comes waits for the fresh one, and nobody sees an error."""
    hosted = hosting(tmp_path, Settings(memory=QUICK), slack_bytes=2**20, busy_seconds=0.5)
    async with hosted as backend:
        assert await ask(backend) == "Hello there"
        await asyncio.sleep(0.2)
        first, is_replaced = backend.status.pid, asyncio.Event()

        async def client(place: int) -> set[str]:
            answers = set()
            while not is_replaced.is_set():
                answers.add(await ask(backend, f"shortly {place}"))
            return answers

        clients = [asyncio.create_task(client(place)) for place in range(3)]
        assert await ask(backend, "x" * 40_000_000) == "Hello there"
        await until(lambda: backend.status.num_outgrown == 1 and backend.status.pid not in {0, first})
        is_replaced.set()
        assert await asyncio.gather(*clients) == [{"one two"}] * 3
        assert (backend.status.num_crashes, backend.status.num_loads) == (0, 2)


def test_a_plan_that_is_wrong_does_not_end_one_good_worker_after_another() -> None:
    """Each may hold twice as much more than the one before it."""
    duties, here = watching.Duties(Settings(), slack_bytes=30_000_000), SimpleNamespace(pid=os.getpid(), num_running=0)
    duties.weigh(here.pid)
    slack_bytes = max(30_000_000, round(watching.SLACK_SHARE * (duties._loaded_bytes or 0)))
    leaked = bytearray(b"x") * (slack_bytes * 3 // 2)
    assert duties.outgrown(cast("WorkerProcess", here), 0) is not None
    duties.replaced()
    assert duties.outgrown(cast("WorkerProcess", here), 0) is None
    del leaked


def test_a_fresh_worker_needs_what_is_planned_and_not_what_leaked() -> None:
    """Nor what kept prompts took; of a script nobody knows what is planned."""
    duties, pid = watching.Duties(Settings()), os.getpid()
    first = duties.needed_bytes(pid, 1)
    leaked = bytearray(b"x") * 50_000_000
    assert duties.needed_bytes(pid, 1) == first
    assert duties.needed_bytes(pid, 0) > first + len(leaked) // 2


def test_after_a_drain_in_vain_nobody_waits_again_soon() -> None:
    """A worker whose one request takes an hour would be drained all that time."""
    draining = watching.Draining()
    draining.begin("it holds too much")
    assert not draining.is_resting
    draining.give_up()
    assert (draining.is_resting, draining.reason) == (True, "")


async def test_a_drain_that_never_ends_lets_requests_in_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer that takes for ever keeps its worker; the others are answered meanwhile, and wait no second time."""
    monkeypatch.setattr(watching, "DRAIN_SECONDS", 0.3)
    hosted = hosting(tmp_path, Settings(memory=QUICK), slack_bytes=2**20, busy_seconds=0.2)
    async with hosted as backend, aclosing(backend.generate(request("slowly"))) as events:
        await anext(events)
        await asyncio.sleep(0.2)
        assert await ask(backend, "x" * 40_000_000) == "Hello there"
        await asyncio.sleep(0.4)
        assert await ask(backend) == "Hello there"
        await asyncio.sleep(0.6)
        assert await ask(backend) == "Hello there"
        assert (backend.status.num_outgrown, backend.status.num_loads) == (0, 1)
    assert caplog.text.count("takes no more requests, and is replaced: it holds") == 1


async def test_one_ping_that_is_not_heard_says_nothing(tmp_path: Path) -> None:
    """Nor do two: this process may have slept meanwhile. Three do, and one answer ends the silence."""
    path = tmp_path / "script.toml"
    path.write_text(SCRIPT)
    spec = ModelSpec(name="scripted", location=str(path), format="script", context_tokens=8192)
    worker = await WorkerProcess.start(spec, Settings())
    try:
        os.kill(worker.pid, signal.SIGSTOP)
        silences = []
        for _ in range(4):
            await asyncio.sleep(0.05)
            silences.append(worker.silent_seconds > 0.0)
            worker.ping()
        assert silences == [False, False, False, True]
        os.kill(worker.pid, signal.SIGCONT)
        await until(lambda: worker.silent_seconds == 0.0)
    finally:
        await worker.kill()


async def test_a_card_that_fills_up_ends_the_worker_and_takes_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the host has plenty; the model comes back once what it held there would leave the card Safe."""
    monkeypatch.setattr(reloads, "FIRST_DELAY_SECONDS", 0.1)
    monkeypatch.setattr(cards, "LOOK_SECONDS", 0.02)
    held = Weather(40.0)
    card = cards.Card(is_used=True, read=lambda: msgspec.structs.replace(held(), limited_by="Hopper"))
    async with hosting(tmp_path, Settings(memory=QUICK), read=Weather(32.0), card=card) as backend:
        assert await ask(backend) == "Hello there"
        held.available_gb = 0.9
        await until(lambda: backend.memory.level == "Critical")
        with pytest.raises(Overloaded, match=r"0\.90 GB left on Hopper"):
            await ask(backend)
        held.available_gb = 0.3
        await until(lambda: "was unloaded" in str(backend.status.last_event))
        held.available_gb = 40.0
        await until(lambda: backend.status.state == "ready")
        assert (backend.status.num_unloads, backend.status.num_crashes) == (1, 0)

"""The worker, as a real process playing a script: answers, errors, cancelling, crashes, and no orphans."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import uvloop

from pensieve.config.settings import Settings, WorkerSettings
from pensieve.errors import BackendFailure, InvalidRequest, LoadFailed, Overloaded, WorkerCrashed
from pensieve.generation import GenerationRequest, Started, TextDelta, collect
from pensieve.inference.worker.host import WorkerBackend
from pensieve.messages import say
from pensieve.models.spec import ModelSpec

SCRIPT = """
[[turns]]
contains = "slowly"
steps = [{type = "text", text = "one"}, {type = "delay", seconds = 60}, {type = "text", text = " two"}]

[[turns]]
contains = "wrong"
steps = [{type = "fail", error = "InvalidRequest", facts = {problem = "not like this", path = "messages.0"}}]

[[turns]]
pattern = ".*"
steps = [{type = "text", text = "Hello there"}]
"""


def request(text: str, **fields: object) -> GenerationRequest:
    """One question."""
    return GenerationRequest(id="r", model="m", messages=(say("user", text),), **fields)  # type: ignore[arg-type]


def spec_of(folder: Path, script: str = SCRIPT) -> ModelSpec:
    """A "model" that plays the script."""
    path = folder / "script.toml"
    path.write_text(script)
    return ModelSpec(name="scripted", location=str(path), format="script", context_tokens=8192)


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[WorkerBackend]:
    """A worker that plays `SCRIPT`, not yet started."""
    worker = WorkerBackend(spec_of(tmp_path), Settings())
    yield worker
    await worker.aclose()
    assert not worker.status.pid


def wait_until_gone(pid: int) -> None:
    """Wait until no such process runs; its parent may still have to collect it."""
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} still runs")


async def test_it_starts_on_first_use_and_answers(backend: WorkerBackend) -> None:
    """Nothing runs before somebody asks; afterwards the limits are those really loaded."""
    assert (backend.status.state, (await backend.limits()).is_planned) == ("unloaded", True)
    answer = await collect(backend.generate(request("hi")))
    assert answer.message.text == "Hello there"
    assert (backend.status.state, (await backend.limits()).is_planned) == ("ready", False)


async def test_many_requests_share_one_worker(backend: WorkerBackend) -> None:
    """Streams do not mix, and only one process is started for all of them."""
    answers = await asyncio.gather(*(collect(backend.generate(request("hi"))) for _ in range(20)))
    assert {answer.message.text for answer in answers} == {"Hello there"}
    assert await backend.count_tokens(request("one two three")) == 3
    assert backend.status.num_crashes == 0


async def test_an_error_of_the_backend_comes_through_with_its_facts(backend: WorkerBackend) -> None:
    """And the worker serves on."""
    with pytest.raises(InvalidRequest, match="not like this") as caught:
        await collect(backend.generate(request("wrong")))
    assert caught.value.path == "messages.0"
    assert (await collect(backend.generate(request("hi")))).message.text == "Hello there"


async def test_a_killed_worker_ends_each_live_request_and_is_back_for_the_next(backend: WorkerBackend) -> None:
    """One clear error each, with the way it died; then a new process."""
    async with aclosing(backend.generate(request("slowly"))) as events:
        seen = [await anext(events), await anext(events)]
        assert [type(event) for event in seen] == [Started, TextDelta]
        waiting = asyncio.create_task(collect(backend.generate(request("slowly"))))
        await asyncio.sleep(0.05)
        first = backend.status.pid
        os.kill(first, signal.SIGKILL)
        with pytest.raises(WorkerCrashed, match="SIGKILL"):
            await anext(events)
    with pytest.raises(WorkerCrashed, match="SIGKILL"):
        await waiting
    assert (await collect(backend.generate(request("hi")))).message.text == "Hello there"
    assert backend.status.num_crashes == 1
    assert backend.status.pid not in {0, first}


async def test_a_worker_killed_again_and_again_always_comes_back(backend: WorkerBackend) -> None:
    """An answer in between proves it sound, so there is no growing back-off."""
    for _ in range(3):
        assert (await collect(backend.generate(request("hi")))).reason == "stop"
        os.kill(backend.status.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            while backend.status.pid:  # noqa: ASYNC110 - the death of a process sets no event here
                await asyncio.sleep(0.001)
    assert (await collect(backend.generate(request("hi")))).reason == "stop"


async def test_closing_the_generator_cancels_in_the_worker(backend: WorkerBackend) -> None:
    """The stream ends there too: a deadline proves it, since the worker would answer otherwise."""
    events = backend.generate(request("slowly"))
    await anext(events)
    await events.aclose()
    assert (await collect(backend.generate(request("hi")))).message.text == "Hello there"


async def test_a_deadline_ends_a_request(backend: WorkerBackend) -> None:
    """Retryable, and said with the number of seconds."""
    with pytest.raises(Overloaded, match=r"0\.1 s"):
        await collect(backend.generate(request("slowly", deadline_seconds=0.1)))


async def test_a_model_that_does_not_load_is_said_so_at_once_and_again(tmp_path: Path) -> None:
    """Each request gets the reason; nobody waits for a back-off to hear it."""
    backend = WorkerBackend(spec_of(tmp_path, "turns = 7"), Settings())
    for _ in range(4):
        with pytest.raises(LoadFailed, match="turns"):
            await collect(backend.generate(request("hi")))
    assert backend.status.state == "failed"
    await backend.aclose()


async def test_loading_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """By name of the setting that says how long, and without leaving the process behind."""
    settings = Settings(worker=WorkerSettings(load_timeout_seconds=0.01))
    backend = WorkerBackend(spec_of(tmp_path), settings)
    with pytest.raises(LoadFailed, match="load_timeout_seconds"):
        await collect(backend.generate(request("hi")))
    await backend.aclose()


async def test_a_client_that_goes_while_loading_does_not_stop_the_loading(backend: WorkerBackend) -> None:
    """The next one finds the same process: a resend must not start all over."""
    first = asyncio.create_task(collect(backend.generate(request("hi"))))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert backend.status.state == "loading"
    assert (await collect(backend.generate(request("hi")))).message.text == "Hello there"
    assert backend.status.num_crashes == 0


async def test_closing_ends_the_process(tmp_path: Path) -> None:
    """Also in the middle of an answer, and a second close does nothing."""
    backend = WorkerBackend(spec_of(tmp_path), Settings())
    events = backend.generate(request("slowly"))
    await anext(events)
    pid = backend.status.pid
    await backend.aclose()
    await backend.aclose()
    await asyncio.to_thread(wait_until_gone, pid)
    with pytest.raises(WorkerCrashed):
        await collect(events)
    with pytest.raises(BackendFailure, match="shutting down"):
        await collect(backend.generate(request("hi")))


@pytest.mark.parametrize("waiting", ["", "passive"])
def test_the_servers_own_event_loop_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: str) -> None:
    """The server runs on uvloop, whose transports and processes are its own; whatever the user's environment says."""
    if waiting:
        monkeypatch.setenv("OMP_WAIT_POLICY", waiting)
    else:
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)

    async def answer() -> str:
        backend = WorkerBackend(spec_of(tmp_path), Settings())
        reply = await collect(backend.generate(request("hi")))
        await backend.aclose()
        return reply.message.text

    assert uvloop.run(answer()) == "Hello there"


PARENT = """
import asyncio, sys
from pathlib import Path
from pensieve.config.settings import Settings
from pensieve.generation import GenerationRequest
from pensieve.inference.worker.host import WorkerBackend
from pensieve.messages import say
from pensieve.models.spec import ModelSpec

async def main():
    backend = WorkerBackend(ModelSpec(name="m", location=sys.argv[1], format="script"), Settings())
    events = backend.generate(GenerationRequest(id="r", model="m", messages=(say("user", "slowly"),)))
    await anext(events)
    print(backend.status.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_parent(tmp_path: Path, how: signal.Signals) -> None:
    """However the parent dies, and although the worker is in the middle of an answer."""
    command = [sys.executable, "-c", PARENT, spec_of(tmp_path).location]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(how)
        wait_until_gone(pid)

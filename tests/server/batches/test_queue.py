"""The queue at work: it makes way, waits for memory, finds out who kills the server, and goes on after a restart."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import pytest

from live_server import serving
from pensieve.config.settings import MemorySettings
from pensieve.errors import BackendFailure, MemoryShort, PensieveError, WorkerCrashed
from pensieve.inference.guard import MemoryGuard
from pensieve.inference.router import Router
from pensieve.inference.scripted import Script, ScriptedBackend
from pensieve.inference.supervision import MemoryStatus
from pensieve.server.batches.queue import BatchQueue
from pensieve.server.batches.store import BatchStore, Waiting
from pensieve.server.ledger import Ledger
from pensieve.wire.anthropic.batches import Batch, Entry, errored
from weather import Weather

from .test_sdk import ECHOES, asking, results, until_ended


class Told:
    """Answers as the test tells it to, by the request's place; counts what began."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.errors: dict[int, PensieveError | ValueError] = {}
        self.has_begun = asyncio.Event()

    async def answer(self, waiting: Waiting) -> bytes:
        """Once it may."""
        self.begun.append(waiting.place.at)
        self.has_begun.set()
        await self.go_on.wait()
        if (error := self.errors.pop(waiting.place.at, None)) is not None:
            raise error
        return b'{"type":"succeeded"}'

    def failed(self, waiting: Waiting, error: PensieveError) -> bytes:
        """In the API's words."""
        return errored(error, f"req_{waiting.place.at}")


class Answering:
    """An answer under way, for the ledger."""

    def end(self, error: PensieveError) -> None:
        """It does not end."""


class Weathered(Router):
    """A router whose worker's memory is as the weather has it."""

    def __init__(self, weather: Weather) -> None:
        script = Script.saying("x")
        super().__init__(script.spec, lambda _: ScriptedBackend(script))
        self._guard = MemoryGuard(MemorySettings(recovery_seconds=0.0), weather)

    @property
    def supervised(self) -> Any:
        """Itself: only memory is looked at."""
        return self

    @property
    def memory(self) -> MemoryStatus:
        """How it is."""
        self._guard.look()
        return self._guard.status


def at_once(seconds: float) -> None:
    """Pause for no time."""
    del seconds


class House:
    """A queue over a file of its own, without a server."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "batches.db"
        self.told, self.ledger = Told(), Ledger()
        self.weather = Weather()
        self.router = Weathered(self.weather)
        self.queue = BatchQueue(self.path, self.router, self.ledger, self.told)

    async def make(self, number: int, model: str = "m") -> str:
        """A batch of so many requests."""
        entries = [Entry(f"r{at}", model, b"{}") for at in range(number)]
        batch = await self.queue.ask(lambda store: store.create("me", entries, self.queue.now()))
        self.queue.changed()
        return batch.id

    async def until(self, uid: str, is_so: Callable[[Batch], bool]) -> Batch:
        """The batch once that holds."""
        while True:
            batch = await self.queue.ask(lambda store: store.get("me", uid))
            if is_so(batch):
                return batch
            await asyncio.sleep(0.005)

    async def ended(self, uid: str) -> Batch:
        """The batch once it has ended."""
        return await self.until(uid, lambda batch: batch.ended_seconds is not None)


@pytest.fixture
async def house(tmp_path: Path) -> Any:
    """A queue that works."""
    made = House(tmp_path)
    made.queue.start()
    yield made
    await made.queue.stop()
    await made.router.aclose()


async def test_all_places_are_used_and_no_more(house: House) -> None:
    """Four, as llama.cpp has them."""
    house.told.go_on.clear()
    uid = await house.make(9)
    await house.told.has_begun.wait()
    assert house.queue.num_running == 4
    house.told.go_on.set()
    assert (await house.ended(uid)).outcomes == {"succeeded": 9}
    assert sorted(house.told.begun) == list(range(9))


async def test_a_live_request_makes_batches_stop_at_once(house: House) -> None:
    """Before it is even asked of the engine; what made way is begun again afterwards."""
    house.told.go_on.clear()
    uid = await house.make(3)
    await house.told.has_begun.wait()
    house.ledger.begin(living := Answering())
    await asyncio.sleep(0.02)
    assert house.queue.num_running == 0
    house.told.go_on.set()
    house.ledger.end(living)
    assert (await house.ended(uid)).outcomes == {"succeeded": 3}
    assert len(house.told.begun) > 3


async def test_what_made_way_too_often_is_let_run_beside_live_ones(house: House) -> None:
    """Where a place is left: else people who never pause would starve it."""
    house.told.go_on.clear()
    uid = await house.make(1)
    await house.told.has_begun.wait()
    (run,) = house.queue._runs.values()
    house.queue._times_made_way[run.waiting.place] = 3
    house.ledger.begin(Answering())
    assert house.queue.num_running == 1
    for _ in range(3):
        house.ledger.begin(Answering())
    await asyncio.sleep(0.02)
    assert (house.queue.num_running, len(house.ledger.live)) == (0, 4)
    assert (await house.until(uid, lambda _: True)).num_done == 0


async def test_a_batch_gets_on_beside_clients_that_never_pause(house: House) -> None:
    """One request begins after a while, and stays though more clients come, until the last place is asked for."""
    house.ledger.begin(Answering())
    house.queue._worked_seconds -= 60.0
    house.told.go_on.clear()
    uid = await house.make(5)
    await house.told.has_begun.wait()
    house.ledger.begin(Answering())
    await asyncio.sleep(0.02)
    assert (house.queue.num_running, house.told.begun) == (1, [0])
    house.told.go_on.set()
    assert (await house.until(uid, lambda batch: batch.num_done > 0)).outcomes == {"succeeded": 1}


async def test_a_result_that_has_come_is_kept_though_a_client_comes(house: House) -> None:
    """Making way throws nothing away that is done: the request is not begun again."""
    house.told.go_on.clear()
    uid = await house.make(1)
    await house.told.has_begun.wait()
    is_slow, may_write = threading.Event(), threading.Event()

    def be_slow(_: BatchStore) -> None:
        is_slow.set()
        assert may_write.wait(60)

    writing = asyncio.create_task(house.queue.ask(be_slow))
    await asyncio.to_thread(is_slow.wait)
    house.told.go_on.set()
    await asyncio.sleep(0.01)
    house.ledger.begin(living := Answering())
    await asyncio.sleep(0.01)
    may_write.set()
    await writing
    house.ledger.end(living)
    await house.ended(uid)
    assert house.told.begun == [0]


async def test_no_room_is_no_failure(house: House) -> None:
    """The request goes back and is begun again later; one that is wrong fails for good."""
    house.told.errors = {0: MemoryShort("memory is short", 0.0), 1: BackendFailure("wrong")}
    uid = await house.make(2)
    assert (await house.ended(uid)).outcomes == {"succeeded": 1, "errored": 1}
    assert sorted(house.told.begun) == [0, 0, 1]


async def test_a_request_that_kills_its_worker_is_given_up(house: House) -> None:
    """After three attempts, with a result that says so."""
    house.queue._pause = at_once  # type: ignore[method-assign]
    crash = WorkerCrashed(model="m", exit_status="9")

    async def die(waiting: Waiting) -> bytes:
        house.told.begun.append(waiting.place.at)
        raise crash

    house.told.answer = die  # type: ignore[method-assign]
    uid = await house.make(1)
    assert (await house.ended(uid)).outcomes == {"errored": 1}
    assert house.told.begun == [0, 0, 0]
    (result,) = await house.queue.ask(lambda store: store.results("me", uid, -1, 10))
    assert b"it was begun 3 times" in result[2]


async def test_a_mistake_of_ours_does_not_end_the_queue(house: House) -> None:
    """It is logged, and the request is tried again."""
    house.queue._pause = at_once  # type: ignore[method-assign]
    house.told.errors = {0: ValueError("a secret prompt")}
    uid = await house.make(2)
    assert (await house.ended(uid)).outcomes == {"succeeded": 2}


async def test_stopping_puts_back_what_is_under_way(tmp_path: Path, house: House) -> None:
    """Another server goes on with it, without counting it as an attempt."""
    house.told.go_on.clear()
    uid = await house.make(3)
    await house.told.has_begun.wait()
    await house.queue.stop()
    other = House(tmp_path)
    other.queue.start()
    assert (await other.ended(uid)).outcomes == {"succeeded": 3}
    await other.queue.stop()


async def test_two_servers_never_answer_the_same_batch(tmp_path: Path, house: House) -> None:
    """One works the file off; the other still takes batches in for it."""
    uid = await house.make(1)
    await house.ended(uid)
    other = House(tmp_path)
    other.queue.start()
    made = await other.make(2)
    house.queue.changed()
    await house.ended(made)
    assert other.told.begun == []
    await other.queue.stop()


async def test_an_expired_batch_ends_though_nothing_was_answered(house: House) -> None:
    """What runs is stopped."""
    house.told.go_on.clear()
    uid = await house.make(6)
    await house.told.has_begun.wait()
    before = house.queue.now
    house.queue.now = lambda: before() + 25 * 3600
    house.queue.changed()
    assert (await house.ended(uid)).outcomes == {"expired": 6}
    assert house.queue.num_running == 0


async def test_short_memory_stops_what_runs(house: House) -> None:
    """Critical: batches go before a client is refused."""
    house.told.go_on.clear()
    uid = await house.make(2)
    await house.told.has_begun.wait()
    house.weather.available_gb = 0.9
    house.queue.changed()
    while house.queue.num_running:  # noqa: ASYNC110 - the queue has nothing to wait on
        await asyncio.sleep(0.005)
    house.told.go_on.set()
    house.weather.available_gb = 32.0
    assert (await house.ended(uid)).outcomes == {"succeeded": 2}


async def test_a_batch_goes_on_beside_live_answers_and_both_are_whole(tmp_path: Path) -> None:
    """On a real server: twenty requests of a batch, and clients that come and go."""
    async with (
        serving(ECHOES, batches=tmp_path / "batches.db") as live,
        anthropic.AsyncAnthropic(base_url=live.url, api_key="mine", max_retries=0) as client,
    ):
        made = await client.messages.batches.create(requests=asking(*["hello"] * 20))
        answers = [(await live.ask()).status_code for _ in range(5)]
        await until_ended(client, made.id)
        found = await results(client, made.id)
    assert answers == [200] * 5
    assert [result.result.type for result in found] == ["succeeded"] * 20

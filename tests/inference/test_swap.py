"""Models of a router change places: loaded first or last, drained, refused, brought back, and sent away when idle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pensieve.config.settings import ModelSettings, Settings
from pensieve.devices.processes import ProcessMemory
from pensieve.errors import BackendFailure, LoadFailed, ModelNotFound, Overloaded, PensieveError
from pensieve.generation import GenerationRequest, collect
from pensieve.inference.guard import MemoryGuard
from pensieve.inference.residency import Change, Draining, Ended, Loaded, Loading, Restoring
from pensieve.inference.router import Router
from pensieve.inference.script import Delay, Say, Script, Turn
from pensieve.inference.scripted import ScriptedBackend
from pensieve.inference.supervision import MemoryStatus, WorkerStatus
from pensieve.inference.worker.host import WorkerBackend
from pensieve.messages import say
from pensieve.models.spec import ModelSpec
from weather import Weather


class Shelf:
    """A library of these models."""

    def __init__(self, *specs: ModelSpec) -> None:
        self.specs = {spec.name: spec for spec in specs}

    def all(self) -> tuple[ModelSpec, ...]:
        """All of them."""
        return tuple(self.specs.values())

    def find(self, name: str) -> ModelSpec:
        """The one of that name."""
        if name not in self.specs:
            raise ModelNotFound(name)
        return self.specs[name]

    def stored_name(self, name: str) -> str:
        """Without capitals."""
        return name.lower()


class Loads(ScriptedBackend):
    """A backend that is loaded, or fails to, and ends what it is told to end."""

    def __init__(self, house: House, spec: ModelSpec) -> None:
        super().__init__(house.script)
        self.house, self.name = house, spec.name
        self.error: PensieveError | None = None

    async def load(self) -> None:
        """As the house says."""
        await asyncio.sleep(0)
        self.house.happened.append(f"load {self.name}")
        if self.name in self.house.hangs:
            await asyncio.Event().wait()
        if self.name in self.house.broken:
            raise LoadFailed("it is broken", self.name)

    def end_requests(self, error: PensieveError) -> None:
        """Tell the house; the script plays on."""
        assert "the model was changed" in str(error)
        self.house.happened.append(f"end {self.name}")
        self.house.may_end.set()

    async def generate(self, request: GenerationRequest) -> Any:
        """Say the model's name, once the house lets it."""
        async with aclosing(super().generate(request)) as events:
            async for event in events:
                if "slowly" in request.messages[-1].text:
                    await self.house.may_end.wait()
                yield event

    @property
    def status(self) -> WorkerStatus:
        """Loaded once, and two gigabytes large."""
        memory = ProcessMemory(2 * 10**9)
        return WorkerStatus(state="ready", pid=1, num_crashes=0, num_loads=1, memory=memory)

    @property
    def memory(self) -> MemoryStatus:
        """The house's."""
        self.house.guard.look()
        return self.house.guard.status

    def reset(self) -> None:
        """Tell the house."""
        self.house.happened.append(f"reset {self.name}")

    async def aclose(self) -> None:
        """Tell the house."""
        if self.house.closing_seconds:
            await asyncio.sleep(self.house.closing_seconds)
        self.house.happened.append(f"close {self.name}")
        await super().aclose()


class House:
    """A router over models `a` (current), `b` and `c` of some gigabytes each, and what happened in it."""

    def __init__(self, sizes_gb: dict[str, float] | None = None, free_gb: float = 60.0, **settings: Any) -> None:
        self.script = Script(turns=(Turn(steps=(Say("one"), Delay(0.0), Say(" two"))),))
        self.happened: list[str] = []
        self.told: list[Change] = []
        self.broken: set[str] = set()
        self.hangs: set[str] = set()
        self.may_end = asyncio.Event()
        self.closing_seconds = 0.0
        self.weather = Weather(free_gb)
        sizes = sizes_gb or {"a": 1, "b": 1, "c": 1}
        self.shelf = Shelf(*(spec_of(name, size) for name, size in sizes.items()))
        whole = Settings(model=ModelSettings(**{"context_tokens": 4096, **settings}))
        self.guard = MemoryGuard(whole.memory, self.weather)
        self.router = Router(self.shelf.specs["a"], lambda spec: Loads(self, spec), self.shelf, whole, self.guard)

    async def ask(self, model: str, text: str = "hello") -> str:
        """What the model of that name says."""
        request = GenerationRequest(id="r", model=model, messages=(say("user", text),))
        return (await collect(self.router.generate(request))).message.text

    async def swap(self, name: str) -> list[Change]:
        """All that is told of a swap; stays in `told` when it fails."""
        self.told.clear()
        async for change in self.router.swap(name):
            self.told.append(change)
        return self.told

    async def until(self, name: str, *, is_resident: bool) -> None:
        """Wait until that model is in memory, or has left it."""
        while self.router.is_resident(name) != is_resident:  # noqa: ASYNC110 - the router has nothing to wait on
            await asyncio.sleep(0.002)

    async def until_closed(self, name: str) -> None:
        """Wait until that model's memory has come back, which is after it has left."""
        while f"close {name}" not in self.happened:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.002)


def spec_of(name: str, size_gb: float) -> ModelSpec:
    """A model whose weights have that size."""
    return ModelSpec(
        name=name, location="", weight_bytes=round(size_gb * 1e9), cache_bytes_per_token=1, context_tokens=4096
    )


@asynccontextmanager
async def living(**fields: Any) -> AsyncIterator[House]:
    """A house that is closed at the end."""
    house = await asyncio.to_thread(House, **fields)
    try:
        yield house
    finally:
        await house.router.aclose()


async def test_the_new_model_is_loaded_before_the_old_one_goes() -> None:
    """Where memory holds both; it then answers whoever names nothing known."""
    async with living() as house:
        await house.ask("claude-x")
        changes = await house.swap("b")
        assert [type(change) for change in changes] == [Loading, Loaded, Ended]
        assert house.happened == ["load b", "close a"]
        assert (house.router.specs[0].name, house.router.resolve("claude-x").name) == ("b", "b")
        assert [house.router.is_resident(name) for name in "abc"] == [False, True, False]


async def test_where_memory_holds_one_the_old_model_goes_first() -> None:
    """And the reason is told with numbers."""
    async with living(sizes_gb={"a": 1, "b": 50}, free_gb=50.8) as house:
        await house.ask("a")
        changes = await house.swap("b")
        assert house.happened == ["close a", "load b"]
        assert isinstance(changes[0], Ended)
        assert "it needs 50.35 GB, and 49.80 GB can be had" in changes[0].reason


async def test_a_model_that_fails_to_load_leaves_the_old_one_in_place() -> None:
    """The error is raised to who swaps, and the old model answers as before."""
    async with living() as house:
        await house.ask("a")
        house.broken.add("b")
        with pytest.raises(LoadFailed, match="broken"):
            await house.swap("b")
        assert (await house.ask("claude-x"), house.router.specs[0].name) == ("one two", "a")
        assert house.happened == ["load b", "close b"]


async def test_a_model_that_fails_after_the_old_one_went_brings_it_back() -> None:
    """Nothing else can answer."""
    async with living(sizes_gb={"a": 1, "b": 50}, free_gb=50.8) as house:
        await house.ask("a")
        house.broken.add("b")
        with pytest.raises(LoadFailed, match="broken"):
            await house.swap("b")
        assert isinstance(house.told[-1], Restoring)
        assert house.happened == ["close a", "load b", "close b", "load a"]
        assert (await house.ask("a"), house.router.specs[0].name) == ("one two", "a")


async def test_a_model_that_cannot_fit_is_refused_and_nothing_is_touched() -> None:
    """For good where the machine is too small, for now where other programs hold the memory."""
    async with living(sizes_gb={"a": 1, "b": 90, "c": 50}, free_gb=20) as house:
        await house.ask("a")
        with pytest.raises(LoadFailed, match=r"it needs 90\.\d+ GB of memory, and 21\.00 GB can be had even without a"):
            await house.swap("b")
        with pytest.raises(Overloaded, match="end other programs"):
            await house.swap("c")
        assert (house.happened, await house.ask("claude-x")) == ([], "one two")


async def test_answers_under_way_are_ended_only_when_their_time_is_over() -> None:
    """A swap that a person asks for waits `model.drain_seconds` for them, and new ones go to the new model."""
    async with living(drain_seconds=0.05) as house:
        slow = asyncio.create_task(house.ask("claude-x", "slowly"))
        await asyncio.sleep(0)
        changes = await house.swap("b")
        assert [type(change) for change in changes] == [Loading, Loaded, Draining, Ended]
        assert house.happened == ["load b", "end a", "close a"]
        assert await slow == "one two"


async def test_an_unknown_name_changes_nothing() -> None:
    """It is the library's error, with its advice."""
    async with living() as house:
        with pytest.raises(ModelNotFound):
            await house.swap("nobody")
        assert house.happened == []


async def test_a_request_that_names_a_model_here_gets_it() -> None:
    """In whatever case; a made-up name gets who is there."""
    async with living() as house:
        for name in ("claude-x", "B", "gpt-x", "b"):
            await house.ask(name)
        assert house.happened == ["load b", "close a"]
        assert (await house.router.choose("gpt-x")).name == "b"


async def test_no_request_changes_the_model_where_that_is_turned_off() -> None:
    """All names are the current model's."""
    async with living(swap="off") as house:
        await house.ask("b")
        assert house.happened == []
        assert [spec.name for spec in house.router.specs] == ["a"]


async def test_a_model_that_came_a_moment_ago_is_found() -> None:
    """Without a restart."""
    async with living() as house:
        house.shelf.specs["new"] = spec_of("new", 1)
        assert house.router.resolve("new").name == "a"
        house.router._read_at_seconds -= 10.0
        assert (await house.router.choose("new")).name == "new"


async def test_a_request_never_ends_the_answers_of_others() -> None:
    """Where memory holds both models the old one stays until they are whole."""
    async with living() as house:
        slow = asyncio.create_task(house.ask("a", "slowly"))
        await asyncio.sleep(0)
        assert await house.ask("b") == "one two"
        assert house.happened == ["load b"]
        house.may_end.set()
        assert await slow == "one two"
        await asyncio.sleep(0.01)
        assert house.happened == ["load b", "close a"]


async def test_a_request_for_another_model_is_refused_while_the_only_place_is_taken() -> None:
    """After `model.drain_seconds`; a client comes again, and what runs goes on."""
    async with living(sizes_gb={"a": 1, "b": 50}, free_gb=50.8, drain_seconds=0.02) as house:
        slow = asyncio.create_task(house.ask("a", "slowly"))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="a is still answering"):
            await house.ask("b")
        assert await house.ask("a") == "one two"
        house.may_end.set()
        assert await slow == "one two"
        assert await house.ask("b") == "one two"


async def test_many_clients_of_two_models_all_get_their_answers() -> None:
    """However often the models change places."""
    async with living() as house:
        names = ["a", "b", "c", "claude-x"] * 8
        answers = await asyncio.gather(*(house.ask(name) for name in names))
        assert answers == ["one two"] * len(names)
        assert house.router.num_running == 0
        await asyncio.sleep(0)
        assert sum(house.router.is_resident(name) for name in "abc") == 1


async def test_several_models_stay_where_they_may() -> None:
    """The one used longest ago goes first; names nobody knows stay with the first."""
    async with living(resident=2) as house:
        for name in ("a", "b", "a", "c"):
            await house.ask(name)
        assert [house.router.is_resident(name) for name in "abc"] == [True, False, True]
        assert house.router.resolve("claude-x").name == "a"


async def test_a_client_that_leaves_does_not_stop_the_loading() -> None:
    """Loading belongs to nobody."""
    async with living() as house:
        await house.ask("a")
        asking = asyncio.create_task(house.ask("b"))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await house.until("b", is_resident=True)
        assert await house.ask("b") == "one two"


async def test_a_model_nobody_asks_for_leaves_memory_and_comes_back() -> None:
    """After `model.idle_seconds`; the next request starts it again."""
    async with living(idle_seconds=0.02) as house:
        house.closing_seconds = 0.05
        await house.ask("a")
        await house.until_closed("a")
        assert (house.router.state, house.happened) == ("unloaded", ["close a"])
        assert await house.ask("claude-x") == "one two"
        assert house.router.is_resident("a")


async def test_a_model_that_was_brought_and_never_asked_leaves_memory_too() -> None:
    """Its time begins when it is there."""
    async with living(idle_seconds=0.02) as house:
        await house.swap("b")
        await house.until_closed("b")
        assert house.happened == ["load b", "close b"]


async def test_who_was_asked_to_go_stays_where_that_is_needed_no_more() -> None:
    """Memory came free while its answer was awaited: it takes requests again, and leaves when nobody asks."""
    async with living(sizes_gb={"a": 1, "b": 50}, free_gb=50.8, resident=2, idle_seconds=0.05) as house:
        slow = asyncio.create_task(house.ask("a", "slowly"))
        await asyncio.sleep(0)
        asking = asyncio.create_task(house.ask("b"))
        while not house.router._residents._here["a"].is_leaving:  # noqa: ASYNC110 - the router has nothing to wait on
            await asyncio.sleep(0)
        house.weather.available_gb = 90.0
        house.may_end.set()
        assert (await slow, await asking) == ("one two", "one two")
        assert (house.router.is_resident("a"), house.happened) == (True, ["load b"])
        await house.until("a", is_resident=False)


async def test_an_answer_under_way_is_not_idle() -> None:
    """However long it takes."""
    async with living(idle_seconds=0.01) as house:
        slow = asyncio.create_task(house.ask("a", "slowly"))
        await asyncio.sleep(0.03)
        house.may_end.set()
        assert (await slow, house.happened) == ("one two", [])


async def test_a_server_that_stops_while_a_model_is_loaded_leaves_none_behind() -> None:
    """Whoever waits for the model is told so, and whoever comes afterwards."""
    async with living() as house:
        await house.ask("a")
        house.hangs.add("b")
        waiting = asyncio.create_task(house.ask("b"))
        while not house.happened:  # noqa: ASYNC110 - the house has nothing to wait on
            await asyncio.sleep(0)
        await house.router.aclose()
        with pytest.raises(BackendFailure, match="shutting down"):
            await waiting
        with pytest.raises(BackendFailure, match="shutting down"):
            await house.ask("a")
        assert sorted(house.happened) == ["close a", "close b", "load b"]


async def test_counts_and_memory_are_told_over_all_workers() -> None:
    """Before and after a swap, and when none is left."""
    async with living(idle_seconds=0.02) as house:
        first = house.router.supervised
        assert first is None
        await house.swap("b")
        await house.swap("c")
        told = house.router.supervised
        assert told is not None
        assert (told.status.num_loads, told.status.state, told.memory.level) == (2, "ready", "Safe")
        told.reset()
        assert house.happened[-1] == "reset c"
        await house.ask("c")
        await house.until("c", is_resident=False)
        told = house.router.supervised
        assert told is not None
        house.weather.available_gb = 0.9
        assert (told.status.num_loads, told.status.state, told.memory.level) == (2, "unloaded", "Critical")


async def test_real_workers_change_places(tmp_path: Path) -> None:
    """Two processes, one after the other; no word of either is lost."""
    specs = []
    for name in ("first", "second"):
        path = tmp_path / f"{name}.toml"
        path.write_text(f'[[turns]]\nsteps = [{{type = "text", text = "I am {name}"}}]\n')
        specs.append(ModelSpec(name=name, location=str(path), format="script", context_tokens=8192))
    library, settings = Shelf(*specs), Settings()
    router = await asyncio.to_thread(Router, specs[0], lambda spec: WorkerBackend(spec, settings), library, settings)
    try:
        said = []
        for name in ("claude-x", "second", "claude-x", "first"):
            request = GenerationRequest(id="r", model=name, messages=(say("user", "who?"),))
            said.append((await collect(router.generate(request))).message.text)
        assert said == ["I am first", "I am second", "I am second", "I am first"]
        told = router.supervised
        assert told is not None
        assert (told.status.num_loads, told.status.num_crashes, router.state) == (3, 0, "ready")
    finally:
        await router.aclose()

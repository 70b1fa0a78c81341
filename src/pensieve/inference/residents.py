"""The models in memory: who enters, what comes, what goes. Does what `residency` decides; knows no made-up names."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from pensieve.config.settings import Settings
from pensieve.errors import LoadFailed, MemoryShort, Overloaded, PensieveError
from pensieve.inference.appraisal import appraise, most_bytes, room_for, uses_cards
from pensieve.inference.backend import Backend
from pensieve.inference.guard import MemoryGuard
from pensieve.inference.residency import (
    Candidate,
    Change,
    Decision,
    Draining,
    Ended,
    Load,
    Loaded,
    Loading,
    Occupant,
    Refuse,
    Restoring,
    Swap,
    Wait,
    decide,
    describe,
)
from pensieve.inference.resident import Overseer, Resident
from pensieve.inference.supervision import Supervised
from pensieve.models.spec import ModelSpec

log = logging.getLogger(__name__)

Tell = Callable[[Change], None]

LAST_WORDS_SECONDS = 5.0
"""Requests that were told to end get so long to go."""
FREED_SECONDS = 30.0
"""A model that had to wait for memory may be asked for again after so long."""


class Residents:
    """The models in memory and on their way in or out; `current` answers where nobody names another."""

    def __init__(
        self, current: ModelSpec, start: Callable[[ModelSpec], Backend], settings: Settings, guard: MemoryGuard
    ) -> None:
        self.current = current
        self.is_closed = False
        self.incoming: Resident | None = None
        """One that is being loaded beside others, or in their place."""
        self._start = start
        self._settings = settings
        self._guard = guard
        self._here: dict[str, Resident] = {}
        self._going: set[asyncio.Task[None]] = set()
        """Models that still end their answers."""
        self._departing: set[asyncio.Task[None]] = set()
        """Models whose memory is about to come back."""
        self._overseer = Overseer()

    def __len__(self) -> int:
        return len(self._here)

    def __contains__(self, name: str) -> bool:
        return name in self._here

    def get(self, name: str) -> Resident | None:
        """The model of that name, if it is in memory."""
        return self._here.get(name)

    @property
    def num_running(self) -> int:
        """Requests under way, over all models."""
        return sum(resident.num_running for resident in self._here.values())

    @property
    def supervised(self) -> Supervised | None:
        """Their workers as one, where there are or were any that are looked after."""
        first = self._here.get(self.current.name)
        ordered = dict.fromkeys([*([first] if first else []), *([self.incoming] if self.incoming else [])])
        ordered |= dict.fromkeys(self._here.values())
        return self._overseer.watch(tuple(one.supervised for one in ordered if one.supervised is not None))

    def place(self, spec: ModelSpec) -> Resident:
        """Make the model's backend without loading it: nothing else is in memory that would have to be spared."""
        self.current = spec
        resident = self._here[spec.name] = Resident(spec, self._start(spec))
        return resident

    async def vacated(self) -> None:
        """Wait until memory of models that are ending has come back."""
        while self._departing:
            await asyncio.wait(self._departing)

    def leave(self, resident: Resident) -> None:
        """A request has ended; the model goes once nobody has asked for `model.idle_seconds`."""
        resident.leave()
        idle_seconds = self._settings.model.idle_seconds
        if idle_seconds and not resident.num_running:
            asyncio.get_running_loop().call_later(idle_seconds, self._on_idle, resident)

    async def change(self, spec: ModelSpec, tell: Tell, *, is_forced: bool) -> None:
        """Bring that model into memory, and let others go as far as they must.

        `is_forced`: it becomes the current one, and answers of others end when their time is over. Otherwise others end
        their answers, and the change is refused as overloaded if they take too long.
        """
        await self.vacated()
        decision = await self._decide(spec, may_end_answers=is_forced)
        if isinstance(decision, Wait):
            drained = self._present(decision.leaving)
            await self._drain(decision.leaving, tell, decision.reason, is_forced=False)
            decision = await self._decide(spec, may_end_answers=True)
            self._stay(drained)  # who must go all the same is kept from new requests at once
        match decision:
            case Refuse():
                raise self._refused(decision)
            case Load() | Wait():
                await self._bring(spec, tell)
            case Swap(_, leaving, True):
                await self._bring(spec, tell)
                await self._let_go(spec, leaving, tell, is_forced=is_forced)
            case Swap(_, leaving, False, reason):
                await self._replace(spec, leaving, tell, reason, is_forced=is_forced)
        if is_forced:
            self.current = spec

    async def aclose(self) -> None:
        """End all of them; safe to call twice."""
        self.is_closed = True
        for task in self._going:
            task.cancel()
        await asyncio.gather(*self._going, return_exceptions=True)
        for resident in tuple(self._here.values()):
            self._drop(resident)
        await self.vacated()

    async def _decide(self, spec: ModelSpec, *, may_end_answers: bool) -> Decision:
        """What is to be done for that model now; one in memory needs nothing."""
        candidate = appraise(spec, self._settings)
        if spec.name in self._here:
            candidate = Candidate(name=spec.name, wanted_bytes=0, smallest_bytes=0)
        room = await asyncio.to_thread(room_for, spec, self._settings, self._guard)
        on_cards = await asyncio.to_thread(uses_cards, spec, self._settings)
        occupants = [
            Occupant(
                name=name,
                frees_bytes=resident.frees_bytes(uses_cards=on_cards),
                used_seconds=resident.used_seconds,
                num_running=resident.num_running,
            )
            for name, resident in self._here.items()
        ]
        most = self._settings.model.resident
        return decide(candidate, occupants, room, most_models=most, may_end_answers=may_end_answers)

    async def _bring(self, spec: ModelSpec, tell: Tell) -> None:
        """Have the model loaded; one that fails to load leaves nothing behind."""
        here = self._here.get(spec.name)
        resident = here or Resident(spec, self._start(spec))
        self.incoming = resident
        began = time.monotonic()
        tell(Loading(spec.name, tuple(name for name in self._here if name != spec.name)))
        is_loaded = False
        try:
            await self._load(resident)
            is_loaded = True
        finally:
            self.incoming = None
            if not is_loaded and here is None:
                self._end(resident)
        resident.is_leaving = False
        self._here[spec.name] = resident
        tell(Loaded(spec.name, time.monotonic() - began))

    async def _load(self, resident: Resident) -> None:
        """One that is being loaded is not idle; its time begins when it is there."""
        resident.enter()
        try:
            await resident.load()
        finally:
            self.leave(resident)

    async def _replace(
        self, spec: ModelSpec, leaving: Iterable[str], tell: Tell, reason: str, *, is_forced: bool
    ) -> None:
        """Let the others go, then load; where that fails, the current one comes back."""
        before = self.current
        await self._drain(leaving, tell, reason, is_forced=is_forced)
        self.current = spec if before.name in leaving else before
        for resident in self._present(leaving):
            self._drop(resident)
            tell(Ended(resident.spec.name, reason))
        await self.vacated()
        try:
            await self._bring(spec, tell)
        except PensieveError as error:
            self.current = before
            if before.name in leaving:
                tell(Restoring(before.name, str(error)))
                with suppress(PensieveError):  # the next request says it
                    await self._load(self.place(before))
            raise

    async def _let_go(self, spec: ModelSpec, leaving: Iterable[str], tell: Tell, *, is_forced: bool) -> None:
        """The new one is there: the others end their answers, and go. Nothing waits for them but a forced change."""
        if self.current.name in leaving:
            self.current = spec
        if is_forced:
            await self._drain(leaving, tell, "", is_forced=True)
        for resident in self._present(leaving):
            resident.is_leaving = True
            if not resident.num_running:
                self._drop(resident)
                tell(Ended(resident.spec.name))
            else:
                self._keep(asyncio.create_task(self._see_off(resident)), self._going)

    async def _see_off(self, resident: Resident) -> None:
        await resident.drained()
        if resident.is_leaving and self._here.get(resident.spec.name) is resident:
            self._drop(resident)
            log.info("%s", describe(Ended(resident.spec.name)))

    async def _drain(self, leaving: Iterable[str], tell: Tell, reason: str, *, is_forced: bool) -> None:
        """Wait for the answers of those models, and keep new ones away; `is_forced`: end late ones, else give up."""
        residents = self._present(leaving)
        limit_seconds = self._settings.model.drain_seconds
        for resident in residents:
            resident.is_leaving = True
            if resident.num_running:
                tell(Draining(resident.spec.name, resident.num_running, limit_seconds))
        ended = await asyncio.gather(*(resident.drained(limit_seconds) for resident in residents))
        late = [resident for resident, has_ended in zip(residents, ended, strict=True) if not has_ended]
        if late and not is_forced:
            self._stay(residents)
            busy = ", ".join(resident.spec.name for resident in late)
            raise Overloaded(f"another model is wanted, and {busy} is still answering: {reason}", FREED_SECONDS)
        for resident in late:
            resident.end_requests(Overloaded("the model was changed while this answer came", 1.0))
        await asyncio.gather(*(resident.drained(LAST_WORDS_SECONDS) for resident in late))

    def _present(self, names: Iterable[str]) -> list[Resident]:
        """Those that are still here: while one waits, an idle one may go by itself."""
        return [self._here[name] for name in names if name in self._here]

    def _stay(self, residents: Iterable[Resident]) -> None:
        for resident in residents:
            resident.is_leaving = False

    def _drop(self, resident: Resident) -> None:
        """It is gone for all who ask; its memory comes back soon."""
        del self._here[resident.spec.name]
        self._end(resident)

    def _end(self, resident: Resident) -> None:
        if resident.supervised is not None:
            self._overseer.gone(resident.supervised)
        self._keep(asyncio.create_task(resident.backend.aclose()), self._departing)

    def _keep(self, task: asyncio.Task[None], tasks: set[asyncio.Task[None]]) -> None:
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _on_idle(self, resident: Resident) -> None:
        idle_seconds = self._settings.model.idle_seconds
        is_idle = not resident.num_running and time.monotonic() - resident.used_seconds >= idle_seconds * 0.999
        if is_idle and not resident.is_leaving and self._here.get(resident.spec.name) is resident:
            self._drop(resident)
            log.info("%s", describe(Ended(resident.spec.name, f"nobody asked for {idle_seconds:g} s")))

    def _refused(self, refusal: Refuse) -> PensieveError:
        most = most_bytes(self._guard)
        if most is not None and refusal.needed_bytes > most:
            return LoadFailed(f"{refusal.reason}: take a smaller model, or less context", refusal.name)
        problem = f"{refusal.name} cannot be loaded now: {refusal.reason}: end other programs"
        return MemoryShort(problem, FREED_SECONDS)

"""Which slot of llama.cpp serves a prompt. A slot keeps what it has read, and nothing is shared between slots.

A session comes back to its slot. A prompt that shares its beginning with a slot of another session gets a slot of its
own, and a copy of what is shared. A prompt that is being read already waits for its reader. Plain decisions, no engine.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec

WORTH_COPYING_TOKENS: Final = 128
"""A shared beginning shorter than this is read again: that is as quick as to copy it."""
TURN_TOKENS: Final = 8
"""How much at the end of a prompt may change when its session goes on: templates write the last turn anew."""
FIRST_SECONDS_PER_TOKEN: Final = 0.004
"""Reading speed before any was measured: SmolLM2-135M on two cores."""


class Take(msgspec.Struct, frozen=True):
    """Use this slot, with what another one has read or what was put aside, where that is set."""

    slot: int
    copied_from: int | None = None
    fetched: int | None = None
    """The number of what was put aside."""


class Join(msgspec.Struct, frozen=True):
    """The slot works on this very prompt: wait for it."""

    slot: int
    is_reading: bool
    """It still reads the prompt; afterwards waiting should cost no more than `missing_tokens` do."""
    missing_tokens: int
    """What would have to be read instead."""


class Surplus(msgspec.Struct, frozen=True):
    """What is to be emptied so that a slot can be taken, and which one that is in the end."""

    take: Take
    emptied: tuple[int, ...]
    put_aside: tuple[tuple[int, int], ...] = ()
    """Slots whose content is saved first, and the numbers it gets."""
    dropped: tuple[int, ...] = ()
    """Numbers of what was put aside and is not kept any longer."""


class _Slot:
    def __init__(self, number: int) -> None:
        self.number = number
        self.tokens: Sequence[int] = ()
        """What it has read and said, as far as is known."""
        self.num_prompt = 0
        self.is_busy = False
        self.is_reading = False
        self.used_at = 0


class SlotBook:
    """What each slot holds, and who works in it."""

    def __init__(self, num_slots: int, *, can_copy: bool, aside_tokens: int = 0) -> None:
        """`aside_tokens`: how much may be put aside when slots are emptied."""
        self._slots = [_Slot(number) for number in range(num_slots)]
        self._aside: OrderedDict[int, Sequence[int]] = OrderedDict()
        self._aside_tokens = aside_tokens if can_copy else 0
        self._can_copy = can_copy
        self._time = 0
        self.seconds_per_token = FIRST_SECONDS_PER_TOKEN

    def choose(self, prompt: Sequence[int], *, may_join: bool = True) -> Take | Join:
        """A slot for this prompt; one at least must be idle unless the decision is to join."""
        shared = {slot.number: common(slot.tokens, prompt) for slot in self._slots}
        idle = self._idle()
        best = max(idle, key=lambda slot: shared[slot.number], default=None)
        known = shared[best.number] if best is not None else 0
        if may_join and (joined := self._worker_on(prompt, shared, known)) is not None:
            return Join(joined.number, joined.is_reading, len(prompt) - known)
        assert best is not None, "admitted without a slot"
        target = next((slot for slot in idle if not slot.tokens), idle[0])
        aside = max(self._aside, key=lambda number: common(self._aside[number], prompt), default=None)
        if aside is not None and common(self._aside[aside], prompt) - known >= WORTH_COPYING_TOKENS:
            return Take(target.number, fetched=aside)
        if self._goes_on(best.number, prompt):
            return Take(best.number)
        if target is best or known - shared[target.number] < WORTH_COPYING_TOKENS:
            return Take(target.number)
        return Take(target.number, best.number) if self._can_copy else Take(best.number)

    def surplus(self, take: Take, prompt: Sequence[int], reserved_tokens: int, capacity_tokens: int) -> Surplus:
        """Which idle slots make room, the longest unused first, until idle and running ones fit the pool together.

        `reserved_tokens`: of all that run, this prompt included. Where a copy finds no room beside its original, the
        original is used up.
        """
        num_prompt = len(prompt)
        idle = [slot for slot in self._idle() if slot.tokens and slot.number != take.slot]
        held = sum(len(slot.tokens) for slot in idle)
        source = take.copied_from
        # What is copied or fetched is whole before it is cut down to what is shared.
        origin = self._slots[source].tokens if source is not None else self._aside.get(take.fetched or 0, ())
        needed = reserved_tokens + max(0, len(origin) - num_prompt)
        emptied: list[int] = []
        for slot in idle:
            if needed + held > capacity_tokens and slot.number != source:
                held -= len(slot.tokens)
                emptied.append(slot.number)
        if needed + held > capacity_tokens and (source is not None or take.fetched is not None):
            take = Take(take.slot if source is None else source)
        is_displaced = take.copied_from is not None or take.fetched is not None or not self._goes_on(take.slot, prompt)
        put_aside, dropped = self._put_aside([*emptied, *([take.slot] if is_displaced else [])])
        return Surplus(take, tuple(emptied), put_aside, tuple(dropped))

    def begin(self, number: int, prompt: Sequence[int]) -> None:
        """A run starts in this slot."""
        slot = self._slots[number]
        self._time += 1
        slot.tokens, slot.num_prompt, slot.used_at = prompt, len(prompt), self._time
        slot.is_busy = slot.is_reading = True

    def has_read(self, number: int) -> None:
        """The prompt is read, the answer begins."""
        self._slots[number].is_reading = False

    def end(self, number: int, tokens: Sequence[int]) -> None:
        """The slot is idle again and holds these tokens."""
        slot = self._slots[number]
        slot.tokens, slot.is_busy, slot.is_reading = tokens, False, False
        slot.num_prompt = min(slot.num_prompt, len(tokens))

    def forget(self, number: int) -> None:
        """What was put aside under this number is not to be had any more."""
        self._aside.pop(number, None)

    def empty(self, number: int) -> None:
        """The slot holds nothing any more."""
        self._slots[number].tokens, self._slots[number].num_prompt = (), 0

    def measure(self, num_tokens: int, seconds: float) -> None:
        """So long did it take to read so many tokens."""
        if num_tokens > 0:
            self.seconds_per_token += 0.3 * (seconds / num_tokens - self.seconds_per_token)

    def _goes_on(self, number: int, prompt: Sequence[int]) -> bool:
        """Whether the prompt continues what the slot has read, or repeats it."""
        slot = self._slots[number]
        return common(slot.tokens, prompt) >= max(1, min(len(prompt), slot.num_prompt) - TURN_TOKENS)

    def _put_aside(self, numbers: Sequence[int]) -> tuple[tuple[tuple[int, int], ...], list[int]]:
        """Which of these slots are worth saving, under which numbers; and what has to go for them."""
        saved: list[tuple[int, int]] = []
        for number in numbers:
            tokens = self._slots[number].tokens
            if WORTH_COPYING_TOKENS <= len(tokens) <= self._aside_tokens:
                self._time += 1
                self._aside[self._time] = tokens
                saved.append((number, self._time))
        dropped: list[int] = []
        while sum(map(len, self._aside.values())) > self._aside_tokens:
            oldest = next(iter(self._aside))
            del self._aside[oldest]
            dropped.append(oldest)
        return tuple(each for each in saved if each[1] not in dropped), dropped

    def _idle(self) -> list[_Slot]:
        """The longest unused first."""
        return sorted((slot for slot in self._slots if not slot.is_busy), key=lambda slot: slot.used_at)

    def _worker_on(self, prompt: Sequence[int], shared: dict[int, int], known: int) -> _Slot | None:
        """A busy slot whose whole prompt begins this one, or is begun by it, and that saves reading much."""
        return next(
            (
                slot
                for slot in self._slots
                if slot.is_busy
                and shared[slot.number] >= min(len(prompt), slot.num_prompt)
                and shared[slot.number] - known >= WORTH_COPYING_TOKENS
            ),
            None,
        )


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens both begin with; compares slices, so that 100,000 tokens cost a millisecond."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low

"""Who may run now: slots and a pool of cache tokens shared by all running sequences. Plain decisions, no engine.

llama.cpp fails *every* running request when its shared cache overflows, so nothing may enter that does not fit, and
when running sequences outgrow the pool the youngest steps back: it waits in front of the queue and continues later.

A sequence reserves its prompt and a little room to answer (never a client's whole `max_tokens`, which agents set to
32,000 and more), and reserves again as it grows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec

from pensieve.errors import Overloaded

GROWTH_TOKENS = 256
"""Room reserved ahead of a growing answer: large enough to be rare, small enough not to waste the pool."""

MARGIN_TOKENS = 16
"""A sequence asks for more this early, so that another one can step back before the pool is really full."""


class Demand(msgspec.Struct, frozen=True):
    """What a sequence needs: tokens it holds at the start, and the most it can ever come to hold."""

    id: str
    start_tokens: int
    most_tokens: int


class TokenPool:
    """First come, first served; the head of the queue waits until it fits, and is not overtaken."""

    def __init__(self, *, capacity_tokens: int, num_slots: int, queue_limit: int) -> None:
        self.capacity_tokens = capacity_tokens
        self._num_slots = self._most_running = num_slots
        self._queue_limit = queue_limit
        self._waiting: OrderedDict[str, Demand] = OrderedDict()
        self._running: OrderedDict[str, Demand] = OrderedDict()
        self._reserved: dict[str, int] = {}
        self._owed: dict[str, int] = {}
        """Tokens that growing sequences asked for in vain; whoever steps back makes room for these first."""

    @property
    def num_running(self) -> int:
        """Sequences that hold a slot."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Sequences in the queue."""
        return len(self._waiting)

    @property
    def free_tokens(self) -> int:
        """Tokens of the pool that nobody has reserved."""
        return self.capacity_tokens - self.reserved_tokens

    def limit_running(self, most: int | None) -> None:
        """Let no more than so many run from now on, those that do go on; None: as many as there are slots."""
        self._most_running = self._num_slots if most is None else min(most, self._num_slots)

    def younger_half(self) -> tuple[str, ...]:
        """Of those that run, the youngest first; one alone has no younger half."""
        running = tuple(self._running)
        return tuple(reversed(running[(len(running) + 1) // 2 :]))

    def enqueue(self, demand: Demand) -> None:
        """Put a new sequence at the end of the queue. Raises `Overloaded` when the queue is full."""
        if len(self._waiting) >= self._queue_limit:
            raise Overloaded(f"{len(self._waiting)} requests are already waiting for this model", 5.0)
        self._waiting[demand.id] = demand

    def admit(self) -> list[str]:
        """Ids of the waiting sequences that may run from now on, in order."""
        admitted = []
        while self._waiting and len(self._running) < self._most_running:
            demand = next(iter(self._waiting.values()))
            need = min(demand.start_tokens + GROWTH_TOKENS, demand.most_tokens, self.capacity_tokens)
            if need > self.free_tokens - sum(self._owed.values()):
                break
            del self._waiting[demand.id]
            self._running[demand.id] = demand
            self._reserved[demand.id] = need
            admitted.append(demand.id)
        return admitted

    @property
    def reserved_tokens(self) -> int:
        """Tokens of the pool that running sequences have reserved."""
        return sum(self._reserved.values())

    def grow(
        self, sequence_id: str, held_tokens: int, *, is_pinned: Callable[[str], bool] = lambda _: False
    ) -> str | None:
        """Tell that a running sequence now holds this many tokens; gives the id of one that must step back, if any.

        It is the youngest of those that are not pinned, or of all.
        """
        reserved, most = self._reserved[sequence_id], self._running[sequence_id].most_tokens
        if held_tokens + MARGIN_TOKENS < reserved or reserved >= most:
            return None
        want = min(held_tokens + GROWTH_TOKENS, most)
        if want - reserved <= self.free_tokens:
            self._reserved[sequence_id] = want
            self._owed.pop(sequence_id, None)
            return None
        self._owed[sequence_id] = want - reserved
        youngest_first = list(reversed(self._running))
        return next((other for other in youngest_first if not is_pinned(other)), youngest_first[0])

    def step_back(self, sequence_id: str, held_tokens: int) -> None:
        """The sequence left its slot unfinished: it goes to the front of the queue with what it holds now."""
        demand = self._running.pop(sequence_id)
        del self._reserved[sequence_id]
        self._owed.pop(sequence_id, None)
        self._waiting[sequence_id] = Demand(sequence_id, held_tokens, demand.most_tokens)
        self._waiting.move_to_end(sequence_id, last=False)

    def leave(self, sequence_id: str) -> None:
        """The sequence is done, or its client is gone; unknown ids are fine."""
        self._waiting.pop(sequence_id, None)
        self._running.pop(sequence_id, None)
        self._reserved.pop(sequence_id, None)
        self._owed.pop(sequence_id, None)

    def check_integrity(self) -> None:
        """Raise `AssertionError` if the books do not balance."""
        assert self._reserved.keys() == self._running.keys(), "reserved without a slot"
        assert self._owed.keys() <= self._running.keys(), "owed to nobody"
        assert not self._running.keys() & self._waiting.keys(), "both running and waiting"
        assert len(self._running) <= self._num_slots, "more sequences than slots"
        assert 0 <= self.free_tokens <= self.capacity_tokens, "the pool is overdrawn"

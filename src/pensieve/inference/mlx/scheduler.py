"""Which sequence is read, decoded or made to wait next: plain decisions, no arrays.

First come, first served, with two exceptions: a short prompt is read beside a long one instead of behind it, and a
prompt that begins as one being read does waits for it, since the prefix cache will then have that part for nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from pensieve.errors import Overloaded

MAX_READING = 2
"""Prompts that are read in turns: the oldest, and one that is much shorter."""

SHORT_SHARE = 0.25
"""A prompt is short if it has at most this share of the tokens that the one being read still has."""

SHARED_TOKENS = 256
"""A common beginning of this many unread tokens is worth waiting for."""


class Reading:
    """A prompt that is being read."""

    def __init__(self, tokens: Sequence[int], num_read: int) -> None:
        self.tokens = tokens
        self.num_read = num_read

    @property
    def num_unread(self) -> int:
        """Tokens to go."""
        return len(self.tokens) - self.num_read


class Scheduler:
    """The queue, who is being read, and who decodes; each sequence is in one of them."""

    def __init__(self, *, max_rows: int, queue_limit: int) -> None:
        self._max_rows = self._most_running = max_rows
        self._queue_limit = queue_limit
        self._waiting: OrderedDict[str, Sequence[int]] = OrderedDict()
        self._reading: OrderedDict[str, Reading] = OrderedDict()
        self._decoding: OrderedDict[str, None] = OrderedDict()

    @property
    def num_waiting(self) -> int:
        """Sequences in the queue."""
        return len(self._waiting)

    @property
    def reading(self) -> tuple[str, ...]:
        """Sequences whose prompt is being read, oldest first."""
        return tuple(self._reading)

    @property
    def decoding(self) -> tuple[str, ...]:
        """Sequences that speak, oldest first."""
        return tuple(self._decoding)

    @property
    def is_idle(self) -> bool:
        """There is nothing to do."""
        return not (self._waiting or self._reading or self._decoding)

    def limit_rows(self, max_rows: int) -> None:
        """Let at most so many run at once; call it before anything does."""
        self._max_rows = self._most_running = min(self._max_rows, max_rows)

    def limit_running(self, most: int | None) -> None:
        """Let nobody join while so many run; those that do go on. None: as many as there are rows."""
        self._most_running = self._max_rows if most is None else min(most, self._max_rows)

    def younger_half(self) -> tuple[str, ...]:
        """Of those that speak, the youngest first; one alone has no younger half."""
        speaking = self.decoding
        return tuple(reversed(speaking[(len(speaking) + 1) // 2 :]))

    def enqueue(self, sequence_id: str, tokens: Sequence[int]) -> None:
        """Put a new sequence at the end of the queue. Raises `Overloaded` when the queue is full."""
        if len(self._waiting) >= self._queue_limit:
            raise Overloaded(f"{len(self._waiting)} requests are already waiting for this model", 5.0)
        self._waiting[sequence_id] = tokens

    def step_back(self, sequence_id: str, tokens: Sequence[int]) -> None:
        """A sequence that ran goes to the front of the queue, with all it has said as prompt."""
        self.leave(sequence_id)
        self._waiting[sequence_id] = tokens
        self._waiting.move_to_end(sequence_id, last=False)

    def candidate(self) -> str | None:
        """The waiting sequence that may be admitted now, if there is room for one; see `admit`."""
        if len(self._reading) + len(self._decoding) >= self._most_running or not self._waiting:
            return None
        if not self._reading:
            return next(iter(self._waiting))
        if len(self._reading) >= MAX_READING:
            return None
        longest = max(reading.num_unread for reading in self._reading.values())
        return next(
            (
                sequence_id
                for sequence_id, tokens in self._waiting.items()
                if len(tokens) <= SHORT_SHARE * longest and not self._is_being_read(tokens)
            ),
            None,
        )

    def admit(self, sequence_id: str, *, num_read: int) -> None:
        """Its prompt is read from now on; `num_read` tokens came from the cache."""
        self._reading[sequence_id] = Reading(self._waiting.pop(sequence_id), num_read)

    def next_read(self) -> str | None:
        """Whose prompt the next chunk is for: those being read take turns."""
        return next(iter(self._reading), None)

    def advance(self, sequence_id: str, num_read: int) -> None:
        """A chunk was read; it is somebody else's turn."""
        self._reading[sequence_id].num_read = num_read
        self._reading.move_to_end(sequence_id)

    def decode(self, sequence_id: str) -> None:
        """Its prompt is read; it speaks from now on."""
        del self._reading[sequence_id]
        self._decoding[sequence_id] = None

    def leave(self, sequence_id: str) -> None:
        """It is done, or nobody listens any more; unknown ids are fine."""
        self._waiting.pop(sequence_id, None)
        self._reading.pop(sequence_id, None)
        self._decoding.pop(sequence_id, None)

    def check_integrity(self) -> None:
        """Raise `AssertionError` if the books do not balance."""
        places = [*self._waiting, *self._reading, *self._decoding]
        assert len(places) == len(set(places)), "a sequence is in two places"
        assert len(self._reading) + len(self._decoding) <= self._max_rows, "more sequences than rows"
        assert len(self._reading) <= MAX_READING, "too many prompts are read at once"
        assert all(0 <= reading.num_read <= len(reading.tokens) for reading in self._reading.values()), "read too far"

    def _is_being_read(self, tokens: Sequence[int]) -> bool:
        """Whether somebody is reading a prompt with the same beginning, and has not come to where they part."""
        for reading in self._reading.values():
            end = min(len(tokens), reading.num_read + SHARED_TOKENS, len(reading.tokens))
            if end >= SHARED_TOKENS and tokens[:end] == reading.tokens[:end]:
                return True
        return False

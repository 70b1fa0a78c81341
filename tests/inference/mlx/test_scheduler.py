"""The scheduler's order: a fair queue with its two exceptions, and books that always balance."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from pensieve.errors import Overloaded
from pensieve.inference.mlx.scheduler import MAX_READING, SHARED_TOKENS, Scheduler

MAX_ROWS = 3
QUEUE_LIMIT = 6


def scheduler_with(*prompts: list[int], max_rows: int = 8) -> Scheduler:
    """A scheduler with these prompts in the queue, named a, b, c, ..."""
    scheduler = Scheduler(max_rows=max_rows, queue_limit=64)
    for name, prompt in zip("abcdefgh", prompts, strict=False):
        scheduler.enqueue(name, prompt)
    return scheduler


def admit(scheduler: Scheduler, num_read: int = 0) -> str:
    """Admit the candidate there must be."""
    sequence_id = scheduler.candidate()
    assert sequence_id is not None
    scheduler.admit(sequence_id, num_read=num_read)
    return sequence_id


def prompt(num_tokens: int, seed: int = 0) -> list[int]:
    """Tokens that begin differently for every seed."""
    return [seed * 100_000 + place for place in range(num_tokens)]


def test_equal_lengths_are_served_in_the_order_they_came() -> None:
    """Each is read to its end before the next begins."""
    scheduler = scheduler_with(*(prompt(100, seed) for seed in range(4)))
    order = []
    while scheduler.num_waiting:
        order.append(admit(scheduler))
        assert scheduler.candidate() is None
        scheduler.decode(order[-1])
    assert order == ["a", "b", "c", "d"]
    assert scheduler.decoding == ("a", "b", "c", "d")


def test_a_short_prompt_is_read_beside_a_long_one_in_turns() -> None:
    """It need not wait for the long one; a third waits, however short."""
    scheduler = scheduler_with(prompt(1000), prompt(900, 1), prompt(200, 2), prompt(10, 3))
    assert [admit(scheduler), admit(scheduler)] == ["a", "c"]
    assert scheduler.candidate() is None
    turns = []
    for _ in range(4):
        turns.append(scheduler.next_read())
        scheduler.advance(turns[-1] or "", 50)
    assert turns == ["a", "c", "a", "c"]


def test_what_is_left_to_read_decides_what_is_short() -> None:
    """Towards its end a long prompt is not long any more."""
    scheduler = scheduler_with(prompt(1000), prompt(200, 1))
    admit(scheduler)
    assert scheduler.candidate() == "b"
    scheduler.advance("a", 300)
    assert scheduler.candidate() is None


def test_a_prompt_that_is_being_read_is_waited_for() -> None:
    """Reading its beginning twice is waste; one that parts early need not wait, nor one whose part has been read."""
    shared = prompt(2 * SHARED_TOKENS)
    scheduler = scheduler_with(prompt(9000), shared + prompt(9, 7), shared[:200] + prompt(100, 7))
    admit(scheduler)
    assert scheduler.candidate() == "c"
    scheduler.leave("c")
    for num_read, candidate in ((0, None), (SHARED_TOKENS, None), (SHARED_TOKENS + 1, "b")):
        scheduler.advance("a", num_read)
        assert scheduler.candidate() == candidate


def test_a_sequence_that_steps_back_is_the_next_and_has_all_its_tokens() -> None:
    """It ran before those in the queue came."""
    scheduler = scheduler_with(prompt(10), prompt(10, 1))
    scheduler.decode(admit(scheduler))
    scheduler.step_back("a", prompt(12))
    assert (scheduler.decoding, scheduler.num_waiting) == ((), 2)
    assert admit(scheduler) == "a"
    assert scheduler._reading["a"].num_unread == 12


def test_the_queue_has_an_end() -> None:
    """One more is refused with a number of seconds; those who run take no place in it."""
    scheduler = Scheduler(max_rows=1, queue_limit=2)
    scheduler.enqueue("a", [1])
    admit(scheduler)
    scheduler.enqueue("b", [1])
    scheduler.enqueue("c", [1])
    with pytest.raises(Overloaded, match="2 requests are already waiting"):
        scheduler.enqueue("d", [1])
    assert scheduler.num_waiting == 2


class Life(RuleBasedStateMachine):
    """Sequences come, are admitted, read, decoded, step back and leave at any moment."""

    sequences = Bundle("sequences")

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(max_rows=MAX_ROWS, queue_limit=QUEUE_LIMIT)
        self.present: set[str] = set()
        self.num_made = 0

    @rule(target=sequences, length=st.sampled_from([1, 40, 400, 4000]), seed=st.integers(0, 1))
    def come(self, length: int, seed: int) -> str:
        """A new sequence, or no room in the queue."""
        self.num_made += 1
        name = str(self.num_made)
        try:
            self.scheduler.enqueue(name, prompt(length, seed))
        except Overloaded:
            assert self.scheduler.num_waiting >= QUEUE_LIMIT
        else:
            self.present.add(name)
        return name

    @rule(share=st.sampled_from([0.0, 0.5, 1.0]))
    def admit(self, share: float) -> None:
        """The candidate begins, with a part of its prompt from the cache."""
        name = self.scheduler.candidate()
        if name is None:
            assert self.scheduler.reading or self.scheduler.decoding or not self.scheduler.num_waiting
            return
        tokens = self.scheduler._waiting[name]
        self.scheduler.admit(name, num_read=int((len(tokens) - 1) * share))

    @precondition(lambda self: self.scheduler.reading)
    @rule(is_done=st.booleans())
    def read(self, is_done: bool) -> None:
        """Whose turn it is reads on, perhaps to the end."""
        name = self.scheduler.next_read()
        assert name is not None
        reading = self.scheduler._reading[name]
        self.scheduler.advance(name, min(reading.num_read + 100, len(reading.tokens)))
        if is_done:
            self.scheduler.decode(name)

    @precondition(lambda self: self.scheduler.decoding)
    @rule()
    def step_back(self) -> None:
        """The youngest that speaks waits again."""
        self.scheduler.step_back(self.scheduler.decoding[-1], prompt(50))

    @rule(name=consumes(sequences))
    def leave(self, name: str) -> None:
        """It is done, cancelled or failed, wherever it is."""
        self.scheduler.leave(name)
        self.present.discard(name)

    @invariant()
    def nothing_is_lost(self) -> None:
        """Everybody is somewhere, once; who waits while nothing runs is a candidate."""
        self.scheduler.check_integrity()
        scheduler = self.scheduler
        places = [*scheduler._waiting, *scheduler.reading, *scheduler.decoding]
        assert sorted(places) == sorted(self.present)
        assert scheduler.is_idle == (not self.present)
        assert len(scheduler.reading) <= MAX_READING
        if scheduler.num_waiting and not scheduler.reading and not scheduler.decoding:
            assert scheduler.candidate() is not None


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_whatever_happens_the_books_balance = Life.TestCase

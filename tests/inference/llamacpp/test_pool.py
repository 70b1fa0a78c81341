"""The token pool: who may run, who waits, who steps back."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pensieve.errors import Overloaded
from pensieve.inference.llamacpp.pool import GROWTH_TOKENS, Demand, TokenPool


def pool(capacity_tokens: int = 1000, num_slots: int = 4, queue_limit: int = 8) -> TokenPool:
    """A small pool."""
    return TokenPool(capacity_tokens=capacity_tokens, num_slots=num_slots, queue_limit=queue_limit)


def test_requests_run_while_slots_and_tokens_last() -> None:
    """A request reserves its prompt and some room, not all it might ever say."""
    tokens = pool()
    for name in "abc":
        tokens.enqueue(Demand(name, 100, 1000))
    assert tokens.admit() == ["a", "b"]
    tokens.leave("a")
    assert tokens.admit() == ["c"]


def test_the_head_of_the_queue_is_not_overtaken() -> None:
    """A small request behind a large one waits its turn, or large ones would starve."""
    tokens = pool()
    tokens.enqueue(Demand("running", 500, 510))
    tokens.enqueue(Demand("large", 900, 950))
    tokens.enqueue(Demand("small", 10, 20))
    assert tokens.admit() == ["running"]
    tokens.leave("running")
    assert tokens.admit() == ["large", "small"]


def test_a_full_queue_refuses() -> None:
    """Beyond the limit a client is told to come back, at once."""
    tokens = pool(queue_limit=1)
    tokens.enqueue(Demand("a", 1, 2))
    with pytest.raises(Overloaded) as caught:
        tokens.enqueue(Demand("b", 1, 2))
    assert caught.value.retry_after_seconds > 0


def test_whoever_is_pinned_steps_back_last() -> None:
    """The youngest of the others goes; if all are pinned, the youngest of all."""
    tokens = pool(capacity_tokens=600)
    for name in "ab":
        tokens.enqueue(Demand(name, 20, 600))
    tokens.enqueue(Demand("c", 5, 10))
    assert tokens.admit() == ["a", "b", "c"]
    assert tokens.grow("a", 20 + GROWTH_TOKENS, is_pinned=lambda name: name == "c") == "b"
    assert tokens.grow("a", 20 + GROWTH_TOKENS, is_pinned=lambda _: True) == "c"


def test_the_youngest_steps_back_when_the_pool_is_full() -> None:
    """It continues in front of the queue with what it holds."""
    tokens = pool(capacity_tokens=600)
    for name in "ab":
        tokens.enqueue(Demand(name, 20, 600))
    tokens.enqueue(Demand("c", 5, 10))
    assert tokens.admit() == ["a", "b", "c"]
    assert tokens.grow("a", 20 + GROWTH_TOKENS) == "c"
    tokens.step_back("c", 7)
    assert tokens.grow("a", 20 + GROWTH_TOKENS) == "b"
    tokens.step_back("b", 200)
    assert tokens.grow("a", 20 + GROWTH_TOKENS) is None
    tokens.leave("a")
    assert tokens.admit() == ["b", "c"]


def test_room_made_for_one_is_not_given_to_the_next() -> None:
    """Who stepped back must not take at once what it gave, or the two would push each other in and out for ever."""
    tokens = pool(capacity_tokens=900)
    for name in "ab":
        tokens.enqueue(Demand(name, 20, 800))
    assert tokens.admit() == ["a", "b"]
    assert tokens.grow("b", 300) is None
    assert tokens.grow("a", 270) == "b"
    tokens.step_back("b", 300)
    assert tokens.admit() == []
    assert tokens.grow("a", 271) is None
    assert tokens.admit() == []
    tokens.leave("a")
    assert tokens.admit() == ["b"]


def test_one_request_may_use_the_whole_pool() -> None:
    """Alone, a sequence grows to its end without stepping back."""
    tokens = pool(capacity_tokens=600)
    tokens.enqueue(Demand("a", 100, 600))
    assert tokens.admit() == ["a"]
    assert [tokens.grow("a", held) for held in range(100, 601)] == [None] * 501


class Traffic(RuleBasedStateMachine):
    """Random traffic: whatever happens the books balance, and an idle pool admits whoever waits."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = pool(capacity_tokens=2000, num_slots=3, queue_limit=5)
        self.held: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.running: set[str] = set()
        self.count = 0

    @rule(start=st.integers(1, 1500), more=st.integers(1, 2000))
    def arrive(self, start: int, more: int) -> None:
        """A request comes."""
        self.count += 1
        name = str(self.count)
        demand = Demand(name, start, min(2000, start + more))
        try:
            self.pool.enqueue(demand)
        except Overloaded:
            return
        self.held[name], self.most[name] = start, demand.most_tokens

    @rule()
    def admit(self) -> None:
        """Those that fit begin to run."""
        self.running |= set(self.pool.admit())

    @precondition(lambda self: self.running)
    @rule(data=st.data(), tokens=st.integers(1, 15))
    def grow(self, data: st.DataObject, tokens: int) -> None:
        """A running one says more, and somebody may have to step back."""
        name = data.draw(st.sampled_from(sorted(self.running)))
        self.held[name] = min(self.most[name], self.held[name] + tokens)
        if victim := self.pool.grow(name, self.held[name]):
            self.running.remove(victim)
            self.pool.step_back(victim, self.held[victim])
            self.admit()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """Somebody is done, or hangs up."""
        name = data.draw(st.sampled_from(sorted(self.held)))
        self.pool.leave(name)
        del self.held[name]
        self.running.discard(name)

    @invariant()
    def books_balance(self) -> None:
        """Nobody runs without a seat, and all that is held fits."""
        self.pool.check_integrity()
        assert self.pool.num_running == len(self.running)
        assert sum(self.held[name] for name in self.running) <= self.pool.capacity_tokens

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """If nothing runs, the head of the queue is admitted."""
        if self.pool.num_running == 0 and self.pool.num_waiting:
            self.admit()
            assert self.pool.num_running > 0


Traffic.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestTraffic = Traffic.TestCase


def test_fewer_may_run_for_a_while() -> None:
    """Those that run go on; without the limit, as many as there are slots."""
    pool = TokenPool(capacity_tokens=10_000, num_slots=4, queue_limit=9)
    for name in "abc":
        pool.enqueue(Demand(name, 10, 20))
    pool.limit_running(1)
    assert pool.admit() == ["a"]
    pool.limit_running(None)
    assert pool.admit() == ["b", "c"]
    pool.limit_running(1)
    pool.enqueue(Demand("d", 10, 20))
    assert (pool.admit(), pool.num_running) == ([], 3)
    assert pool.younger_half() == ("c",)

"""Which models stay in memory, decided from sizes alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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

GB = 10**9


def wanting(wanted_gb: float | None, smallest_gb: float | None = None) -> Candidate:
    """A model `new` of that size."""
    wanted = None if wanted_gb is None else round(wanted_gb * GB)
    smallest = wanted if smallest_gb is None else round(smallest_gb * GB)
    return Candidate(name="new", wanted_bytes=wanted, smallest_bytes=smallest)


def here(name: str = "old", frees_gb: float = 4.0, used_seconds: float = 0.0, num_running: int = 0) -> Occupant:
    """A model in memory."""
    return Occupant(name=name, frees_bytes=round(frees_gb * GB), used_seconds=used_seconds, num_running=num_running)


def decided(
    candidate: Candidate, *occupants: Occupant, spare_gb: float | None, most: int = 1, may_end: bool = False
) -> Decision:
    """What is decided with that much memory to spare."""
    spare = None if spare_gb is None else round(spare_gb * GB)
    return decide(candidate, occupants, spare, most_models=most, may_end_answers=may_end)


def test_an_empty_machine_loads() -> None:
    """Also where nobody knows what memory there is, and where less than the whole context fits."""
    assert decided(wanting(4), spare_gb=8) == Load("new")
    assert decided(wanting(4), spare_gb=None) == decided(wanting(None), spare_gb=8) == Load("new")
    assert decided(wanting(10, 3), spare_gb=4) == Load("new")


def test_where_memory_holds_both_the_new_one_is_loaded_first() -> None:
    """Even while the old one answers: nobody waits."""
    assert decided(wanting(4), here(num_running=3), spare_gb=5) == Swap("new", ("old",), is_loaded_first=True)


def test_where_it_does_not_the_old_one_goes_first() -> None:
    """A gap that holds only a short context is no room."""
    swap = decided(wanting(6, 2), here(), spare_gb=3)
    assert isinstance(swap, Swap)
    assert (swap.leaving, swap.is_loaded_first) == (("old",), False)
    assert swap.reason == "it needs 6.00 GB, and 3.00 GB can be had beside what is loaded"


def test_answers_under_way_are_waited_for() -> None:
    """Unless whoever asks may end them."""
    answer = decided(wanting(6), here(num_running=2), spare_gb=3)
    assert isinstance(answer, Wait)
    assert (answer.leaving, answer.num_running) == (("old",), 2)
    assert isinstance(decided(wanting(6), here(num_running=2), spare_gb=3, may_end=True), Swap)


def test_what_never_fits_is_refused_with_numbers_and_nothing_goes() -> None:
    """What could be had counts the old model's memory."""
    refusal = decided(wanting(20, 12), here(frees_gb=4), spare_gb=3)
    assert isinstance(refusal, Refuse)
    assert (refusal.needed_bytes, refusal.available_bytes) == (12 * GB, 7 * GB)
    assert refusal.reason == "it needs 12.00 GB of memory, and 7.00 GB can be had even without old"


def test_the_one_used_longest_ago_goes_and_no_more_than_must() -> None:
    """By number where memory holds all, by bytes where it does not."""
    three = (here("a", 2, 30.0), here("b", 2, 10.0), here("c", 2, 20.0))
    assert decided(wanting(1), *three, spare_gb=9, most=4) == Load("new")
    assert decided(wanting(1), *three, spare_gb=9, most=3) == Swap("new", ("b",), is_loaded_first=True)
    swap = decided(wanting(4), *three, spare_gb=1, most=4)
    assert isinstance(swap, Swap)
    assert (swap.leaving, swap.is_loaded_first) == (("b", "c"), False)


def test_a_model_that_is_there_takes_nothing() -> None:
    """It may only have to be the only one."""
    there = Candidate(name="new", wanted_bytes=0, smallest_bytes=0)
    assert decided(there, here("new"), spare_gb=0) == Load("new")
    assert decided(there, here("new"), here(), spare_gb=0) == Swap("new", ("old",), is_loaded_first=True)


@given(
    wanted=st.integers(0, 40),
    smallest=st.integers(0, 40),
    spare=st.integers(-5, 40),
    sizes=st.lists(st.integers(0, 20), max_size=5),
    most=st.integers(1, 6),
)
def test_what_is_decided_fits_and_keeps_the_number(
    wanted: int, smallest: int, spare: int, sizes: list[int], most: int
) -> None:
    """Whatever the sizes; a refusal is true even with everything gone."""
    candidate = Candidate(name="new", wanted_bytes=wanted, smallest_bytes=min(smallest, wanted))
    occupants = [Occupant(name=str(at), frees_bytes=size) for at, size in enumerate(sizes)]
    decision = decide(candidate, occupants, spare, most_models=most, may_end_answers=True)
    leaving = decision.leaving if isinstance(decision, Swap) else ()
    room = spare + sum(occupant.frees_bytes for occupant in occupants if occupant.name in leaving)
    if isinstance(decision, Refuse):
        assert min(smallest, wanted) > spare + sum(sizes)
    else:
        assert len(sizes) - len(leaving) + 1 <= most
        assert room >= min(smallest, wanted) or wanted == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Loading("b", ("a",)), "loading b while a stays"),
        (Loaded("b", 1.26), "b is there after 1.3 s"),
        (Draining("a", 2, 60.0), "a ends 2 answers first, within 60 s"),
        (Ended("a", "it is full"), "a has left memory: it is full"),
        (Restoring("a", "b is broken"), "b is broken; a comes back"),
    ],
)
def test_changes_are_told_in_words(change: Change, words: str) -> None:
    """For the chat and the log."""
    assert describe(change) == words

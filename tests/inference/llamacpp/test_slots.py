"""Which slot serves a prompt: sessions keep theirs, what is shared is copied, a resend waits for its reader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.inference.llamacpp.slots import Join, SlotBook, Take, common

SHARED = list(range(1000, 1600))


def book(num_slots: int = 3, *, can_copy: bool = True) -> SlotBook:
    """Empty slots."""
    return SlotBook(num_slots, can_copy=can_copy)


def serve(slots: SlotBook, prompt: list[int], answer: tuple[int, ...] = (1, 2, 3)) -> Take:
    """A prompt that is read and answered."""
    take = slots.choose(prompt)
    assert isinstance(take, Take)
    slots.surplus(take, prompt, 0, 10_000)
    slots.begin(take.slot, prompt)
    slots.has_read(take.slot)
    slots.end(take.slot, [*prompt, *answer])
    return take


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_the_common_beginning_is_found(first: list[int], second: list[int]) -> None:
    """As a loop would find it."""
    pairs = enumerate(zip(first, second, strict=False))
    expected = next((at for at, (one, other) in pairs if one != other), min(len(first), len(second)))
    assert common(first, second) == expected


def test_a_session_comes_back_to_its_slot() -> None:
    """Though another one, with the same beginning, was served last."""
    slots = book()
    one, other = [*SHARED, *[7] * 20], [*SHARED, *[8] * 20]
    first, second = serve(slots, one), serve(slots, other)
    assert second == Take(1, copied_from=first.slot)
    for _ in range(3):
        assert serve(slots, [*one, 1, 2, 3, 9]) == Take(first.slot)
        assert serve(slots, [*other, 1, 2, 3, 9]) == Take(second.slot)


def test_a_last_turn_that_is_written_anew_is_the_same_session() -> None:
    """Templates end a prompt otherwise than they go on."""
    slots = book()
    first = serve(slots, [*SHARED, 7, 50, 51])
    assert serve(slots, [*SHARED, 7, 60, 61, 62]) == Take(first.slot)


def test_the_longest_unused_slot_goes_first() -> None:
    """When all hold something."""
    slots = book(2)
    serve(slots, [1] * 50)
    serve(slots, [2] * 50)
    serve(slots, [1] * 60)
    assert serve(slots, [3] * 50) == Take(1)


def test_without_copies_the_shared_beginning_is_used_up() -> None:
    """Better than to read it again."""
    slots = book(can_copy=False)
    first = serve(slots, [*SHARED, *[7] * 100])
    assert serve(slots, [*SHARED, 8]) == Take(first.slot)


@pytest.mark.parametrize("more", [[], [9, 9]])
def test_a_resend_joins_whoever_reads_its_prompt(more: list[int]) -> None:
    """The same prompt or a longer one; another prompt does not wait."""
    slots = book()
    slots.begin(0, SHARED)
    assert slots.choose([*SHARED, *more]) == Join(0, is_reading=True, missing_tokens=600 + len(more))
    assert slots.choose([*SHARED[:500], 1]) == Take(1)
    slots.has_read(0)
    assert slots.choose([*SHARED, *more]) == Join(0, is_reading=False, missing_tokens=600 + len(more))
    assert slots.choose([*SHARED, *more], may_join=False) == Take(1)
    slots.end(0, SHARED)
    assert slots.choose([*SHARED, *more]) == Take(0)


def test_an_abandoned_prompt_leaves_what_was_read() -> None:
    """The next one goes on from there."""
    slots = book()
    slots.begin(0, SHARED)
    slots.end(0, SHARED[:256])
    assert slots.choose(SHARED) == Take(0)


def test_room_is_made_by_the_longest_unused() -> None:
    """Never by the slot that is taken, nor by the one that is copied."""
    slots = book(4)
    for number in range(3):
        serve(slots, [number] * 300)
    take = slots.choose([5] * 100)
    assert isinstance(take, Take)
    assert slots.surplus(take, [5] * 100, 100, 2000).emptied == ()
    assert slots.surplus(take, [5] * 100, 100, 800).emptied == (0,)
    assert slots.surplus(Take(3, copied_from=0), [0] * 300, 400, 1000).emptied == (1, 2)


def test_an_original_without_room_for_a_copy_is_used_up() -> None:
    """What is shared is not read again."""
    slots = book(2)
    serve(slots, [*SHARED, *[7] * 20])
    take = slots.choose([*SHARED, *[8] * 20])
    assert take == Take(1, copied_from=0)
    assert slots.surplus(take, [*SHARED, *[8] * 20], 800, 1000).take == Take(0)


def test_what_was_put_aside_is_fetched_again() -> None:
    """As long as there is room for it, the oldest goes first."""
    slots = SlotBook(1, can_copy=True, aside_tokens=1000)
    serve(slots, [1] * 400)
    assert slots.surplus(Take(0), [2] * 400, 0, 10_000).put_aside == ((0, 2),)
    serve(slots, [2] * 400)
    assert slots.choose([*[1] * 400, 9]) == Take(0, fetched=2)
    serve(slots, [3] * 400)
    assert isinstance(take := slots.choose([1] * 400), Take)
    assert take.fetched is None or take.fetched > 2

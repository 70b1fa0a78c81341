"""Which turns stay when the context is full."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.conversation.conversation import Turn
from pensieve.conversation.window import Count, Room, TooLong, Window, decide, reserved_for_answer, split
from pensieve.messages import say


def settle(room: Room, fixed: int, sizes: list[int]) -> tuple[Window | TooLong, int]:
    """The decision where the prompt's fixed part and each turn have that many tokens; and how often was counted."""
    counted: dict[int, int] = {}
    while isinstance(step := decide(room, counted), Count):
        assert step.start not in counted
        counted[step.start] = fixed + sum(sizes[step.start :])
    return step, len(counted)


def room(sizes: list[int], start: int = 0, limit: int = 1000, reserved: int = 200) -> Room:
    """Room for turns of these sizes."""
    return Room(num_turns=len(sizes), start=start, limit_tokens=limit, reserved_tokens=reserved)


def test_nothing_leaves_while_there_is_room() -> None:
    """One count is enough to know."""
    sizes = [100] * 7
    assert settle(room(sizes), 100, sizes) == (Window(start=0, prompt_tokens=800), 1)


def test_half_the_room_is_free_once_turns_leave() -> None:
    """Whole turns, oldest first, after few counts."""
    sizes = [10] * 80
    decision, num_counts = settle(room(sizes), 50, sizes)
    assert decision == Window(start=45, prompt_tokens=400, num_left=45)
    assert num_counts <= 9


def test_the_beginning_of_the_prompt_stays_for_many_turns() -> None:
    """A long conversation: the window moves once in many turns."""
    sizes: list[int] = []
    starts = [0]
    for _ in range(200):
        sizes.append(20)
        decision, _ = settle(room(sizes, starts[-1]), 50, sizes)
        assert isinstance(decision, Window)
        starts.append(decision.start)
    moves = sum(before != after for before, after in itertools.pairwise(starts))
    assert moves == 8
    assert starts[-1] > 150


def test_the_newest_turn_stays_if_it_can() -> None:
    """Though more than half the room is taken then."""
    sizes = [300, 300, 600]
    assert settle(room(sizes), 100, sizes)[0] == Window(start=2, prompt_tokens=700, num_left=2)


def test_a_question_may_take_the_answers_room() -> None:
    """It is asked alone, while the context holds it at all; beyond that is too long."""
    assert settle(room([50, 50]), 950, [50, 50])[0] == Window(start=2, prompt_tokens=950, num_left=2)
    assert settle(room([50, 50]), 1001, [50, 50])[0] == TooLong(prompt_tokens=1001, limit_tokens=1000)
    assert settle(room([]), 1001, [])[0] == TooLong(prompt_tokens=1001, limit_tokens=1000)


@given(st.lists(st.integers(1, 400), max_size=40), st.integers(0, 1100), st.integers(0, 45), st.integers(0, 900))
def test_every_window_is_sound(sizes: list[int], fixed: int, start: int, reserved: int) -> None:
    """It fits, nothing comes back, nothing leaves without need, and what is too long is so alone."""
    asked = room(sizes, start, reserved=reserved)
    decision, num_counts = settle(asked, fixed, sizes)
    start = min(start, len(sizes))
    assert num_counts <= 9
    match decision:
        case Window(start=found, prompt_tokens=tokens, num_left=left):
            assert tokens == fixed + sum(sizes[found:]) <= 1000
            assert left == found - start >= 0
            assert tokens <= asked.prompt_tokens or found == len(sizes)
            assert (left == 0) == (fixed + sum(sizes[start:]) <= asked.prompt_tokens or start == len(sizes))
        case TooLong():
            assert fixed > 1000


@pytest.mark.parametrize(("max_tokens", "reserved"), [(None, 250), (100, 100), (9999, 250)])
def test_the_answers_room(max_tokens: int | None, reserved: int) -> None:
    """As long as asked for, at most a quarter of the context."""
    assert reserved_for_answer(1000, max_tokens) == reserved


def test_a_summary_at_the_beginning_stays() -> None:
    """It stands for all that was said before."""
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    turns = [
        Turn(id=number, parent=None, messages=(say("user", "x"),), created=moment, is_summary=number == 0)
        for number in range(3)
    ]
    assert split(turns) == (tuple(turns[:1]), tuple(turns[1:]))
    assert split(turns[1:]) == ((), tuple(turns[1:]))
    assert split([]) == ((), ())

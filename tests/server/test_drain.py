"""When a client that found no place is asked to come again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.server.drain import LEAST_SECONDS, MOST_SECONDS, DrainRate


def test_without_a_measure_the_engines_own_guess_stands() -> None:
    """But within bounds."""
    assert DrainRate().turn_away(7.0) == 7.0
    assert (DrainRate().turn_away(0.0), DrainRate().turn_away(1e9)) == (LEAST_SECONDS, MOST_SECONDS)


def test_the_time_between_two_ends_is_the_measure() -> None:
    """Two answers side by side, one of which ends every four seconds on average."""
    drain = DrainRate()
    drain.begin(100.0)
    drain.begin(101.0)
    drain.end(103.0)
    drain.end(108.0)
    assert drain.turn_away(1.0) == 4.0


def test_idle_time_is_no_part_of_it() -> None:
    """An hour without work does not make answers slow."""
    drain = DrainRate()
    for began in (0.0, 3600.0):
        drain.begin(began)
        drain.end(began + 2.0)
    assert drain.turn_away(1.0) == 2.0


def test_those_turned_away_together_come_back_one_after_the_other() -> None:
    """Until a place has freed up: then the next is near again."""
    drain = DrainRate()
    drain.begin(0.0)
    drain.begin(0.0)
    drain.end(3.0)
    assert [drain.turn_away(1.0) for _ in range(3)] == [3.0, 6.0, 9.0]
    drain.end(6.0)
    assert drain.turn_away(1.0) == 3.0


@pytest.mark.parametrize("gap", [0.001, 10_000.0])
def test_the_answer_is_bounded(gap: float) -> None:
    """However quick or slow the machine is."""
    drain = DrainRate()
    drain.begin(0.0)
    drain.end(gap)
    assert LEAST_SECONDS <= drain.turn_away(1.0) <= MOST_SECONDS


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_only_the_last_answers_count(durations: list[float]) -> None:
    """A machine that became quick is soon told to be."""
    drain = DrainRate()
    now = 0.0
    for duration in [*durations, *[5.0] * 16]:
        drain.begin(now)
        now += duration
        drain.end(now)
    assert drain.turn_away(1.0) == pytest.approx(5.0, abs=1e-6)

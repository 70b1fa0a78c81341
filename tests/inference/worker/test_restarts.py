"""When a worker may start again."""

from __future__ import annotations

import pytest

from pensieve.inference.worker.restarts import LONGEST_DELAY_SECONDS, Restarts


def test_the_first_crash_costs_no_waiting_and_later_ones_more_and_more() -> None:
    """A killed worker is back for the next request; one that keeps dying is left alone for a while."""
    restarts, delays = Restarts(), []
    for _ in range(10):
        restarts.crashed(100.0)
        delays.append(restarts.delay_seconds(100.0))
    assert delays[:4] == [0.0, 0.5, 1.0, 2.0]
    assert delays[-1] == LONGEST_DELAY_SECONDS


def test_time_that_passed_counts() -> None:
    """Waiting is from the crash on, not from the next request on."""
    restarts = Restarts()
    for _ in range(3):
        restarts.crashed(100.0)
    assert restarts.delay_seconds(100.4) == pytest.approx(0.6)
    assert restarts.delay_seconds(200.0) == 0.0


def test_an_answer_makes_good_for_all_crashes() -> None:
    """The total is kept for people to see."""
    restarts = Restarts()
    for _ in range(3):
        restarts.crashed(100.0)
    restarts.answered()
    restarts.crashed(101.0)
    assert (restarts.delay_seconds(101.0), restarts.num_crashes) == (0.0, 4)

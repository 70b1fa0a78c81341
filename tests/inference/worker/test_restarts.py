"""When a worker may start again."""

from __future__ import annotations

import pytest

from pensieve.inference.worker.restarts import PAUSE_SECONDS, Restarts


def test_the_first_crash_costs_no_waiting_and_later_ones_more() -> None:
    """A killed worker is back for the next request; one that keeps dying is left alone."""
    restarts, seen = Restarts(), []
    for _ in range(4):
        restarts.crashed(100.0)
        seen.append((restarts.delay_seconds(100.0), restarts.has_failed(100.0)))
    assert seen == [(0.0, False), (0.5, False), (PAUSE_SECONDS, True), (PAUSE_SECONDS, True)]


def test_time_that_passed_counts() -> None:
    """Waiting is from the crash on, not from the next request on; after it, one more start is allowed."""
    restarts = Restarts()
    for _ in range(3):
        restarts.crashed(100.0)
    assert restarts.delay_seconds(100.4) == pytest.approx(PAUSE_SECONDS - 0.4)
    assert (restarts.delay_seconds(200.0), restarts.has_failed(200.0)) == (0.0, False)


def test_an_answer_makes_good_for_all_crashes() -> None:
    """The total is kept for people to see."""
    restarts = Restarts()
    for _ in range(3):
        restarts.crashed(100.0)
    restarts.answered()
    restarts.crashed(101.0)
    assert (restarts.delay_seconds(101.0), restarts.num_crashes, restarts.num_in_a_row) == (0.0, 4, 1)

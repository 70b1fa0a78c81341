"""When an unloaded model may come back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pensieve.inference.worker.reloads import HOUR_SECONDS, LONGEST_ASKED_DELAY_SECONDS, Reloads


def test_it_comes_back_later_each_time_and_then_no_more_by_itself() -> None:
    """5, 15 and 45 seconds after; the fourth time in an hour somebody must ask."""
    reloads, now = Reloads(3), 0.0
    for wait_seconds in (5.0, 15.0, 45.0):
        reloads.unloaded(now)
        assert not reloads.is_due(now + wait_seconds - 0.1)
        assert reloads.is_due(now + wait_seconds)
        reloads.reloaded(now + wait_seconds)
        now += 100.0
    reloads.unloaded(now)
    assert not reloads.is_due(now + 1000.0)
    assert reloads.asked_delay_seconds(now + LONGEST_ASKED_DELAY_SECONDS) == 0.0
    assert reloads.num_unloads == 4


def test_after_an_hour_all_is_forgotten() -> None:
    """Nothing sticks."""
    reloads = Reloads(1)
    for now in (0.0, 10.0, 20.0):
        reloads.unloaded(now)
        reloads.reloaded(now)
    assert not reloads.is_due(3000.0)
    assert reloads.is_due(20.0 + HOUR_SECONDS)


@given(st.lists(st.floats(0, 600), max_size=200))
def test_an_hour_never_sees_more_reloads_than_allowed(pauses: list[float]) -> None:
    """However the memory comes and goes: no oscillation."""
    reloads, now, times = Reloads(3), 0.0, list[float]()
    reloads.unloaded(now)
    for pause in pauses:
        now += pause
        if reloads.is_due(now):
            times.append(now)
            reloads.reloaded(now)
            reloads.unloaded(now)
    assert all(later - earlier >= HOUR_SECONDS for earlier, later in zip(times, times[3:], strict=False))

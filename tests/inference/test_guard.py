"""Who is let in at which level, and what is counted."""

from __future__ import annotations

import logging

import pytest

from pensieve.config.settings import MemorySettings
from pensieve.devices.levels import Measures
from pensieve.devices.memory import GIGABYTE, MemoryReading
from pensieve.errors import Overloaded
from pensieve.inference.guard import MemoryGuard
from weather import Weather

GENTLE = MemorySettings(recovery_seconds=0.0)


def test_requests_are_let_in_until_memory_is_critical() -> None:
    """Then refused with a time to come back, in no words that a client takes for a prompt that is too long."""
    weather = Weather(1.5)
    guard = MemoryGuard(GENTLE, weather)
    guard.admit()
    weather.available_gb = 0.9
    with pytest.raises(Overloaded, match=r"0\.90 GB left") as caught:
        guard.admit()
    assert caught.value.retry_after_seconds >= 1
    assert not any(word in str(caught.value) for word in ("prompt", "context", "token", "too long"))


def test_memory_that_comes_back_lets_requests_in_again() -> None:
    """Nothing sticks, and the numbers tell what was."""
    weather = Weather(0.4)
    guard = MemoryGuard(GENTLE, weather)
    with pytest.raises(Overloaded):
        guard.admit()
    weather.available_gb = 32.0
    guard.admit()
    status = guard.status
    assert (status.level, status.is_accepting, status.num_refused) == ("Safe", True, 1)
    assert status.num_entered == {"Safe": 1, "Warning": 0, "Critical": 0, "Emergency": 1}
    assert status.lowest_available_bytes == round(0.4 * GIGABYTE)


def test_a_change_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """For the worse as a warning, for the better as a piece of news; a good beginning is none."""
    caplog.set_level(logging.INFO, "pensieve")
    weather = Weather(32.0)
    guard = MemoryGuard(GENTLE, weather)
    for available_gb in (32.0, 32.0, 1.5, 1.5, 1.4, 32.0, 32.0):
        weather.available_gb = available_gb
        guard.look()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "memory: Safe -> Warning, 1.50 GB left"),
        ("INFO", "memory: Warning -> Safe, 32.00 GB left"),
    ]


def test_what_a_model_may_take_leaves_memory_accepting_or_safe() -> None:
    """1 GB is kept to take requests at all, 2.2 to be Safe for good."""
    guard = MemoryGuard(MemorySettings(), Weather(10.0))
    guard.look()
    assert guard.spare_bytes(is_safe=False) == 9 * GIGABYTE
    assert guard.spare_bytes(is_safe=True) == round(7.8 * GIGABYTE)


def test_where_nothing_can_be_read_everybody_is_let_in() -> None:
    """And nobody knows what a model may take."""
    guard = MemoryGuard(MemorySettings(), lambda: MemoryReading(None))
    guard.admit()
    assert (guard.level, guard.measures, guard.spare_bytes(is_safe=True)) == ("Unknown", Measures(), None)

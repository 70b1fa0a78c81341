"""Which level holds, and when it is left again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.config.settings import MemorySettings
from pensieve.devices.levels import LEVELS, MEASURES, Thresholds, Watch, level_of, scarcest, thresholds
from pensieve.devices.memory import GIGABYTE, MemoryReading

SETTINGS = MemorySettings()
LARGE = 64 * GIGABYTE


def having(available_gb: float, total_bytes: int | None = LARGE) -> MemoryReading:
    """A reading with that much available."""
    return MemoryReading(round(available_gb * GIGABYTE), total_bytes)


def watched(*readings: tuple[float, float]) -> list[str]:
    """The levels after readings at these seconds, of so many gigabytes available."""
    watch, levels = Watch(), list[str]()
    for seconds, available_gb in readings:
        watch = watch.after(having(available_gb), seconds, SETTINGS)
        levels.append(watch.level)
    return levels


@pytest.mark.parametrize(
    ("available_gb", "level"),
    [
        (8.13, "Safe"),
        (2.0, "Safe"),
        (1.99, "Warning"),
        (1.0, "Warning"),
        (0.99, "Critical"),
        (0.5, "Critical"),
        (0.49, "Emergency"),
        (0.0, "Emergency"),
    ],
)
def test_levels_begin_at_their_thresholds(available_gb: float, level: str) -> None:
    """Safe from 2 GB, Warning below, Critical below 1, Emergency below 0.5."""
    assert level_of(having(available_gb)) == level
    assert level_of(MemoryReading(None)) == "Unknown"


@pytest.mark.parametrize(
    ("total_gb", "expected_mb"),
    [(None, (2000, 1000, 500)), (16, (2000, 1000, 500)), (8, (1000, 500, 250)), (1, (125, 62.5, 31.25))],
)
def test_thresholds_are_lowered_on_small_machines(total_gb: int | None, expected_mb: tuple[float, ...]) -> None:
    """To an eighth, a sixteenth and a thirty-second of all there is."""
    total_bytes = None if total_gb is None else total_gb * GIGABYTE
    assert thresholds(SETTINGS, total_bytes) == Thresholds(*(round(megabytes * 1e6) for megabytes in expected_mb))


def test_a_lower_level_never_begins_before_a_higher_one() -> None:
    """Whatever somebody sets."""
    odd = MemorySettings(warning_gb=0.3, critical_gb=1.0, emergency_gb=2.0)
    assert thresholds(odd, LARGE) == Thresholds(*[300_000_000] * 3)


def test_a_worse_level_is_entered_at_once_and_in_order() -> None:
    """Each reading counts on the way down."""
    assert watched((0, 9), (1, 1.9), (2, 0.9), (3, 0.4)) == list(LEVELS)


def test_a_level_is_left_after_a_while_and_by_a_margin() -> None:
    """1.05 GB is too near to 1 GB; 1.2 GB must last for two seconds."""
    assert watched((0, 0.9), (9, 1.05), (19, 1.05)) == ["Critical"] * 3
    assert watched((0, 0.9), (1, 1.2), (2.9, 1.2), (3, 1.2)) == ["Critical"] * 3 + ["Warning"]
    assert watched((0, 0.4), (1, 9.0), (3, 9.0)) == ["Emergency", "Emergency", "Safe"]


def test_a_swing_begins_the_waiting_anew() -> None:
    """Memory that comes and goes each second brings no change of level each second."""
    assert set(watched(*((second, 1.2 if second % 2 else 0.9) for second in range(20)))) == {"Critical"}


def test_stalls_and_the_kernels_own_word_are_a_warning() -> None:
    """However much seems available; more than a warning they are not."""
    assert level_of(MemoryReading(LARGE, LARGE, stalled_percent=30.0)) == "Warning"
    assert level_of(MemoryReading(LARGE, LARGE, pressure_level=4)) == "Warning"
    assert level_of(MemoryReading(LARGE, LARGE, stalled_percent=3.0, pressure_level=1)) == "Safe"


def test_a_machine_that_cannot_be_read_is_left_alone() -> None:
    """And a level that held before is forgotten: nothing may stick."""
    watch = Watch().after(having(0.1), 0.0, SETTINGS).after(MemoryReading(None), 1.0, SETTINGS)
    assert (watch.level, MEASURES[watch.level].is_accepting) == ("Unknown", True)


def test_each_level_asks_for_more_than_the_one_before() -> None:
    """What was asked for once is not taken back further down."""
    asked = [MEASURES[level] for level in LEVELS]
    assert [each.is_accepting for each in asked] == [True, True, False, False]
    assert [each.cache_share for each in asked] == [1.0, 0.5, 0.0, 0.0]
    assert [each.is_unloaded for each in asked] == [False, False, False, True]


@given(st.lists(st.floats(0, 70), min_size=1, max_size=30), st.floats(3.0, 70))
def test_memory_that_comes_back_always_ends_in_safe(swings: list[float], plenty_gb: float) -> None:
    """No sequence of readings leaves a level that sticks."""
    settled = watched(*enumerate(swings), (100, plenty_gb), (102.5, plenty_gb))
    assert settled[-1] == "Safe"


@pytest.mark.parametrize(
    ("host_gb", "card_gb", "level", "scarce"),
    [
        (32.0, 70.0, "Safe", ""),
        (32.0, 1.5, "Warning", "Hopper"),
        (32.0, 0.4, "Emergency", "Hopper"),
        (0.9, 70.0, "Critical", ""),
        (0.9, 0.4, "Emergency", "Hopper"),
        (0.9, 0.9, "Critical", ""),
    ],
)
def test_a_card_whose_memory_is_its_own_counts_as_the_host_does(
    host_gb: float, card_gb: float, level: str, scarce: str
) -> None:
    """The worse of both holds, each by thresholds of its own size."""
    card = MemoryReading(round(card_gb * GIGABYTE), 80 * GIGABYTE, "Hopper")
    reading = MemoryReading(round(host_gb * GIGABYTE), LARGE, card=card)
    assert Watch().after(reading, 0.0, SETTINGS).level == level
    assert scarcest(reading, SETTINGS).limited_by == scarce


def test_a_small_card_has_small_thresholds_and_is_left_slowly() -> None:
    """A tenth more than the threshold must be free there for two seconds, as on the host."""

    def seen(free_bytes: int) -> MemoryReading:
        return MemoryReading(32 * GIGABYTE, LARGE, card=MemoryReading(free_bytes, 8 * GIGABYTE, "small"))

    watch, levels = Watch(), list[str]()
    for seconds, megabytes in ((0.0, 1010), (1.0, 990), (2.0, 1050), (5.0, 1050), (6.0, 1110), (8.1, 1110)):
        watch = watch.after(seen(megabytes * 10**6), seconds, SETTINGS)
        levels.append(watch.level)
    assert levels == ["Safe", "Warning", "Warning", "Warning", "Warning", "Safe"]

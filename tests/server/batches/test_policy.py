"""How much of a batch may run, decided from numbers alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.server.batches.policy import ALONE_SECONDS, Room, View, may_change_model, room

ALONE: dict[str, Any] = {"num_places": 8, "num_live": 0, "num_running": 0, "quiet_seconds": ALONE_SECONDS}


def seen(**changes: Any) -> Room:
    """What may run on a machine of eight places that has been left alone, with changes."""
    return room(View(**(ALONE | changes)))


def test_a_machine_left_alone_belongs_to_batches() -> None:
    """All its places, up to a number that memory can stand."""
    assert seen() == Room(8)
    assert seen(num_places=256) == Room(16)


def test_live_requests_come_first() -> None:
    """Nothing runs beside them but what made way too often, and that only where a place is left."""
    assert seen(num_live=1) == Room(1, is_for_patient=True)
    assert seen(num_live=8) == Room(0, is_for_patient=True, may_begin=False)


def test_a_batch_comes_to_an_end_where_clients_never_pause() -> None:
    """One request at a time begins beside them, now and then, where a place is free."""
    assert seen(num_live=7, waited_seconds=11.0) == Room(1, is_for_patient=True, is_hungry=True)
    assert not seen(num_live=8, waited_seconds=11.0).may_begin


def test_where_clients_used_every_place_their_prompts_stay_in_the_cache() -> None:
    """For two minutes only a starving batch begins one request, now and then."""
    crowded = {"num_live_lately": 8, "quiet_seconds": 30.0}
    assert not seen(**crowded, waited_seconds=9.0).may_begin
    assert seen(**crowded, waited_seconds=11.0) == Room(1, is_for_patient=True, is_hungry=True)
    assert not seen(**crowded, num_live=3, waited_seconds=9.0).may_begin
    assert seen(num_live_lately=8) == Room(8)


def test_after_a_live_answer_batches_take_a_part() -> None:
    """Not at once: a tool loop comes back."""
    assert seen(quiet_seconds=0.1) == Room(2, may_begin=False)
    assert seen(quiet_seconds=1.0) == Room(2)
    assert seen(quiet_seconds=1.0, num_places=1) == Room(1)


@pytest.mark.parametrize(
    ("level", "expected"), [("Warning", Room(8, may_begin=False)), ("Critical", Room(0, may_begin=False))]
)
def test_short_memory_stops_batches_before_clients(level: Any, expected: Room) -> None:
    """In Warning nothing begins, in Critical nothing goes on."""
    assert seen(level=level) == expected
    assert not seen(is_paused=True).may_begin


def test_another_model_is_loaded_only_where_nobody_minds() -> None:
    """Not while somebody may come back to the one that is there."""
    assert may_change_model(View(**ALONE))
    assert not may_change_model(View(**(ALONE | {"quiet_seconds": 5.0})))
    assert not may_change_model(View(**(ALONE | {"num_live": 1})))


@given(
    num_places=st.integers(1, 300),
    num_live=st.integers(0, 300),
    quiet_seconds=st.floats(0.0, 1e6),
    level=st.sampled_from(["Safe", "Warning", "Critical", "Emergency", "Unknown"]),
)
def test_live_requests_and_batches_never_want_more_places_than_there_are(
    num_places: int, num_live: int, quiet_seconds: float, level: Any
) -> None:
    """Whatever is going on."""
    allowed = seen(num_places=num_places, num_live=num_live, quiet_seconds=quiet_seconds, level=level)
    assert allowed.num_runs + num_live <= max(num_places, num_live)
    assert allowed.num_runs == 0 or level in {"Safe", "Warning", "Unknown"}

"""How prompts are cut into pieces: quick alone, short beside running answers, and kept where it is of use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.inference.mlx.prefix_cache import BLOCK_TOKENS
from pensieve.inference.mlx.reading import (
    BOUNDARY_TOKENS,
    GAP_SECONDS,
    MIN_TOKENS,
    Pace,
    is_kept_at,
    next_stop,
)

counts = st.integers(0, 20_000)


@pytest.mark.parametrize(("speed", "expected"), [(10_000.0, 4096), (1_000.0, 512), (100.0, 64)])
def test_alone_a_piece_takes_a_second_at_most(speed: float, expected: int) -> None:
    """A cancelled prompt holds the engine that long; a quick machine reads the largest pieces."""
    pace = Pace()
    assert pace.chunk_tokens(4096, is_anyone_waiting=False) == 4 * MIN_TOKENS
    pace.note(int(speed), 1.0)
    assert pace.chunk_tokens(4096, is_anyone_waiting=False) == expected


def test_beside_answers_a_piece_takes_no_longer_than_they_may_wait() -> None:
    """A power of two below what the speed allows, never below the least, never above what was admitted."""
    pace = Pace()
    assert pace.chunk_tokens(4096, is_anyone_waiting=True) <= 256
    for speed, expected in ((10_000.0, 1024), (1_000.0, 128), (10.0, MIN_TOKENS), (10.0**9, 4096)):
        pace = Pace()
        pace.note(int(speed), 1.0) if speed >= MIN_TOKENS else pace.note(MIN_TOKENS, MIN_TOKENS / speed)
        chunk = pace.chunk_tokens(4096, is_anyone_waiting=True)
        assert chunk == expected
        assert chunk == MIN_TOKENS or chunk / speed <= GAP_SECONDS


def test_the_speed_follows_what_is_measured_and_small_pieces_say_nothing() -> None:
    """A machine that becomes slower is noticed within a few pieces; a piece of one token measures only overhead."""
    pace = Pace()
    pace.note(1000, 0.1)
    pace.note(MIN_TOKENS - 1, 10.0)
    pace.note(1000, 0.0)
    assert pace.chunk_tokens(4096, is_anyone_waiting=True) == 1024
    for _ in range(12):
        pace.note(1000, 1.0)
    assert pace.chunk_tokens(4096, is_anyone_waiting=True) == 128


@given(counts, counts, st.integers(1, 4096))
def test_stops_lead_to_the_end_over_every_place_worth_keeping(num_read: int, target: int, chunk: int) -> None:
    """Each piece reads something; the last whole block and every boundary are stops."""
    start, stops = min(num_read, target), []
    place = start
    while place < target:
        stop = min(next_stop(place, target), place + chunk)
        assert place < stop <= target
        stops.append(stop)
        place = stop
    wanted = {target // BLOCK_TOKENS * BLOCK_TOKENS, *range(0, target + 1, BOUNDARY_TOKENS)}
    assert {stop for stop in wanted if stop > start} <= set(stops)
    kept = {stop for stop in stops if is_kept_at(stop, target, began_at=start, is_trimmable=False)}
    assert {stop for stop in wanted if stop > start} <= kept


@given(counts, st.integers(1, 4096))
def test_a_prompt_that_can_be_cut_is_kept_once_for_each_boundary_it_passes(num_tokens: int, chunk: int) -> None:
    """Not after every piece, which would hash it all again and again."""
    stops = [*range(chunk, num_tokens, chunk), num_tokens]
    starts = [0, *stops[:-1]]
    kept = [
        stop
        for start, stop in zip(starts, stops, strict=True)
        if is_kept_at(stop, num_tokens, began_at=start, is_trimmable=True)
    ]
    assert len(kept) == len({stop // BOUNDARY_TOKENS for stop in stops} - {0})
    assert all(kept[place] - kept[place - 1] <= BOUNDARY_TOKENS + chunk for place in range(1, len(kept)))

"""The measures of an answer follow from its events and their moments."""

from __future__ import annotations

import time

from pensieve.cli.speed import Stopwatch
from pensieve.generation import Finished, Started, TextDelta, Usage


def test_rates_follow_from_the_usage_and_the_moments() -> None:
    """Cached tokens were not prefilled, and the first token came with the prefill."""
    watch = Stopwatch()
    for event in (Started(100, 40), TextDelta("a"), TextDelta("b"), Finished("stop", Usage(100, 40, 11))):
        time.sleep(0.02)
        watch.add(event)
    speed = watch.speed
    first, prefill, decode = (
        speed.time_to_first_token_seconds,
        speed.prefill_tokens_per_second,
        speed.decode_tokens_per_second,
    )
    assert first is not None
    assert prefill is not None
    assert decode is not None
    assert 0.04 <= first <= speed.total_seconds - 0.04
    assert 0 < prefill <= 60 / 0.02
    assert 0 < decode <= 10 / 0.04


def test_an_answer_without_a_word_has_no_rates() -> None:
    """Nothing is divided by nothing."""
    watch = Stopwatch()
    watch.add(Started(3, 0))
    watch.add(Finished("stop", Usage(3, 0, 0)))
    speed = watch.speed
    assert speed.time_to_first_token_seconds is None
    assert speed.prefill_tokens_per_second is None
    assert speed.decode_tokens_per_second is None
    assert speed.total_seconds >= 0

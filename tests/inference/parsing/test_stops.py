"""Stop strings: found whatever the chunk boundaries, and never a character shown too much or too few."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from pensieve.inference.parsing.stops import StopMatcher

TEXT = st.text("ab\n", max_size=30)


def play(text: str, stops: list[str], cuts: list[int]) -> tuple[str, str | None]:
    """Show `text` through a matcher, cut at these places."""
    matcher = StopMatcher(stops)
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    shown = "".join(matcher.feed(text[start:end]) for start, end in itertools.pairwise(places))
    return shown + matcher.flush(), matcher.matched


def test_text_before_the_stop_string_is_shown_and_the_rest_is_not() -> None:
    """The stop string itself is not part of the answer."""
    assert play("one two three", [" three", "two"], []) == ("one ", "two")


def test_the_beginning_of_a_stop_string_is_held_back() -> None:
    """What may still become a stop string is not shown, and comes when it did not."""
    matcher = StopMatcher(["END"])
    assert matcher.feed("theEN") == "the"
    assert matcher.feed("ough") == "ENough"


def test_without_stop_strings_everything_passes_at_once() -> None:
    """Empty stop strings are no stop strings."""
    assert StopMatcher(["", ""]).feed("all") == "all"


@given(TEXT, st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3), st.lists(st.integers(0, 30)))
def test_chunk_boundaries_change_nothing(text: str, stops: list[str], cuts: list[int]) -> None:
    """Whole or in pieces: the same text up to the earliest stop string, and a stop string is never shown."""
    shown, matched = play(text, stops, cuts)
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    if matched is None:
        assert not places
        assert shown == text
    else:
        assert text.startswith(shown + matched)
        assert not any(stop in shown for stop in stops)


@given(TEXT, st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3))
def test_the_earliest_stop_string_ends_the_text(text: str, stops: list[str]) -> None:
    """Fed whole, the first place where any stop string begins is the end."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    shown, _ = play(text, stops, [])
    assert len(shown) == min(places, default=len(text))

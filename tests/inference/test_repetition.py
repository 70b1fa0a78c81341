"""Loops are found, and what merely looks like one is left alone."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.config.settings import GenerationSettings
from pensieve.generation import GenerationEvent, ToolCallDelta, ToolCallFinished, ToolCallStarted
from pensieve.inference.repetition import RepetitionGuard, TokenLoop
from pensieve.messages import Message, TextPart, ToolCallPart, ToolResultPart, say

ON = GenerationSettings()
OFF = GenerationSettings(repetition_guard="off")
MOST = 20_000


def spoken_until_found(tokens: itertools.chain[int] | list[int]) -> int | None:
    """How many tokens passed before the loop was found; None: it was not."""
    guard = RepetitionGuard(ON)
    return next((number for number, token in enumerate(tokens, 1) if guard.take_tokens([token])), None)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 3), max_size=60), st.lists(st.integers(0, 3), min_size=1, max_size=300))
def test_any_stretch_that_repeats_long_enough_is_found(before: list[int], stretch: list[int]) -> None:
    """Whatever it is made of, small loops inside it included, and not before it has repeated twelve times."""
    loop = TokenLoop(times=12, span_tokens=512)
    stream = itertools.islice(itertools.chain(before, itertools.cycle(stretch)), MOST)
    found = next(number for number, token in enumerate(stream, 1) if loop.take(token))
    assert found >= 512
    assert found <= len(before) + max(14 * len(stretch) + 16, 512 + 3 * len(stretch))


def test_one_token_for_ever_is_found_in_the_end() -> None:
    """But a rule of dashes is no loop."""
    assert spoken_until_found([7] * 511) is None
    assert spoken_until_found([1, 2, 3] + [7] * 600) == 3 + 512


@pytest.mark.parametrize("seed", range(3))
def test_text_that_repeats_with_changes_is_no_loop(seed: int) -> None:
    """Rows of a table, a list of similar numbers, lines of code: something is different in each."""
    draw = random.Random(seed)
    rows = [[1, 2, 3, 10 + draw.randrange(500), 4, 5, 6, 7, number, 8, 9] for number in range(1000, 2500)]
    assert spoken_until_found([token for row in rows for token in row]) is None
    lines = [draw.choice([[1, 2, 3], [1, 2, 4, 5], [6]]) for _ in range(4000)]
    assert spoken_until_found([token for line in lines for token in line]) is None


def test_a_block_that_is_written_a_few_times_is_no_loop() -> None:
    """Eleven times is what someone may have asked for."""
    block = list(range(100))
    assert spoken_until_found([*block * 11, 500, *block * 11]) is None
    assert spoken_until_found(block * 13) is not None


def called(name: str, json: str) -> list[GenerationEvent]:
    """The events of one call, its arguments in two pieces."""
    return [
        ToolCallStarted("x", name),
        ToolCallDelta("x", json[:3]),
        ToolCallDelta("x", json[3:]),
        ToolCallFinished("x"),
    ]


def loops(guard: RepetitionGuard, *calls: list[GenerationEvent]) -> bool:
    """Whether the guard says so after these calls."""
    return [guard.take_event(event) for call in calls for event in call][-1]


def test_the_same_call_a_third_time_in_one_answer_is_a_loop() -> None:
    """The order of its arguments and their white space do not count; other arguments do."""
    one, same, other = called("a", '{"b": 1, "c": 2}'), called("a", '{"c":2,"b":1}'), called("a", '{"b": 2, "c": 2}')
    assert not loops(RepetitionGuard(ON), one, same, other, other)
    assert loops(RepetitionGuard(ON), one, other, same, one)
    assert not loops(RepetitionGuard(OFF), one, same, one, one)


def history(*results: str, said: str = "") -> tuple[Message, ...]:
    """A turn for each result of the same call; each result comes with what is said."""
    turns: list[Message] = [say("user", "Go on.")]
    for number, result in enumerate(results):
        turns.append(Message("assistant", (TextPart(f"Try {number}"), ToolCallPart(f"t{number}", "poll", {"a": 1}))))
        shown = (TextPart(said),) if said else ()
        turns.append(Message("user", (ToolResultPart(f"t{number}", (TextPart(result),)), *shown)))
    return tuple(turns)


def test_the_same_call_with_the_same_result_turn_after_turn_is_a_loop() -> None:
    """A tool may be polled a few times, and as long as its results change."""
    poll, other = called("poll", '{"a": 1}'), called("poll", '{"a": 2}')
    reminded = history(*["busy"] * 5, said="Remember the budget.")
    assert loops(RepetitionGuard(ON, history(*["busy"] * 5)), poll)
    assert loops(RepetitionGuard(ON, (*reminded, say("system", "Be brief."))), poll)
    assert not loops(RepetitionGuard(ON, history(*["busy"] * 4)), poll)
    assert not loops(RepetitionGuard(ON, history(*["busy"] * 4, "done")), poll)
    assert not loops(RepetitionGuard(ON, history(*["busy"] * 5)), other)
    assert not loops(RepetitionGuard(OFF, history(*["busy"] * 5)), poll)


def test_what_a_person_said_begins_anew() -> None:
    """Who asks for it once more gets it once more."""
    talk = (*history(*["busy"] * 5), say("assistant", "Still busy."), say("user", "Once more."))
    assert not loops(RepetitionGuard(ON, talk), called("poll", '{"a": 1}'))


def test_arguments_that_are_no_json_are_compared_as_they_are() -> None:
    """They are counted, not judged."""
    broken = called("a", '{"b": ')
    assert loops(RepetitionGuard(ON), broken, broken, broken)


def test_arguments_that_cannot_be_compared_are_different() -> None:
    """Nested too deeply to be written down."""
    deep: object = 0
    for _ in range(5000):
        deep = [deep]
    talk = tuple(
        turn
        for number in range(6)
        for turn in (
            Message("assistant", (ToolCallPart(f"t{number}", "poll", {"a": deep}),)),
            Message("user", (ToolResultPart(f"t{number}"),)),
        )
    )
    assert not loops(RepetitionGuard(ON, talk), called("poll", "{}"))

"""collect(): events to an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import pytest

from pensieve.errors import BackendFailure
from pensieve.generation import (
    Collector,
    Finished,
    GenerationEvent,
    PromptProgress,
    Started,
    TextDelta,
    ThinkingDelta,
    ThinkingFinished,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    Usage,
    collect,
)
from pensieve.messages import TextPart, ThinkingPart, ToolCallPart

END = Finished("stop", Usage(3, 1, 2))


async def stream(events: Iterable[GenerationEvent]) -> AsyncIterator[GenerationEvent]:
    """The events, one by one."""
    for event in events:
        yield event


async def test_text_deltas_become_one_part() -> None:
    """Chunk boundaries leave no trace in the message."""
    answer = await collect(stream([Started(3, 1), PromptProgress(3, 3), TextDelta("Hel"), TextDelta("lo"), END]))
    assert answer.message.parts == (TextPart("Hello"),)
    assert (answer.reason, answer.usage) == ("stop", Usage(3, 1, 2))


async def test_every_kind_of_part_keeps_its_place() -> None:
    """Thinking, text and tool calls come out in the order they came in."""
    events: list[GenerationEvent] = [
        *(ThinkingDelta("hm"), ThinkingFinished("sig"), TextDelta("a")),
        *(
            ToolCallStarted("t1", "Read"),
            ToolCallDelta("t1", '{"p":'),
            ToolCallDelta("t1", "1}"),
            ToolCallFinished("t1"),
        ),
        *(TextDelta("b"), END),
    ]
    parts = (await collect(stream(events))).message.parts
    call = ToolCallPart("t1", "Read", {"p": 1})
    assert parts == (ThinkingPart("hm", "sig"), TextPart("a"), call, TextPart("b"))


async def test_thinking_without_an_end_is_closed_by_what_follows() -> None:
    """A backend without signatures need not send the end of thinking."""
    answer = await collect(stream([ThinkingDelta("hm"), TextDelta("a"), END]))
    assert answer.message.parts == (ThinkingPart("hm"), TextPart("a"))


async def test_a_tool_call_without_arguments_has_an_empty_object() -> None:
    """Some models say nothing where nothing is to be said."""
    answer = await collect(stream([ToolCallStarted("t", "now"), ToolCallFinished("t"), END]))
    assert answer.message.parts == (ToolCallPart("t", "now", {}),)


@pytest.mark.parametrize("arguments", ['{"a":', "[1]", "nonsense"])
async def test_arguments_that_are_no_object_are_a_failure(arguments: str) -> None:
    """A broken tool call is said to be one, with the tool's name."""
    with pytest.raises(BackendFailure, match="now"):
        await collect(stream([ToolCallStarted("t", "now"), ToolCallDelta("t", arguments), ToolCallFinished("t"), END]))


def test_what_was_said_so_far_is_there_at_any_time() -> None:
    """Looking at an unfinished answer does not change it."""
    collector = Collector()
    collector.add(TextDelta("Hel"))
    assert collector.message.text == "Hel"
    collector.add(TextDelta("lo"))
    assert collector.message.parts == (TextPart("Hello"),)


async def test_thinking_that_was_not_shown_leaves_its_signature() -> None:
    """Whoever made it reads it back from there; it has its place among the other parts."""
    events: list[GenerationEvent] = [TextDelta("a"), ThinkingFinished("sealed"), TextDelta("b"), END]
    answer = await collect(stream(events))
    assert answer.message.parts == (TextPart("a"), ThinkingPart("", "sealed"), TextPart("b"))

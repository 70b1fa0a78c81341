"""Frames of the Responses API become the events they came from, in any cut; a broken order is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given

from pensieve.errors import BackendFailure, ContextOverflow
from pensieve.generation import (
    Finished,
    GenerationEvent,
    Started,
    TextDelta,
    ThinkingDelta,
    ThinkingFinished,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    Usage,
)
from pensieve.messages import Json
from pensieve.wire.openai.responses.decoder import EventDecoder
from pensieve.wire.openai.responses.encoder import EventEncoder
from pensieve.wire.openai.responses.manner import Manner
from pensieve.wire.openai.responses.names import Names
from pensieve.wire.sse import SseDecoder, encode_event
from streams import CUTS
from wire.responses_strategies import runs
from wire.strategies import PROPERTY

SUMMARY = Manner(is_summary_wanted=True, is_thinking_sealed=True, has_logprobs=True)
ADDED = {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}}
MORE = {"type": "response.output_text.delta", "output_index": 0, "delta": "a"}
DONE = {"type": "response.output_item.done", "output_index": 0, "item": {"type": "message"}}
END = {"type": "response.completed", "response": {"status": "completed", "usage": {"input_tokens": 3}}}
SPOKEN: list[GenerationEvent] = [
    Started(9, 4),
    ThinkingDelta("Hm, ünd?"),
    ThinkingFinished("mark"),
    TextDelta("Let me"),
    ToolCallStarted("call_1", "look"),
    ToolCallDelta("call_1", '{"a": 1}'),
    ToolCallFinished("call_1"),
    Finished("tool_calls", Usage(9, 4, 12)),
]


def encoded(events: list[GenerationEvent], manner: Manner = SUMMARY) -> bytes:
    """The stream of one answer."""
    encoder = EventEncoder("resp_1", "m", manner=manner)
    return b"".join(encoder.encode(event) for event in events)


def decoded(chunks: list[bytes]) -> list[GenerationEvent]:
    """The events of a stream that arrives in these chunks."""
    frames, events = SseDecoder(), EventDecoder()
    return [event for chunk in chunks for frame in frames.feed(chunk) for event in events.decode(frame)]


def played(*frames: dict[str, Json]) -> list[GenerationEvent]:
    """The events of these frames."""
    return decoded([encode_event(str(frame["type"]), frame) for frame in frames])


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_a_stream_is_understood_in_any_cut(cut: Callable[[bytes], list[bytes]]) -> None:
    """Text, thinking and calls come back from pieces of any size."""
    assert decoded(cut(encoded(SPOKEN))) == SPOKEN


@PROPERTY
@given(runs())
def test_what_is_encoded_is_decoded_to_the_same_events(events: list[GenerationEvent]) -> None:
    """Whether thinking is told as a summary or as it is."""
    assert decoded([encoded(events)]) == events
    assert decoded([encoded(events, Manner(is_thinking_sealed=True, has_logprobs=True))]) == events


def test_text_for_a_tool_comes_back_as_its_one_argument() -> None:
    """In one piece."""
    call = ToolCallDelta("c", '{"input":"a\\n"}')
    opened, closed = ToolCallStarted("c", "patch"), ToolCallFinished("c")
    events: list[GenerationEvent] = [Started(1, 0), opened, call, closed, Finished("tool_calls", Usage(1, 0, 1))]
    assert decoded([encoded(events, Manner(names=Names(customs=frozenset({"patch"}))))]) == events


def test_a_call_that_was_cut_does_not_end() -> None:
    """So that nobody runs it."""
    events: list[GenerationEvent] = [
        Started(1, 0),
        ToolCallStarted("c", "look"),
        ToolCallDelta("c", '{"a'),
        Finished("length", Usage(1, 0, 1)),
    ]
    assert decoded([encoded(events)]) == events


def test_the_least_that_a_server_sends_is_understood() -> None:
    """Without a state of its own, and without the size of the prompt before the end."""
    assert played(ADDED, MORE, DONE, END) == [Started(0, 0), TextDelta("a"), Finished("stop", Usage(3, 0, 0))]


def test_a_failure_is_raised_as_the_error_it_was() -> None:
    """With its facts, where its sentence has them."""
    failed = EventEncoder("resp_1", "m").error(ContextOverflow(prompt_tokens=9, limit_tokens=5))
    with pytest.raises(ContextOverflow) as raised:
        decoded([failed])
    assert (raised.value.prompt_tokens, raised.value.limit_tokens) == (9, 5)
    with pytest.raises(BackendFailure, match="it broke"):
        played({"type": "error", "message": "it broke", "code": "server_error"})


@pytest.mark.parametrize(
    "frames",
    [[MORE], [ADDED, ADDED], [DONE], [ADDED, END], [END, ADDED], [ADDED, MORE | {"output_index": 1}]],
    ids=["no item", "twice", "never added", "never done", "after the end", "another item"],
)
def test_a_broken_order_is_found(frames: list[dict[str, Json]]) -> None:
    """Rather than told as an answer that nobody gave."""
    with pytest.raises(BackendFailure, match="out of order"):
        played(*frames)


def test_a_frame_that_is_no_json_is_found() -> None:
    """As a failure of the server."""
    with pytest.raises(BackendFailure, match="broken"):
        decoded([b"event: response.created\ndata: {\n\n"])

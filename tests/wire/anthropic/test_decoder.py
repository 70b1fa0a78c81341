"""Frames become the events they came from, in any cut; a broken order is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given

from pensieve.errors import BackendFailure, Overloaded, WorkerCrashed
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
)
from pensieve.messages import Json
from pensieve.wire.anthropic.responses import EventDecoder, EventEncoder
from pensieve.wire.progress import encode_progress
from pensieve.wire.sse import SseDecoder, SseEvent, encode_event
from streams import CUTS
from wire.strategies import PROPERTY, event_runs

MESSAGE = {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}}
TEXT = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
MORE = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
THOUGHT = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "a"}}
CLOSE = {"type": "content_block_stop", "index": 0}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
STOP = {"type": "message_stop"}


def encoded(events: list[GenerationEvent]) -> bytes:
    """The stream of one answer."""
    encoder = EventEncoder("msg_1", "m")
    return b"".join(encoder.encode(event) for event in events)


def decoded(chunks: list[bytes]) -> list[GenerationEvent]:
    """The events of a stream that arrives in these chunks."""
    frames, events = SseDecoder(), EventDecoder()
    return [event for chunk in chunks for frame in frames.feed(chunk) for event in events.decode(frame)]


def played(*frames: dict[str, Json]) -> list[GenerationEvent]:
    """The events of these frames."""
    return decoded([encode_event(frame["type"], frame) for frame in frames])


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_a_stream_is_understood_in_any_cut(cut: Callable[[bytes], list[bytes]]) -> None:
    """Text, thinking and calls come back from pieces of any size."""
    events: list[GenerationEvent] = [
        Started(9, 4),
        ThinkingDelta("où"),
        ThinkingFinished("mark"),
        TextDelta("là"),
        ToolCallStarted("c", "look"),
        ToolCallDelta("c", '{"a":1}'),
        ToolCallFinished("c"),
        Finished("stop_string", Usage(9, 4, 7), "END"),
    ]
    assert decoded(cut(encoded(events))) == events


@PROPERTY
@given(event_runs())
def test_what_is_encoded_is_decoded_to_the_same_events(events: list[GenerationEvent]) -> None:
    """The two directions are inverse for every run of events."""
    assert decoded([encoded(events)]) == events


def test_the_default_signature_is_no_signature() -> None:
    """What stands in for a missing signature does not become one."""
    events: list[GenerationEvent] = [Started(1, 0), ThinkingDelta("a"), ThinkingFinished()]
    assert decoded([encoded(events)]) == events


def test_pings_and_unknown_events_are_passed_over() -> None:
    """The API may send kinds of events that are new; and nothing is ended before the beginning."""
    assert played({"type": "ping"}, {"type": "novelty"}, CLOSE, MESSAGE, {"type": "ping"}) == [Started(3, 0)]


def test_a_tool_call_may_bring_its_input_at_once() -> None:
    """Some servers send no fragments."""
    block = {"type": "tool_use", "id": "c", "name": "look", "input": {"a": 1}}
    start = {"type": "content_block_start", "index": 0, "content_block": block}
    assert played(MESSAGE, start)[1:] == [ToolCallStarted("c", "look"), ToolCallDelta("c", '{"a":1}')]


def test_a_stream_is_finished_only_after_its_last_frame() -> None:
    """Without `message_stop` the answer may be cut off."""
    decoder = EventDecoder()
    for frame in (MESSAGE, TEXT, MORE, CLOSE, END):
        [sse] = SseDecoder().feed(encode_event(str(frame["type"]), frame))
        decoder.decode(sse)
    assert not decoder.is_finished
    assert decoder.decode(SseEvent("message_stop", '{"type":"message_stop"}')) == [Finished("stop", Usage(3, 0, 2))]
    assert decoder.is_finished


def test_an_error_frame_is_raised_as_the_error_it_was() -> None:
    """The error keeps its kind and its facts over the wire."""
    sent = Overloaded("the queue is full", 7.0)
    stream = EventEncoder("msg_1", "m").error(sent)
    with pytest.raises(Overloaded) as raised:
        decoded([stream])
    assert raised.value.facts() == {"problem": "the queue is full", "retry_after_seconds": 7.0, "is_about_queue": True}


def test_a_worker_that_ended_is_told_as_that() -> None:
    """And not as a crowd, whose message would say twice when to come again."""
    sent = WorkerCrashed(model="gull", exit_status="killed (signal 9)")
    with pytest.raises(WorkerCrashed) as raised:
        decoded([EventEncoder("msg_1", "m").error(sent)])
    assert str(raised.value) == str(sent)


@pytest.mark.parametrize(
    "frames",
    [
        (TEXT,),
        (STOP,),
        (MESSAGE, MESSAGE),
        (MESSAGE, MORE),
        (MESSAGE, CLOSE),
        (MESSAGE, TEXT, TEXT),
        (MESSAGE, TEXT, THOUGHT),
        (MESSAGE, TEXT, MORE | {"index": 1}),
        (MESSAGE, TEXT | {"index": 1}),
        (MESSAGE, TEXT, CLOSE | {"index": 1}),
        (MESSAGE, TEXT, CLOSE, MORE),
        (MESSAGE, MORE | {"delta": {"type": "novel_delta"}}),
        (MESSAGE, TEXT | {"content_block": {"type": "novelty"}}, TEXT),
        (MESSAGE, TEXT | {"content_block": {"type": "novelty"}}, MORE | {"index": 1}),
        (MESSAGE, STOP),
        (MESSAGE, END, END),
        (MESSAGE, END, TEXT),
        (MESSAGE, END, STOP, STOP),
    ],
)
def test_frames_out_of_order_are_a_failure(frames: tuple[dict[str, Json], ...]) -> None:
    """The last frame is the one that cannot stand there."""
    assert isinstance(played(*frames[:-1]), list)
    with pytest.raises(BackendFailure, match=f"a {frames[-1]['type']} frame out of order"):
        played(*frames)


THINKING = TEXT | {"content_block": {"type": "thinking", "thinking": ""}}
CALL = TEXT | {"content_block": {"type": "tool_use", "id": "c", "name": "look", "input": {}}}
NOVELTY = TEXT | {"content_block": {"type": "novelty"}}
CALLED = END | {"delta": {"stop_reason": "tool_use"}}


@pytest.mark.parametrize(
    ("start", "end", "closing"),
    [
        (TEXT, END, []),
        (NOVELTY, END, []),
        (THINKING, END, [ThinkingFinished()]),
        (CALL, CALLED, [ToolCallFinished("c")]),
        (CALL, END, []),
    ],
)
def test_the_end_of_the_message_closes_an_open_block(
    start: dict[str, Json], end: dict[str, Json], closing: list[GenerationEvent]
) -> None:
    """As answers that were cut end; a call that may be cut too is no call."""
    *_, closed, finished = [None, *played(MESSAGE, start, end, STOP)]
    assert ([closed] if closing else []) == closing
    assert isinstance(finished, Finished)


@pytest.mark.parametrize(
    "data",
    ["", "{", "[]", '{"type":"message_start"}', '{"type":"message_start","message":{"usage":{"input_tokens":"3"}}}'],
)
def test_a_broken_frame_is_a_failure(data: str) -> None:
    """A frame that is not as the API has it."""
    with pytest.raises(BackendFailure, match="broken message_start frame"):
        EventDecoder().decode(SseEvent("message_start", data))


@pytest.mark.parametrize("block", [{"type": "redacted_thinking", "data": "x"}, {"type": "novelty", "text": 1}])
def test_a_block_of_unknown_kind_is_passed_over_to_its_end(block: Json) -> None:
    """Its deltas, of whatever kind, say nothing; the next block has the next index."""
    novel = MORE | {"delta": {"type": "novel_delta"}}
    skipped = (TEXT | {"content_block": block}, MORE, novel, CLOSE)
    following = [frame | {"index": 1} for frame in (TEXT, MORE, CLOSE)]
    said = played(MESSAGE, *skipped, *following, END, STOP)
    assert said == [Started(3, 0), TextDelta("a"), Finished("stop", Usage(3, 0, 2))]


def test_a_delta_of_unknown_kind_is_passed_over() -> None:
    """The text around a citation arrives."""
    cited = MORE | {"delta": {"type": "citations_delta", "citation": {}}}
    assert played(MESSAGE, TEXT, MORE, cited, MORE)[1:] == [TextDelta("a"), TextDelta("a")]


@pytest.mark.parametrize("broken", [{}, {"type": 1}, {"type": "text_delta"}, {"type": "text_delta", "text": 1}, []])
def test_a_broken_delta_is_a_failure(broken: Json) -> None:
    """Only what is new is passed over, not what is wrong."""
    with pytest.raises(BackendFailure, match="broken content_block_delta frame"):
        played(MESSAGE, TEXT, MORE | {"delta": broken})


def test_an_unknown_stop_reason_is_a_failure() -> None:
    """A new way to stop may mean that the answer is not whole."""
    with pytest.raises(BackendFailure, match="'tired'"):
        played(MESSAGE, END | {"delta": {"stop_reason": "tired"}})


@pytest.mark.parametrize("behind", [[], [TextDelta("{")]], ids=["cut", "shown as text"])
def test_a_call_that_came_to_nothing_is_closed_on_the_wire_and_no_call(behind: list[GenerationEvent]) -> None:
    """Parser, encoder, decoder and collector agree: it was announced, and nobody is told to run it."""
    events = [
        Started(9, 4),
        TextDelta("So"),
        ToolCallStarted("c", "look"),
        ToolCallDelta("c", '{"a": "b'),
        *behind,
        Finished("length", Usage(9, 4, 7)),
    ]
    stream = encoded(events)
    assert stream.count(b"event: content_block_stop") == stream.count(b"event: content_block_start")
    collector = Collector()
    for event in decoded([stream]):
        collector.add(event)
    assert decoded([stream]) == events
    assert collector.message.text == "So" + "".join(event.text for event in behind if isinstance(event, TextDelta))
    assert len(collector.message.parts) == 1 + len(behind)


def test_comments_tell_of_the_prompt_while_it_is_read() -> None:
    """Before the start and after the first block they are any server's comments."""
    told = encode_progress(PromptProgress(1, 3))
    frames = [encode_event(str(frame["type"]), frame) for frame in (MESSAGE, TEXT, MORE, CLOSE, END, STOP)]
    stream = told.join([b"", frames[0], b": prefill 9/3\n\n", *frames[1:], b""])
    decoder, items = EventDecoder(), SseDecoder().feed_all(stream)
    events = [event for item in items for event in decoder.decode(item)]
    assert events[:4] == [Started(3, 0), PromptProgress(1, 3), PromptProgress(1, 3), TextDelta("a")]
    assert events[4:] == [Finished("stop", Usage(3, 0, 2))]

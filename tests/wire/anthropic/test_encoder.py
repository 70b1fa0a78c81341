"""Events become the frames that every client accepts."""

from __future__ import annotations

import json

import pytest
from anthropic.types import RawMessageStreamEvent
from hypothesis import given
from pydantic import TypeAdapter

from pensieve.errors import InvalidRequest, Overloaded
from pensieve.generation import (
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
from pensieve.messages import Json, ThinkingPart
from pensieve.wire.anthropic.manner import PLAIN, Manner
from pensieve.wire.anthropic.responses import EventEncoder
from pensieve.wire.anthropic.signature import Unsealer
from pensieve.wire.sse import SseDecoder, SseEvent
from wire.strategies import PROPERTY, event_runs

SDK_EVENT: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)
STARTED = Started(11, 0)
SPOKEN: list[GenerationEvent] = [
    STARTED,
    PromptProgress(8, 11),
    ThinkingDelta("Hm."),
    ThinkingFinished("mark"),
    TextDelta("Let me"),
    TextDelta(" look"),
    ToolCallStarted("call_1", "look"),
    ToolCallDelta("call_1", '{"wh'),
    ToolCallDelta("call_1", 'ere": "up"}'),
    ToolCallFinished("call_1"),
    Finished("tool_calls", Usage(11, 0, 12)),
]
FRAMES = """
{"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "m",\
 "content": [], "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 11, "output_tokens": 1,\
 "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}}}
{"type": "ping"}
{"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}}
{"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}}
{"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "mark"}}
{"type": "content_block_stop", "index": 0}
{"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}}
{"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Let me"}}
{"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": " look"}}
{"type": "content_block_stop", "index": 1}
{"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "call_1", "name": "look",\
 "input": {}}}
{"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ""}}
{"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{\\"wh"}}
{"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "ere\\": \\"up\\"}"}}
{"type": "content_block_stop", "index": 2}
{"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null}, "usage":\
 {"input_tokens": 11, "output_tokens": 12,\
 "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}}
{"type": "message_stop"}
""".strip().splitlines()


def frames(events: list[GenerationEvent], manner: Manner = PLAIN) -> list[SseEvent]:
    """The frames of one answer."""
    encoder = EventEncoder("msg_1", "m", manner=manner)
    return SseDecoder().feed(b"".join(encoder.encode(event) for event in events))


def said(*events: GenerationEvent, manner: Manner = PLAIN) -> list[Json]:
    """The data of the frames that these events cause between the opening ping and the end."""
    spoken = frames([STARTED, *events, Finished("stop", Usage(11, 0, 1))], manner)
    return [json.loads(frame.data) for frame in spoken[2:-2]]


def test_an_answer_has_exactly_the_frames_of_the_api() -> None:
    """Same frames, same fields, in the same order."""
    spoken = frames(SPOKEN)
    assert [json.dumps(json.loads(frame.data)) for frame in spoken] == FRAMES


@PROPERTY
@given(event_runs())
def test_every_frame_is_one_of_the_sdks_own(events: list[GenerationEvent]) -> None:
    """The official SDK's types take each frame strictly, and the event's name is its type."""
    for frame in frames(events):
        assert frame.event == json.loads(frame.data)["type"]
        if frame.event != "ping":
            SDK_EVENT.validate_json(frame.data, strict=True)


def test_the_prompt_is_the_sum_of_the_input_fields() -> None:
    """Clients decide by it when to compact the conversation."""
    [start, *_] = frames([Started(100, 60)])
    usage = json.loads(start.data)["message"]["usage"]
    assert usage == {
        "input_tokens": 40,
        "output_tokens": 1,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 60,
    }


def test_the_prompt_is_told_again_at_the_end() -> None:
    """Some clients read it there; what `message_start` said wrong is put right."""
    delta = json.loads(frames([STARTED, Finished("stop", Usage(11, 5, 3))])[-2].data)
    assert delta["usage"] == {
        "input_tokens": 6,
        "output_tokens": 3,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 5,
    }


def test_an_answer_without_content_is_whole() -> None:
    """Start, delta and stop come also when nothing was said."""
    names = [frame.event for frame in frames([STARTED, Finished("stop", Usage(11, 0, 0))])]
    assert names == ["message_start", "ping", "message_delta", "message_stop"]


@pytest.mark.parametrize(
    ("finished", "reason", "sequence"),
    [
        (Finished("stop", Usage()), "end_turn", None),
        (Finished("length", Usage()), "max_tokens", None),
        (Finished("stop_string", Usage(), "END"), "stop_sequence", "END"),
        (Finished("tool_calls", Usage()), "tool_use", None),
        (Finished("context_full", Usage()), "model_context_window_exceeded", None),
        (Finished("refusal", Usage()), "refusal", None),
    ],
)
def test_every_reason_has_its_word(finished: Finished, reason: str, sequence: str | None) -> None:
    """Clients act on the stop reason."""
    delta = json.loads(frames([STARTED, finished])[-2].data)["delta"]
    assert delta == {"stop_reason": reason, "stop_sequence": sequence}


def test_a_stopped_loop_is_a_refusal_that_explains_itself() -> None:
    """The API has no word of its own for it, and a normal end would be a lie."""
    delta = json.loads(frames([STARTED, Finished("repetition", Usage())])[-2].data)["delta"]
    assert (delta["stop_reason"], delta["stop_details"]["type"]) == ("refusal", "refusal")
    assert "repeating itself" in delta["stop_details"]["explanation"]


def test_hidden_thinking_is_a_block_without_words_whose_signature_brings_them_back() -> None:
    """The client sees none of it; echoed, the model's thinking and the prompt's prefix are whole again."""
    events: list[GenerationEvent] = [ThinkingDelta("hm, "), ThinkingDelta("so"), ThinkingFinished(), TextDelta("yes")]
    hidden = said(*events, manner=Manner(is_thinking_shown=False))
    assert [frame["type"] for frame in hidden[:3]] == [
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
    ]
    assert hidden[0]["content_block"] == {"type": "thinking", "thinking": "", "signature": ""}
    assert "hm" not in json.dumps(hidden)
    assert Unsealer().read("", hidden[1]["delta"]["signature"]) == ThinkingPart("hm, so")


def test_hidden_thinking_is_told_anew_in_each_block() -> None:
    """What one block hid is not in the next one's signature."""
    first: list[GenerationEvent] = [ThinkingDelta("a"), ThinkingFinished(), TextDelta("x")]
    events = [*first, ThinkingDelta("b"), ThinkingFinished()]
    deltas = [frame["delta"] for frame in said(*events, manner=Manner(is_thinking_shown=False)) if "delta" in frame]
    signatures = [delta["signature"] for delta in deltas if delta["type"] == "signature_delta"]
    assert [Unsealer().read("", signature).text for signature in signatures] == ["a", "b"]


def test_a_client_is_told_what_it_asked_about() -> None:
    """Edits of the context: none were made. Diagnostics: what the caller found out, or that there is nothing."""
    asked = Manner(is_context_managed=True, is_diagnosed=True)
    encoder = EventEncoder("msg_1", "m", manner=asked, diagnose=lambda started: {"tokens": started.prompt_tokens})
    start, _, delta, _ = SseDecoder().feed(encoder.encode(STARTED) + encoder.encode(Finished("stop", Usage(11, 0, 1))))
    assert json.loads(start.data)["message"]["diagnostics"] == {"tokens": 11}
    assert json.loads(delta.data)["context_management"] == {"applied_edits": []}
    assert "diagnostics" not in json.loads(frames([STARTED])[0].data)["message"]


def test_thinking_is_signed_even_when_nobody_signed_it() -> None:
    """Clients want a signature that is not empty."""
    signature = said(ThinkingDelta("hm"), TextDelta("so"))[2]["delta"]
    assert signature == {"type": "signature_delta", "signature": "pensieve"}


def test_thinking_that_begins_again_is_another_block() -> None:
    """A finished block is never reopened."""
    blocks = said(ThinkingDelta("a"), ThinkingFinished(), ThinkingDelta("b"), ThinkingFinished())
    assert [frame["index"] for frame in blocks] == [0, 0, 0, 0, 1, 1, 1, 1]


def test_empty_deltas_open_no_block() -> None:
    """A token that is no text yet leaves no trace, and neither does thinking without a word."""
    assert said(TextDelta(""), ThinkingDelta(""), ThinkingFinished("mark")) == []
    start, end = ToolCallStarted("c", "look"), ToolCallFinished("c")
    assert said(start, ToolCallDelta("c", ""), end) == said(start, end)


def test_half_a_character_does_not_break_the_stream() -> None:
    """A lone surrogate becomes the replacement character."""
    assert said(TextDelta("a\ud83d"))[1]["delta"]["text"] == "a\N{REPLACEMENT CHARACTER}"


def test_a_call_that_was_cut_off_is_closed() -> None:
    """Reaching the token limit inside a call still ends the block."""
    cut = said(ToolCallStarted("c", "look"), ToolCallDelta("c", '{"a'))
    assert cut[-1] == {"type": "content_block_stop", "index": 0}


def test_an_error_ends_the_stream_in_the_apis_envelope() -> None:
    """Type and sentence are those of the HTTP answer."""
    encoder = EventEncoder("msg_1", "m", request_id="req_1")
    [frame] = SseDecoder().feed(encoder.error(Overloaded("the queue is full")))
    problem = {"type": "overloaded_error", "message": "the queue is full; try again in 1 s"}
    assert frame.event == "error"
    assert json.loads(frame.data) == {"type": "error", "error": problem, "request_id": "req_1"}


def test_a_ping_needs_nothing_before_it() -> None:
    """Pings come while the request still waits."""
    assert EventEncoder("msg_1", "m").ping() == b'event: ping\ndata: {"type":"ping"}\n\n'


def test_an_error_may_come_before_anything_else() -> None:
    """A stream that was opened for pings can fail before it starts."""
    assert b"invalid_request_error" in EventEncoder("msg_1", "m").error(InvalidRequest("no"))

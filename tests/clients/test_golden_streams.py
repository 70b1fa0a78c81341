"""The streams the official SDK is tested with: our decoder makes of each what the SDK itself makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import pytest
from hypothesis import given

from golden_streams import golden_streams
from pensieve.generation import Collector, Finished, GenerationEvent
from pensieve.messages import TextPart, ThinkingPart, ToolCallPart
from pensieve.wire.anthropic.answers import StopDetails, decode_stop_reason
from pensieve.wire.anthropic.responses import EventDecoder, EventEncoder
from pensieve.wire.anthropic.signature import MARK
from pensieve.wire.sse import SseDecoder
from streams import CUTS
from wire.strategies import PROPERTY, event_runs

PARTS_OF_OURS = ("text", "thinking", "tool_use")
NOT_JSON = "tool_use_invalid_json_response"
CUT_CALL = "incomplete_partial_json_response"
NUM_STREAMS = 19


def stream(name: str) -> bytes:
    """The stream; some are kept without the blank line that ends the last frame."""
    return golden_streams()[name].rstrip(b"\n") + b"\n\n"


def sdk_message(data: bytes) -> Any:
    """What the SDK makes of a stream."""
    answer = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=data)
    transport = httpx2.MockTransport(lambda _request: answer)
    with (
        httpx2.Client(transport=transport) as http,
        anthropic.Anthropic(base_url="http://127.0.0.1:9", api_key="any", http_client=http) as client,
        client.beta.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}]) as read,
    ):
        return read.get_final_message()


def our_answer(chunks: list[bytes]) -> Collector:
    """What we make of it."""
    frames, events, collector = SseDecoder(), EventDecoder(), Collector()
    for chunk in chunks:
        for frame in frames.feed(chunk):
            for event in events.decode(frame):
                collector.add(event)
    assert events.is_finished
    return collector


def sdk_parts(message: Any) -> list[TextPart | ThinkingPart | ToolCallPart]:
    """Its blocks as our parts, without the kinds that we pass over and without empty text."""
    parts: list[TextPart | ThinkingPart | ToolCallPart] = []
    for block in message.content:
        match block.type:
            case "text" if block.text:
                parts.append(TextPart(block.text))
            case "thinking":
                parts.append(ThinkingPart(block.thinking, block.signature))
            case "tool_use":
                parts.append(ToolCallPart(block.id, block.name, block.input))
    return parts


def sdk_ending(message: Any) -> tuple[object, ...]:
    """Why it ended, and tokens of prompt, cache and answer."""
    usage = message.usage
    cached = usage.cache_read_input_tokens or 0
    prompt = usage.input_tokens + cached + (usage.cache_creation_input_tokens or 0)
    told = message.stop_details
    details = StopDetails(told.explanation) if told is not None else None
    return decode_stop_reason(message.stop_reason, details), message.stop_sequence, prompt, cached, usage.output_tokens


def our_ending(finished: Finished | None) -> tuple[object, ...]:
    """The same of ours."""
    assert finished is not None
    usage = finished.usage
    counts = (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
    return finished.reason, finished.stop_string, *counts


def names() -> list[str]:
    """Every stream but the one that is no answer."""
    return [name for name in golden_streams() if name != NOT_JSON]


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_our_decoder_and_the_sdk_agree_on_every_stream(cut: Callable[[bytes], list[bytes]]) -> None:
    """Part by part, and in the numbers; of a call that was cut the SDK guesses the rest, and we take none of it."""
    assert len(golden_streams()) == NUM_STREAMS
    for name in names():
        message, ours = sdk_message(stream(name)), our_answer(cut(stream(name)))
        parts = sdk_parts(message)[: -1 if name == CUT_CALL else None]
        assert list(ours.message.parts) == parts, name
        assert our_ending(ours.finished) == sdk_ending(message), name


def test_a_call_that_is_not_json_reaches_no_tool() -> None:
    """The SDK gives up, and we keep what was said besides."""
    with pytest.raises(ValueError, match="Unable to parse tool parameter JSON"):
        sdk_message(stream(NOT_JSON))
    (part,) = our_answer([stream(NOT_JSON)]).message.parts
    assert isinstance(part, TextPart)


@PROPERTY
@given(event_runs())
def test_of_our_own_streams_the_sdk_makes_the_same_as_our_decoder(events: list[GenerationEvent]) -> None:
    """Whatever is said, in whatever order of blocks."""
    encoder = EventEncoder("msg_1", "m")
    data = b"".join(encoder.encode(event) for event in events)
    message, ours = sdk_message(data), our_answer([data])
    assert [signed(part) for part in ours.message.parts if part != TextPart("")] == sdk_parts(message)
    assert our_ending(ours.finished) == sdk_ending(message)


def signed(part: object) -> object:
    """As it went over the wire, where thinking always has a signature."""
    return ThinkingPart(part.text, part.signature or MARK) if isinstance(part, ThinkingPart) else part

"""Answers of Chat Completions, streamed and whole: what is told, and that ours survive the way there and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from pensieve.errors import BackendFailure, Overloaded
from pensieve.generation import (
    Answer,
    Finished,
    GenerationEvent,
    Started,
    Switched,
    TextDelta,
    ThinkingDelta,
    ThinkingFinished,
    TokenLogprob,
    ToolCallFinished,
    ToolCallStarted,
    Usage,
)
from pensieve.messages import Message, Part, TextPart, ThinkingPart, ToolCallPart, say
from pensieve.wire.exchange import Label
from pensieve.wire.openai.answers import Shown, decode_answer
from pensieve.wire.openai.decoder import ChunkDecoder
from pensieve.wire.openai.encoder import ChunkEncoder, ChunkManner
from pensieve.wire.sse import SseDecoder
from wire.strategies import PROPERTY, answers, event_runs, words

LABEL = Label("chatcmpl-1", "m", created_seconds=5)
FULL = ChunkManner(Shown(logprobs=True), has_usage=True, has_early_usage=True)


def stream(events: Sequence[GenerationEvent], manner: ChunkManner = FULL) -> bytes:
    """All frames of these events, with signs of life between them."""
    encoder = ChunkEncoder(LABEL, manner)
    return b"".join(encoder.encode(event) + encoder.ping() for event in events)


def chunks(frames: bytes) -> list[ChatCompletionChunk]:
    """The frames as the SDK reads them; the last one is the end."""
    *data, done = [frame.data for frame in SseDecoder().feed(frames)]
    assert done == "[DONE]"
    return [ChatCompletionChunk.model_validate_json(each, strict=True) for each in data]


def events_of(frames: bytes) -> list[GenerationEvent]:
    """What is read back."""
    decoder = ChunkDecoder()
    return [event for frame in SseDecoder().feed(frames) for event in decoder.decode(frame)]


def sayable(events: Sequence[GenerationEvent]) -> list[GenerationEvent]:
    """What the format can say: thinking has no signature and ends where something else begins."""
    said: list[GenerationEvent] = []
    for event in events:
        match event, said[-1] if said else None:
            case ThinkingDelta(), ThinkingFinished():
                said[-1] = event
            case ThinkingFinished(), _:
                said.append(ThinkingFinished())
            case _:
                said.append(event)
    if isinstance(said[-1], Finished) and said[-1].reason != "stop_string":
        said[-1] = msgspec.structs.replace(said[-1], stop_string=None)
    return said


def _is_told_whole(run: list[GenerationEvent]) -> bool:
    last = run[-1]
    return isinstance(last, Finished) and (last.reason != "stop_string" or bool(last.stop_string))


@PROPERTY
@given(event_runs().filter(_is_told_whole))
def test_our_events_survive_the_wire(events: list[GenerationEvent]) -> None:
    """Whatever was said, in the order in which it was said."""
    assert events_of(stream(events)) == sayable(events)


@PROPERTY
@given(event_runs(), st.booleans())
def test_the_sdk_reads_every_chunk(events: list[GenerationEvent], has_usage: bool) -> None:
    """With every field that its types have."""
    read = chunks(stream(events, ChunkManner(has_usage=has_usage)))
    assert {chunk.id for chunk in read} == {"chatcmpl-1"}
    assert [bool(chunk.choices) for chunk in read] == [True] * (len(read) - has_usage) + [False] * has_usage
    assert (read[-1].usage is not None) == has_usage


def _sayable_answer(answer: Answer) -> Answer:
    parts = answer.message.parts
    thinking = "".join(part.text for part in parts if isinstance(part, ThinkingPart))
    said: list[Part] = [ThinkingPart(thinking)] if thinking else []
    said += [TextPart(answer.message.text)] if answer.message.text else []
    said += [part for part in parts if isinstance(part, ToolCallPart)]
    stop_string = answer.stop_string if answer.reason == "stop_string" else None
    return Answer(Message("assistant", tuple(said)), answer.reason, answer.usage, stop_string)


@PROPERTY
@given(answers, words)
def test_our_answers_survive_the_wire(answer: Answer, stop: str) -> None:
    """In one piece; the SDK reads it too."""
    answer = _sayable_answer(msgspec.structs.replace(answer, stop_string=stop))
    body = ChunkEncoder(LABEL).whole(answer)
    ChatCompletion.model_validate_json(msgspec.json.encode(body), strict=True)
    assert decode_answer(msgspec.json.decode(msgspec.json.encode(body))) == answer


LOGPROBS = (TokenLogprob(7, "hé", -0.5, ((7, "hé", -0.5), (8, "no", -1.5))),)


def test_probabilities_come_with_their_text() -> None:
    """Streamed and whole, with bytes, for those who asked."""
    run: list[GenerationEvent] = [Started(2, 1), TextDelta("hé", LOGPROBS), Finished("stop", Usage(2, 1, 1))]
    assert events_of(stream(run)) == run
    assert all(chunk.choices[0].logprobs is None for chunk in chunks(stream(run, ChunkManner())))
    answer = Answer(say("assistant", "hé"), "stop", Usage(2, 1, 1), logprobs=LOGPROBS)
    body = ChunkEncoder(LABEL, FULL).whole(answer)
    assert body["choices"][0]["logprobs"]["content"][0]["bytes"] == [104, 195, 169]
    assert decode_answer(body) == answer


def test_several_answers_have_an_index_each() -> None:
    """Each is begun and ended; the counts come once, at the end."""
    run: list[GenerationEvent] = [
        *(
            Started(2, 0),
            TextDelta("a"),
            Switched(1),
            TextDelta("b"),
            ToolCallStarted("c", "look"),
            ToolCallFinished("c"),
        ),
        *(Switched(0), Finished("stop", Usage(2, 0, 1)), Switched(1), Finished("tool_calls", Usage(2, 0, 3))),
    ]
    *read, last = chunks(stream(run, ChunkManner(has_usage=True, num_answers=2)))
    told = [
        (chunk.choices[0].index, chunk.choices[0].delta.content or "", chunk.choices[0].finish_reason) for chunk in read
    ]
    assert told[:4] == [(0, "", None), (0, "a", None), (1, "", None), (1, "b", None)]
    assert told[-2:] == [(0, "", "stop"), (1, "", "tool_calls")]
    assert last.usage is not None
    assert last.usage.completion_tokens == 3


def test_thinking_is_told_under_both_names_or_not_at_all() -> None:
    """Clients look for one of them."""
    run: list[GenerationEvent] = [
        Started(1, 0),
        ThinkingDelta("hm"),
        ThinkingFinished(),
        Finished("stop", Usage(1, 0, 1)),
    ]
    delta: Any = chunks(stream(run))[1].choices[0].delta
    assert (delta.reasoning_content, delta.reasoning) == ("hm", "hm")
    assert b"hm" not in stream(run, ChunkManner(Shown(thinking=False)))


def test_an_error_is_the_last_frame() -> None:
    """And is raised where it is read."""
    frame = ChunkEncoder(LABEL).error(Overloaded("busy", 3.0))
    with pytest.raises(Overloaded, match="busy; try again in 3 s"):
        events_of(frame)


@pytest.mark.parametrize(
    "frames",
    [
        b"data: [DONE]\n\n",
        b"data: {oops\n\n",
        b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"function":{"arguments":"{}"}}]}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"because"}]}\n\n',
    ],
)
def test_what_is_no_stream_of_the_api_is_said_to_be_none(frames: bytes) -> None:
    """The other server's fault, not the caller's."""
    with pytest.raises(BackendFailure):
        events_of(frames)


def test_other_servers_streams_are_read() -> None:
    """No counts, no id of a call, all of a call at once."""
    frames = b"".join(
        b"data: %b\n\n" % msgspec.json.encode({"choices": [{"index": 0, "delta": delta} | more]})
        for delta, more in (
            ({"role": "assistant"}, {}),
            ({"reasoning": "hm"}, {}),
            ({"tool_calls": [{"index": 0, "function": {"name": "look", "arguments": "{}"}}]}, {}),
            ({}, {"finish_reason": "tool_calls"}),
        )
    )
    kinds = [type(event).__name__ for event in events_of(frames + b"data: [DONE]\n\n")]
    assert kinds == [
        *("Started", "ThinkingDelta", "ThinkingFinished"),
        *("ToolCallStarted", "ToolCallDelta", "ToolCallFinished", "Finished"),
    ]

"""Events become the frames that every client of the Responses API accepts."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from pensieve.errors import ContextOverflow, WorkerCrashed
from pensieve.generation import (
    Collector,
    Finished,
    FinishReason,
    GenerationEvent,
    PromptProgress,
    Started,
    TextDelta,
    ThinkingDelta,
    ThinkingFinished,
    TokenLogprob,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    Usage,
)
from pensieve.messages import Json
from pensieve.wire.openai.responses.encoder import EventEncoder
from pensieve.wire.openai.responses.manner import PLAIN, Manner
from pensieve.wire.openai.responses.names import Names
from pensieve.wire.sse import SseDecoder
from wire.responses_strategies import runs
from wire.strategies import PROPERTY

SDK_EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
STARTED = Started(11, 4)
ECHOED = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
SEALED = Manner(ECHOED, is_summary_wanted=True, is_thinking_sealed=True, has_logprobs=True)
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
    Finished("tool_calls", Usage(11, 4, 12)),
]
ORDER = """
response.created response.in_progress
response.output_item.added response.reasoning_summary_part.added response.reasoning_summary_text.delta
response.reasoning_summary_text.done response.reasoning_summary_part.done response.output_item.done
response.output_item.added response.content_part.added response.output_text.delta response.output_text.delta
response.output_text.done response.content_part.done response.output_item.done
response.output_item.added response.function_call_arguments.delta response.function_call_arguments.delta
response.function_call_arguments.done response.output_item.done
response.completed
"""


def encoder(manner: Manner = PLAIN) -> EventEncoder:
    """Of one answer."""
    return EventEncoder("resp_1", "m", created_seconds=9, manner=manner)


def read(data: bytes) -> list[dict[str, Json]]:
    """The data of the frames in these bytes; each frame is named for its type."""
    frames = SseDecoder().feed(data)
    told = [json.loads(frame.data) for frame in frames]
    assert [each["type"] for each in told] == [frame.event for frame in frames]
    return told


def said(*events: GenerationEvent, manner: Manner = PLAIN) -> list[dict[str, Json]]:
    """The frames of one answer."""
    told = encoder(manner)
    return read(b"".join(told.encode(event) for event in events))


def test_an_answer_is_told_in_the_full_order() -> None:
    """Each item is added, opened, told in pieces, closed and done; and all of them stand in the last frame."""
    frames = said(*SPOKEN, manner=SEALED)
    assert [frame["type"] for frame in frames] == ORDER.split()
    assert [frame["sequence_number"] for frame in frames] == list(range(len(frames)))
    done = [frame["item"] for frame in frames if frame["type"] == "response.output_item.done"]
    assert frames[-1]["response"]["output"] == done


def test_the_last_frame_holds_the_answer() -> None:
    """Thinking with what its producer signs, words, and the call's whole arguments."""
    response = said(*SPOKEN, manner=SEALED)[-1]["response"]
    thought, words, call = response["output"]
    assert (thought["summary"], thought["encrypted_content"]) == ([{"type": "summary_text", "text": "Hm."}], "mark")
    assert words["content"] == [{"type": "output_text", "text": "Let me look", "annotations": [], "logprobs": []}]
    assert (call["call_id"], call["arguments"], call["status"]) == ("call_1", '{"where": "up"}', "completed")
    assert response["usage"]["input_tokens_details"]["cached_tokens"] == 4
    assert response["usage"]["total_tokens"] == 23


def parsed(response: dict[str, Json]) -> dict[str, Json]:
    """The response with its calls' arguments as values: their text may be spaced otherwise."""
    for item in response["output"]:
        if item["type"] == "function_call":
            item["arguments"] = json.loads(item["arguments"])
    return response


@PROPERTY
@given(runs())
def test_every_frame_is_as_the_sdk_has_it(events: list[GenerationEvent]) -> None:
    """Whatever is said."""
    for frame in said(*events, manner=SEALED):
        SDK_EVENT.validate_python(frame)


@PROPERTY
@given(runs())
def test_an_answer_in_one_piece_is_what_its_stream_ends_with(events: list[GenerationEvent]) -> None:
    """Item by item."""
    collector = Collector()
    for event in events:
        collector.add(event)
    manner = msgspec.structs.replace(SEALED, has_logprobs=False)
    assert parsed(encoder(manner).whole(collector.answer)) == parsed(said(*events, manner=manner)[-1]["response"])


def test_the_size_of_the_prompt_is_told_before_the_prompt_is_read() -> None:
    """With the first state after the queue."""
    created, progress = said(STARTED)
    assert created["response"]["usage"] is None
    assert progress["response"]["usage"]["input_tokens"] == 11


def test_a_sign_of_life_fits_wherever_it_comes() -> None:
    """Before anything, in the queue, and while the prompt is read."""
    told = encoder()
    frames = read(told.ping() + told.ping() + told.encode(STARTED) + told.ping())
    kinds = ["created", "queued", "in_progress", "in_progress"]
    assert [frame["type"] for frame in frames] == [f"response.{kind}" for kind in kinds]


def test_thinking_without_a_wish_for_a_summary_is_told_as_it_is() -> None:
    """And sealed only for a client that asks."""
    frames = said(STARTED, ThinkingDelta("Hm."), ThinkingFinished(), Finished("stop", Usage()))
    assert "response.reasoning_text.delta" in [frame["type"] for frame in frames]
    (item,) = frames[-1]["response"]["output"]
    assert (item["content"][0]["text"], item["summary"], item["encrypted_content"]) == ("Hm.", [], None)


@pytest.mark.parametrize(
    ("reason", "kind", "details"),
    [
        ("stop", "completed", None),
        ("stop_string", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("context_full", "incomplete", {"reason": "max_output_tokens"}),
        ("refusal", "incomplete", {"reason": "content_filter"}),
        ("repetition", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_the_end_says_whether_the_answer_is_whole(reason: FinishReason, kind: str, details: Json) -> None:
    """In the two words that the format has."""
    last = said(STARTED, TextDelta("a"), Finished(reason, Usage()))[-1]
    assert (last["type"], last["response"]["incomplete_details"]) == (f"response.{kind}", details)
    assert last["response"]["output"][0]["status"] == kind


def test_a_call_that_was_cut_is_incomplete() -> None:
    """Nobody is told that its arguments are done."""
    events: list[GenerationEvent] = [
        STARTED,
        ToolCallStarted("c", "look"),
        ToolCallDelta("c", '{"a'),
        Finished("length", Usage()),
    ]
    frames = said(*events)
    assert "response.function_call_arguments.done" not in [frame["type"] for frame in frames]
    assert frames[-1]["response"]["output"][0]["status"] == "incomplete"


def test_calls_are_told_in_the_clients_own_words() -> None:
    """A namespace stands beside the name, and text is text again."""
    manner = Manner(names=Names({"a__look": ("a", "look")}, frozenset({"patch"})))
    call: list[GenerationEvent] = [ToolCallStarted("c", "a__look"), ToolCallDelta("c", "{}"), ToolCallFinished("c")]
    text: list[GenerationEvent] = [
        ToolCallStarted("d", "patch"),
        ToolCallDelta("d", '{"input": "a\\nb"}'),
        ToolCallFinished("d"),
    ]
    frames = said(STARTED, *call, *text, Finished("tool_calls", Usage()), manner=manner)
    looked, patched = frames[-1]["response"]["output"]
    assert (looked["name"], looked["namespace"]) == ("look", "a")
    assert (patched["type"], patched["name"], patched["input"]) == ("custom_tool_call", "patch", "a\nb")
    assert frames[-3]["type"] == "response.custom_tool_call_input.done"


def test_probabilities_come_with_their_text() -> None:
    """To a client that asked for them."""
    tokens = (TokenLogprob(1, "a", -0.5, ((2, "b", -1.5),)),)
    manner = Manner(has_logprobs=True)
    frames = said(STARTED, TextDelta("a", tokens), Finished("stop", Usage()), manner=manner)
    other = {"token": "b", "logprob": -1.5, "id": 2, "bytes": [98]}
    told = [{"token": "a", "logprob": -0.5, "id": 1, "bytes": [97], "top_logprobs": [other]}]
    assert frames[4]["logprobs"] == told
    assert frames[-1]["response"]["output"][0]["content"][0]["logprobs"] == told


def test_a_failure_is_the_last_frame_and_keeps_what_was_said() -> None:
    """With a code that clients know."""
    told = encoder()
    told.encode(STARTED)
    last = read(told.error(WorkerCrashed(model="m", exit_status="SIGKILL")))[-1]
    assert (last["type"], last["response"]["error"]["code"]) == ("response.failed", "server_error")
    first, failed = read(encoder().error(ContextOverflow(prompt_tokens=9, limit_tokens=5)))
    assert (first["type"], failed["response"]["error"]["code"]) == ("response.created", "context_length_exceeded")


def test_half_a_character_stops_no_stream() -> None:
    """JSON cannot carry it."""
    frames = said(STARTED, TextDelta("a\ud83d"), Finished("stop", Usage()))
    assert frames[-1]["response"]["output"][0]["content"][0]["text"] == "a\ufffd"


def test_the_response_repeats_the_request() -> None:
    """And says that nothing of it is kept."""
    response: dict[str, Any] = said(STARTED, manner=Manner({"metadata": {"a": "b"}, "instructions": "x"}))[0][
        "response"
    ]
    assert (response["metadata"], response["instructions"]) == ({"a": "b"}, "x")
    assert (response["store"], response["previous_response_id"], response["created_at"]) == (False, None, 9)

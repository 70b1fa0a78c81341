"""Whole answers, both ways."""

from __future__ import annotations

import json

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.errors import BackendFailure
from pensieve.generation import Answer, Collector, GenerationEvent, Usage
from pensieve.messages import Json, Message, TextPart, ThinkingPart, ToolCallPart
from pensieve.wire.anthropic.manner import Manner
from pensieve.wire.anthropic.responses import EventDecoder, EventEncoder, decode_answer, encode_answer
from pensieve.wire.anthropic.signature import Unsealer
from pensieve.wire.sse import SseDecoder
from wire.strategies import PROPERTY, answers, event_runs

ANSWER = Answer(
    Message("assistant", (ThinkingPart("hm"), TextPart("so"), ToolCallPart("c", "look", {"a": 1}))),
    "tool_calls",
    Usage(10, 4, 6),
)


@PROPERTY
@given(answers)
def test_what_is_encoded_is_decoded_to_the_same_answer(answer: Answer) -> None:
    """The two directions are inverse, also through JSON text."""
    body = encode_answer(answer, message_id="msg_1", model="m")
    assert decode_answer(json.loads(json.dumps(body))) == answer


@PROPERTY
@given(answers)
def test_the_sdk_takes_every_answer(answer: Answer) -> None:
    """The official SDK's own type accepts the body strictly."""
    body = json.dumps(encode_answer(answer, message_id="msg_1", model="m"))
    message = anthropic.types.Message.model_validate_json(body, strict=True)
    assert len(message.content) == len(answer.message.parts)


def test_an_answer_has_the_fields_of_the_api_in_order() -> None:
    """Blocks, reason and usage stand where clients look for them."""
    assert json.dumps(encode_answer(ANSWER, message_id="msg_1", model="m")) == (
        '{"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": ['
        '{"type": "thinking", "thinking": "hm", "signature": "pensieve"}, {"type": "text", "text": "so"}, '
        '{"type": "tool_use", "id": "c", "name": "look", "input": {"a": 1}}], '
        '"stop_reason": "tool_use", "stop_sequence": null, "usage": {"input_tokens": 6, "output_tokens": 6, '
        '"cache_creation_input_tokens": 0, "cache_read_input_tokens": 4}}'
    )


@pytest.mark.parametrize(
    "change",
    [
        {"type": "other"},
        {"role": "user"},
        {"content": [{"type": "text"}]},
        {"content": "x"},
        {"stop_reason": None},
        {"usage": 1},
    ],
)
def test_an_answer_of_another_shape_is_a_failure(change: dict[str, Json]) -> None:
    """Whoever answered does not speak this API."""
    body = encode_answer(ANSWER, message_id="msg_1", model="m") | change
    with pytest.raises(BackendFailure, match=r"not as the API has it: (type|role|content|stop_reason|usage)"):
        decode_answer(body)


def test_a_block_of_an_unknown_kind_is_passed_over() -> None:
    """As it is in a stream."""
    body = encode_answer(ANSWER, message_id="msg_1", model="m")
    assert decode_answer(body | {"content": [{"type": "novelty"}, *body["content"]]}) == ANSWER


def test_hidden_thinking_has_a_block_without_words() -> None:
    """As in a stream; and whoever asked for diagnostics and edits is answered."""
    asked = Manner(is_thinking_shown=False, is_context_managed=True, is_diagnosed=True)
    body = encode_answer(ANSWER, message_id="msg_1", model="m", manner=asked)
    thinking = body["content"][0]
    assert (thinking["thinking"], Unsealer().read("", thinking["signature"])) == ("", ThinkingPart("hm"))
    assert (body["context_management"], body["diagnostics"]) == ({"applied_edits": []}, None)


@PROPERTY
@given(event_runs(), st.builds(Manner, st.booleans(), st.booleans(), st.booleans()))
def test_a_stream_says_what_the_whole_answer_says(events: list[GenerationEvent], manner: Manner) -> None:
    """Both ways of answering, read by a client, are the same answer."""
    encoder, frames, decoder = EventEncoder("msg_1", "m", manner=manner), SseDecoder(), EventDecoder()
    heard, told = Collector(), Collector()
    for event in events:
        told.add(event)
        for frame in frames.feed(encoder.encode(event)):
            for back in decoder.decode(frame):
                heard.add(back)
    assert told.finished is not None
    answer = Answer(told.message, told.finished.reason, told.finished.usage, told.finished.stop_string)
    whole = decode_answer(encode_answer(answer, message_id="msg_1", model="m", manner=manner))
    assert heard.finished is not None
    assert Answer(heard.message, heard.finished.reason, heard.finished.usage, heard.finished.stop_string) == whole

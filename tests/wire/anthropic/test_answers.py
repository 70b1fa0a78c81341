"""Whole answers, both ways."""

from __future__ import annotations

import json

import anthropic
import pytest
from hypothesis import given

from pensieve.errors import BackendFailure
from pensieve.generation import Answer, Usage
from pensieve.messages import Json, Message, TextPart, ThinkingPart, ToolCallPart
from pensieve.wire.anthropic.responses import decode_answer, encode_answer
from wire.strategies import PROPERTY, answers

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
    [{"type": "other"}, {"role": "user"}, {"content": [{"type": "novelty"}]}, {"stop_reason": None}, {"usage": 1}],
)
def test_an_answer_of_another_shape_is_a_failure(change: dict[str, Json]) -> None:
    """Whoever answered does not speak this API."""
    body = encode_answer(ANSWER, message_id="msg_1", model="m") | change
    with pytest.raises(BackendFailure, match=r"not as the API has it: (type|role|content|stop_reason|usage)"):
        decode_answer(body)

"""Whole answers of the Responses API, in both directions."""

from __future__ import annotations

import pytest
from hypothesis import given
from openai.types.responses import Response

from pensieve.errors import BackendFailure
from pensieve.generation import Answer, Usage
from pensieve.messages import Json, Message, TextPart
from pensieve.wire.openai.responses.answers import decode_answer
from pensieve.wire.openai.responses.encoder import EventEncoder
from pensieve.wire.openai.responses.manner import Manner
from wire.responses_strategies import answers
from wire.strategies import PROPERTY

ECHOED = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
WHOLE: dict[str, Json] = {"status": "completed", "output": []}


def encoded(answer: Answer, *, is_summary_wanted: bool = False) -> dict[str, Json]:
    """The body of an answer."""
    manner = Manner(ECHOED, is_summary_wanted=is_summary_wanted, is_thinking_sealed=True, has_logprobs=True)
    return EventEncoder("resp_1", "m", manner=manner).whole(answer)


@PROPERTY
@given(answers())
def test_what_is_encoded_is_decoded_to_the_same_answer(answer: Answer) -> None:
    """And the SDK reads it, whether thinking is told as a summary or as it is."""
    body = encoded(answer)
    Response.model_validate(body)
    assert decode_answer(body) == answer
    assert decode_answer(encoded(answer, is_summary_wanted=True)) == answer


def test_an_answer_of_another_server_is_read() -> None:
    """With items that only it knows."""
    said = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "hi", "annotations": []}],
    }
    body = WHOLE | {"output": [{"type": "web_search_call", "id": "ws"}, said], "usage": {"input_tokens": 3}}
    assert decode_answer(body) == Answer(Message("assistant", (TextPart("hi"),)), "stop", Usage(3, 0, 0))


@pytest.mark.parametrize(
    "change",
    [{"status": "cancelled"}, {"status": "incomplete"}, {"output": [{"type": "message"}]}, {"usage": 3}],
    ids=["cancelled", "without a reason", "no content", "no usage"],
)
def test_an_answer_of_another_shape_is_a_failure(change: dict[str, Json]) -> None:
    """Of the server that sent it."""
    with pytest.raises(BackendFailure):
        decode_answer(WHOLE | change)

"""The oldest of OpenAI's APIs: what is read, refused and told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from openai.types import Completion

from pensieve.errors import InvalidRequest
from pensieve.generation import Answer, Finished, Started, Switched, TextDelta, TokenLogprob, Usage
from pensieve.messages import say
from pensieve.wire.exchange import Label
from pensieve.wire.openai.completions import CompletionExchange, decode_request
from pensieve.wire.sse import SseDecoder

LABEL = Label("cmpl-1", "m", created_seconds=5)
LOGPROBS = (TokenLogprob(1, "ab", -0.5, ((1, "ab", -0.5),)), TokenLogprob(2, "c", -1.0, ((2, "c", -1.0),)))


def read(**fields: Any) -> CompletionExchange:
    """A body, decoded."""
    return decode_request(msgspec.json.encode({"model": "m", "prompt": "go"} | fields), request_id="req_1")


def told(exchange: CompletionExchange, events: list[Any]) -> list[dict[str, Any]]:
    """The chunks; the last frame is the end."""
    encoder = exchange.encoder(LABEL)
    *data, done = SseDecoder().feed(b"".join(encoder.encode(event) + encoder.ping() for event in events))
    assert done.data == "[DONE]"
    return [msgspec.json.decode(each.data) for each in data]


def test_the_text_is_the_prompt() -> None:
    """As it stands, in either form, with the API's own small limit."""
    request = read(prompt=["<|x|> go"], stop=["y"], n=2, logprobs=3, user="ann").request
    assert (request.text, request.messages, request.max_tokens) == ("<|x|> go", (), 16)
    assert (request.stop, request.num_answers, request.num_logprobs, request.affinity_key) == (("y",), 2, 3, "ann")


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 4}, "best_of"),
        ({"temperature": 9}, "temperature"),
    ],
)
def test_what_cannot_be_done_is_refused(fields: dict[str, Any], path: str) -> None:
    """By its name."""
    with pytest.raises(InvalidRequest) as refused:
        read(**fields)
    assert refused.value.path == path


def test_an_answer_is_told_whole() -> None:
    """With the text before it, where that is asked for, and probabilities at their places."""
    answer = Answer(say("assistant", "abc"), "length", Usage(1, 0, 2), logprobs=LOGPROBS)
    body = read(echo=True, logprobs=1).encoder(LABEL).whole(answer)
    choice = Completion.model_validate(body, strict=True).choices[0]
    assert (choice.text, choice.finish_reason) == ("goabc", "length")
    assert choice.logprobs is not None
    assert (choice.logprobs.text_offset, choice.logprobs.top_logprobs) == ([2, 4], [{"ab": -0.5}, {"c": -1.0}])


def test_answers_are_told_in_chunks() -> None:
    """Each with its index; counts at the end."""
    exchange = read(n=2, stream=True, echo=True, stream_options={"include_usage": True})
    ends = [Finished("stop", Usage(1, 0, 1)), Switched(1), Finished("stop_string", Usage(1, 0, 2), "y")]
    *chunks, last = told(exchange, [Started(1, 0), TextDelta("a"), Switched(1), TextDelta("b"), Switched(0), *ends])
    texts = [(choice["index"], choice["text"]) for chunk in chunks for choice in chunk["choices"]]
    assert texts == [(0, "go"), (0, "a"), (1, "go"), (1, "b"), (0, ""), (1, "")]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-2:]] == ["stop", "stop"]
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 2)

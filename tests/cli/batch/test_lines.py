"""What a line of the input asks, in each of its forms, and what is told of one that asks nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.cli.batch.lines import Job, Unclear, answered, failed, understand
from pensieve.cli.recipe import Recipe
from pensieve.generation import Answer, Usage
from pensieve.messages import say

RECIPE = Recipe("resident", system="be kind", max_tokens=77)
MESSAGES = [{"role": "user", "content": "hello"}]


def job_of(content: dict[str, Any]) -> Job:
    """The line, understood."""
    understood = understand(3, json.dumps(content).encode(), RECIPE)
    assert isinstance(understood, Job)
    return understood


def test_a_prompt_is_asked_as_ask_would() -> None:
    """With the settings' system prompt and limit, unless the line says its own."""
    plain, own = job_of({"prompt": "hello"}), job_of({"prompt": "hello", "system": "be curt", "max_tokens": 5})
    assert plain.request.messages == (say("system", "be kind"), say("user", "hello"))
    assert (plain.request.max_tokens, plain.request.model) == (77, "resident")
    assert (own.request.messages[0].text, own.request.max_tokens) == ("be curt", 5)


@pytest.mark.parametrize("wrap", [lambda body: body, lambda body: {"params": body}])
def test_a_body_of_the_api_is_taken_as_it_is(wrap: Any) -> None:
    """Alone or as a batch has it; the model is the command's, and there are no streams."""
    body = {"model": "claude-x", "messages": MESSAGES, "max_tokens": 9, "stop_sequences": ["END"], "stream": True}
    job = job_of(wrap(body) | {"custom_id": "mine"})
    assert (job.custom_id, job.request.model, job.request.max_tokens) == ("mine", "resident", 9)
    assert (job.request.stop, job.request.messages) == (("END",), (say("user", "hello"),))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"not json", "not JSON"),
        (b"[]", "object"),
        (b"{}", "messages"),
        (b'{"prompt": 1}', "prompt"),
        (b'{"prompt": " "}', "nothing to ask"),
        (b'{"prompt": "x", "promt": "y"}', "promt"),
        (b'{"custom_id": 1, "prompt": "x"}', "custom_id"),
        (b'{"params": []}', "params"),
        (b'{"messages": []}', "messages"),
        (b'{"prompt": "\xff"}', "UTF-8"),
    ],
)
def test_a_line_that_asks_nothing_says_why(content: bytes, problem: str) -> None:
    """As an error in its place; no other line suffers."""
    unclear = understand(2, content, RECIPE)
    assert isinstance(unclear, Unclear)
    told = json.loads(failed(unclear, unclear.error))
    assert (told["line"], told["result"]["type"]) == (2, "errored")
    assert problem in told["result"]["error"]["error"]["message"]


def test_an_answer_is_told_in_the_apis_words_and_as_text() -> None:
    """Under the line's number and its own id."""
    answer = Answer(say("assistant", "hi\nthere"), "stop", Usage(3, 0, 2))
    told = json.loads(answered(job_of({"prompt": "hello"}), answer))
    assert (told["line"], told["custom_id"], told["text"]) == (3, "3", "hi\nthere")
    assert told["result"]["message"]["stop_reason"] == "end_turn"
    assert told["result"]["message"]["content"] == [{"type": "text", "text": "hi\nthere"}]


@given(st.binary(max_size=200))
def test_no_line_is_ever_lost(content: bytes) -> None:
    """Whatever it is, it is a job or a problem, and its output is one line."""
    understood = understand(1, content, RECIPE)
    if isinstance(understood, Unclear):
        assert failed(understood, understood.error).count(b"\n") == 1

"""`/v1/responses`: the same path as every API, with another way to read and to tell."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from live_server import Live, frames, names, serving
from pensieve.inference.scripted import Script
from pensieve.messages import Json, say


async def ask(live: Live, **changes: Any) -> Json:
    """What comes back for one request that is not streamed."""
    response = await live.client.post("/v1/responses", json={"model": "any", "input": "hello there"} | changes)
    return response.json() | {"http_status": response.status_code}


async def test_an_answer_comes_whole() -> None:
    """With the model that gave it, and a size that is the prompt's."""
    async with serving() as live:
        answer = await ask(live, instructions="Be brief.")
    assert live.backend.requests[0].messages == (say("system", "Be brief."), say("user", "hello there"))
    assert answer["output"][0]["content"][0]["text"] == "one two three"
    assert (answer["model"], answer["status"], answer["usage"]["input_tokens"] > 0) == ("scripted", "completed", True)


async def test_an_answer_comes_in_pieces() -> None:
    """From `created` to `completed`."""
    async with serving() as live:
        streamed = await live.client.post("/v1/responses", json={"model": "any", "input": "hi", "stream": True})
    told = names(streamed)
    assert (told[0], told[-1]) == ("response.created", "response.completed")
    assert told.count("response.output_text.delta") == 3


async def test_signs_of_life_come_while_the_prompt_waits() -> None:
    """As events, which readers take for news."""
    script = {"turns": [{"steps": [{"type": "text", "text": "late"}], "delay_before_start_seconds": 0.5}]}
    async with serving(_script(script), ping_seconds=0.1) as live:
        streamed = await live.client.post("/v1/responses", json={"model": "any", "input": "hi", "stream": True})
    told = names(streamed)
    assert told[:2] == ["response.created", "response.queued"]
    numbers = [json.loads(frame.data)["sequence_number"] for frame in frames(streamed)]
    assert numbers == list(range(len(told)))


async def test_a_refusal_has_its_code_and_its_place() -> None:
    """In OpenAI's envelope, with the path as the client counts."""
    async with serving() as live:
        kept = await ask(live, previous_response_id="resp_1")
        wrong = await ask(live, input=[{"role": "user", "content": [{"type": "input_audio"}]}])
    assert (kept["http_status"], kept["error"]["code"]) == (400, "previous_response_not_found")
    assert kept["error"]["param"] == "previous_response_id"
    assert wrong["error"]["param"].startswith("input.0.content")


async def test_an_answer_that_breaks_off_ends_as_failed() -> None:
    """Its HTTP status has been sent by then."""
    fail = {"type": "fail", "error": "BackendFailure", "facts": {"problem": "it broke"}}
    async with serving(_script({"turns": [{"steps": [{"type": "text", "text": "one"}, fail]}]})) as live:
        streamed = await live.client.post("/v1/responses", json={"model": "any", "input": "hi", "stream": True})
    last = json.loads(frames(streamed)[-1].data)
    assert (last["type"], last["response"]["error"]["message"]) == ("response.failed", "it broke")


def _script(content: dict[str, Any]) -> Script:
    """A script from plain values."""
    return msgspec.convert(content, type=Script)

"""The official OpenAI SDK and the Responses API: every way to ask, over a script."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from live_server import Live, serving
from pensieve.inference.script import load_script
from pensieve.messages import ImagePart, TextPart, ThinkingPart, ToolCallPart, ToolResultPart

SCRIPT = load_script(Path(__file__).parent / "responses.toml")
TOOL: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
PIXEL = "data:image/png;base64,iVBORw0KGgo="
SEALED: Any = ["reasoning.encrypted_content"]


class Report(BaseModel):
    """What an answer is read as."""

    city: str
    degrees: float


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    """A server that plays the script."""
    async with serving(SCRIPT) as made:
        yield made


@pytest.fixture
async def client(live: Live) -> AsyncIterator[openai.AsyncOpenAI]:
    """The SDK as its users make it."""
    async with openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key="any", max_retries=0) as made:
        yield made


async def test_an_answer_is_created(client: openai.AsyncOpenAI) -> None:
    """With its text, its usage, and the model that gave it."""
    answer = await client.responses.create(model="gpt-any", input="count to three", instructions="Be brief.")
    assert (answer.output_text, answer.status, answer.model) == ("one two three", "completed", "scripted")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


async def test_a_prompt_is_counted_before_it_is_sent(client: openai.AsyncOpenAI) -> None:
    """As the answer will count it."""
    counted = await client.responses.input_tokens.count(model="any", input="count to three")
    answer = await client.responses.create(model="any", input="count to three")
    assert answer.usage is not None
    assert counted.input_tokens == answer.usage.input_tokens


async def test_an_answer_is_streamed(client: openai.AsyncOpenAI) -> None:
    """The SDK puts it together as the server did."""
    async with client.responses.stream(model="any", input="all kinds", reasoning={"summary": "auto"}) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert {"response.reasoning_summary_text.delta", "response.function_call_arguments.delta"} <= set(kinds)
    thought, words, call = final.output
    assert thought.type == "reasoning"
    assert [part.text for part in thought.summary] == ["hm hm"]
    assert (words.type, final.output_text) == ("message", "hello you")
    assert call.type == "function_call"
    assert (call.name, call.arguments) == ("read", '{"path":"/x"}')


async def test_raw_events_are_numbered_in_order(client: openai.AsyncOpenAI) -> None:
    """As `create(stream=True)` gives them."""
    numbers = [
        event.sequence_number async for event in await client.responses.create(model="any", input="hi", stream=True)
    ]
    assert numbers == list(range(len(numbers)))


async def test_an_answer_is_parsed(client: openai.AsyncOpenAI) -> None:
    """Whole and streamed, into the user's own class."""
    parsed = await client.responses.parse(model="any", input="Rome as an object", text_format=Report)
    async with client.responses.stream(model="any", input="Rome as an object", text_format=Report) as stream:
        streamed = await stream.get_final_response()
    assert parsed.output_parsed == streamed.output_parsed == Report(city="Rome", degrees=21.5)


async def test_a_tool_loop_goes_round(live: Live, client: openai.AsyncOpenAI) -> None:
    """Two calls at once; the SDK's own items go back as they came, thinking sealed among them."""
    history: list[Any] = [{"role": "user", "content": "What is the weather in Rome and Oslo?"}]
    asked: dict[str, Any] = {"model": "any", "tools": [TOOL], "include": SEALED, "store": False}
    first = await client.responses.create(input=history, **asked)
    calls = [item for item in first.output if item.type == "function_call"]
    history += [item.model_dump(exclude_none=True) for item in first.output]
    history += [{"type": "function_call_output", "call_id": call.call_id, "output": "sun"} for call in calls]
    second = await client.responses.create(input=history, **asked)
    assert second.output_text == "Sun in both."
    _, said, results = live.backend.requests[-1].messages
    cities = [part.arguments["city"] for part in said.parts if isinstance(part, ToolCallPart)]
    assert (said.parts[0], cities) == (ThinkingPart("I need both."), ["Rome", "Oslo"])
    assert [part.call_id for part in results.parts if isinstance(part, ToolResultPart)] == [
        call.call_id for call in calls
    ]


async def test_a_tool_that_takes_text_gets_text(client: openai.AsyncOpenAI) -> None:
    """The model writes an object, and nobody sees it."""
    tool: Any = {"type": "custom", "name": "apply_patch", "description": "Changes files."}
    async with client.responses.stream(model="any", input="patch it", tools=[tool]) as stream:
        final = await stream.get_final_response()
    (call,) = final.output
    assert call.type == "custom_tool_call"
    assert (call.name, call.input) == ("apply_patch", "*** Begin\n+ x\n*** End")


async def test_a_picture_reaches_the_model(live: Live, client: openai.AsyncOpenAI) -> None:
    """As the bytes that the URL holds."""
    content: Any = [{"type": "input_text", "text": "what is it"}, {"type": "input_image", "image_url": PIXEL}]
    await client.responses.create(model="any", input=[{"role": "user", "content": content}])
    (message,) = live.backend.requests[-1].messages
    assert message.parts == (TextPart("what is it"), ImagePart("image/png", b"\x89PNG\r\n\x1a\n"))


async def test_an_answer_that_was_cut_says_so(client: openai.AsyncOpenAI) -> None:
    """Whole and streamed."""
    cut = await client.responses.create(model="any", input="count to three", max_output_tokens=2)
    assert (cut.status, cut.output_text) == ("incomplete", "one two")
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"


async def test_errors_are_those_of_the_sdk(client: openai.AsyncOpenAI) -> None:
    """With codes that its users know."""
    with pytest.raises(openai.BadRequestError) as long:
        await client.responses.create(model="any", input="word " * 3_000)
    with pytest.raises(openai.BadRequestError) as kept:
        await client.responses.create(model="any", input="x", previous_response_id="resp_1")
    with pytest.raises(openai.APIStatusError) as busy:
        await client.responses.create(model="any", input="always busy")
    codes = [raised.value.code for raised in (long, kept, busy)]
    assert codes == ["context_length_exceeded", "previous_response_not_found", "server_overloaded"]
    assert busy.value.status_code == 503


async def test_a_busy_server_is_asked_again(client: openai.AsyncOpenAI) -> None:
    """And answers then."""
    patient = client.with_options(max_retries=2)
    assert (await patient.responses.create(model="any", input="busy once")).output_text == "here I am"


async def test_a_stream_that_breaks_is_told_as_failed(client: openai.AsyncOpenAI) -> None:
    """No answer is made of half of one."""
    async with client.responses.stream(model="any", input="break in the middle") as stream:
        last = [event async for event in stream][-1]
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert "it broke" in last.response.error.message

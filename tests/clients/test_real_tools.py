"""Forced tool calls and structured output with the official SDKs: the starter model, and a tiny random one on MLX.

The random model would say anything; what it says here fits all the same.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import anthropic
import pytest
from anthropic.lib.tools import beta_tool
from pydantic import BaseModel

from javascript_sdk import play_scenes
from served import serve
from tiny_models import make_tiny_model

pytestmark = pytest.mark.model

TEMPLATE = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)
CITIES, DAYS = ("Rome", "Oslo"), (1, 2, 3)
ASKED: dict[str, Any] = {
    "model": "any",
    "max_tokens": 200,
    "messages": [{"role": "user", "content": "Weather in Rome, 2 days?"}],
}


class Weather(BaseModel):
    """What is asked for."""

    city: Literal["Rome", "Oslo"]
    days: Literal[1, 2, 3]


TOOL: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": CITIES}, "days": {"type": "integer", "enum": DAYS}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}
ONE = {"disable_parallel_tool_use": True}


@pytest.fixture(scope="module", params=["llama.cpp", "MLX"])
def server(
    request: pytest.FixtureRequest, starter_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[subprocess.Popen[str]]:
    """A server of each engine, from its command."""
    with _served(request.param, starter_model, tmp_path_factory.mktemp("tools")) as process:
        yield process


def _served(engine: str, starter_model: Path, home: Path) -> AbstractContextManager[subprocess.Popen[str]]:
    if engine == "llama.cpp":
        # On one thread: two that wait for each other are slow beside the suite's other processes.
        settings = {"PENSIEVE_CONTEXT_TOKENS": "2048", "PENSIEVE_LLAMACPP_THREADS": "1"}
        return serve(starter_model.parents[3], secret="Weather", **settings)
    folder = make_tiny_model(home / "tiny", "qwen2", chat_template=TEMPLATE, max_position_embeddings=4_096)
    return serve(home, "--model", str(folder), secret="Weather")


def is_weather(given: Any) -> bool:
    """Whether it is as the schema says."""
    return set(given) == {"city", "days"} and given["city"] in CITIES and given["days"] in DAYS


async def test_a_forced_call_fits_its_schema(client: anthropic.AsyncAnthropic) -> None:
    """Whatever the model would rather say; streamed in pieces of JSON."""
    choice = {"type": "tool", "name": "get_weather", **ONE}
    forced: dict[str, Any] = ASKED | {"tools": [TOOL], "tool_choice": choice}
    async with client.messages.stream(**forced) as stream:
        num_pieces = sum([event.type == "input_json" async for event in stream])
        message = await stream.get_final_message()
    (call,) = message.content
    assert call.type == "tool_use"
    assert is_weather(call.input)
    assert message.stop_reason == "tool_use"
    assert num_pieces > 1


async def test_an_answer_is_parsed(client: anthropic.AsyncAnthropic) -> None:
    """Into the user's own class."""
    message = await client.messages.parse(**ASKED, output_format=Weather)
    assert isinstance(message.parsed_output, Weather)
    assert message.stop_reason == "end_turn"


async def test_the_tool_runner_runs_what_the_model_calls(url: str) -> None:
    """Two turns of it, with the whole conversation each time."""
    ran: list[Weather] = []

    @beta_tool(name="get_weather", description="The weather in a city.")
    def get_weather(city: Literal["Rome", "Oslo"], days: Literal[1, 2, 3]) -> str:
        ran.append(Weather(city=city, days=days))
        return "sun"

    choice: Any = {"type": "any", **ONE}
    with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0) as client:
        runner = client.beta.messages.tool_runner(**ASKED, tools=[get_weather], tool_choice=choice, max_iterations=2)
        sizes = [message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0) for message in runner]
    assert len(ran) == 2
    assert sizes[1] > sizes[0]


def test_the_javascript_sdk_gets_the_same(url: str) -> None:
    """A forced call, an object, and two turns of its tool runner."""
    played = play_scenes(url, "tools.mjs")
    reason, content = played["forced"]
    assert (reason, [block["type"] for block in content]) == ("tool_use", ["tool_use"])
    ran, reasons = played["tool_runner"]
    assert all(map(is_weather, (content[0]["input"], played["parse"], *ran)))
    assert reasons == ["tool_use", "tool_use"]

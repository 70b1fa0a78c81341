"""What the Python SDK sees of a server, scene by scene, each with the same outcome as its twin in js/scenes.mjs."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any, cast

import anthropic
from anthropic.lib.tools import ToolError, beta_tool
from pydantic import BaseModel

from pensieve.messages import Json

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
"""A PNG of one pixel."""


class Report(BaseModel):
    """What the answers of two scenes are read as."""

    city: str
    degrees: float


class Weather:
    """The tool of the tool runner's scenes, and the cities it was asked for."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def tool(self) -> Any:
        """The tool as the SDK wants it."""

        @beta_tool(name="get_weather", description="The weather in a city.")
        def get_weather(city: str) -> str:
            self.ran.append(city)
            if city == "Atlantis":
                raise ToolError("there is no Atlantis")
            return "sun in Rome" if city == "Rome" else "snow in Oslo"

        return get_weather


def asked(content: Json, **more: Any) -> dict[str, Any]:
    """A request of one user message."""
    fields = {"model": "claude-opus-5-5", "max_tokens": 500, "messages": [{"role": "user", "content": content}]}
    return fields | more


def parts(message: Any) -> list[Json]:
    """Its blocks, as short as they can be told."""
    found: list[Json] = []
    for block in message.content:
        match block.type:
            case "thinking":
                found.append(["thinking", block.thinking, block.signature])
            case "text":
                found.append(["text", block.text])
            case _:
                found.append([block.type, block.name, block.input])
    return found


def told(message: Any) -> list[Json]:
    """A whole message."""
    return [message.role, message.model, message.stop_reason, parts(message), message.usage.input_tokens]


def failure(call: Callable[[], object]) -> list[Json]:
    """The error's kind, status and words."""
    try:
        call()
    except anthropic.APIStatusError as error:
        return [type(error).__name__, error.status_code, str(error)]
    return ["nothing failed"]


class Scenes:
    """All scenes; each method is one, and gives its outcome."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = anthropic.Anthropic(base_url=url, api_key="any", max_retries=0)

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    def create(self) -> Json:
        """A whole answer."""
        return told(self._client.messages.create(**asked("all kinds")))

    def stream(self) -> Json:
        """The same in pieces, put together by the SDK."""
        with self._client.messages.stream(**asked("all kinds")) as stream:
            text = "".join(stream.text_stream)
            return [*told(stream.get_final_message()), text]

    def events(self) -> Json:
        """The kinds of raw events, each run of one kind once."""
        events: Iterable[Any] = self._client.messages.create(**asked("count to five"), stream=True)
        kinds: list[str] = []
        for event in events:
            kinds += [event.type] if event.type not in kinds[-1:] else []
        return kinds

    def count(self) -> Json:
        """Tokens of a prompt."""
        messages = asked("one two three")["messages"]
        return self._client.messages.count_tokens(model="any", messages=messages).input_tokens

    def models(self) -> Json:
        """All models, and one by the name an agent was built with."""
        listed = [model.id for model in self._client.models.list()]
        one = self._client.models.retrieve("claude-opus-5-5")
        assert one.capabilities is not None
        return [listed, one.id, one.max_input_tokens, one.capabilities.thinking.supported]

    def unknown_model(self) -> Json:
        """A model nobody has."""
        return failure(lambda: self._client.models.retrieve("no-such-model"))[:2]

    def parse(self) -> Json:
        """An answer read by the SDK as an object."""
        answer = self._client.messages.parse(**asked("Rome as an object"), output_format=Report).parsed_output
        return None if answer is None else answer.model_dump()

    def parse_stream(self) -> Json:
        """The same, streamed."""
        with self._client.messages.stream(**asked("Rome as an object"), output_format=Report) as stream:
            answer = stream.get_final_message().parsed_output
        return None if answer is None else answer.model_dump()

    def tool_runner(self) -> Json:
        """The SDK runs the tools itself; each request holds the whole conversation."""
        weather = Weather()
        content = asked("What is the weather in Rome and Oslo?")
        seen = list(self._client.beta.messages.tool_runner(**content, tools=[weather.tool()]))
        sizes = [message.usage.input_tokens for message in seen]
        return [weather.ran, [parts(message) for message in seen], sizes == sorted(set(sizes))]

    def tool_runner_stream(self) -> Json:
        """The same, streamed."""
        weather = Weather()
        content = asked("What is the weather in Rome and Oslo?")
        runner = self._client.beta.messages.tool_runner(**content, tools=[weather.tool()], stream=True)
        seen = [stream.get_final_message() for stream in runner]
        return [weather.ran, [parts(message) for message in seen]]

    def thinking_echo(self) -> Json:
        """Thinking comes back, of this server and of another, with and without a signature."""
        first = self._client.messages.create(**asked("all kinds", thinking={"type": "adaptive"}))
        result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "it thought before"}
        unsigned = {"type": "thinking", "thinking": "of another server", "signature": ""}
        messages = [
            *asked("all kinds")["messages"],
            {"role": "assistant", "content": [unsigned, *first.content]},
            {"role": "user", "content": [result]},
        ]
        return parts(self._client.messages.create(**asked("x") | {"messages": messages}))

    def overflow(self) -> Json:
        """A prompt that is too long."""
        return failure(lambda: self._client.messages.create(**asked("word " * 3_000)))

    def overloaded(self) -> Json:
        """A server that has no room, and then has."""
        return parts(self._client.with_options(max_retries=2).messages.create(**asked("busy?")))

    def broken_stream(self) -> Json:
        """An answer that breaks off."""
        return "it broke" in failure(lambda: self._read("break in the middle"))[2]

    def image(self) -> Json:
        """A picture for a model that cannot see."""
        source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
        content = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
        return failure(lambda: self._client.messages.create(**asked(content)))

    def stop_reasons(self) -> Json:
        """Five ways to end."""
        more: list[dict[str, Any]] = [{}, {"max_tokens": 2}, {"stop_sequences": ["four"]}]
        requests = [asked("count to five", **fields) for fields in more]
        requests += [asked("no thanks"), asked("window is full")]
        ended = [self._client.messages.create(**request) for request in requests]
        return [[message.stop_reason, message.stop_sequence] for message in ended]

    def leaving(self) -> Json:
        """A stream that is closed in the middle is counted as left."""
        events = self._client.messages.create(**asked("it never ends"), stream=True)
        next(event for event in events if event.type == "content_block_delta")
        before = self._num_disconnected()
        events.close()
        while self._num_disconnected() == before:
            pass
        return True

    def _read(self, text: str) -> None:
        with self._client.messages.stream(**asked(text)) as stream:
            stream.until_done()

    def _num_disconnected(self) -> int:
        with urllib.request.urlopen(f"{self._url}/health") as answer:
            return cast("int", json.load(answer)["requests"]["disconnected"])

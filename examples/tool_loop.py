"""A model that calls a function of yours until it knows enough to answer."""

import os
import sys

import anthropic
from anthropic.types import MessageParam, ToolParam, ToolResultBlockParam

client = anthropic.Anthropic(
    base_url=os.environ.get("PENSIEVE_URL", "http://127.0.0.1:7777"),
    api_key=os.environ.get("PENSIEVE_API_KEY", "any"),
)
TOOL: ToolParam = {
    "name": "get_weather",
    "description": "The weather in a city, today.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
MOST_ROUNDS = 10


def get_weather(city: str) -> str:
    """Here your own code would look it up."""
    return f"21 degrees and sun in {city}"


said: list[MessageParam] = [{"role": "user", "content": " ".join(sys.argv[1:]) or "How is the weather in Rome?"}]
for _ in range(MOST_ROUNDS):
    answer = client.messages.create(model="local", max_tokens=1000, messages=said, tools=[TOOL])
    said.append({"role": "assistant", "content": answer.content})
    results: list[ToolResultBlockParam] = []
    for block in answer.content:
        if block.type == "text":
            print(block.text)
        elif block.type == "tool_use":
            result = get_weather(str(block.input.get("city", "")))
            print(f"[{block.name} {block.input}: {result}]")
            results.append({"type": "tool_result", "tool_use_id": block.id, "content": result})
    if not results:
        break
    said.append({"role": "user", "content": results})

"""A conversation with a running server: each line of standard input is a question."""

import os
import sys

import anthropic
from anthropic.types import MessageParam

client = anthropic.Anthropic(
    base_url=os.environ.get("PENSIEVE_URL", "http://127.0.0.1:7777"),
    api_key=os.environ.get("PENSIEVE_API_KEY", "any"),
)
said: list[MessageParam] = []
for line in sys.stdin:
    said.append({"role": "user", "content": line.strip()})
    answer = client.messages.create(model="local", max_tokens=500, messages=said)
    text = "".join(block.text for block in answer.content if block.type == "text")
    said.append({"role": "assistant", "content": text})
    print(text)

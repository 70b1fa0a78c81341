"""An answer, printed as it is made."""

import os
import sys

import anthropic

client = anthropic.Anthropic(
    base_url=os.environ.get("PENSIEVE_URL", "http://127.0.0.1:7777"),
    api_key=os.environ.get("PENSIEVE_API_KEY", "any"),
)
question = " ".join(sys.argv[1:]) or "What is a pensieve?"
messages: list[anthropic.types.MessageParam] = [{"role": "user", "content": question}]
with client.messages.stream(model="local", max_tokens=500, messages=messages) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
    usage = stream.get_final_message().usage
print(f"\n({usage.input_tokens} tokens read, {usage.output_tokens} written)")

"""Many questions at once: the server answers them together, which takes much less time than one after the other."""

import asyncio
import os
import sys

import anthropic


async def ask(client: anthropic.AsyncAnthropic, question: str) -> str:
    """One answer."""
    answer = await client.messages.create(
        model="local", max_tokens=200, messages=[{"role": "user", "content": question}]
    )
    return "".join(block.text for block in answer.content if block.type == "text")


async def main(questions: list[str]) -> None:
    """Print each answer behind its question, in their order."""
    async with anthropic.AsyncAnthropic(
        base_url=os.environ.get("PENSIEVE_URL", "http://127.0.0.1:7777"),
        api_key=os.environ.get("PENSIEVE_API_KEY", "any"),
    ) as client:
        answers = await asyncio.gather(*(ask(client, question) for question in questions))
    for question, answer in zip(questions, answers, strict=True):
        print(f"{question}\n    {answer}")


asyncio.run(main(sys.argv[1:] or ["Name a colour.", "Name a fruit.", "Name a river."]))

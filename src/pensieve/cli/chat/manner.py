"""How an answer is told: whole instead of piece by piece, and with its figures behind it. Knows no terminal."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from pensieve.cli.chat.session import Event, Retrying
from pensieve.cli.speed import Speed
from pensieve.generation import Finished, TextDelta, ThinkingDelta, Usage


async def whole(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """The same events, with all text in one piece at the end; thinking is left out."""
    texts: list[str] = []
    async with aclosing(events):
        async for event in events:
            match event:
                case TextDelta(text):
                    texts.append(text)
                case ThinkingDelta():
                    pass
                case Finished():
                    yield TextDelta("".join(texts))
                    yield event
                case Retrying():
                    texts.clear()
                    yield event
                case _:
                    yield event


def figures(speed: Speed, usage: Usage) -> str:
    """How quick an answer was and how large, in one line."""
    told = [f"{usage.prompt_tokens:,} prompt tokens, {usage.cached_tokens:,} of them cached"]
    told.append(f"{usage.completion_tokens:,} answer tokens")
    if speed.time_to_first_token_seconds is not None:
        told.append(f"first after {speed.time_to_first_token_seconds:.2f} s")
    if speed.decode_tokens_per_second is not None:
        told.append(f"{speed.decode_tokens_per_second:.1f} tokens a second")
    return f"({', '.join(told)}, {speed.total_seconds:.2f} s in all)"

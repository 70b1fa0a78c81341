"""Many clients at once, and what became of each of their requests."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import httpx
import msgspec

from pensieve.wire.sse import SseDecoder

PATIENCE_SECONDS = 120.0
KINDS = ("short", "long", "stream", "cancelled", "malformed", "tools", "shared")
RULES = " ".join(f"Rule {number}: be brief, be kind, and say only what you know for sure." for number in range(1, 9))
"""With it prompts begin alike, and are worth being kept on disk."""

TOOL = {"name": "look", "description": "Look.", "input_schema": {"type": "object", "properties": {}}}


class Crowd:
    """Counts how requests ended; one that hangs, or ends in neither an answer nor one error, fails the test."""

    def __init__(self, url: str) -> None:
        self.endings: Counter[str] = Counter()
        self._client = httpx.AsyncClient(
            base_url=url, timeout=PATIENCE_SECONDS, trust_env=False, limits=httpx.Limits(max_connections=64)
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def health(self) -> dict[str, Any]:
        """What /health says."""
        told: dict[str, Any] = (await self._client.get("/health")).json()
        return told

    async def until(self, state: str) -> dict[str, Any]:
        """Wait until the model is in that state and requests are taken; what /health said then."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                told = await self.health()
                if told["model"]["state"] == state and told["memory"]["accepting_requests"]:
                    return told
                await asyncio.sleep(0.1)

    async def until_answered(self) -> dict[str, Any]:
        """Ask until there is an answer; what /health says then."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self.ask("short", random.randrange(10**9)) != "answer":  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.5)
        return await self.until("ready")

    async def ask(self, kind: str, seed: int) -> str:
        """One request, counted; how it ended."""
        ending = await self._cancelled(seed) if kind == "cancelled" else await self._whole(kind, seed)
        self.endings[ending] += 1
        return ending

    async def _whole(self, kind: str, seed: int) -> str:
        body = _body(kind, seed)
        answer = await self._client.post("/v1/messages", json=body)
        if answer.status_code != 200:
            error = answer.json()["error"]
            assert error["message"]
            assert "too long" not in error["message"], "no agent may take it for a context overflow"
            return f"{answer.status_code} {error['type']}"
        if not body.get("stream"):
            assert answer.json()["type"] == "message"
            return "answer"
        names = [frame.event for frame in SseDecoder().feed(answer.content)]
        assert names[-1] in {"message_stop", "error"}, f"a stream ended with {names[-1:]}"
        assert names.count("error") + names.count("message_stop") == 1
        return "answer" if names[-1] == "message_stop" else "error in a stream"

    async def _cancelled(self, seed: int) -> str:
        request = self._client.stream("POST", "/v1/messages", json=_body("stream", seed))
        async with request as answer:
            if answer.status_code != 200:
                return f"{answer.status_code} {msgspec.json.decode(await answer.aread())['error']['type']}"
            async for _ in answer.aiter_bytes():
                break
        return "cancelled"


def _body(kind: str, seed: int) -> dict[str, Any]:
    """A request of that kind; every seed says something else."""
    words = f"Request {seed}. " + "Tell me more. " * (15 if kind == "long" else 1)
    made: dict[str, Any] = {"model": "any", "max_tokens": 4, "messages": [{"role": "user", "content": words}]}
    match kind:
        case "malformed":
            made["messages"] = [{"role": "wizard", "content": words}]
        case "stream":
            made["stream"] = True
        case "shared":
            made["system"] = RULES
        case "tools":
            made["tools"] = [TOOL]
    return made


async def press(crowd: Crowd, num_clients: int, stop: asyncio.Event) -> None:
    """So many clients ask, one request after the other, until told to stop; all have ended when this returns."""

    async def client(number: int) -> None:
        source, sent = random.Random(number), 0
        while not stop.is_set():
            sent += 1
            ending = await crowd.ask(source.choice(KINDS), number * 1_000_000 + sent)
            if ending.startswith(("5", "error")):
                await asyncio.sleep(0.2)

    await asyncio.gather(*(client(number) for number in range(num_clients)))

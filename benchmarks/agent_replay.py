"""Replays a coding agent's session against any server of the Messages API: how much is reused, how long it is silent.

    python benchmarks/agent_replay.py                                    # a server of our own, the starter model
    python benchmarks/agent_replay.py --url http://127.0.0.1:8080        # whatever listens there

How `reusable` is found: the longest beginning that a request shares with any earlier one (tools, system and messages,
without what tells the model nothing) is made a request of its own and counted by the server. That is up to some ten
tokens too many, because a shorter request ends in a header too: to the server's disadvantage. Where a server cannot
count, tokens are estimated from characters. Requests that were given up count neither as earlier nor as reading again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

import report
from agent_session import FULL_SCALE, Request, Wave, session
from common_prefix import common, countable, readable, size
from serving import running_server

TARGET_SHARE = 0.99
TARGET_SILENCE_SECONDS = 6.0
NOTHING: dict[str, Any] = {"tools": [], "system": [], "messages": []}
HEADERS = {
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "interleaved-thinking-2025-05-14,context-management-2025-06-27,effort-2025-11-24",
    "accept-encoding": "identity",
}


@dataclass
class Row:
    """What became of one request; tokens of 0 were not told."""

    request: Request
    wave: int
    prompt_tokens: int = 0
    reused_tokens: int = 0
    reusable_tokens: int = 0
    first_seconds: float = 0.0
    silence_seconds: float = 0.0
    """The longest, from sending on."""
    stop_reason: str = ""

    @property
    def is_measured(self) -> bool:
        """Whether the server answered it."""
        return not (self.request.is_aborted or self.request.is_count)


class Reader:
    """Takes a stream in: when something came, and what it says of tokens."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self._sent_seconds = self._last_seconds = time.perf_counter()
        self._rest = b""
        self.has_started = False

    def take(self, chunk: bytes) -> None:
        """More of the stream."""
        now = time.perf_counter()
        self._row.silence_seconds = max(self._row.silence_seconds, now - self._last_seconds)
        self._last_seconds = now
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._read(json.loads(line.removeprefix(b"data:")), now)

    def _read(self, event: dict[str, Any], now: float) -> None:
        kind = event.get("type")
        if kind == "error":
            raise RuntimeError(f"{self._row.request.name}: {event}")
        if kind == "message_start":
            self.has_started = True
            self._usage(event["message"].get("usage") or {})
        elif kind == "content_block_delta" and not self._row.first_seconds:
            self._row.first_seconds = now - self._sent_seconds
        elif kind == "message_delta":
            self._row.stop_reason = event["delta"].get("stop_reason") or ""
            self._usage(event.get("usage") or {})

    def _usage(self, usage: dict[str, Any]) -> None:
        if usage.get("input_tokens") is not None:
            cached = usage.get("cache_read_input_tokens") or 0
            created = usage.get("cache_creation_input_tokens") or 0
            self._row.prompt_tokens = usage["input_tokens"] + cached + created
            self._row.reused_tokens = cached


async def replay(
    url: str, waves: Sequence[Wave], key: str = "any", model: str = "", tell: Callable[[Row], None] = lambda _row: None
) -> list[Row]:
    """Send all waves, then find out what could have been reused; raises where a request is not answered."""
    headers = HEADERS | {"x-api-key": key}
    rows: list[Row] = []
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=900, trust_env=False) as client:
        for number, wave in enumerate(waves):
            waiting = [Row(_named(request, model), number) for request in wave]
            rows += await asyncio.gather(*(_send(client, row) for row in waiting))
            for row in waiting:
                tell(row)
        await _find_reusable(client, rows)
    return rows


def _named(request: Request, model: str) -> Request:
    return Request(**vars(request) | {"body": request.body | {"model": model}}) if model else request


async def _send(client: httpx.AsyncClient, row: Row) -> Row:
    request = row.request
    headers = {"x-claude-code-session-id": request.session}
    if request.is_count:
        row.prompt_tokens = await _count(client, countable(readable(request.body))) or 0
        return row
    reader = Reader(row)
    async with client.stream("POST", "/v1/messages?beta=true", json=request.body, headers=headers) as response:
        if response.status_code != httpx.codes.OK:
            raise RuntimeError(f"{request.name}: {response.status_code} {(await response.aread()).decode()}")
        async for chunk in response.aiter_raw():
            reader.take(chunk)
            if request.is_aborted and reader.has_started:
                break
    return row


async def _count(client: httpx.AsyncClient, body: dict[str, Any]) -> int | None:
    """Tokens of a prompt; None where the server does not count."""
    response = await client.post("/v1/messages/count_tokens", json=body)
    if response.status_code != httpx.codes.OK:
        return None
    tokens: int = response.json()["input_tokens"]
    return tokens


async def _find_reusable(client: httpx.AsyncClient, rows: list[Row]) -> None:
    read = [(row, readable(row.request.body)) for row in rows if row.is_measured]
    for row, new in read:
        earlier = [old for other, old in read if other.wave < row.wave]
        if not earlier:
            continue
        longest = max((common(new, old) for old in earlier), key=size)
        counted = await _count(client, countable(longest)) if size(longest) > size(NOTHING) else 0
        estimated = int(row.prompt_tokens * size(longest) / size(new))
        row.reusable_tokens = min(estimated if counted is None else counted, row.prompt_tokens)


def share(rows: Sequence[Row], block_tokens: int = 1) -> float:
    """Which part of the reusable tokens was reused; servers that keep whole blocks can reuse whole blocks only."""
    measured = [(row.reusable_tokens // block_tokens * block_tokens, row) for row in rows if row.is_measured]
    reusable = sum(tokens for tokens, _ in measured)
    return sum(min(row.reused_tokens, tokens) for tokens, row in measured) / reusable if reusable else 0.0


def table(rows: Sequence[Row]) -> str:
    """All requests, as Markdown."""
    lines = [
        "| request | prompt | reused | reusable | first token | longest silence | ended |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        numbers = (row.prompt_tokens, row.reused_tokens, row.reusable_tokens)
        cells = [row.request.name, *(f"{number:,}" for number in numbers)]
        cells += [f"{row.first_seconds:.2f} s", f"{row.silence_seconds:.2f} s", row.stop_reason]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(rows: Sequence[Row]) -> str:
    """The two numbers that count, beside what is asked of them."""
    silence = max(row.silence_seconds for row in rows)
    read = sum(row.prompt_tokens - row.reused_tokens for row in rows if row.is_measured)
    return (
        f"reused {share(rows):.2%} of what could be reused (asked: {TARGET_SHARE:.0%}); "
        f"longest silence {silence:.2f} s (asked: under {TARGET_SILENCE_SECONDS:.0f} s); "
        f"{read:,} prompt tokens computed"
    )


def main() -> None:
    """Replay, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="where the server listens; without it one is started with the starter model")
    parser.add_argument("--key", default="any", help="sent as x-api-key")
    parser.add_argument("--model", default="", help="the name to ask for, where a server insists on one")
    parser.add_argument("--scale", type=float, help="of all texts; 1 is a real agent's size, about 20,000 tokens")
    parser.add_argument("--tokens", type=int, default=16, help="of each answer")
    parser.add_argument("--out", type=Path, default=Path(".cache/benchmarks"))
    arguments = parser.parse_args()
    if arguments.url:
        rows = _replayed(arguments.url, arguments, FULL_SCALE)
    else:
        with running_server() as url:
            rows = _replayed(url, arguments, STARTER_SCALE)
    text = f"{table(rows)}\n\n{verdict(rows)}"
    print(text)
    facts = {"share": share(rows), "silence_seconds": max(row.silence_seconds for row in rows)}
    report.write(arguments.out, "agent-replay", "A coding agent's session, replayed", text, facts)


STARTER_SCALE = 0.1
"""The starter model has 8,192 tokens of context."""


def _replayed(url: str, arguments: argparse.Namespace, scale: float) -> list[Row]:
    waves = session(arguments.scale or scale, arguments.tokens)
    return asyncio.run(replay(url, waves, arguments.key, arguments.model, _tell))


def _tell(row: Row) -> None:
    print(f"{row.request.name}: {row.prompt_tokens:,} tokens, {row.reused_tokens:,} reused, {row.first_seconds:.2f} s")


if __name__ == "__main__":
    main()

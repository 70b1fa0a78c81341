"""The route of every API that answers: one code path, to which an API adds how to read a request and tell an answer.

Guards have been before. Here: marks for the cache log, the feed with its pings and its end, media, the record. Knows no
field of any API.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from pensieve.generation import GenerationEvent
from pensieve.inference.several import several
from pensieve.server.cache_log import Watch
from pensieve.server.endpoints import LARGE_BODY_BYTES, Endpoint, Shared, as_sent, decoded, session_of
from pensieve.server.feed import Feed
from pensieve.server.ledger import record_of
from pensieve.server.prompt_marks import PromptMarks, mark_prompt
from pensieve.server.streaming import Reading, send_settled, send_stream, send_whole
from pensieve.wire.exchange import Decode, Exchange, Label
from pensieve.wire.progress import ASKED, HEADER


class Answers(Endpoint):
    """`POST` of a request that a model answers, streamed or whole."""

    def __init__(self, shared: Shared, decode: Decode) -> None:
        super().__init__(shared)
        self._decode = decode

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a client that leaves ends the work."""
        record = record_of(scope)
        asked = Request(scope, receive)
        session = session_of(asked)
        body = await asked.body()
        exchange = await decoded(
            body, lambda: self._decode(body, request_id=record.id, affinity_key=session), self.ledger
        )
        record.model = (await self.router.choose(exchange.request.model)).name
        label = Label(f"{exchange.id_prefix}{uuid.uuid4().hex[:24]}", record.model, record.id, int(time.time()))
        settled = exchange.settled(label)
        if settled is not None:
            await send_settled(settled, send, is_stream=exchange.is_stream)
            return
        marks = await self._marks(exchange, record.model, len(body))
        watch = Watch(self.cache_log, marks, record.id, label.answer_id, exchange.request.affinity_key)
        record.observer = watch
        encoder = exchange.encoder(label._replace(diagnose=watch.diagnostics))
        async with Feed(self._answer(exchange), receive, record, self.ledger, self.settings.ping_seconds) as feed:
            if exchange.is_stream:
                reading = Reading() if asked.headers.get(HEADER) == ASKED else None
                await send_stream(feed, encoder, record, send, reading)
            else:
                await send_whole(feed, encoder, send)

    async def _answer(self, exchange: Exchange) -> AsyncGenerator[GenerationEvent, None]:
        with as_sent(exchange):
            request = await self.loaded(exchange.request)
            generate = self.router.generate
            answers = generate(request) if request.num_answers == 1 else several(generate, request)
            async with aclosing(answers) as events:
                async for event in events:
                    yield event

    async def _marks(self, exchange: Exchange, model: str, body_bytes: int) -> PromptMarks:
        def mark() -> PromptMarks:
            keeps_text = self.settings.keep_prompt_text == "on"
            return mark_prompt(exchange.request, exchange.positions, model=model, keeps_text=keeps_text)

        return mark() if body_bytes < LARGE_BODY_BYTES else await asyncio.to_thread(mark)

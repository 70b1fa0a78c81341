"""`POST /v1/embeddings`: texts to vectors, by the model that answers for the name. Translating is the wire's work."""

from __future__ import annotations

import asyncio

import msgspec
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from pensieve.generation import Usage
from pensieve.server.endpoints import LARGE_BODY_BYTES, Endpoint
from pensieve.server.envelope import send_json
from pensieve.server.errand import run_errand
from pensieve.server.ledger import record_of
from pensieve.wire.openai.embeddings import decode_request, encode_answer


class Embeddings(Endpoint):
    """Embeds texts, where the model can."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        record = record_of(scope)
        body = await Request(scope, receive).body()
        is_small = len(body) < LARGE_BODY_BYTES
        request = decode_request(body) if is_small else await asyncio.to_thread(decode_request, body)
        self.ledger.note_unknown_fields(request.unknown_fields)
        record.model = (await self.router.choose(request.model)).name
        made = await run_errand(self.router.embed(record.model, request.texts), receive, self.ledger)
        record.usage = Usage(made.prompt_tokens)

        def encoded() -> bytes:
            answer = encode_answer(made.vectors, model=record.model, prompt_tokens=made.prompt_tokens, request=request)
            return msgspec.json.encode(answer)

        # Millions of numbers as text are no work for the event loop.
        await send_json(send, msgspec.Raw(await asyncio.to_thread(encoded)))

"""`POST /v1/embeddings`: texts to vectors, by the model that answers for the name. Translating is the wire's work."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from pensieve.generation import Usage
from pensieve.server.endpoints import LARGE_BODY_BYTES, Endpoint
from pensieve.server.envelope import send_json
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
        made = await self.router.embed(record.model, request.texts)
        record.usage = Usage(made.prompt_tokens)
        answer = await asyncio.to_thread(
            encode_answer, made.vectors, model=record.model, prompt_tokens=made.prompt_tokens, request=request
        )
        await send_json(send, answer)

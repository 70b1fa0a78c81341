"""The routes of Message Batches: whose batches they are, and the queue that keeps them. Works nothing off."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from pensieve.messages import Json
from pensieve.server.batches.queue import BatchQueue
from pensieve.server.envelope import send_json
from pensieve.server.guards import keys_in
from pensieve.server.terminal_keys import digest
from pensieve.wire.anthropic.batches import (
    Batch,
    decode_create,
    decode_listing,
    encode_batch,
    encode_batches,
    encode_deleted,
    encode_result,
)

PATH = "/v1/messages/batches"
PAGE_RESULTS = 100
"""Results that are in memory at once while they are sent."""


def batch_routes(queue: BatchQueue | None) -> list[Route]:
    """All of them; without a queue there are none."""
    if queue is None:
        return []
    return [
        Route(PATH, AllBatches(queue), methods=["GET", "POST"]),
        Route(f"{PATH}/{{id}}", OneBatch(queue), methods=["GET", "DELETE"]),
        Route(f"{PATH}/{{id}}/cancel", CancelBatch(queue), methods=["POST"]),
        Route(f"{PATH}/{{id}}/results", BatchResults(queue), methods=["GET"]),
    ]


class BatchRoute:
    """What every route of batches needs; each subclass is one ASGI application."""

    def __init__(self, queue: BatchQueue) -> None:
        self.queue = queue


class AllBatches(BatchRoute):
    """`POST` and `GET /v1/messages/batches`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Make a batch, or list those that are there."""
        request, owner = Request(scope, receive), owner_of(scope)
        if request.method == "POST":
            await self._create(request, owner, send)
            return
        query = request.query_params
        listing = decode_listing(query.get("limit"), query.get("after_id"), query.get("before_id"))
        batches, has_more = await self.queue.ask(lambda store: store.list(owner, listing))
        await send_json(send, encode_batches([_encoded(request, batch) for batch in batches], has_more=has_more))

    async def _create(self, request: Request, owner: str, send: Send) -> None:
        entries = await asyncio.to_thread(decode_create, await request.body())
        now = self.queue.now()
        batch = await self.queue.ask(lambda store: store.create(owner, entries, now))
        self.queue.changed()
        await send_json(send, _encoded(request, batch))


class OneBatch(BatchRoute):
    """`GET` and `DELETE /v1/messages/batches/{id}`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell how a batch is, or forget it."""
        request, owner, uid = Request(scope, receive), owner_of(scope), scope["path_params"]["id"]
        if request.method == "DELETE":
            await self.queue.ask(lambda store: store.delete(owner, uid))
            await send_json(send, encode_deleted(uid))
            return
        batch = await self.queue.ask(lambda store: store.get(owner, uid))
        await send_json(send, _encoded(request, batch))


class CancelBatch(BatchRoute):
    """`POST /v1/messages/batches/{id}/cancel`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a batch end soon; what has a result keeps it."""
        request, owner, uid = Request(scope, receive), owner_of(scope), scope["path_params"]["id"]
        now = self.queue.now()
        batch = await self.queue.ask(lambda store: store.cancel(owner, uid, now))
        self.queue.changed()
        await send_json(send, _encoded(request, batch))


class BatchResults(BatchRoute):
    """`GET /v1/messages/batches/{id}/results`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a line for each request, in the order they came."""
        del receive
        owner, uid = owner_of(scope), scope["path_params"]["id"]
        page = await self._page(owner, uid, -1)
        headers = [(b"content-type", b"application/x-jsonl")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while page:
            lines = b"".join(encode_result(custom_id, result) for _, custom_id, result in page)
            await send({"type": "http.response.body", "body": lines, "more_body": True})
            page = await self._page(owner, uid, page[-1][0])
        await send({"type": "http.response.body", "body": b""})

    async def _page(self, owner: str, uid: str, after: int) -> tuple[tuple[int, str, bytes], ...]:
        return await self.queue.ask(lambda store: store.results(owner, uid, after, PAGE_RESULTS))


def owner_of(scope: Scope) -> str:
    """Whose batches a request is about: a digest of its key, also where the server asks for none; "" without one."""
    accepted: str = scope.get("state", {}).get("key_id", "")
    given = keys_in(scope)
    return accepted or (digest(given[0]) if given else "")


def _encoded(request: Request, batch: Batch) -> dict[str, Json]:
    base = f"{request.url.scheme}://{request.url.netloc}"
    return encode_batch(batch, f"{base}{PATH}/{batch.id}/results")

"""One request of a batch, answered on the path of every other: the same decoding, media, router and telling."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import aclosing

from pensieve.errors import PensieveError
from pensieve.generation import Answer, Collector
from pensieve.messages import Json
from pensieve.server.batches.store import Waiting
from pensieve.server.endpoints import LARGE_BODY_BYTES, Endpoint, as_sent
from pensieve.server.ledger import RequestRecord
from pensieve.wire.anthropic.batches import errored, succeeded
from pensieve.wire.anthropic.requests import decode_request
from pensieve.wire.exchange import Exchange, Label


class BatchAnswers(Endpoint):
    """Answers without a client."""

    async def answer(self, waiting: Waiting) -> bytes:
        """The result of a request that was answered; raises what an answer ends with."""
        record = _record(waiting)
        exchange = await _decoded(waiting, record.id)
        record.model = (await self.router.choose(exchange.request.model)).name
        label = Label(f"{exchange.id_prefix}{uuid.uuid4().hex[:24]}", record.model, record.id, int(time.time()))
        settled = exchange.settled(label)
        message = settled.whole if settled is not None else await self._generated(exchange, label, record)
        record.status = 200
        self._close(record)
        return succeeded(message)

    def failed(self, waiting: Waiting, error: PensieveError) -> bytes:
        """The result of a request that failed for good."""
        record = _record(waiting)
        record.status, record.error_code = error.status, error.code
        self._close(record)
        return errored(error, record.id)

    async def _generated(self, exchange: Exchange, label: Label, record: RequestRecord) -> Json:
        collector = Collector()
        with as_sent(exchange):
            request = await self.loaded(exchange.request)
            async with aclosing(self.router.generate(request)) as events:
                async for event in events:
                    record.observe(event)
                    collector.add(event)
        finished = collector.finished
        assert finished is not None, "a backend's answer ends in Finished"
        answer = Answer(collector.message, finished.reason, finished.usage, finished.stop_string)
        return exchange.encoder(label).whole(answer)

    def _close(self, record: RequestRecord) -> None:
        """Counted and logged once it has its result: what makes way is no request that failed."""
        self.ledger.open()
        self.ledger.close(record)


def _record(waiting: Waiting) -> RequestRecord:
    return RequestRecord("BATCH", f"/v1/messages/batches/{waiting.uid}/{waiting.place.at}")


async def _decoded(waiting: Waiting, request_id: str) -> Exchange:
    if len(waiting.params) < LARGE_BODY_BYTES:
        return decode_request(waiting.params, request_id=request_id)
    return await asyncio.to_thread(decode_request, waiting.params, request_id=request_id)

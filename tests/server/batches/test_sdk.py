"""Message Batches through the official SDK, against a server on a real socket and a file on a real disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse

from live_server import Live, serving
from pensieve.inference.script import Delay, Fail, Say, Script, Turn

ECHOES = Script(
    turns=(
        Turn(contains="slowly", steps=(Delay(60.0), Say("late"))),
        Turn(contains="too long", steps=(Fail("ContextOverflow", {"prompt_tokens": 9, "limit_tokens": 8}),)),
        Turn(steps=(Say("one two three"),)),
    )
)


@asynccontextmanager
async def batching(
    folder: Path, key: str = "mine", **settings: Any
) -> AsyncIterator[tuple[Live, anthropic.AsyncAnthropic]]:
    """A server that keeps its batches in that folder, and a client of it."""
    async with (
        serving(ECHOES, batches=folder / "batches.db", **settings) as live,
        anthropic.AsyncAnthropic(base_url=live.url, api_key=key, max_retries=0) as client,
    ):
        yield live, client


def asking(*texts: str) -> list[Any]:
    """A request for each text."""
    return [{"custom_id": f"r{at}", "params": params(text)} for at, text in enumerate(texts)]


def params(text: str = "hello", **changes: Any) -> dict[str, Any]:
    """The body of one request."""
    return {"model": "any", "max_tokens": 50, "messages": [{"role": "user", "content": text}]} | changes


async def until_ended(client: anthropic.AsyncAnthropic, batch_id: str) -> MessageBatch:
    """The batch once it has ended."""
    while True:
        batch = await client.messages.batches.retrieve(batch_id)
        if batch.processing_status == "ended":
            return batch
        await asyncio.sleep(0.01)


async def results(client: anthropic.AsyncAnthropic, batch_id: str) -> list[MessageBatchIndividualResponse]:
    """All results."""
    return [result async for result in await client.messages.batches.results(batch_id)]


async def test_a_batch_is_made_answered_and_read(tmp_path: Path) -> None:
    """From create to results, in the order it was asked."""
    async with batching(tmp_path) as (_, client):
        made = await client.messages.batches.create(requests=asking(*["hello"] * 5))
        assert (made.processing_status, made.request_counts.processing, made.results_url) == ("in_progress", 5, None)
        ended = await until_ended(client, made.id)
        assert (ended.request_counts.succeeded, ended.request_counts.processing) == (5, 0)
        found = await results(client, made.id)
    assert [result.custom_id for result in found] == [f"r{at}" for at in range(5)]
    assert found[0].result.type == "succeeded"
    assert found[0].result.message.content[0].to_dict() == {"type": "text", "text": "one two three"}
    assert found[0].result.message.model == "scripted"


async def test_a_request_that_fails_is_one_error_among_results(tmp_path: Path) -> None:
    """In the API's envelope; the others are answered."""
    async with batching(tmp_path) as (_, client):
        made = await client.messages.batches.create(requests=asking("too long", "hello"))
        await until_ended(client, made.id)
        bad, good = await results(client, made.id)
    assert (bad.result.type, good.result.type) == ("errored", "succeeded")
    assert bad.result.type == "errored"
    assert bad.result.error.error.type == "invalid_request_error"
    assert "prompt is too long: 9 tokens > 8 maximum" in bad.result.error.error.message


async def test_batches_are_listed_in_pages(tmp_path: Path) -> None:
    """Newest first, forwards and backwards, as the SDK's own paging asks."""
    async with batching(tmp_path) as (_, client):
        made = [(await client.messages.batches.create(requests=asking("hello"))).id for _ in range(5)]
        assert [batch.id async for batch in client.messages.batches.list(limit=2)] == made[::-1]
        page = await client.messages.batches.list(limit=2, before_id=made[1])
        assert ([batch.id for batch in page.data], page.has_more) == ([made[3], made[2]], True)
        page = await client.messages.batches.list(limit=2, after_id=made[1])
        assert ([batch.id for batch in page.data], page.has_more) == ([made[0]], False)


async def test_a_cancelled_batch_ends_soon(tmp_path: Path) -> None:
    """What runs is stopped, what waits is never begun, and all of it is `canceled`."""
    async with batching(tmp_path) as (live, client):
        made = await client.messages.batches.create(requests=asking(*["slowly"] * 9))
        await live.backend.until(accepted=4)
        assert (await client.messages.batches.cancel(made.id)).processing_status in {"canceling", "ended"}
        ended = await until_ended(client, made.id)
        assert (ended.request_counts.canceled, ended.cancel_initiated_at is None) == (9, False)
        assert {result.result.type for result in await results(client, made.id)} == {"canceled"}
        assert live.backend.counts.cancelled == 4
        with pytest.raises(anthropic.BadRequestError, match="nothing left to cancel"):
            await client.messages.batches.cancel(made.id)


async def test_a_batch_is_deleted_once_it_has_ended(tmp_path: Path) -> None:
    """Not before; afterwards nobody knows it."""
    async with batching(tmp_path) as (_, client):
        made = await client.messages.batches.create(requests=asking("slowly"))
        with pytest.raises(anthropic.BadRequestError, match="cancel it first"):
            await client.messages.batches.delete(made.id)
        await client.messages.batches.cancel(made.id)
        await until_ended(client, made.id)
        assert (await client.messages.batches.delete(made.id)).type == "message_batch_deleted"
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.batches.retrieve(made.id)


async def test_nobody_sees_the_batches_of_another_key(tmp_path: Path) -> None:
    """They are not there, whatever is asked of them."""
    async with batching(tmp_path) as (live, client):
        made = await client.messages.batches.create(requests=asking("hello"))
        await until_ended(client, made.id)
        async with anthropic.AsyncAnthropic(base_url=live.url, api_key="yours", max_retries=0) as other:
            assert (await other.messages.batches.list()).data == []
            calls = (other.messages.batches.retrieve, other.messages.batches.cancel, other.messages.batches.delete)
            for call in calls:
                with pytest.raises(anthropic.NotFoundError):
                    await call(made.id)
            results_path = f"/v1/messages/batches/{made.id}/results"
            answer = await live.client.get(results_path, headers={"x-api-key": "yours"})
            assert answer.status_code == 404


BAD: list[tuple[Any, str]] = [
    ([], "requests"),
    ([{"params": params()}], "requests.0"),
    ([{"custom_id": "with space", "params": params()}], "requests.0.custom_id"),
    ([{"custom_id": "x" * 65, "params": params()}], "requests.0.custom_id"),
    ([{"custom_id": "a", "params": params()}, {"custom_id": "a", "params": params()}], "requests.1.custom_id"),
    ([{"custom_id": "a", "params": params()}, {"custom_id": "b", "params": {}}], "requests.1.params"),
    ([{"custom_id": "a", "params": params(temperature=99)}], "requests.0.params.temperature"),
    ([{"custom_id": "a", "params": params(messages=[{"role": "wizard"}])}], "requests.0.params.messages.0"),
    ([{"custom_id": "a", "params": params(stream=True)}], "requests.0.params.stream"),
    ([{"custom_id": str(at), "params": {}} for at in range(10_001)], "requests"),
]


@pytest.mark.parametrize(("requests", "path"), BAD)
async def test_a_batch_with_one_bad_request_is_refused_whole(tmp_path: Path, requests: Any, path: str) -> None:
    """The message begins with its place."""
    async with batching(tmp_path) as (live, client):
        answer = await live.client.post("/v1/messages/batches", json={"requests": requests})
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
        assert answer.json()["error"]["message"].startswith(path)
        assert (await client.messages.batches.list()).data == []


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=-1", "before_id=a&after_id=b"])
async def test_a_bad_query_is_refused(tmp_path: Path, query: str) -> None:
    """Not guessed at."""
    async with batching(tmp_path) as (live, _):
        assert (await live.client.get(f"/v1/messages/batches?{query}")).status_code == 400


async def test_results_are_not_there_before_the_end(tmp_path: Path) -> None:
    """404, and the reason."""
    async with batching(tmp_path) as (live, client):
        made = await client.messages.batches.create(requests=asking("slowly"))
        answer = await live.client.get(f"/v1/messages/batches/{made.id}/results", headers={"x-api-key": "mine"})
        assert (answer.status_code, "has not ended" in answer.text) == (404, True)


async def test_the_file_is_its_owners_only(tmp_path: Path) -> None:
    """It holds prompts and answers."""
    async with batching(tmp_path) as (_, client):
        made = await client.messages.batches.create(requests=asking("hello"))
        await until_ended(client, made.id)
        modes = {
            path.name: path.stat().st_mode & 0o777 for path in await asyncio.to_thread(lambda: list(tmp_path.iterdir()))
        }
    assert "batches.db" in modes
    assert set(modes.values()) == {0o600}


async def test_a_server_without_a_batch_makes_no_file(tmp_path: Path) -> None:
    """Most servers never see one."""
    async with batching(tmp_path) as (live, _):
        assert (await live.ask()).status_code == 200
    assert not await asyncio.to_thread((tmp_path / "batches.db").exists)

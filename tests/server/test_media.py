"""Images and documents by address: off unless the server is told otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from live_server import Live, serving
from pensieve.errors import InvalidRequest
from pensieve.inference.script import Fail, Say, Script, Turn
from pensieve.messages import DocumentPart, ImagePart, Part, TextPart, ToolResultPart
from pensieve.server.remote_media import Fetched

IMAGE = {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1:9/x.png"}}
PDF = {"type": "document", "source": {"type": "url", "url": "http://127.0.0.1:9/x.pdf"}, "title": "T"}
TEXT = {"type": "text", "text": "what is it?"}
RESULT = {"type": "tool_result", "tool_use_id": "c", "content": [IMAGE]}
NOTE = TextPart("[image that lies elsewhere and could not be fetched]")
SEEING = Script(turns=(Turn(steps=(Say("a cat"),)),), capabilities=("images",))


class Library:
    """Has something at every address but one."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def fetch(self, url: str, media_types: frozenset[str]) -> Fetched:
        """See `Fetches`."""
        self.asked.append(url)
        if "gone" in url:
            raise InvalidRequest("it is gone")
        return Fetched(min(media_types), url.encode())


def user(*blocks: Any) -> dict[str, Any]:
    """What the user says."""
    return {"role": "user", "content": list(blocks)}


async def arrived(live: Live, *messages: Any) -> list[tuple[Part, ...]]:
    """What the backend got of these messages."""
    response = await live.ask(messages=list(messages))
    assert response.status_code == 200, response.text
    return [message.parts for message in live.backend.requests[-1].messages]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize("allow", ["off", "on"])
async def test_this_machines_addresses_are_refused_on_and_off(allow: str, path: str) -> None:
    """With the place, and the way to send it instead."""
    async with serving(SEEING, allow_image_urls=allow) as live:
        body = {"model": "m", "max_tokens": 9, "messages": [user(TEXT, IMAGE)]}
        response = await live.client.post(path, json=body)
    assert response.status_code == 400
    message = response.json()["error"]["message"]
    assert message.startswith("messages.0.content.1.source.url: ")
    assert "send the data itself" in message


async def test_in_the_history_it_becomes_a_note() -> None:
    """A refusal there would end the conversation."""
    answer = {"role": "assistant", "content": "ok"}
    async with serving(SEEING) as live:
        parts = await arrived(live, user(IMAGE), answer, user(RESULT, TEXT))
    assert parts == [(NOTE,), (TextPart("ok"),), (ToolResultPart("c", (NOTE,)), TextPart("what is it?"))]


async def test_a_model_that_cannot_see_gets_no_picture_fetched() -> None:
    """What to say about it is the backend's business: it names the model."""
    library = Library()
    async with serving(Script.saying("x"), fetcher=library) as live:
        response = await live.ask(messages=[user(IMAGE)])
    assert (response.status_code, "scripted cannot see images" in response.text) == (400, True)
    assert library.asked == []


async def test_a_refusal_names_the_place_as_the_client_counts() -> None:
    """The top-level system text is no message of the client's, and a countdown that was left out is one."""
    countdown = {"role": "system", "content": "<total_tokens>9 tokens left</total_tokens>"}
    body = {"model": "m", "max_tokens": 9, "system": "s", "messages": [countdown, countdown, user(TEXT, IMAGE)]}
    refusing = Turn(steps=(Fail("InvalidRequest", {"problem": "no", "path": "messages.1.content.0"}),))
    async with serving(SEEING) as live:
        counted = await live.client.post("/v1/messages/count_tokens", json=body)
    async with serving(Script(turns=(refusing,))) as live:
        asked = await live.client.post("/v1/messages", json=body | {"messages": [user(TEXT)]})
    assert counted.json()["error"]["message"].startswith("messages.2.content.1.source.url: ")
    assert asked.json()["error"]["message"] == "messages.0.content.0: no"


async def test_what_was_fetched_takes_the_place_of_its_address() -> None:
    """Everywhere in the conversation; a document keeps its title."""
    async with serving(SEEING, fetcher=Library()) as live:
        [[image, document, result]] = await arrived(live, user(IMAGE, PDF, RESULT))
    assert image == ImagePart("image/gif", b"http://127.0.0.1:9/x.png")
    assert document == DocumentPart("application/pdf", b"http://127.0.0.1:9/x.pdf", title="T")
    assert result == ToolResultPart("c", (image,))


async def test_many_addresses_are_refused() -> None:
    """A request is no crawler."""
    async with serving(SEEING, fetcher=Library()) as live:
        response = await live.ask(messages=[user(*[IMAGE] * 21)])
    assert (response.status_code, "more than 20" in response.text) == (400, True)


async def test_a_refused_address_in_a_stream_keeps_its_status() -> None:
    """It is found out before the stream opens."""
    gone = {"type": "image", "source": {"type": "url", "url": "http://a/gone"}}
    async with serving(SEEING, fetcher=Library()) as live:
        response = await live.ask(messages=[user(gone)], stream=True)
    assert response.status_code == 400
    assert "messages.0.content.0.source.url: it is gone" in response.text

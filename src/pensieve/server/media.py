"""Images and documents that a request names by address become bytes before a backend sees them, where that is allowed.

What cannot be had is refused if the newest message is about it; in the history it becomes a note, because a refusal
there would end the conversation.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from pensieve.errors import InvalidRequest
from pensieve.generation import GenerationRequest
from pensieve.messages import DocumentPart, ImagePart, Message, Part, TextPart, ToolResultPart
from pensieve.server.remote_media import DOCUMENT_TYPES, IMAGE_TYPES, Fetched

MAX_ADDRESSES = 20
REQUEST_SECONDS = 60.0
OFF = "addresses are not fetched here: send the data itself, or start the server with server.allow_image_urls on"


class Fetches(Protocol):
    """Gets what lies at an address."""

    async def fetch(self, url: str, media_types: frozenset[str]) -> Fetched:
        """What lies there; raises `InvalidRequest`."""
        ...


class FetchesNothing:
    """Refuses every address: what a server does unless it is told otherwise."""

    async def fetch(self, url: str, media_types: frozenset[str]) -> Fetched:
        """See `Fetches`."""
        del url, media_types
        raise InvalidRequest(OFF)


class MediaLoader:
    """Puts the data into requests."""

    def __init__(self, fetcher: Fetches) -> None:
        self._fetcher = fetcher

    async def load(self, request: GenerationRequest, *, sees_images: bool) -> GenerationRequest:
        """The request with all data in it; an image for a model that cannot see is left for the backend to refuse."""
        if num_addresses(request) > MAX_ADDRESSES:
            raise InvalidRequest(f"more than {MAX_ADDRESSES} addresses: send the data itself", path="messages")
        newest = max((at for at, message in enumerate(request.messages) if message.role == "user"), default=-1)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                messages = [
                    await self._message(message, f"messages.{at}" if at == newest else "", sees_images)
                    for at, message in enumerate(request.messages)
                ]
        except TimeoutError as error:
            raise InvalidRequest("fetching took too long: send the data itself", path="messages") from error
        return msgspec.structs.replace(request, messages=tuple(messages))

    async def _message(self, message: Message, path: str, sees_images: bool) -> Message:
        parts: list[Part] = []
        for at, part in enumerate(message.parts):
            if isinstance(part, ToolResultPart):
                inner = [await self._part(each, "", sees_images) for each in part.parts]
                parts.append(msgspec.structs.replace(part, parts=tuple(inner)))
            else:
                parts.append(await self._part(part, f"{path}.content.{at}.source.url" if path else "", sees_images))
        return Message(message.role, tuple(parts))

    async def _part(self, part: Part, path: str, sees_images: bool) -> Part:
        if not _is_remote(part) or (isinstance(part, ImagePart) and not sees_images):
            return part
        assert isinstance(part, ImagePart | DocumentPart)
        try:
            types = IMAGE_TYPES if isinstance(part, ImagePart) else DOCUMENT_TYPES
            fetched = await self._fetcher.fetch(part.url, types)
        except InvalidRequest as refused:
            if path:
                raise InvalidRequest(refused.problem, path=path) from refused
            kind = "image" if isinstance(part, ImagePart) else "document"
            return TextPart(f"[{kind} that lies elsewhere and could not be fetched]")
        return msgspec.structs.replace(part, media_type=fetched.media_type, data=fetched.data, url="")


def num_addresses(request: GenerationRequest) -> int:
    """How many parts of the request lie elsewhere."""
    parts = [part for message in request.messages for part in message.parts]
    inner = [each for part in parts if isinstance(part, ToolResultPart) for each in part.parts]
    return sum(map(_is_remote, [*parts, *inner]))


def _is_remote(part: Part) -> bool:
    return isinstance(part, ImagePart | DocumentPart) and bool(part.url)

"""Parts of a message's content, as OpenAI's APIs have them, and data URLs: to our parts and back.

Knows no message and no request. What cannot be read is refused by name, with its path.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from pensieve.errors import InvalidRequest
from pensieve.messages import DocumentPart, ImagePart, Json, Part, TextPart, ToolReferencePart

ImageType = Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
IMAGE_TYPES = get_args(ImageType)
NonEmpty = Annotated[str, Meta(min_length=1)]


class TextContent(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """Text."""

    text: str


class RefusalContent(msgspec.Struct, frozen=True, tag_field="type", tag="refusal"):
    """What a model said when it refused."""

    refusal: str


class ImageUrl(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where an image is: its address, or the image itself as a data URL."""

    url: NonEmpty
    detail: Json = None


class ImageContent(msgspec.Struct, frozen=True, tag_field="type", tag="image_url"):
    """An image."""

    image_url: ImageUrl


class FileBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file: its data as a data URL, or the id it has on another server."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class FileContent(msgspec.Struct, frozen=True, tag_field="type", tag="file"):
    """A document."""

    file: FileBody


class AudioContent(msgspec.Struct, frozen=True, tag_field="type", tag="input_audio"):
    """Sound, which no model here can hear."""

    input_audio: Json = None


UserContent = TextContent | ImageContent | FileContent | AudioContent
SpokenContent = TextContent | RefusalContent


def decode_content(content: str | tuple[UserContent, ...], path: str, *, is_newest: bool) -> tuple[Part, ...]:
    """The parts of a message; what cannot be read is refused in the newest one, and becomes a note in earlier ones."""
    if isinstance(content, str):
        return (TextPart(content),)
    return tuple(_part(item, f"{path}.{at}", is_newest=is_newest) for at, item in enumerate(content))


def encode_content(parts: tuple[Part, ...]) -> str | tuple[UserContent, ...]:
    """The parts as they stand in JSON; one text is plain."""
    match parts:
        case (TextPart(text),):
            return text
        case _:
            return tuple(_body(part) for part in parts)


def read_data_url(url: str, path: str) -> tuple[str, bytes]:
    """Media type and bytes of a `data:` URL; raises `InvalidRequest`."""
    head, comma, data = url.partition(",")
    media_type, *options = head.removeprefix("data:").split(";")
    if not comma or "base64" not in options:
        raise InvalidRequest("is no data URL in base64 (data:TYPE;base64,DATA)", path=path)
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest("has data that is not base64", path=path) from error
    if not content:
        raise InvalidRequest("must not be empty", path=path)
    return media_type.strip().lower(), content


def data_url(media_type: str, data: bytes) -> str:
    """The bytes as a URL."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def image_part(url: str, path: str) -> ImagePart:
    """The image at an address, or in a data URL."""
    if not url.startswith("data:"):
        return ImagePart(url=url)
    media_type, data = read_data_url(url, path)
    if media_type == "image/jpg":
        media_type = "image/jpeg"
    if media_type not in IMAGE_TYPES:
        raise InvalidRequest(f"{media_type[:80]!r} is not supported here: send JPEG, PNG, GIF or WebP", path=path)
    return ImagePart(media_type, data)


def document_part(data: str, filename: str, path: str) -> DocumentPart:
    """A file that came as a data URL, or as plain base64, which then is a PDF."""
    url = data if data.startswith("data:") else f"data:application/pdf;base64,{data}"
    media_type, content = read_data_url(url, path)
    if media_type.startswith("text/") or media_type == "application/json":
        media_type = "text/plain"
    if media_type not in ("text/plain", "application/pdf"):
        raise InvalidRequest(f"{media_type[:80]!r} is not supported here: send PDF or text", path=path)
    return DocumentPart(media_type, content, title=filename)


def _part(content: UserContent, path: str, *, is_newest: bool) -> Part:
    match content:
        case TextContent(text):
            return TextPart(text)
        case ImageContent(ImageUrl(url)):
            return image_part(url, f"{path}.image_url.url")
        case FileContent(FileBody(data, _, filename)) if data:
            return document_part(data, filename or "", f"{path}.file.file_data")
        case FileContent():
            kind, problem = "file", "files are not kept here: send the data itself as file_data"
        case AudioContent():
            kind, problem = "audio", "no model here can hear: send text"
    if is_newest:
        raise InvalidRequest(problem, path=path)
    return TextPart(f"[{kind} that could not be read]")


def _body(part: Part) -> UserContent:
    match part:
        case TextPart(text):
            return TextContent(text)
        case ImagePart(media_type, data, url):
            return ImageContent(ImageUrl(url or data_url(media_type, data)))
        case DocumentPart(media_type, data, url, title):
            if url:
                return TextContent(f"[document at {url}]")
            return FileContent(FileBody(data_url(media_type, data), None, title or None))
        case ToolReferencePart(name):
            return TextContent(f"[tool {name} is available]")
    raise AssertionError(f"{type(part).__name__} cannot stand here")

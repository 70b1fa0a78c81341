"""Pieces of content of the Responses API as our parts, and back: text, images and documents.

What lies elsewhere keeps its address. Knows no item.
"""

from __future__ import annotations

import base64
import binascii
import re

from pensieve.errors import InvalidRequest
from pensieve.messages import DocumentPart, ImagePart, Part, TextPart
from pensieve.wire.openai.responses.items import (
    Content,
    InputFile,
    InputImage,
    InputText,
    OutputText,
    PlainText,
    Refusal,
)

ContentPart = TextPart | ImagePart | DocumentPart
IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
DOCUMENT_TYPES = frozenset({"application/pdf", "text/plain"})
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w-]+=[^;,]*)*;base64,", re.ASCII)


def decode_content(content: str | tuple[Content, ...], path: str) -> tuple[ContentPart, ...]:
    """The pieces as our parts; `path` is where they stand, for errors."""
    if isinstance(content, str):
        return (TextPart(content),)
    return tuple(_decode_piece(piece, f"{path}.{at}") for at, piece in enumerate(content))


def encode_piece(part: Part, *, is_said: bool = False) -> Content:
    """The part as a piece; `is_said`: by the model."""
    match part:
        case TextPart(text):
            return OutputText(text=text, annotations=[]) if is_said else InputText(text=text)
        case ImagePart():
            return InputImage(image_url=part.url or _data_url(part.media_type, part.data), detail="auto")
        case DocumentPart():
            name = part.title or None
            if part.url:
                return InputFile(file_url=part.url, filename=name)
            return InputFile(file_data=_data_url(part.media_type, part.data), filename=name)
    raise AssertionError(f"{type(part).__name__} cannot stand here")


def _decode_piece(piece: Content, path: str) -> ContentPart:
    match piece:
        case InputText() | OutputText() | PlainText():
            return TextPart(piece.text)
        case Refusal():
            return TextPart(piece.refusal)
        case InputImage():
            return _decode_image(piece, path)
        case InputFile():
            return _decode_file(piece, path)


def _decode_image(piece: InputImage, path: str) -> ImagePart:
    if piece.image_url is None:
        raise InvalidRequest(_where_it_is(piece.file_id, "image_url"), path=f"{path}.image_url")
    if not piece.image_url.startswith("data:"):
        return ImagePart(url=piece.image_url)
    media_type, data = _read_data(piece.image_url, f"{path}.image_url")
    if media_type not in IMAGE_TYPES:
        raise InvalidRequest(f"{media_type!a} is not supported here", path=f"{path}.image_url")
    return ImagePart(media_type, data)


def _decode_file(piece: InputFile, path: str) -> DocumentPart:
    title = piece.filename or ""
    if piece.file_url is not None and piece.file_data is None:
        return DocumentPart(url=piece.file_url, title=title)
    if piece.file_data is None:
        raise InvalidRequest(_where_it_is(piece.file_id, "file_data"), path=f"{path}.file_data")
    media_type, data = _read_data(piece.file_data, f"{path}.file_data")
    media_type = media_type or ("application/pdf" if data.startswith(b"%PDF") else "text/plain")
    if media_type.startswith("text/"):
        media_type, data = "text/plain", data.decode("utf-8", "replace").encode()
    if media_type not in DOCUMENT_TYPES:
        raise InvalidRequest(f"{media_type!a} is not supported here", path=f"{path}.file_data")
    return DocumentPart(media_type, data, title=title)


def _where_it_is(file_id: object, field: str) -> str:
    return f"files are not kept here: send the data itself as {field}" if file_id else "field is missing"


def _read_data(url: str, path: str) -> tuple[str, bytes]:
    """The media type ("" if it says none) and bytes of a `data:` URL, or of plain base64."""
    found = _DATA_URL.match(url)
    if found is None and url.startswith("data:"):
        raise InvalidRequest("the data URL must be base64", path=path)
    encoded = url[found.end() :] if found else url
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest("the data is not base64", path=path) from error
    if not data:
        raise InvalidRequest("must not be empty", path=path)
    return (found[1] or "" if found else ""), data


def _data_url(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"

"""Pieces of content of the Responses API as our parts, and back: text, images and documents.

What lies elsewhere keeps its address. Knows no item.
"""

from __future__ import annotations

from pensieve.errors import InvalidRequest
from pensieve.messages import DocumentPart, ImagePart, Part, TextPart, ToolReferencePart
from pensieve.wire.openai.content import data_url, document_part, image_part
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
            return InputImage(image_url=part.url or data_url(part.media_type, part.data), detail="auto")
        case DocumentPart():
            name = part.title or None
            if part.url:
                return InputFile(file_url=part.url, filename=name)
            return InputFile(file_data=data_url(part.media_type, part.data), filename=name)
        case ToolReferencePart(name):
            return InputText(text=f"[tool {name} is available]")
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
    return image_part(piece.image_url, f"{path}.image_url")


def _decode_file(piece: InputFile, path: str) -> DocumentPart:
    title = piece.filename or ""
    if piece.file_data is not None:
        return document_part(piece.file_data, title, f"{path}.file_data")
    if piece.file_url is not None:
        return DocumentPart(url=piece.file_url, title=title)
    raise InvalidRequest(_where_it_is(piece.file_id, "file_data"), path=f"{path}.file_data")


def _where_it_is(file_id: object, field: str) -> str:
    return f"files are not kept here: send the data itself as {field}" if file_id else "field is missing"

"""Content blocks of the Messages API, as they stand in JSON, and their translation to our parts and back.

Knows no message and no request. A kind of block that is not here is refused by name; `foreign` has been before.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pensieve.errors import InvalidRequest
from pensieve.messages import (
    DocumentPart,
    ImagePart,
    Json,
    Part,
    RedactedThinkingPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReferencePart,
    ToolResultPart,
)
from pensieve.wire.anthropic.foreign import PASSED_OVER
from pensieve.wire.anthropic.signature import Unsealer

ImageType = Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
NonEmpty = Annotated[str, Meta(min_length=1)]
NonEmptyBytes = Annotated[bytes, Meta(min_length=1)]


class Block(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """What every block may carry. Our prefix cache needs no marks."""

    cache_control: Json = None


class TextBlock(Block, frozen=True, kw_only=True, tag="text"):
    """Text; `citations` are an earlier answer's, echoed."""

    text: str
    citations: Json = None


class ImageBytes(msgspec.Struct, frozen=True, tag_field="type", tag="base64"):
    """An image in the request itself."""

    media_type: ImageType
    data: NonEmptyBytes


class UrlSource(msgspec.Struct, frozen=True, tag_field="type", tag="url"):
    """Something that lies elsewhere."""

    url: NonEmpty


class PdfBytes(msgspec.Struct, frozen=True, tag_field="type", tag="base64"):
    """A PDF in the request itself."""

    media_type: Literal["application/pdf"]
    data: NonEmptyBytes


class PlainText(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """A text document in the request itself."""

    media_type: Literal["text/plain"]
    data: NonEmpty


class TextBlocks(msgspec.Struct, frozen=True, tag_field="type", tag="content"):
    """A text document cut into blocks."""

    content: str | tuple[TextBlock, ...]


class ImageBlock(Block, frozen=True, kw_only=True, tag="image"):
    """An image."""

    source: ImageBytes | UrlSource
    transformations: Json = None


class Citations(msgspec.Struct, frozen=True):
    """Whether the answer should cite the document."""

    enabled: bool = False


class DocumentBlock(Block, frozen=True, kw_only=True, tag="document"):
    """A document."""

    source: PdfBytes | PlainText | UrlSource | TextBlocks
    title: str | None = None
    context: str | None = None
    citations: Citations | None = None


class SearchResultBlock(Block, frozen=True, kw_only=True, tag="search_result"):
    """What a client's own search found."""

    content: tuple[TextBlock, ...]
    source: str
    title: str
    citations: Citations | None = None


class ThinkingBlock(Block, frozen=True, kw_only=True, tag="thinking"):
    """What the model thought; clients echo it."""

    thinking: str
    signature: str | None = ""


class RedactedThinkingBlock(Block, frozen=True, kw_only=True, tag="redacted_thinking"):
    """Thinking of another server's model, encrypted."""

    data: str


class ToolUseBlock(Block, frozen=True, kw_only=True, tag="tool_use"):
    """A call of a tool."""

    id: NonEmpty
    name: NonEmpty
    input: dict[str, Json]
    caller: Json = None
    toolset_name: Json = None


class ToolReferenceBlock(Block, frozen=True, kw_only=True, tag="tool_reference"):
    """A deferred tool is available from here on."""

    tool_name: NonEmpty


class PassedOverBlock(Block, frozen=True, kw_only=True, tag=PASSED_OVER):
    """Something stood here that only another server could read."""


ResultBlock = TextBlock | ImageBlock | DocumentBlock | SearchResultBlock | ToolReferenceBlock


class ToolResultBlock(Block, frozen=True, kw_only=True, tag="tool_result"):
    """What a tool gave back."""

    tool_use_id: NonEmpty
    content: str | tuple[ResultBlock, ...] | None = None
    is_error: bool | None = None
    toolset_name: Json = None


UserBlock = TextBlock | ImageBlock | DocumentBlock | SearchResultBlock | ToolResultBlock | PassedOverBlock
AssistantBlock = TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock | PassedOverBlock
AnyBlock = UserBlock | AssistantBlock | ToolReferenceBlock
ResultPart = TextPart | ImagePart | DocumentPart | ToolReferencePart


def decode_parts(blocks: tuple[AnyBlock, ...], path: str, unsealer: Unsealer) -> tuple[Part, ...]:
    """The blocks as our parts, without those that were passed over; `path` is where they stand, for errors."""
    kept = ((at, block) for at, block in enumerate(blocks) if not isinstance(block, PassedOverBlock))
    parts = (decode_part(block, f"{path}.{at}") for at, block in kept)
    return tuple(unsealer.read(part.text, part.signature) if isinstance(part, ThinkingPart) else part for part in parts)


def decode_part(block: AnyBlock, path: str) -> Part:
    """The block as one of our parts; `path` is where it stands, for errors."""
    match block:
        case ThinkingBlock():
            return ThinkingPart(block.thinking, block.signature or "")
        case RedactedThinkingBlock():
            return RedactedThinkingPart(block.data)
        case ToolUseBlock():
            return ToolCallPart(block.id, block.name, block.input)
        case ToolResultBlock():
            content = _as_blocks(block.content)
            parts = tuple(_result_part(item, f"{path}.content.{at}") for at, item in enumerate(content))
            return ToolResultPart(block.tool_use_id, parts, is_error=bool(block.is_error))
        case _:
            assert not isinstance(block, PassedOverBlock), "passed over before"
            return _result_part(block, path)


def encode_part(part: Part) -> AnyBlock:
    """The part as a block."""
    match part:
        case ThinkingPart(text, signature):
            return ThinkingBlock(thinking=text, signature=signature)
        case RedactedThinkingPart(data):
            return RedactedThinkingBlock(data=data)
        case ToolCallPart(call_id, name, arguments):
            return ToolUseBlock(id=call_id, name=name, input=arguments)
        case ToolResultPart(call_id, parts, is_error):
            content = tuple(_result_block(item) for item in parts)
            return ToolResultBlock(tool_use_id=call_id, content=content or None, is_error=is_error or None)
        case _:
            return _result_block(part)


def _as_blocks(content: str | tuple[ResultBlock, ...] | None) -> tuple[ResultBlock, ...]:
    return (TextBlock(text=content),) if isinstance(content, str) else content or ()


def _result_part(block: ResultBlock, path: str) -> ResultPart:
    match block:
        case TextBlock():
            return TextPart(block.text)
        case ImageBlock(source=UrlSource(url)):
            return ImagePart(url=url)
        case ImageBlock(source=ImageBytes(media_type, data)):
            return ImagePart(media_type, data)
        case ToolReferenceBlock():
            return ToolReferencePart(block.tool_name)
        case DocumentBlock():
            return _document_part(block, path)
        case SearchResultBlock(content=content, source=source, title=title):
            _check_citations(block.citations, path)
            text = "\n".join(item.text for item in content)
            return DocumentPart("text/plain", text.encode(), title=title, context=source)
    raise AssertionError(block)


def _check_citations(citations: Citations | None, path: str) -> None:
    if citations is not None and citations.enabled:
        raise InvalidRequest("citations are not supported: leave them out", path=f"{path}.citations.enabled")


def _document_part(block: DocumentBlock, path: str) -> DocumentPart:
    _check_citations(block.citations, path)
    title, context = block.title or "", block.context or ""
    match block.source:
        case PdfBytes(media_type, data):
            return DocumentPart(media_type, data, title=title, context=context)
        case UrlSource(url):
            return DocumentPart(url=url, title=title, context=context)
        case PlainText(data=text):
            pass
        case TextBlocks(content):
            text = content if isinstance(content, str) else "\n".join(item.text for item in content)
    return DocumentPart("text/plain", text.encode(), title=title, context=context)


def _result_block(part: Part) -> ResultBlock:
    match part:
        case TextPart(text):
            return TextBlock(text=text)
        case ToolReferencePart(name):
            return ToolReferenceBlock(tool_name=name)
        case ImagePart():
            return ImageBlock(source=_image_source(part))
        case DocumentPart():
            title, context = part.title or None, part.context or None
            return DocumentBlock(source=_document_source(part), title=title, context=context)
    raise AssertionError(f"{type(part).__name__} cannot stand here")


def _image_source(part: ImagePart) -> ImageBytes | UrlSource:
    if part.url:
        return UrlSource(part.url)
    return ImageBytes(msgspec.convert(part.media_type, type=ImageType), part.data)


def _document_source(part: DocumentPart) -> PdfBytes | PlainText | UrlSource:
    if part.url:
        return UrlSource(part.url)
    if part.media_type == "text/plain":
        return PlainText("text/plain", part.data.decode())
    return PdfBytes("application/pdf", part.data)

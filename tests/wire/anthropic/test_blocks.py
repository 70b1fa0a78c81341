"""Content blocks: what each kind becomes, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pensieve.errors import InvalidRequest
from pensieve.messages import (
    DocumentPart,
    ImagePart,
    Part,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReferencePart,
    ToolResultPart,
)
from pensieve.wire.anthropic.requests import decode_request

TEXT_FILE = {"type": "text", "media_type": "text/plain", "data": "words"}
PDF_FILE = {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}


def parts(*blocks: Any, role: str = "user") -> tuple[Part, ...]:
    """The parts of a message of these blocks."""
    sent = {"model": "m", "max_tokens": 1, "messages": [{"role": role, "content": list(blocks)}]}
    return decode_request(json.dumps(sent).encode(), request_id="r").request.messages[0].parts


def refusal(*blocks: Any, role: str = "user") -> str:
    """What is said about a message of these blocks."""
    with pytest.raises(InvalidRequest) as refused:
        parts(*blocks, role=role)
    return str(refused.value)


def test_images_come_as_bytes_or_address() -> None:
    """Both sources of an image."""
    data = {"type": "base64", "media_type": "image/png", "data": "aW1n"}
    here, there = {"type": "image", "source": data}, {"type": "image", "source": {"type": "url", "url": "u"}}
    assert parts(here, there) == (ImagePart("image/png", b"img"), ImagePart(url="u"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (PDF_FILE, DocumentPart("application/pdf", b"%PDF", title="T", context="C")),
        (TEXT_FILE, DocumentPart("text/plain", b"words", title="T", context="C")),
        ({"type": "url", "url": "u"}, DocumentPart(url="u", title="T", context="C")),
        ({"type": "content", "content": "words"}, DocumentPart("text/plain", b"words", title="T", context="C")),
        (
            {"type": "content", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            DocumentPart("text/plain", b"a\nb", title="T", context="C"),
        ),
    ],
)
def test_documents_come_from_every_source(source: object, expected: DocumentPart) -> None:
    """Title and context stay with the document."""
    assert parts({"type": "document", "source": source, "title": "T", "context": "C"}) == (expected,)


def test_a_search_result_is_a_text_document() -> None:
    """In a message of its own or in a tool's result, with where it was found."""
    text = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    found = {"type": "search_result", "source": "https://x", "title": "T", "content": text}
    document = DocumentPart("text/plain", b"a\nb", title="T", context="https://x")
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [found]}
    assert parts(found, result) == (document, ToolResultPart("t1", (document,)))


def test_an_assistants_turn_is_read_back() -> None:
    """Thinking with any or no signature, text with citations, and calls."""
    call = {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": [1]}, "caller": {"type": "direct"}}
    blocks = ({"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "so", "citations": []}, call)
    said = parts(*blocks, role="assistant")
    assert said == (ThinkingPart("hm"), TextPart("so"), ToolCallPart("t1", "look", {"at": [1]}))


@pytest.mark.parametrize("content", ["ok", [{"type": "text", "text": "ok"}]])
def test_a_tool_results_text_equals_a_list_of_one_block(content: object) -> None:
    """Text and a list of one text block are the same result."""
    block = {"type": "tool_result", "tool_use_id": "t1", "content": content}
    assert parts(block) == (ToolResultPart("t1", (TextPart("ok"),)),)


@pytest.mark.parametrize("nothing", [{}, {"content": []}, {"content": None, "is_error": None}])
def test_a_tool_result_may_be_empty(nothing: dict[str, object]) -> None:
    """A tool that says nothing has still answered."""
    assert parts({"type": "tool_result", "tool_use_id": "t1"} | nothing) == (ToolResultPart("t1"),)


def test_a_tool_result_may_name_a_deferred_tool() -> None:
    """The named tool is available from there on."""
    reference = {"type": "tool_reference", "tool_name": "fetch"}
    block = {"type": "tool_result", "tool_use_id": "t1", "content": [reference], "is_error": True}
    assert parts(block) == (ToolResultPart("t1", (ToolReferencePart("fetch"),), is_error=True),)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"type": "text", "text": 5}, "messages.0.content.1.text: expected str, got int"),
        ({"type": "text"}, "messages.0.content.1.text: field is missing"),
        ({"text": "x"}, "messages.0.content.1.type: field is missing"),
        ("x", "messages.0.content.1: expected object, got str"),
        ({"type": ["text"]}, "messages.0.content.1.type: expected str, got list"),
        ({"type": "hologram"}, "messages.0.content.1.type: 'hologram' is not supported here"),
        ({"type": "container_upload"}, "messages.0.content.1.type: 'container_upload' is not supported here"),
        ({"type": "tool_use"}, "messages.0.content.1.type: 'tool_use' is not supported here"),
        (
            {"type": "image", "source": {"type": "file", "file_id": "f"}},
            "messages.0.content.1.source.type: 'file' is not supported here",
        ),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/tiff", "data": "aW1n"}},
            "messages.0.content.1.source.media_type: 'image/tiff' is not supported here",
        ),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "?"}},
            "messages.0.content.1.source.data: invalid base64 encoded string",
        ),
        (
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": None}]},
            "messages.0.content.1.content.0.text: expected str, got null",
        ),
        (
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "search_result"}]},
            "messages.0.content.1.content.0.content: field is missing",
        ),
        (
            {"type": "document", "source": TEXT_FILE, "citations": {"enabled": True}},
            "messages.0.content.1.citations.enabled: citations are not supported: leave them out",
        ),
    ],
)
def test_a_wrong_block_is_named_with_its_path(block: object, said: str) -> None:
    """The sentence names the second block of the first message, and what is wrong in it."""
    assert refusal({"type": "text", "text": "fine"}, block) == said


def test_a_tools_input_must_be_an_object() -> None:
    """Arguments are an object, never a list or text."""
    call = {"type": "tool_use", "id": "t1", "name": "look", "input": "[]"}
    assert refusal(call, role="assistant") == "messages.0.content.0.input: expected object, got str"

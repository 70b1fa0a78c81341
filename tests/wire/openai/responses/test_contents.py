"""Images and documents in a request's items."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from pensieve.errors import InvalidRequest
from pensieve.messages import DocumentPart, ImagePart, Part, TextPart, ToolReferencePart
from pensieve.wire.openai.responses.contents import encode_piece
from pensieve.wire.openai.responses.items import InputText
from pensieve.wire.openai.responses.requests import decode_request

PNG = base64.b64encode(b"\x89PNG").decode()
PDF = base64.b64encode(b"%PDF-1.7").decode()


def part(piece: dict[str, Any]) -> Part:
    """The part of a user's message with that piece."""
    body = {"model": "m", "input": [{"role": "user", "content": [piece]}]}
    return decode_request(json.dumps(body).encode(), request_id="req_1").request.messages[0].parts[0]


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        ({"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}, ImagePart("image/png", b"\x89PNG")),
        ({"type": "input_image", "image_url": "https://x/a.png"}, ImagePart(url="https://x/a.png")),
        (
            {"type": "input_file", "file_data": f"data:application/pdf;base64,{PDF}", "filename": "a.pdf"},
            DocumentPart("application/pdf", b"%PDF-1.7", title="a.pdf"),
        ),
        ({"type": "input_file", "file_data": PDF}, DocumentPart("application/pdf", b"%PDF-1.7")),
        (
            {"type": "input_file", "file_data": "data:text/markdown;charset=utf-8;base64,aGk="},
            DocumentPart("text/plain", b"hi"),
        ),
        ({"type": "input_file", "file_url": "https://x/a.pdf"}, DocumentPart(url="https://x/a.pdf")),
        ({"type": "refusal", "refusal": "No."}, TextPart("No.")),
        ({"type": "text", "text": "hi"}, TextPart("hi")),
    ],
)
def test_a_piece_is_read_in_every_form(piece: dict[str, Any], expected: Part) -> None:
    """As data of several kinds, and as an address."""
    assert part(piece) == expected


@pytest.mark.parametrize(
    ("piece", "field"),
    [
        ({"type": "input_image", "image_url": "data:image/png;base64,?"}, "image_url"),
        ({"type": "input_image", "image_url": "data:image/png,abc"}, "image_url"),
        ({"type": "input_image", "image_url": f"data:image/tiff;base64,{PNG}"}, "image_url"),
        ({"type": "input_image", "file_id": "file-1"}, "image_url"),
        ({"type": "input_file", "file_data": "data:application/zip;base64,UEs="}, "file_data"),
        ({"type": "input_file", "file_id": "file-1"}, "file_data"),
        ({"type": "input_audio", "input_audio": {}}, "type"),
    ],
)
def test_what_cannot_be_read_is_refused_where_it_stands(piece: dict[str, Any], field: str) -> None:
    """Nothing that was sent is dropped."""
    with pytest.raises(InvalidRequest) as refused:
        part(piece)
    assert refused.value.path.startswith("input.0.content")
    assert field in str(refused.value)


def test_a_tool_that_can_be_called_from_now_on_is_told_in_words() -> None:
    """As the format has no piece for it; Chat Completions is told the same."""
    assert encode_piece(ToolReferencePart("look")) == InputText(text="[tool look is available]")

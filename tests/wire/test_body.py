"""Hostile and broken bodies: each is one clear `InvalidRequest`."""

from __future__ import annotations

import pytest

from pensieve.errors import InvalidRequest
from pensieve.wire.body import MAX_DEPTH, parse_object


def nested(depth: int) -> bytes:
    """A body with this many levels, its own included."""
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is empty: send a JSON object"),
        (b" \n", "the body is empty: send a JSON object"),
        (b"[]", "the body must be a JSON object"),
        (b'"text"', "the body must be a JSON object"),
        (b'{"a": @}', "the body is not JSON: invalid character (byte 6)"),
        (b'{"a": NaN}', "the body is not JSON: invalid character (byte 6)"),
        (b'{"a": "b', "the body is not JSON: it ends too early (byte 8)"),
        (b'{"a": "\xff"}', "the body is not UTF-8: invalid start byte"),
        (b"\xff\xfe{", "the body is not JSON: invalid character (byte 0)"),
        (b'{"a": 123456789012345678901234567890}', "the body has an integer that does not fit into 64 bits"),
        (b'{"a": 1e999}', "the body has a number that is out of range"),
    ],
)
def test_what_is_not_a_json_object_is_said_with_its_place(body: bytes, said: str) -> None:
    """Each fault has its own sentence."""
    with pytest.raises(InvalidRequest) as refused:
        parse_object(body)
    assert str(refused.value) == said


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 100_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    """Neither a stack nor the worker's frames overflow."""
    with pytest.raises(InvalidRequest, match="nested deeper than 128 levels"):
        parse_object(nested(depth))


def test_the_deepest_allowed_body_is_read() -> None:
    """The limit itself is allowed."""
    assert "a" in parse_object(nested(MAX_DEPTH))


def test_the_last_of_duplicate_keys_counts() -> None:
    """As in every other JSON reader."""
    assert parse_object(b'{"a": 1, "a": 2}') == {"a": 2}


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (rb"a\ud83d", "a\ufffd"),
        (rb"\ude00 b", "\ufffd b"),
        (rb"\ud83d\ude00", "\U0001f600"),
        (rb"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (rb"\\ud83d \ud83d", "\\ud83d \ufffd"),
    ],
)
def test_half_characters_are_replaced(escaped: bytes, text: str) -> None:
    """JavaScript clients cut strings between two halves of a character; whole ones and escaped text stay."""
    assert parse_object(b'{"a": "' + escaped + b'"}') == {"a": text}


def test_long_numbers_in_text_are_no_integers() -> None:
    """Only a number that is one is refused."""
    assert parse_object(b'{"a": "123456789012345678901234567890", "b": 18446744073709551615}')["b"] == 2**64 - 1

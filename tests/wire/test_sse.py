"""Server-sent events arrive in any cut and by every rule of the format."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.errors import BackendFailure
from pensieve.wire import sse
from pensieve.wire.sse import SseComment, SseDecoder, SseEvent, encode_comment, encode_event
from streams import CUTS
from wire.strategies import PROPERTY, json_objects, words

Cut = Callable[[bytes], list[bytes]]
STREAM = (
    "\ufeffevent: greeting\r\ndata: háll\r\ndata:  o\r\n\r\n"
    ": only a comment\n\nevent: nothing\n\n"
    "id: 7\rretry: 1\rdata\r\revent:tight\ndata:x:y\n\n"
).encode()


def decoded(chunks: list[bytes]) -> list[SseEvent]:
    """The events of a stream that arrives in these chunks."""
    decoder = SseDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_every_line_end_and_field_is_understood_in_any_cut(cut: Cut) -> None:
    """Mixed line ends, comments, several data lines, missing names and a byte order mark make the same events."""
    assert decoded(cut(STREAM)) == [
        SseEvent("greeting", "háll\n o"),
        SseEvent("message", ""),
        SseEvent("tight", "x:y"),
    ]


@PROPERTY
@given(st.lists(st.tuples(st.sampled_from(["ping", "x"]), json_objects), max_size=4), st.integers(1, 9))
def test_encoded_events_come_back(events: list[tuple[str, object]], size: int) -> None:
    """What is encoded is decoded to the same names and data, whatever the size of the pieces."""
    stream = b"".join(encode_event(name, data) for name, data in events)
    chunks = [stream[at : at + size] for at in range(0, len(stream), size)]
    expected = [SseEvent(name, encode_event(name, data).decode().split("data: ", 1)[1][:-2]) for name, data in events]
    assert decoded(chunks) == expected


@PROPERTY
@given(words)
def test_data_never_contains_a_line_end(text: str) -> None:
    """A frame is exactly two lines and an empty one, so no text can forge another frame."""
    assert encode_event("x", {"text": text + "\n\r\n\nevent: forged"}).count(b"\n") == 3


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_comments_come_in_their_place_to_whoever_wants_them(cut: Cut) -> None:
    """Also between the lines of an event, which they do not end."""
    stream = encode_comment("first") + b"data: 1\n:second\ndata: 2\n\n:\r\n"
    decoder = SseDecoder()
    items = [item for chunk in cut(stream) for item in decoder.feed_all(chunk)]
    assert items == [SseComment("first"), SseComment("second"), SseEvent("message", "1\n2"), SseComment("")]
    assert decoded(cut(stream)) == [SseEvent("message", "1\n2")]


def test_an_event_split_inside_its_line_end_is_whole_once() -> None:
    """The second half of a line end in the next chunk does not end the event twice."""
    assert decoded([b"data: 1\r", b"\n\r", b"\ndata: 2\r\n\r\n"]) == [
        SseEvent("message", "1"),
        SseEvent("message", "2"),
    ]


def test_an_empty_chunk_changes_nothing() -> None:
    """Also not between the two bytes of a line end."""
    assert decoded([b"data: 1\r", b"", b"\n\r\n"]) == [SseEvent("message", "1")]


def test_broken_text_is_replaced() -> None:
    """Bytes that are not UTF-8 do not end the stream."""
    assert decoded([b"data: a\xffb\n\n"]) == [SseEvent("message", "a\N{REPLACEMENT CHARACTER}b")]


def test_an_endless_line_is_refused() -> None:
    """A server cannot fill our memory with one line."""
    decoder = SseDecoder()
    half = b"x" * (sse.MAX_LINE_BYTES // 2)
    assert decoder.feed(half) + decoder.feed(half) == []
    with pytest.raises(BackendFailure, match="longer than"):
        decoder.feed(b"x")

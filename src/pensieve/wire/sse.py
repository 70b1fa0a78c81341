"""Server-sent events: bytes to events and back, without I/O. Knows nothing of what the events mean."""

from __future__ import annotations

import re

import msgspec

from pensieve.errors import BackendFailure
from pensieve.messages import Json

MAX_LINE_BYTES = 32 * 2**20
"""A longer line is an attack or a fault: nothing we speak to sends one."""

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"


class SseEvent(msgspec.Struct, frozen=True):
    """One event: its name (`message` where the stream gave none) and its data lines, joined."""

    event: str
    data: str


class SseComment(msgspec.Struct, frozen=True):
    """A line that every reader passes over, unless it knows better."""

    text: str


def frame(event: str, data: bytes) -> bytes:
    """The frame of an event whose data is one line of JSON already."""
    return b"event: %b\ndata: %b\n\n" % (event.encode(), data)


def encode_event(event: str, data: Json) -> bytes:
    """The frame of an event with `data` as JSON, which never contains a line end."""
    return frame(event, msgspec.json.encode(data))


def encode_comment(text: str) -> bytes:
    """A comment of one line."""
    return b": %b\n\n" % text.encode()


def json_text(text: str) -> bytes:
    """The text as JSON; half a character, from a token that ends inside one, is mended."""
    try:
        return _json(text)
    except UnicodeEncodeError:
        return _json(mended(text))


def mended(text: str) -> str:
    """The text as valid Unicode."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


_json = msgspec.json.Encoder().encode


class SseDecoder:
    """Turns chunks, cut anywhere, into whole events; what is incomplete waits for the next chunk."""

    def __init__(self) -> None:
        self._partial_line: list[bytes] = []
        self._partial_bytes = 0
        self._may_finish_crlf = False
        self._is_first_line = True
        self._event = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that this chunk completes."""
        return [item for item in self.feed_all(chunk) if isinstance(item, SseEvent)]

    def feed_all(self, chunk: bytes) -> list[SseEvent | SseComment]:
        """The events and comments that this chunk completes, in their order."""
        if not chunk:
            return []
        if self._may_finish_crlf and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._may_finish_crlf = chunk.endswith(b"\r")
        items = (self._take(line) for line in self._lines(chunk))
        return [item for item in items if item is not None]

    def _lines(self, chunk: bytes) -> list[bytes]:
        head, *rest = _LINE_END.split(chunk)
        self._partial_line.append(head)
        self._partial_bytes += len(head)
        if self._partial_bytes > MAX_LINE_BYTES:
            raise BackendFailure(f"the event stream has a line longer than {MAX_LINE_BYTES} bytes")
        if not rest:
            return []
        lines = [b"".join(self._partial_line), *rest[:-1]]
        self._partial_line = [rest[-1]]
        self._partial_bytes = len(rest[-1])
        return lines

    def _take(self, line: bytes) -> SseEvent | SseComment | None:
        if self._is_first_line:
            line = line.removeprefix(_BOM)
            self._is_first_line = False
        if not line:
            return self._dispatch()
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if not name:
            return SseComment(value)
        if name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        return None

    def _dispatch(self) -> SseEvent | None:
        event, data = self._event or "message", self._data
        self._event, self._data = "", []
        return SseEvent(event, "\n".join(data)) if data else None

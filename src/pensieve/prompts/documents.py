"""Documents as text: plain text as it is, PDFs page by page within bounds. The only place that knows pypdf.

A PDF is hostile until proven otherwise: pages, characters, seconds and unpacked bytes are bounded. pypdf is imported
when the first PDF comes. Blocks; give it the render thread.
"""

from __future__ import annotations

import hashlib
import io
import logging
import struct
import time
import zlib
from collections import OrderedDict
from typing import Any, Final

import msgspec

from pensieve.errors import InvalidRequest
from pensieve.messages import DocumentPart

MAX_PAGES: Final = 300
MAX_CHARACTERS: Final = 2_000_000
"""More than any context holds."""
MAX_SECONDS: Final = 20.0
_MAX_UNPACKED_BYTES: Final = 16 * 2**20
_LIMITS: Final[dict[str, Any]] = {
    "zlib_maximum_output_length": _MAX_UNPACKED_BYTES,
    "lzw_maximum_output_length": _MAX_UNPACKED_BYTES,
    "run_length_maximum_output_length": _MAX_UNPACKED_BYTES,
    "brotli_maximum_output_length": _MAX_UNPACKED_BYTES,
    "stream_decoding_work_maximum_length": 4 * _MAX_UNPACKED_BYTES,
    "stream_parsing_work_maximum_count": 500_000,
    "jbig2dec_binary": None,
}
"""Of one stream; a page of a book has a few thousand operations. No program of the machine is called."""
_NUM_KEPT: Final = 16
"""Agents send the same document with every turn."""
_FOREIGN: Final = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, NotImplementedError),
    *(RecursionError, MemoryError, OSError, struct.error, zlib.error, ImportError),
)
"""What pypdf lets through for files that are none, beside its own errors."""

NO_TEXT: Final = "(This PDF holds no text: it may be scanned pages.)"


class _TooMuch(Exception):
    """A bound was reached."""


class _Refused(msgspec.Struct, frozen=True):
    problem: str


class Documents:
    """Turns documents into text and remembers the last ones, also those that cannot be read."""

    def __init__(self) -> None:
        self._read: OrderedDict[bytes, str | _Refused] = OrderedDict()

    def text(self, part: DocumentPart, path: str) -> str:
        """What the document says. Raises `InvalidRequest` with `path` where it cannot be read."""
        if part.url or not part.data:
            raise InvalidRequest("this document holds no data: send its bytes or its text, not an address", path)
        if part.media_type == "application/pdf":
            return self._pdf(part.data, path)
        if part.media_type.startswith("text/"):
            return part.data.decode("utf-8", "replace")
        raise InvalidRequest(
            f"documents of type {part.media_type[:60]!r} cannot be read: send text/plain or application/pdf", path
        )

    def _pdf(self, data: bytes, path: str) -> str:
        digest = hashlib.sha256(data).digest()
        found = self._read.pop(digest, None) or _tried(data, path)
        self._read[digest] = found
        if len(self._read) > _NUM_KEPT:
            self._read.popitem(last=False)
        if isinstance(found, _Refused):
            raise InvalidRequest(found.problem, path)
        return found


def _tried(data: bytes, path: str) -> str | _Refused:
    try:
        return read_pdf(data, path)
    except InvalidRequest as refused:
        return _Refused(refused.problem)


def read_pdf(data: bytes, path: str, *, seconds: float = MAX_SECONDS) -> str:
    """The text of a PDF's pages, `NO_TEXT` if there is none. Raises `InvalidRequest`."""
    from pypdf import Configuration, PdfReader, apply_configuration, errors  # noqa: PLC0415 - 0.2 s that only PDFs need

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # its warnings quote the document
    configuration = Configuration(**_LIMITS)
    try:
        with apply_configuration(configuration):
            reader = PdfReader(io.BytesIO(data))
            if reader.is_encrypted and not reader.decrypt(""):
                raise InvalidRequest("this PDF is encrypted: send it without a password", path)
            return _text_of(reader, _Bounds(time.monotonic() + seconds))
    except _TooMuch as error:
        raise InvalidRequest(f"this PDF is too much to read ({error}): send fewer pages", path) from error
    except errors.LimitReachedError as error:
        raise InvalidRequest("this PDF is too much to read: something in it unpacks to too many bytes", path) from error
    except (errors.PyPdfError, errors.DependencyError, *_FOREIGN) as error:
        raise InvalidRequest("this PDF is broken and cannot be read: save it anew, or send its text", path) from error


class _Bounds:
    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._num_characters = 0

    def see(self, text: str, *_: Any) -> None:
        """Called for each piece of text."""
        self._num_characters += len(text)
        if self._num_characters > MAX_CHARACTERS:
            raise _TooMuch(f"more than {MAX_CHARACTERS:,} characters")
        self.tick()

    def tick(self, *_: Any) -> None:
        """Called for each operation of a page."""
        if time.monotonic() > self._deadline:
            raise _TooMuch(f"it takes more than {MAX_SECONDS:.0f} s")


def _text_of(reader: Any, bounds: _Bounds) -> str:
    if len(reader.pages) > MAX_PAGES:
        raise _TooMuch(f"{len(reader.pages):,} pages, {MAX_PAGES} can be read")
    pages: list[str] = []
    for page in reader.pages:
        bounds.tick()
        text = page.extract_text(visitor_operand_before=bounds.tick, visitor_text=bounds.see)
        pages.append(text.strip())
    return "\n\n".join(filter(None, pages)) or NO_TEXT

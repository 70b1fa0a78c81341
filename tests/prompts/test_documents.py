"""Documents as text, and what a hostile PDF may not do."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfWriter

from pdf_files import pdf
from pensieve.errors import InvalidRequest
from pensieve.messages import DocumentPart
from pensieve.prompts.documents import MAX_PAGES, NO_TEXT, Documents, read_pdf

PATH = "messages.0.content.0"


def encrypted(password: str) -> bytes:
    """A page behind a password."""
    writer = PdfWriter()
    writer.add_blank_page(72, 72)
    writer.encrypt(password, algorithm="RC4-128")
    written = io.BytesIO()
    writer.write(written)
    return written.getvalue()


def test_plain_text_is_text() -> None:
    """Whatever its subtype; bytes that are no UTF-8 do no harm."""
    part = DocumentPart("text/markdown", b"caf\xc3\xa9 \xff")
    assert Documents().text(part, PATH) == "café \ufffd"


def test_the_pages_of_a_pdf_are_text() -> None:
    """In order, the same each time."""
    documents, part = Documents(), DocumentPart("application/pdf", pdf("Page one", "", "Page three"))
    assert documents.text(part, PATH) == "Page one\n\nPage three"
    assert documents.text(part, PATH) == "Page one\n\nPage three"


def test_a_pdf_without_text_says_so() -> None:
    """The model must not take it for an empty document."""
    assert read_pdf(pdf("", ""), PATH) == NO_TEXT


BAD = {
    "no PDF": (b"%PDF-1.4 nothing", "broken"),
    "empty": (b"%PDF-", "broken"),
    "cut": (pdf("Hello")[:300], "broken"),
    "encrypted": (encrypted("secret"), "encrypted"),
    "too many pages": (pdf(*["x"] * (MAX_PAGES + 1)), "301 pages"),
}


@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=BAD)
def test_a_pdf_that_cannot_be_read_is_refused_with_its_place(data: bytes, reason: str) -> None:
    """As the client's mistake, with what to do."""
    with pytest.raises(InvalidRequest, match=reason) as caught:
        read_pdf(data, PATH)
    assert caught.value.path == PATH


def test_a_pdf_that_takes_too_long_is_refused() -> None:
    """Time is looked at within a page as well."""
    with pytest.raises(InvalidRequest, match="too much"):
        read_pdf(pdf("Hello"), PATH, seconds=-1.0)


@given(st.integers(0, 900), st.binary(min_size=1, max_size=40))
def test_a_damaged_pdf_is_read_or_refused(at: int, damage: bytes) -> None:
    """Nothing else comes of it."""
    whole = pdf("Hello", "World")
    with contextlib.suppress(InvalidRequest):
        assert isinstance(read_pdf(whole[:at] + damage + whole[at + len(damage) :], PATH), str)


@pytest.mark.parametrize(
    "part",
    [DocumentPart("image/tiff", b"x"), DocumentPart(url="https://example.org/a.pdf"), DocumentPart("text/plain")],
)
def test_other_documents_are_refused(part: DocumentPart) -> None:
    """By name; addresses are fetched elsewhere or not at all."""
    with pytest.raises(InvalidRequest) as caught:
        Documents().text(part, PATH)
    assert caught.value.path == PATH


def test_nobody_waits_for_pypdf_who_has_no_pdf() -> None:
    """It is imported with the first one."""
    program = "import sys, pensieve.prompts.prompt; sys.exit('pypdf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

"""Images are opened, bounded and written anew before an engine sees them."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image

from pensieve.errors import InvalidRequest
from pensieve.inference.llamacpp.images import MAX_SIDE_PIXELS, to_png
from pensieve.messages import ImagePart
from tiny_vision import picture


def opened(data: bytes) -> Image.Image:
    """The image that comes out."""
    return Image.open(io.BytesIO(to_png(ImagePart("image/png", data))))


def bomb(side: int) -> bytes:
    """A few bytes that claim to be a huge picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_each_format_becomes_a_png(kind: str) -> None:
    """Of the same size, in plain colours."""
    image = opened(picture("red", kind=kind))
    assert (image.format, image.size, image.mode) == ("PNG", (40, 30), "RGB")


def test_large_pictures_are_made_smaller() -> None:
    """In their proportions."""
    assert opened(picture("red", size=(4096, 1024))).size == (MAX_SIDE_PIXELS, 512)


def test_what_is_transparent_becomes_white() -> None:
    """As people see it."""
    content = io.BytesIO()
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(content, "PNG")
    assert opened(content.getvalue()).getpixel((1, 1)) == (255, 255, 255)


def test_sixteen_bits_of_grey_keep_their_shade() -> None:
    """Scans and depths come so."""
    content = io.BytesIO()
    Image.new("I;16", (4, 4), 30_000).save(content, "PNG")
    assert opened(content.getvalue()).getpixel((1, 1)) == (117, 117, 117)


def test_a_turned_photograph_stands_upright() -> None:
    """However large it is."""
    content, turned = io.BytesIO(), Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (4096, 1024), "red").save(content, "JPEG", exif=turned)
    assert opened(content.getvalue()).size == (512, MAX_SIDE_PIXELS)


@pytest.mark.parametrize("side", [8_000, 30_000, 2**31 - 1])
def test_bombs_are_refused_unopened(side: int) -> None:
    """Their size is in the first bytes."""
    with pytest.raises(InvalidRequest):
        to_png(ImagePart("image/png", bomb(side)))


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"GIF89a", picture("red")[:60]])
def test_what_cannot_be_read_is_refused(data: bytes) -> None:
    """With what to send instead."""
    with pytest.raises(InvalidRequest, match="send"):
        to_png(ImagePart("image/png", data))


def test_formats_that_nobody_asked_for_stay_closed() -> None:
    """Pillow could read them, with more code than anybody has looked at."""
    with pytest.raises(InvalidRequest):
        to_png(ImagePart("image/png", picture("red", kind="TIFF")))

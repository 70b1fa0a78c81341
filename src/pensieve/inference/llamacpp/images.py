"""Images of a request, made safe for the engine: opened, bounded and written anew. Alone imports Pillow."""

from __future__ import annotations

import io
import warnings
from typing import Final

from PIL import Image, ImageOps, UnidentifiedImageError

from pensieve.errors import InvalidRequest
from pensieve.messages import ImagePart

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF")
MAX_PIXELS: Final = 50_000_000
"""Of an image that is sent; more is refused before it is unpacked."""
MAX_SIDE_PIXELS: Final = 2048
"""Larger images are made smaller: no projector looks closer than this."""


def to_png(part: ImagePart) -> bytes:
    """The first frame of the image as a PNG of bounded size. Raises `InvalidRequest`."""
    if not part.data:
        raise InvalidRequest("an image must come with its bytes: send it as base64", "messages")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(io.BytesIO(part.data), formats=FORMATS) as image:
                return _written(image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, Warning) as error:
        raise InvalidRequest("an image cannot be read: send PNG, JPEG, WebP or GIF, and whole", "messages") from error
    except (Image.DecompressionBombError, MemoryError) as error:
        raise _too_large() from error


def _written(image: Image.Image) -> bytes:
    if image.width * image.height > MAX_PIXELS:
        raise _too_large()
    image.draft("RGB", (MAX_SIDE_PIXELS, MAX_SIDE_PIXELS))
    if image.mode.startswith("I"):  # as bytes all that is not nearly black would be white
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    image.thumbnail((MAX_SIDE_PIXELS, MAX_SIDE_PIXELS))
    ImageOps.exif_transpose(image, in_place=True)
    content = io.BytesIO()
    _on_white(image).save(content, "PNG", compress_level=1)
    return content.getvalue()


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, "white")
    ground.alpha_composite(image.convert("RGBA"))
    return ground.convert("RGB")


def _too_large() -> InvalidRequest:
    return InvalidRequest(f"an image has more than {MAX_PIXELS:,} pixels: send a smaller one", "messages")

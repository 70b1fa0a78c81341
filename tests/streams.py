"""Ways a byte stream can arrive: whole, in pieces, byte by byte, and with an unfinished tail."""

from __future__ import annotations

from collections.abc import Callable

UNFINISHED_TAIL = b'event: ping\ndata: {"type"'


def whole(data: bytes) -> list[bytes]:
    """All at once."""
    return [data]


def piecewise(data: bytes, size: int = 7) -> list[bytes]:
    """In pieces of `size` bytes, which cut lines and characters anywhere."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def byte_by_byte(data: bytes) -> list[bytes]:
    """One byte at a time."""
    return piecewise(data, 1)


def with_tail(data: bytes) -> list[bytes]:
    """All at once, and then the beginning of a frame that never ends."""
    return [data, UNFINISHED_TAIL]


CUTS: dict[str, Callable[[bytes], list[bytes]]] = {
    "whole": whole,
    "piecewise": piecewise,
    "byte by byte": byte_by_byte,
    "with a tail": with_tail,
}
"""For `pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)`."""

"""How a long fetch tells how far it is. Knows no terminal."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then from the thread that fetches."""

    def __call__(self, stage: str, done_bytes: int, total_bytes: int, /) -> None:
        """`stage` is a word for people ("downloading"); `total_bytes` is 0 where it is not known."""
        ...


def silent(stage: str, done_bytes: int, total_bytes: int) -> None:
    """Progress that nobody watches."""

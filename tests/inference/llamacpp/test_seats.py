"""Seats: what is put aside stays to be had or is gone, whatever fails and whoever leaves meanwhile."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from pensieve.errors import BackendFailure
from pensieve.inference.llamacpp.seats import Seats

ONE, OTHER = [1] * 400, [2] * 400


class Shelf:
    """An engine's chores, done to a set of names instead of files."""

    sees_images = False

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.is_broken = self.is_out_of_order = False
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def save(self, slot: int, name: str) -> None:
        """Takes until it may go on."""
        del slot
        self.may_go_on.wait(10)
        if self.is_broken:
            raise OSError("no disk")
        self.names.add(name)

    def restore(self, slot: int, name: str) -> None:
        """Fails if it is out of order, or the name is not there."""
        del slot
        if self.is_out_of_order or name not in self.names:
            raise BackendFailure("it cannot be read")

    def forget(self, name: str) -> None:
        """It is gone."""
        self.names.discard(name)


def seats_of(shelf: Any) -> Seats:
    """One slot, and room for two prompts beside it."""
    return Seats(shelf, num_slots=1, capacity_tokens=10_000, aside_tokens=1_000)


async def serve(seats: Seats, prompt: list[int]) -> None:
    """A prompt that is read, and whose answer is empty."""
    seats.leave(await seats.take(prompt, lambda: len(prompt)), prompt)


async def test_what_is_put_aside_while_its_client_leaves_is_not_lost() -> None:
    """Nor does its file stay behind without anybody who knows of it."""
    shelf = Shelf()
    seats = seats_of(shelf)
    await serve(seats, ONE)
    shelf.may_go_on.clear()
    leaving = asyncio.create_task(serve(seats, OTHER))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    shelf.may_go_on.set()
    await serve(seats, OTHER)
    assert len(shelf.names) == 1
    assert seats._book.choose(ONE).fetched is not None  # type: ignore[union-attr]
    await asyncio.to_thread(seats.close)


async def test_what_cannot_be_fetched_is_forgotten_with_its_file() -> None:
    """It would fail for ever, and fill the disk."""
    shelf = Shelf()
    seats = seats_of(shelf)
    await serve(seats, ONE)
    await serve(seats, OTHER)
    shelf.is_out_of_order = True
    for _ in range(5):
        await serve(seats, ONE)
        await serve(seats, OTHER)
    assert len(shelf.names) == 1, "what was saved meanwhile is kept"
    await asyncio.to_thread(seats.close)


async def test_a_failure_of_any_kind_gives_the_slot_back() -> None:
    """The next one sits there."""
    shelf = Shelf()
    seats = seats_of(shelf)
    await serve(seats, ONE)
    shelf.is_broken = True
    with pytest.raises(OSError, match="no disk"):
        await seats.take(OTHER, lambda: 400)
    shelf.is_broken = False
    await serve(seats, ONE)
    await asyncio.to_thread(seats.close)

"""The graphics card that a worker's model lies on, as far as memory's level must know it. Loads and ends nothing."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

import msgspec

from pensieve.config.settings import MemorySettings, Settings
from pensieve.devices.cuda import read_devices
from pensieve.devices.levels import thresholds
from pensieve.devices.memory import MemoryReading
from pensieve.inference.builds import mlx_has_cuda
from pensieve.models.spec import ModelSpec

LOOK_SECONDS = 1.0
"""The driver takes milliseconds to answer: it is asked so often, on a thread."""


def lies_on_card(spec: ModelSpec, settings: Settings) -> bool:
    """Whether the model grows in a card's own memory: MLX's do; llama.cpp has taken all that it will at load."""
    return spec.format == "mlx" and settings.mlx.device != "cpu" and mlx_has_cuda()


def read_card() -> MemoryReading | None:
    """The card that MLX computes on, the first; None where the user chose cards, or there is none."""
    cards = read_devices()
    if not cards or (len(cards) > 1 and "CUDA_VISIBLE_DEVICES" in os.environ):
        return None
    return MemoryReading(cards[0].free_bytes, cards[0].total_bytes, cards[0].name)


class Card:
    """What is known of it now, and what the model was seen to hold there."""

    def __init__(self, *, is_used: bool, read: Callable[[], MemoryReading | None] = read_card) -> None:
        self.reading: MemoryReading | None = None
        self._is_used = is_used
        self._read = read
        self._looked_seconds = -LOOK_SECONDS
        self._needed_bytes = 0

    def beside(self, host: MemoryReading) -> MemoryReading:
        """The host's reading with the card's."""
        return host if self.reading is None else msgspec.structs.replace(host, card=self.reading)

    async def look(self) -> None:
        """Ask the driver, if that is due."""
        now = time.monotonic()
        if self._is_used and now - self._looked_seconds >= LOOK_SECONDS:
            self._looked_seconds = now
            self.reading = await asyncio.to_thread(self._read)

    async def note_freed(self) -> None:
        """The worker has ended: what came free is what its model takes."""
        before, self._looked_seconds = self.reading, -LOOK_SECONDS
        await self.look()
        if before is not None and self.reading is not None:
            freed = (self.reading.available_bytes or 0) - (before.available_bytes or 0)
            self._needed_bytes = max(self._needed_bytes, freed)

    def has_room(self, settings: MemorySettings) -> bool:
        """Whether the model would leave the card Safe, with a margin."""
        if self.reading is None or self.reading.available_bytes is None:
            return True
        kept = thresholds(settings, self.reading.total_bytes).warning_bytes * (1 + settings.recovery_percent / 100)
        return self.reading.available_bytes - kept >= self._needed_bytes

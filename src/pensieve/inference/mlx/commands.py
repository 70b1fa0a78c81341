"""What other threads may tell the engine. Values only."""

from __future__ import annotations

from typing import NamedTuple

from pensieve.inference.mlx.sequence import Sink, Task


class Submit(NamedTuple):
    """Answer this; items go to the sink."""

    task: Task
    sink: Sink


class Cancel(NamedTuple):
    """Nobody listens to this one any more, or its answer is complete."""

    sequence_id: str


class Relieve(NamedTuple):
    """Memory is short, or no longer so."""

    cache_share: float
    is_frugal: bool


class Stop(NamedTuple):
    """End all work."""


Command = Submit | Cancel | Relieve | Stop

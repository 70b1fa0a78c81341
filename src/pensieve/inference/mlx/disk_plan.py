"""What to read from disk for a prompt: only what is expected to come sooner than it could be computed.

Plain decisions over digests, bytes and measured speeds; opens no files.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pensieve.inference.mlx.prefix_cache import BLOCK_TOKENS

CAUTIOUS_READ_BYTES_PER_SECOND = 500e6
CAUTIOUS_PREFILL_TOKENS_PER_SECOND = 20_000.0
"""Taken until they are measured: a slow disk and a fast machine."""

MARGIN = 0.8
"""Reading must be expected to take less than this part of what computing takes."""

FILE_SECONDS = 0.001
"""To open a file and check it, beside its bytes."""

MIN_MEASURED_TOKENS = 32


@dataclass(eq=False, slots=True)
class StoredFile:
    """One file: a run of blocks after the block `parent`, or (no digests) the boundary right after that block."""

    path: Path
    num_bytes: int
    parent: bytes
    digests: tuple[bytes, ...]


class Piece(msgspec.Struct, frozen=True):
    """Blocks `start` to `end` of a prompt, which lie in this file from its block `offset` on."""

    file: StoredFile
    offset: int
    start: int
    end: int


class Reading(msgspec.Struct, frozen=True):
    """What to read so that a prompt's first `end` blocks are there; nothing where `end` is 0."""

    end: int = 0
    pieces: tuple[Piece, ...] = ()
    boundary: StoredFile | None = None
    num_slower: int = 0
    """Files passed over because computing is quicker."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all files to read."""
        return sum(piece.file.num_bytes for piece in self.pieces) + (self.boundary.num_bytes if self.boundary else 0)


class Speeds:
    """How fast this machine reads prompts and files; 0: not measured yet."""

    def __init__(self) -> None:
        self.prefill_tokens_per_second = 0.0
        self.read_bytes_per_second = 0.0

    def note_prefill(self, num_tokens: int, seconds: float) -> None:
        """Learn from a prompt: a faster time counts at once, slower ones little by little (first uses are slow)."""
        if num_tokens < MIN_MEASURED_TOKENS or seconds <= 0:
            return
        speed = num_tokens / seconds
        known = self.prefill_tokens_per_second
        self.prefill_tokens_per_second = speed if speed > known else _blend(known, speed, 0.1)

    def note_read(self, num_bytes: int, seconds: float) -> None:
        """Learn from a file that was read."""
        if num_bytes and seconds > 0:
            self.read_bytes_per_second = _blend(self.read_bytes_per_second, num_bytes / seconds, 0.3)

    def recall(self, prefill_tokens_per_second: float) -> None:
        """Take up the speed an earlier run measured, where it is a sane number."""
        if 1.0 <= prefill_tokens_per_second <= 1e9:
            self.prefill_tokens_per_second = prefill_tokens_per_second

    def is_worth(self, num_bytes: int, num_tokens: int, *, num_files: int = 1) -> bool:
        """Whether reading so many bytes beats computing so many tokens."""
        read_speed = self.read_bytes_per_second or CAUTIOUS_READ_BYTES_PER_SECOND
        prefill_speed = self.prefill_tokens_per_second or CAUTIOUS_PREFILL_TOKENS_PER_SECOND
        return num_bytes / read_speed + num_files * FILE_SECONDS < MARGIN * num_tokens / prefill_speed


@dataclass(slots=True)
class FileIndex:
    """Which file holds a block, and which the boundary after a block."""

    blocks: dict[bytes, StoredFile] = field(default_factory=dict)
    boundaries: dict[bytes, StoredFile] = field(default_factory=dict)

    def add(self, file: StoredFile) -> None:
        """Enter a file; of two that hold the same block the later one serves."""
        self.blocks.update(dict.fromkeys(file.digests, file))
        if not file.digests:
            self.boundaries[file.parent] = file

    def remove(self, file: StoredFile) -> None:
        """Strike out a file."""
        for digest in file.digests:
            if self.blocks.get(digest) is file:
                del self.blocks[digest]
        if self.boundaries.get(file.parent) is file:
            del self.boundaries[file.parent]

    def lineage(self, file: StoredFile) -> Iterator[StoredFile]:
        """The file and those that hold what comes before it, each once: a foreign hand may have knotted them."""
        seen: set[StoredFile] = set()
        before: StoredFile | None = file
        while before and before not in seen:
            seen.add(before)
            yield before
            before = self.blocks.get(before.parent)

    def plan(
        self, digests: Sequence[bytes], speeds: Speeds, *, num_held: int, num_usable: int, is_trimmable: bool
    ) -> Reading:
        """What to read for a prompt of these blocks; memory holds the first `num_held` and can use `num_usable`."""
        pieces = list(self._pieces(digests, num_held))
        if is_trimmable:
            return _plan_blocks(pieces, speeds)
        return self._plan_boundary(
            digests, pieces, speeds, range(pieces[-1].end if pieces else num_held, num_usable, -1)
        )

    def _pieces(self, digests: Sequence[bytes], start: int) -> Iterator[Piece]:
        """The files that hold the blocks from `start` on, as far as they follow one another."""
        while start < len(digests) and (file := self.blocks.get(digests[start])):
            offset = file.digests.index(digests[start])
            pairs = zip(file.digests[offset:], digests[start:], strict=False)
            end = start + sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            yield Piece(file, offset, start, end)
            start = end

    def _plan_boundary(self, digests: Sequence[bytes], pieces: list[Piece], speeds: Speeds, ends: range) -> Reading:
        """The last boundary that is worth what must be read to enter there: its own file and the blocks before it."""
        num_slower = 0
        for end in ends:
            boundary = self.boundaries.get(digests[end - 1])
            if boundary is None:
                continue
            needed = tuple(piece for piece in pieces if piece.start < end)
            reading = Reading(end, needed, boundary, num_slower)
            if speeds.is_worth(reading.num_bytes, (end - ends.stop) * BLOCK_TOKENS, num_files=len(needed) + 1):
                return reading
            num_slower += 1
        return Reading(num_slower=num_slower)


def _plan_blocks(pieces: list[Piece], speeds: Speeds) -> Reading:
    worth = list(
        itertools.takewhile(
            lambda piece: speeds.is_worth(piece.file.num_bytes, (piece.end - piece.start) * BLOCK_TOKENS), pieces
        )
    )
    return Reading(worth[-1].end if worth else 0, tuple(worth), None, len(pieces) - len(worth))


def _blend(old: float, new: float, weight: float) -> float:
    return old + weight * (new - old) if old else new

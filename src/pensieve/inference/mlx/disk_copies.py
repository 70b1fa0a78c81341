"""Between the engine thread's arrays and the disk tier's bytes: reads with checks, writes when there is time.

Knows nothing of the budget in memory or of what a prompt is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import mlx.core as mx

from pensieve.inference.mlx import array_bytes, layout
from pensieve.inference.mlx.disk_format import BrokenFile, Label, Tensor
from pensieve.inference.mlx.disk_plan import Piece, Reading, StoredFile
from pensieve.inference.mlx.disk_tier import DiskTier
from pensieve.inference.mlx.layout import Slice, States
from pensieve.inference.mlx.prefix_cache import BLOCK_TOKENS, Boundary, Entry, Extent, Match

FILE_BYTES = 64 * 2**20
"""A file is about that large at most: what is copied at once while requests may come."""

MIN_RUN_BLOCKS = 4
"""Shorter runs wait until more follows, where an answer may start after any block."""

WAIT_SECONDS = 0.005

Signature = tuple[tuple[int, int, mx.Dtype] | None, ...]


class Loaded(NamedTuple):
    """Arrays from disk: slices with the tokens of each that are meant, in order, and the states of the boundary."""

    slices: list[tuple[Slice, int]]
    states: States | None


class DiskCopies:
    """The disk tier of a model with such `fresh` caches, for the prefix store; `root`: the digest before any block."""

    def __init__(self, disk: DiskTier, root: bytes, fresh: list[Any]) -> None:
        self.disk = disk
        self._root = root
        self._num_arrays, self._num_states = layout.num_arrays(fresh), layout.num_states(fresh)
        self._is_trimmable = layout.is_trimmable(fresh)
        self._pending: dict[Entry, None] = {}
        self._signature: Signature | None = None

    def plan(self, digests: Sequence[bytes], held: Match, usable: Match) -> Reading:
        """What to read for a prompt with these blocks."""
        return self.disk.index.plan(
            digests,
            self.disk.speeds,
            num_held=held.num_blocks,
            num_usable=usable.num_blocks,
            is_trimmable=self._is_trimmable,
        )

    def read(self, reading: Reading) -> Loaded | None:
        """The arrays of what was planned; None where a file was of no use: it is gone now, plan again."""
        started = time.perf_counter()
        slices: list[tuple[Slice, int]] = []
        for piece in reading.pieces:
            arrays = self._read_blocks(piece)
            if arrays is None:
                return None
            slices.append((arrays, (min(piece.end, reading.end) - piece.start) * BLOCK_TOKENS))
        states = self._read_states(reading.boundary) if reading.boundary else None
        if reading.boundary and states is None:
            return None
        mx.eval(layout.arrays_of([arrays for arrays, _ in slices]), layout.arrays_of(states))
        self.disk.speeds.note_read(reading.num_bytes, time.perf_counter() - started)
        return Loaded(slices, states)

    def learn(self, arrays: Slice) -> None:
        """Take the shape of these as the model's: files with another one are broken."""
        self._signature = _signature(arrays)

    def note(self, entries: Iterable[Entry]) -> None:
        """Take these up for writing, what comes first in a prompt first."""
        self._pending.update(dict.fromkeys(entries))

    def write_next(self, slices: Mapping[Extent, Slice], states: Mapping[Boundary, States]) -> bool:
        """Copy out and begin to write one file of what was noted and is still held; True if more may be waiting."""
        self.disk.settle()
        if not self._pending:
            return False
        if self.disk.is_busy:
            self.disk.wait(WAIT_SECONDS)
            return True
        while self._pending and self.disk.can_write:
            entry = next(iter(self._pending))
            is_begun = (
                self._write_run(entry, slices.get(entry))
                if isinstance(entry, Extent)
                else self._write_states(entry, states.get(entry))
            )
            if is_begun:
                return True
            if self.disk.can_write:
                del self._pending[entry]
        return False

    def flush(self, slices: Mapping[Extent, Slice], states: Mapping[Boundary, States], seconds: float) -> None:
        """Write what is waiting for as long as that."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.write_next(slices, states):
            pass

    def _write_run(self, extent: Extent, arrays: Slice | None) -> bool:
        """Begin to write the extent's first blocks that no file holds; False where nothing is to be written."""
        missing = [place for place, digest in enumerate(extent.digests) if not self.disk.has_block(digest)]
        if arrays is None or not missing:
            return False
        start, block_bytes = missing[0], extent.num_bytes // len(extent.digests)
        count = min(len(extent.digests) - start, max(FILE_BYTES // max(block_bytes, 1), 1))
        is_short = count < MIN_RUN_BLOCKS and start + count == len(extent.digests)
        if self._is_trimmable and is_short and len(extent.digests) >= MIN_RUN_BLOCKS:
            return False
        if not self.disk.speeds.is_worth(count * block_bytes, count * BLOCK_TOKENS):
            return False
        parent = extent.digest_before(extent.start + start) or self._root
        cut = layout.cut(arrays, start * BLOCK_TOKENS, (start + count) * BLOCK_TOKENS)
        tensors = [held if held is None else array_bytes.to_tensor(held) for held in cut]
        return self.disk.write_blocks(parent, extent.digests[start : start + count], tensors)

    def _write_states(self, boundary: Boundary, states: States | None) -> bool:
        if states is None or self.disk.has_boundary(boundary.digest):
            return False
        if not self.disk.speeds.is_worth(boundary.num_bytes, boundary.end * BLOCK_TOKENS):
            return False
        tree, arrays = array_bytes.flatten(states)
        return self.disk.write_boundary(boundary.digest, tree, [array_bytes.to_tensor(held) for held in arrays])

    def _read_blocks(self, piece: Piece) -> Slice | None:
        content = self.disk.read(piece.file)
        if content is None:
            return None
        _, tensors = content
        try:
            arrays = self._slice(tensors, len(piece.file.digests) * BLOCK_TOKENS)
        except BrokenFile as problem:
            self.disk.discard(piece.file, str(problem))
            return None
        start = piece.offset * BLOCK_TOKENS
        return [held if held is None else held[:, :, start:, :] for held in arrays]

    def _slice(self, tensors: Mapping[str, Tensor], num_tokens: int) -> Slice:
        """A file's keys and values, if they have the shape that this model's have."""
        found = [tensors.get(str(place)) for place in range(self._num_arrays)]
        if sum(tensor is not None for tensor in found) != len(tensors):
            raise BrokenFile("it holds other layers than the model has")
        for tensor in found:
            if tensor and (len(tensor.shape) != 4 or tensor.shape[0] != 1 or tensor.shape[2] != num_tokens):
                raise BrokenFile("its arrays are not as long as they should be")
        arrays = [tensor and array_bytes.to_array(tensor) for tensor in found]
        if self._signature not in (None, _signature(arrays)):
            raise BrokenFile("its arrays have another shape than the model's")
        return arrays

    def _read_states(self, file: StoredFile) -> States | None:
        content = self.disk.read(file)
        if content is None:
            return None
        try:
            return self._states(*content)
        except BrokenFile as problem:
            self.disk.discard(file, str(problem))
            return None

    def _states(self, label: Label, tensors: Mapping[str, Tensor]) -> States:
        arrays = [array_bytes.to_array(tensor) for tensor in tensors.values()]
        states = array_bytes.unflatten(label.tree, arrays)
        if not isinstance(states, list) or len(states) != self._num_states:
            raise BrokenFile("it holds other layers than the model has")
        return states


def _signature(arrays: Slice) -> Signature:
    return tuple(held if held is None else (held.shape[1], held.shape[3], held.dtype) for held in arrays)

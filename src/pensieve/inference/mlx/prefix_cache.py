"""Which stored prefix serves a prompt, and what goes when memory is short: plain decisions over block hashes.

Tokens are cut into blocks; a block's digest chains over all blocks before it, so one digest stands for a whole prefix
and the index is a dictionary of digests, a few bytes a token. Knows counts and bytes; never arrays, files or MLX.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

BLOCK_TOKENS = 64
EXTENT_BLOCKS = 32
"""Blocks held as one array at most: 2,048 tokens."""

DIGEST_BYTES = 16


def root_digest(fingerprint: str) -> bytes:
    """The digest before the first block: equal tokens of another model, template or quantization never match."""
    return blake2b(fingerprint.encode(), digest_size=DIGEST_BYTES).digest()


def block_digests(root: bytes, tokens: Sequence[int], num_blocks: int) -> Iterator[bytes]:
    """The digests of the first `num_blocks` whole blocks, made one by one as they are asked for."""
    digest = root
    for start in range(0, num_blocks * BLOCK_TOKENS, BLOCK_TOKENS):
        block = array("I", tokens[start : start + BLOCK_TOKENS])
        digest = blake2b(digest + block.tobytes(), digest_size=DIGEST_BYTES).digest()
        yield digest


@dataclass(eq=False, slots=True)
class Extent:
    """A run of consecutive blocks held as one array per key and value; `start` counts the blocks before it."""

    parent: Extent | None
    start: int
    digests: list[bytes] = field(default_factory=list)
    num_bytes: int = 0
    num_children: int = 0
    boundaries: dict[int, Boundary] = field(default_factory=dict)
    """By the number of blocks from the beginning of the prompt, after the block they follow."""
    is_worth_keeping: bool = False
    """Used again, or part of a long prompt: goes to disk when there is time."""

    @property
    def end(self) -> int:
        """Blocks from the beginning of the prompt to the end of this extent."""
        return self.start + len(self.digests)

    def digest_before(self, block: int) -> bytes | None:
        """The digest of the block before `block`, which lies in this extent; None before the prompt's first."""
        if block > self.start:
            return self.digests[block - self.start - 1]
        return self.parent.digest_before(block) if self.parent else None


@dataclass(eq=False, slots=True)
class Boundary:
    """What the layers that cannot be cut (sliding window, recurrent) held after exactly `end` blocks."""

    extent: Extent
    end: int
    num_bytes: int

    @property
    def digest(self) -> bytes:
        """The digest of the last block before it."""
        return self.extent.digests[self.end - self.extent.start - 1]


Entry = Extent | Boundary
"""What can be evicted."""


@dataclass(frozen=True, slots=True)
class Match:
    """A stored prefix: `num_blocks` of it, in these extents; only a part of each may be meant."""

    num_blocks: int = 0
    path: tuple[Extent, ...] = ()
    boundary: Boundary | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens the prefix holds."""
        return self.num_blocks * BLOCK_TOKENS

    def parts(self) -> list[tuple[Extent, int]]:
        """Each extent of the path with the number of its first blocks that belong to the prefix."""
        ends = [after.start for after in self.path[1:]] + [self.num_blocks]
        return [(extent, end - extent.start) for extent, end in zip(self.path, ends, strict=False)]

    def first(self, num_blocks: int) -> Match:
        """The same prefix, cut to `num_blocks` of its blocks."""
        assert num_blocks <= self.num_blocks, "a prefix has no more blocks than were matched"
        path = tuple(extent for extent in self.path if extent.start < num_blocks)
        boundary = path[-1].boundaries.get(num_blocks) if path else None
        return Match(num_blocks, path, boundary)


@dataclass(frozen=True, slots=True)
class Addition:
    """Blocks `start` to `end` of a prompt go to this extent, after what it holds already."""

    extent: Extent
    start: int
    end: int


class PrefixIndex:
    """The books of the prefix cache: what is stored, how many bytes it takes, and in which order it was used.

    `is_trimmable`: a match may end after any block; else only where a boundary is stored.
    Each entry stands in the order of use before the extents it hangs on, so the oldest entry can always go.
    """

    def __init__(self, *, budget_bytes: int, is_trimmable: bool, extent_blocks: int = EXTENT_BLOCKS) -> None:
        self.budget_bytes = budget_bytes
        self.extent_blocks = extent_blocks
        self.is_trimmable = is_trimmable
        self.num_bytes = 0
        self._extents: dict[bytes, Extent] = {}
        self._order: OrderedDict[Entry, None] = OrderedDict()

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._order

    def entries(self) -> Iterator[Entry]:
        """Everything that is stored, the least recently used first."""
        return iter(self._order)

    def match(self, digests: Iterable[bytes]) -> Match:
        """The longest stored prefix, whether or not an answer may start there."""
        path: list[Extent] = []
        num_blocks = 0
        for digest in digests:
            extent = self._extents.get(digest)
            if extent is None:
                break
            if not path or path[-1] is not extent:
                path.append(extent)
            num_blocks += 1
        return Match(num_blocks, tuple(path)).first(num_blocks)

    def usable(self, match: Match) -> Match:
        """The longest part of a match that an answer may start from."""
        if self.is_trimmable:
            return match
        for extent, count in reversed(match.parts()):
            # Boundaries further on in the extent belong to a prompt that parted from this one.
            end = max((end for end in extent.boundaries if end <= extent.start + count), default=0)
            if end:
                return match.first(end)
        return Match()

    def touch(self, match: Match) -> None:
        """Note a use: the boundary first, then the extents from the last to the first."""
        if match.boundary:
            self._order.move_to_end(match.boundary)
        self._use(match.path[-1] if match.path else None)

    def fitting_blocks(self, match: Match, num_missing: int, *, block_bytes: int, boundary_bytes: int) -> int | None:
        """How many of the blocks that follow a match could be stored, were everything else evicted.

        A prompt that needs its boundary is stored whole or, None, not at all: no answer could start inside it.
        """
        room_bytes = self.budget_bytes - sum(extent.num_bytes for extent in match.path) - boundary_bytes
        if room_bytes < 0:
            return None
        fitting = num_missing if block_bytes == 0 else min(num_missing, room_bytes // block_bytes)
        return fitting if self.is_trimmable or fitting == num_missing else None

    def victims(self, num_bytes: int) -> list[Entry]:
        """The least recently used entries that hold at least `num_bytes` together, or all there are; oldest first.

        For blocks that fit, none of them lies before the match that was just touched.
        """
        found: list[Entry] = []
        for entry in self._order:
            if num_bytes <= 0:
                break
            found.append(entry)
            num_bytes -= entry.num_bytes
        return found

    def remove(self, entry: Entry) -> None:
        """Strike out an entry; an extent only after everything that hangs on it."""
        del self._order[entry]
        self.num_bytes -= entry.num_bytes
        if isinstance(entry, Boundary):
            del entry.extent.boundaries[entry.end]
            return
        assert not entry.num_children, "an extent was removed before the extents that follow it"
        assert not entry.boundaries, "an extent was removed before its boundaries"
        if entry.parent:
            entry.parent.num_children -= 1
        for digest in entry.digests:
            del self._extents[digest]

    def append(self, match: Match, digests: Sequence[bytes], *, block_bytes: int) -> list[Addition]:
        """Enter the blocks after a match: the last extent grows until it is full, then new ones are opened."""
        additions: list[Addition] = []
        tail = match.path[-1] if match.path else None
        start, stop = match.num_blocks, match.num_blocks + len(digests)
        while start < stop:
            if tail is None or not self._can_grow(tail, start):
                tail = self._open(tail, start)
            end = min(stop, tail.start + self.extent_blocks)
            new = digests[start - match.num_blocks : end - match.num_blocks]
            tail.digests.extend(new)
            self._extents.update(dict.fromkeys(new, tail))
            self._grow(tail, len(new) * block_bytes)
            additions.append(Addition(tail, start, end))
            start = end
        self._use(tail)
        return additions

    def add_boundary(self, match: Match, num_bytes: int) -> Boundary:
        """Enter a boundary at the end of a match."""
        extent = match.path[-1]
        boundary = Boundary(extent, match.num_blocks, num_bytes)
        assert match.num_blocks not in extent.boundaries, "a boundary was stored twice"
        extent.boundaries[match.num_blocks] = boundary
        self._order[boundary] = None
        self.num_bytes += num_bytes
        self._use(extent)
        return boundary

    def check(self) -> None:
        """Raise AssertionError where the books do not balance."""
        extents = [entry for entry in self._order if isinstance(entry, Extent)]
        boundaries = [entry for entry in self._order if isinstance(entry, Boundary)]
        assert self.num_bytes == sum(entry.num_bytes for entry in self._order), "bytes do not add up"
        assert self.num_bytes <= self.budget_bytes, "more is stored than the budget allows"
        assert len(self._extents) == sum(len(extent.digests) for extent in extents), "blocks do not add up"
        assert sum(len(extent.boundaries) for extent in extents) == len(boundaries), "boundaries do not add up"
        assert sum(extent.num_children for extent in extents) == sum(extent.parent is not None for extent in extents), (
            "children do not add up"
        )
        self._check_links(extents, boundaries)

    def _check_links(self, extents: list[Extent], boundaries: list[Boundary]) -> None:
        rank = {entry: place for place, entry in enumerate(self._order)}
        for extent in extents:
            assert 0 < len(extent.digests) <= self.extent_blocks, "an extent is empty or too long"
            assert all(self._extents.get(digest) is extent for digest in extent.digests), "a block is not indexed"
            parent = extent.parent
            assert parent or extent.start == 0, "an extent lost what comes before it"
            if parent:
                assert parent.start < extent.start <= parent.end, "an extent hangs on no block"
                assert rank[parent] > rank[extent], "an extent was used later than what it hangs on"
        for boundary in boundaries:
            extent = boundary.extent
            assert extent.boundaries.get(boundary.end) is boundary, "a boundary is not known to its extent"
            assert extent.start < boundary.end <= extent.end, "a boundary lies outside its extent"
            assert rank[extent] > rank[boundary], "a boundary was used later than its extent"

    def _use(self, extent: Extent | None) -> None:
        while extent:
            self._order.move_to_end(extent)
            extent = extent.parent

    def _can_grow(self, extent: Extent, at_block: int) -> bool:
        return extent.end == at_block and len(extent.digests) < self.extent_blocks

    def _open(self, parent: Extent | None, start: int) -> Extent:
        extent = Extent(parent, start)
        if parent:
            parent.num_children += 1
        self._order[extent] = None
        return extent

    def _grow(self, extent: Extent, num_bytes: int) -> None:
        extent.num_bytes += num_bytes
        self.num_bytes += num_bytes

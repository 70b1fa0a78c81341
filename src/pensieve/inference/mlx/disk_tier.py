"""Prefixes of prompts in files: found again after a restart, read only where that beats computing them.

Plain Python: bytes in, bytes out, on the engine thread; files are written by a thread of its own. A file never changes
and is named by what it holds, so processes can share a folder; whatever is wrong with one makes it a miss.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from pensieve.inference.mlx.disk_format import (
    FORMAT_VERSION,
    LENGTH,
    BrokenFile,
    Header,
    Label,
    Tensor,
    decode,
    decode_header,
    encode,
    header_length,
)
from pensieve.inference.mlx.disk_litter import remove_half_written, remove_stale_folders
from pensieve.inference.mlx.disk_plan import FileIndex, Speeds, StoredFile
from pensieve.inference.mlx.disk_writer import TEMPORARY_SUFFIX, DiskWriter, Written
from pensieve.inference.mlx.prefix_cache import DIGEST_BYTES

log = logging.getLogger(__name__)

SUFFIX = ".safetensors"
MAX_FILES = 50_000
HEADER_READ_BYTES = 2**16
"""Read from each file at the start: nearly every header is shorter."""

MEASURED_BYTES = 64 * 2**20
MIN_FREE_BYTES = 2 * 2**30
PAUSE_SECONDS = 60.0

CLOCK_STEP_NANOSECONDS = 1000


class DiskStats(msgspec.Struct, frozen=True, kw_only=True):
    """What the disk tier did since it was opened, and what it holds now."""

    num_files: int = 0
    num_bytes: int = 0
    written_bytes: int = 0
    read_bytes: int = 0
    evicted_bytes: int = 0
    num_corrupt: int = 0
    num_failed_writes: int = 0
    read_bytes_per_second: float = 0.0
    """0: not measured yet."""
    prefill_tokens_per_second: float = 0.0


class DiskTier:
    """The files of one model under `root`, in a folder named by the fingerprint of model, quantization and template.

    At most `budget_bytes` of files, and never fewer than `min_free_bytes` left on the disk by writing one. Nothing is
    written for `pause_seconds` after the disk was full or failed.
    """

    def __init__(
        self,
        root: Path,
        *,
        fingerprint: str,
        budget_bytes: int,
        min_free_bytes: int = MIN_FREE_BYTES,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._folder = root / "".join(letter if letter.isalnum() else "-" for letter in fingerprint)[:100]
        self._fingerprint = fingerprint
        self._budget_bytes = budget_bytes
        self._min_free_bytes = min_free_bytes
        self._pause_seconds = pause_seconds
        self.index = FileIndex()
        self.speeds = Speeds()
        self._order: OrderedDict[Path, StoredFile] = OrderedDict()
        self._writer = DiskWriter()
        self._being_written: StoredFile | None = None
        self._paused_until = 0.0
        self._num_bytes = self._written_bytes = self._read_bytes = self._evicted_bytes = 0
        self._num_corrupt = self._num_failed_writes = 0
        self._open()

    @property
    def can_write(self) -> bool:
        """Whether a file could be written now."""
        return self._budget_bytes > 0 and self._writer.is_free and time.monotonic() >= self._paused_until

    @property
    def is_busy(self) -> bool:
        """Whether a file is being written."""
        return not self._writer.is_free

    def wait(self, seconds: float) -> None:
        """Wait for the file that is being written, at most so long."""
        self._writer.wait(seconds)
        self.settle()

    def has_block(self, digest: bytes) -> bool:
        """Whether a file holds the block."""
        return digest in self.index.blocks

    def has_boundary(self, digest: bytes) -> bool:
        """Whether a file holds what cannot be cut, as it was after the block."""
        return digest in self.index.boundaries

    def read(self, file: StoredFile) -> tuple[Label, dict[str, Tensor]] | None:
        """A whole file, checked; None, and the file is gone, where anything is wrong with it."""
        try:
            content = decode(memoryview(_read_whole(file)), fingerprint=self._fingerprint)
        except BrokenFile as problem:
            self.discard(file, str(problem))
            return None
        except OSError as problem:
            log.info("prefix cache: %s is passed over: %s", file.path.name, problem)
            self._forget(file)
            return None
        self._read_bytes += file.num_bytes
        self._use(file)
        return content

    def discard(self, file: StoredFile, problem: str) -> None:
        """Delete a file that turned out to be broken."""
        log.warning("prefix cache: %s is of no use (%s): deleted", file.path.name, problem)
        self._num_corrupt += 1
        self._forget(file)
        with contextlib.suppress(OSError):
            file.path.unlink()

    def write_blocks(self, parent: bytes, digests: Sequence[bytes], tensors: Sequence[Tensor | None]) -> bool:
        """Begin to write a run of blocks that follows the block `parent`; None: a layer that is never filled.

        False: there is no room for it.
        """
        named = [(str(place), tensor) for place, tensor in enumerate(tensors) if tensor is not None]
        return self._write(parent, digests, "", named)

    def write_boundary(self, digest: bytes, tree: str, tensors: Sequence[Tensor]) -> bool:
        """Begin to write what cannot be cut, as it was after the block `digest`; `tree`: how it is nested."""
        return self._write(digest, (), tree, [(str(place), tensor) for place, tensor in enumerate(tensors)])

    def settle(self) -> None:
        """Take up what the writing thread has finished."""
        for outcome in self._writer.outcomes():
            if isinstance(outcome, Written):
                self._finish(outcome)
            else:
                self.speeds.note_read(*outcome)

    def stats(self) -> DiskStats:
        """The numbers so far."""
        return DiskStats(
            num_files=len(self._order),
            num_bytes=self._num_bytes,
            written_bytes=self._written_bytes,
            read_bytes=self._read_bytes,
            evicted_bytes=self._evicted_bytes,
            num_corrupt=self._num_corrupt,
            num_failed_writes=self._num_failed_writes,
            read_bytes_per_second=self.speeds.read_bytes_per_second,
            prefill_tokens_per_second=self.speeds.prefill_tokens_per_second,
        )

    def check_integrity(self) -> None:
        """Raise AssertionError where the books of the files do not balance."""
        files = set(self._order.values())
        assert self._num_bytes == sum(file.num_bytes for file in files), "bytes on disk do not add up"
        assert files >= set(self.index.blocks.values()) | set(self.index.boundaries.values()), (
            "a file is not in the books"
        )
        assert self._num_bytes <= max(self._budget_bytes, 0), "more is on disk than the budget allows"

    def close(self) -> None:
        """Finish the file that is being written and stop."""
        self._writer.close()
        self.settle()

    def _open(self) -> None:
        """Read the headers of what is there; without a folder to write in there is no disk tier, and no error."""
        if self._budget_bytes <= 0:
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.utime(self._folder)
            found = sorted(self._listed(), key=lambda entry: entry[1].st_mtime_ns)
        except OSError as problem:
            log.warning("prefix cache: nothing is kept on disk: %s", problem)
            self._budget_bytes = 0
            return
        for path, status in found:
            self._enlist(path, status.st_size)
        self._make_room(0)
        remove_stale_folders(self._folder.parent, but=self._folder)
        if self._order:
            largest = max(self._order.values(), key=lambda file: file.num_bytes)
            self._writer.measure(largest.path, MEASURED_BYTES)

    def _listed(self) -> Iterator[tuple[Path, os.stat_result]]:
        with os.scandir(self._folder) as entries:
            for entry in itertools.islice(entries, MAX_FILES):
                path = Path(entry.path)
                if entry.name.endswith(TEMPORARY_SUFFIX):
                    remove_half_written(path)
                elif entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):
                        yield path, entry.stat(follow_symlinks=False)

    def _enlist(self, path: Path, num_bytes: int) -> None:
        try:
            header = decode_header(_read_header(path), fingerprint=self._fingerprint)
            file = _identified(path, num_bytes, header)
        except BrokenFile as problem:
            self.discard(StoredFile(path, num_bytes, b"", ()), str(problem))
        except OSError as problem:
            log.warning("prefix cache: %s is passed over: %s", path.name, problem)
        else:
            self._enter(file)
            self.speeds.recall(header.label.prefill_tokens_per_second)

    def _enter(self, file: StoredFile) -> None:
        if old := self._order.get(file.path):
            self._forget(old)
        self._order[file.path] = file
        self._num_bytes += file.num_bytes
        self.index.add(file)

    def _forget(self, file: StoredFile) -> None:
        if self._order.get(file.path) is not file:
            return
        del self._order[file.path]
        self._num_bytes -= file.num_bytes
        self.index.remove(file)

    def _use(self, file: StoredFile) -> None:
        """Note a use of a file and of all before it, the first block's last: so the oldest file can always go."""
        now = time.time_ns()
        for place, used in enumerate(self.index.lineage(file)):
            self._order.move_to_end(used.path)
            # The clock of a file system may tick slower than this loop: the order must survive a restart.
            used_at = now + place * CLOCK_STEP_NANOSECONDS
            with contextlib.suppress(OSError):
                os.utime(used.path, ns=(used_at, used_at))

    def _make_room(self, num_bytes: int, *, spared: set[StoredFile] | None = None) -> bool:
        """Delete the files used least recently until so much more fits; False, and nothing goes, if it never could."""
        excess = self._num_bytes + num_bytes - self._budget_bytes
        victims: list[StoredFile] = []
        for file in self._order.values():
            if excess <= 0:
                break
            if file not in (spared or ()):
                victims.append(file)
                excess -= file.num_bytes
        if excess <= 0:
            self._evict(victims)
        return excess <= 0

    def _evict(self, victims: list[StoredFile]) -> None:
        for file in victims:
            self._forget(file)
            self._evicted_bytes += file.num_bytes
            with contextlib.suppress(OSError):
                file.path.unlink()

    def _write(self, parent: bytes, digests: Sequence[bytes], tree: str, tensors: Sequence[tuple[str, Tensor]]) -> bool:
        label = Label(
            version=FORMAT_VERSION,
            fingerprint=self._fingerprint,
            parent=parent.hex(),
            digests=tuple(digest.hex() for digest in digests),
            tree=tree,
            prefill_tokens_per_second=self.speeds.prefill_tokens_per_second,
        )
        pieces = encode(label, tensors)
        num_bytes = sum(map(len, pieces))
        path = self._folder / _name(parent, tuple(digests))
        file = StoredFile(path, num_bytes, parent, tuple(digests))
        if not self._make_room(num_bytes, spared=set(self.index.lineage(file))) or not self._has_space(num_bytes):
            return False
        self._being_written = file
        self._writer.write(path, pieces)
        return True

    def _has_space(self, num_bytes: int) -> bool:
        try:
            free_bytes = shutil.disk_usage(self._folder).free
        except OSError as problem:
            self._pause(str(problem))
            return False
        if free_bytes - num_bytes < self._min_free_bytes:
            self._pause(f"only {free_bytes} bytes are free on the disk")
            return False
        return True

    def _finish(self, written: Written) -> None:
        file, self._being_written = self._being_written, None
        assert file is not None, "a file was written that nobody asked for"
        if written.problem:
            self._num_failed_writes += 1
            self._pause(written.problem)
            return
        self._written_bytes += file.num_bytes
        self._enter(file)
        self._use(file)

    def _pause(self, problem: str) -> None:
        log.warning("prefix cache: nothing is written to disk for %.0f s: %s", self._pause_seconds, problem)
        self._paused_until = time.monotonic() + self._pause_seconds


def _name(parent: bytes, digests: tuple[bytes, ...]) -> str:
    last = digests[-1] if digests else parent
    return f"{last.hex()}-{len(digests):02d}{SUFFIX}"


def _identified(path: Path, num_bytes: int, header: Header) -> StoredFile:
    """What a file holds by its header, if its length and its name agree with that."""
    parent, *digests = map(_digest, (header.label.parent, *header.label.digests))
    if header.file_bytes != num_bytes or path.name != _name(parent, tuple(digests)):
        raise BrokenFile("its length or its name is not that of what it holds")
    return StoredFile(path, num_bytes, parent, tuple(digests))


def _digest(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError as problem:
        raise BrokenFile("it names no blocks") from problem
    if len(digest) != DIGEST_BYTES:
        raise BrokenFile("it names no blocks")
    return digest


def _read_header(path: Path) -> bytes:
    with path.open("rb", buffering=0) as file:
        start = file.read(HEADER_READ_BYTES)
        return start + file.read(max(header_length(start[: LENGTH.size]) - len(start), 0))


def _read_whole(file: StoredFile) -> bytearray:
    """All bytes of a file that should hold as many as the books say."""
    buffer = bytearray(file.num_bytes)
    with file.path.open("rb") as opened:
        if opened.readinto(buffer) != file.num_bytes or opened.read(1):
            raise BrokenFile("it has another length than it had")
    return buffer

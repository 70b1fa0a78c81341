"""The file of answers: what is in it already, a line more, and at the end the order of the input. Knows no model."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from pensieve.cli.batch.lines import Written
from pensieve.errors import DiskFull, UsageError


class Output:
    """The file, held against a second run. A line is written whole, in one piece; a torn last one is cut off."""

    def __init__(self, path: Path) -> None:
        """Raises `UsageError` where the file is not one of ours, is in use, or cannot be written."""
        self._path = path
        self._places: dict[int, tuple[int, int]] = {}
        """Where the answer to each line lies: offset and length."""
        self._digests: dict[int, str] = {}
        self._errors: set[int] = set()
        with ExitStack() as stack:
            try:
                self._file = stack.enter_context(path.open("a+b"))
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._read()
            except BlockingIOError:
                problem = f"{path} is being written by another `pensieve batch`: wait for it, or stop it"
                raise UsageError(problem) from None
            except OSError as error:
                raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
            stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def num_lines(self) -> int:
        """Lines of the input that have their answer."""
        return len(self._places)

    @property
    def num_errors(self) -> int:
        """Those of them that got an error."""
        return len(self._errors)

    def has(self, line: int, digest: str) -> bool:
        """Whether that line of the input is done; raises `UsageError` where it was another line then."""
        known = self._digests.get(line)
        if known is not None and known != digest:
            raise UsageError(
                f"{self._path} answers another input (line {line} has changed since): name another file for --out"
            )
        return known is not None

    def add(self, content: bytes) -> None:
        """One more line; it is in the file when this returns. Raises `DiskFull`."""
        try:
            self._note(os.lseek(self._file.fileno(), 0, os.SEEK_END), content)
            self._file.write(content)
            self._file.flush()
        except OSError as error:
            raise DiskFull(f"{self._path} cannot be written: {error.strerror}: say the same again later") from error

    def forget_errors(self) -> None:
        """Take the lines that got an error out, so that they are asked again."""
        self._rewrite([line for line in self._places if line not in self._errors])

    def sort(self) -> None:
        """Put the lines into the order of the input, unless they are."""
        lines = sorted(self._places)
        if [self._places[line] for line in lines] != sorted(self._places.values()):
            self._rewrite(lines)

    def _read(self) -> None:
        self._file.seek(0)
        offset = 0
        for content in self._file:
            if not content.endswith(b"\n"):
                break  # a run was killed while it wrote
            self._note(offset, content)
            offset += len(content)
        self._file.truncate(offset)

    def _note(self, offset: int, content: bytes) -> None:
        try:
            written = msgspec.json.decode(content, type=Written)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            problem = f"{self._path} is not an output of `pensieve batch`: name another file for --out"
            raise UsageError(problem) from error
        self._places[written.line] = (offset, len(content))
        self._digests[written.line] = written.digest
        (self._errors.add if written.is_error else self._errors.discard)(written.line)

    def _rewrite(self, lines: list[int]) -> None:
        """Through a second file, so that a run which is killed here leaves the first one whole."""
        draft = self._path.with_name(f".{self._path.name}.sorting")
        with draft.open("wb") as file:
            for line in lines:
                offset, length = self._places[line]
                file.write(os.pread(self._file.fileno(), length, offset))
            file.flush()
            os.fsync(file.fileno())
        held = draft.open("a+b")
        fcntl.flock(held, fcntl.LOCK_EX)
        draft.replace(self._path)
        self._file.close()
        self._file, self._places, self._digests, self._errors = held, {}, {}, set()
        self._read()


def each_line(path: Path, take: Callable[[int, bytes], None]) -> None:
    """Hand out the lines that are not blank, with their numbers; raises `UsageError` for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            for number, content in enumerate(file, 1):
                if content.strip():
                    take(number, content)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error

"""What is on its way to become a model: a folder beside the models, locked by one process, moved in when whole.

Turns errors of the disk into `DiskFull` and `DownloadFailed`. Knows neither sources nor networks.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from pensieve.errors import DiskFull, DownloadFailed, UsageError
from pensieve.models.manifest import Manifest, WeightFile, sync_folder, write_manifest
from pensieve.models.progress import Progress
from pensieve.models.sizes import in_words

STAGING_NAME: Final = ".partial"
"""Folder inside the models folder; no model can have this name."""
CHUNK_BYTES: Final = 2**20
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold the right to write the model `name` under `folder`; raises `UsageError` if another process has it."""
    with disk_errors(folder, 0):
        staging = folder / STAGING_NAME
        staging.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (staging / f"{name}.lock").open("wb")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            problem = f"{name} is being pulled, converted or removed by another process: wait until it has ended"
            raise UsageError(problem) from error
        yield


@contextmanager
def staged(folder: Path, name: str) -> Iterator[Path]:
    """A folder for the parts of the model `name`, under its lock; what an earlier try left is still in it."""
    with locked(folder, name):
        staging = folder / STAGING_NAME / name
        with disk_errors(folder, 0):
            staging.mkdir(exist_ok=True, mode=0o700)
        try:
            yield staging
        finally:
            with suppress(OSError):  # moved in as the model, or holds parts that the next try goes on from
                staging.rmdir()


def install(staging: Path, target: Path, manifest: Manifest) -> None:
    """Make the staged files a model: only those the manifest names move in, all at once."""
    with disk_errors(target.parent, manifest.num_bytes):
        names = {file.name for file in manifest.files}
        for child in staging.iterdir():
            if child.name not in names:
                discard(child)
        for name in names:
            _sync_file(staging / name)
        write_manifest(staging, manifest)
        _swap(staging, target)


def discard(path: Path) -> None:
    """Delete a file or folder that may be there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raise `DiskFull` unless `needed_bytes` and a twentieth more are free where `folder` lies."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes * 1.05:
        raise _disk_full(folder, needed_bytes, free_bytes)


@contextmanager
def disk_errors(folder: Path, needed_bytes: int) -> Iterator[None]:
    """Turn what the operating system says about writing under `folder` into our errors."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _disk_full(folder, needed_bytes, _free_bytes(folder)) from error
        raise DownloadFailed(f"{folder} could not be written: {error.strerror or error}") from error


def checked(path: Path, progress: Progress, *, sha256: str = "") -> WeightFile:
    """The file's size and checksum; deletes it and raises `DownloadFailed` unless it has the one expected."""
    total_bytes, done_bytes = path.stat().st_size, 0
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(8 * CHUNK_BYTES):
            digest.update(chunk)
            done_bytes += len(chunk)
            progress("checking", done_bytes, total_bytes)
    if sha256 and digest.hexdigest() != sha256.lower():
        path.unlink()
        raise DownloadFailed(
            f"{path.name} arrived with a wrong checksum and was deleted: try again, or check its source"
        )
    return WeightFile(path.name, total_bytes, digest.hexdigest())


def _swap(staging: Path, target: Path) -> None:
    if target.is_symlink():
        raise DownloadFailed(f"{target} is a link to a folder elsewhere: remove the link, then pull again")
    replaced = staging.with_name(f"{staging.name}.old")
    discard(replaced)
    if target.exists():
        target.rename(replaced)
    staging.rename(target)
    sync_folder(target.parent)
    discard(replaced)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _free_bytes(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def _disk_full(folder: Path, needed_bytes: int, free_bytes: int) -> DiskFull:
    needed = f"{in_words(needed_bytes)} are needed, " if needed_bytes else ""
    room = f"{needed}{in_words(free_bytes)} are free"
    problem = f"no room in {folder}: {room}; free some, or set PENSIEVE_HOME to a folder on a larger disk"
    return DiskFull(problem, needed_bytes=needed_bytes, available_bytes=free_bytes)

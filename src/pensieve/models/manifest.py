"""One pulled or converted model on disk: a folder of weights and the `model.json` that makes it a model.

The manifest is written last and whole, so a folder without one is no model. What it says is checked on every read:
names stay in the folder, files are there and as large as promised.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import msgspec

from pensieve.errors import LoadFailed
from pensieve.models.spec import ModelSpec

MANIFEST_NAME: Final = "model.json"
MAX_MANIFEST_BYTES: Final = 2**20
MAX_NAME_LENGTH: Final = 128
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*", re.ASCII)


class WeightFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of weights in a model's folder, as it arrived."""

    name: str
    num_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's folder holds; `spec` repeats the file's header, so that listing reads no weights."""

    source: str
    """Where it came from, as `pull` takes it."""
    files: tuple[WeightFile, ...]
    """The first is the one an engine is given; of an MLX model it is given the folder."""
    spec: ModelSpec
    format_version: int = 1

    @property
    def num_bytes(self) -> int:
        """Of all files."""
        return sum(file.num_bytes for file in self.files)


def is_safe_name(name: str) -> bool:
    """Whether the name can be a file or folder inside ours: no separators, no leading dot, bounded length."""
    return len(name) <= MAX_NAME_LENGTH and _SAFE_NAME.fullmatch(name) is not None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make the folder a model: the manifest appears whole or not at all, also after a power cut."""
    part = folder / f"{MANIFEST_NAME}.part"
    with part.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    part.rename(folder / MANIFEST_NAME)
    sync_folder(folder)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a model's folder with the true location in its spec; raises `LoadFailed` if damaged."""
    manifest = _decoded(folder)
    if not manifest.files or any(not is_safe_name(file.name) for file in manifest.files):
        raise _damaged(folder, "its manifest names no files of its own folder")
    for file in manifest.files:
        _check_file(folder, file)
    location = str(folder if manifest.spec.format == "mlx" else folder / manifest.files[0].name)
    spec = msgspec.structs.replace(manifest.spec, name=folder.name, location=location)
    return msgspec.structs.replace(manifest, spec=spec)


def sync_folder(folder: Path) -> None:
    """Make renames inside the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _decoded(folder: Path) -> Manifest:
    try:
        with (folder / MANIFEST_NAME).open("rb") as file:
            return msgspec.json.decode(file.read(MAX_MANIFEST_BYTES), type=Manifest)
    except OSError as error:
        raise _damaged(folder, f"its manifest cannot be read: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged(folder, f"its manifest is no valid JSON of ours: {error}") from error


def _check_file(folder: Path, file: WeightFile) -> None:
    path = folder / file.name
    try:
        found_bytes = path.stat().st_size if path.is_file() else -1
    except OSError as error:
        raise _damaged(folder, f"{file.name} cannot be read: {error.strerror or error}") from error
    if found_bytes < 0:
        raise _damaged(folder, f"{file.name} is missing")
    if found_bytes != file.num_bytes:
        raise _damaged(folder, f"{file.name} has {found_bytes:,} bytes, {file.num_bytes:,} were fetched")


def _damaged(folder: Path, problem: str) -> LoadFailed:
    return LoadFailed(f"{problem}; pull it again or remove it", model=folder.name)

"""What is on its way: space, checksums and the move that makes a model."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path

import pytest

from gguf_files import write_gguf
from pensieve.errors import DiskFull, DownloadFailed
from pensieve.models.manifest import MANIFEST_NAME, Manifest, read_manifest, write_manifest
from pensieve.models.metadata import read_gguf
from pensieve.models.progress import silent
from pensieve.models.registry import Registry
from pensieve.models.staging import checked, disk_errors, install, require_space, staged

TINY_SHA256_LENGTH = 64


def stage(staging: Path) -> Manifest:
    """A whole tiny model in the staging folder."""
    weights = write_gguf(staging / "tiny.gguf")
    return Manifest(source="test", files=(checked(weights, silent),), spec=read_gguf(weights).spec("tiny"))


def fill(disk: Path) -> None:
    """Leave no room on the disk."""
    with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
        while ballast.write(bytes(4096)):
            pass


def test_installing_moves_only_what_the_manifest_names(registry: Registry) -> None:
    """Leftovers of earlier tries do not come along, and the staging folder is gone."""
    with staged(registry.folder, "tiny") as staging:
        manifest = stage(staging)
        (staging / "old.part").write_bytes(b"x")
        (staging / "wheel").mkdir()
        install(staging, registry.folder / "tiny", manifest)
    assert sorted(path.name for path in (registry.folder / "tiny").iterdir()) == [MANIFEST_NAME, "tiny.gguf"]
    assert not staging.exists()


def test_installing_again_replaces_the_model(registry: Registry) -> None:
    """The new files stand in the old one's place, and nothing of the old stays."""
    (registry.folder / "tiny").mkdir(parents=True)
    (registry.folder / "tiny" / "stale.gguf").write_bytes(b"x")
    with staged(registry.folder, "tiny") as staging:
        install(staging, registry.folder / "tiny", stage(staging))
    assert registry.find("tiny").name == "tiny"
    assert not list(registry.folder.rglob("stale.gguf"))


def test_a_failed_manifest_is_no_manifest(tmp_path: Path) -> None:
    """When the last step cannot be written, what was there before is untouched."""
    manifest = stage(tmp_path)
    write_manifest(tmp_path, manifest)
    (tmp_path / f"{MANIFEST_NAME}.part").mkdir()
    with pytest.raises(IsADirectoryError):
        write_manifest(tmp_path, Manifest(source="other", files=(), spec=manifest.spec))
    assert read_manifest(tmp_path).source == "test"


def test_a_full_disk_while_installing_leaves_no_model(tiny_disk: Path) -> None:
    """The manifest that finds no room makes no model."""
    registry = Registry(tiny_disk / "models")
    with staged(registry.folder, "tiny") as staging:
        manifest = stage(staging)
        fill(tiny_disk)
        with pytest.raises(DiskFull):
            install(staging, registry.folder / "tiny", manifest)
    assert registry.entries() == ()


def test_a_checksum_in_capitals_is_the_same_checksum(tmp_path: Path) -> None:
    """A right file stays, and its facts come back; a wrong one is deleted."""
    file = tmp_path / "data"
    file.write_bytes(b"content")
    arrived = checked(file, silent)
    assert len(arrived.sha256) == TINY_SHA256_LENGTH
    assert checked(file, silent, sha256=arrived.sha256.upper()) == arrived
    with pytest.raises(DownloadFailed, match="wrong checksum"):
        checked(file, silent, sha256="0" * 64)
    assert not file.exists()


def test_space_is_asked_for_with_a_twentieth_more(tiny_disk: Path) -> None:
    """What just fits does not; the sentence says what is needed and what is free."""
    require_space(tiny_disk, 200 * 1024)
    with pytest.raises(DiskFull, match=r"256\.0 kB are needed, 262\.1 kB are free"):
        require_space(tiny_disk, 250 * 1024)


def test_errors_of_the_disk_are_told_apart(tmp_path: Path) -> None:
    """No room is `DiskFull`; anything else names the folder and the reason."""
    with pytest.raises(DiskFull), disk_errors(tmp_path, 1):
        raise OSError(errno.EDQUOT, "quota")
    with pytest.raises(DownloadFailed, match="Permission denied"), disk_errors(tmp_path, 1):
        raise PermissionError(errno.EACCES, "Permission denied")

"""Every file that a server leaves, read back to its last byte: what was killed in the middle must not be half there."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import msgspec

from pensieve.inference.mlx.disk_format import LENGTH, decode, header_length
from pensieve.inference.server_client import RunningServer

PARTS = (".part", ".db-wal", ".db-shm", ".log", ".lock")
"""Names that tell of work under way, or of nothing that could be corrupt."""


def read_back(*roots: Path) -> Counter[str]:
    """How many files of each kind were found whole below these folders; fails on one that is not, or is not known."""
    found: Counter[str] = Counter()
    for path in sorted(path for root in roots for path in root.rglob("*") if path.is_file() and not path.is_symlink()):
        if path.suffix in PARTS:
            continue
        found[_checked(path)] += 1
    return found


def half_written(home: Path) -> list[str]:
    """Drafts that were never finished."""
    return [path.name for path in home.rglob("*.part")]


def _checked(path: Path) -> str:
    match path.suffix:
        case ".safetensors":
            _check_prefix(path)
            return "prefixes"
        case ".db":
            _check_database(path)
            return "databases"
        case ".json" if path.name == "server.json":
            assert msgspec.json.decode(path.read_bytes(), type=RunningServer).pid > 0
            return "run files"
        case ".json":
            msgspec.json.decode(path.read_bytes())
            return "JSON files"
        case suffix:
            raise AssertionError(f"nobody knows how to check {path.name} ({suffix}): teach `kept` what it must hold")


def _check_prefix(path: Path) -> None:
    """Against its own checksum, and the model it says it belongs to."""
    whole = path.read_bytes()
    header = msgspec.json.decode(whole[LENGTH.size : header_length(whole)])
    fingerprint = msgspec.json.decode(header["__metadata__"]["label"])["fingerprint"]
    label, tensors = decode(memoryview(whole), fingerprint=fingerprint)
    folder = "".join(letter if letter.isalnum() else "-" for letter in fingerprint)[:100]
    assert path.parent.name == folder, "it lies in another model's folder"
    assert tensors, f"{label} holds nothing"


def _check_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []

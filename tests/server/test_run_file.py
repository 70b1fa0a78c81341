"""The note that says where the server runs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pensieve.inference.server_client import RunningServer
from pensieve.server.run_file import RunFile

OURS = RunningServer("http://127.0.0.1:7777", "m", 4711, "s3cret-key")


def test_the_file_is_whole_and_its_owners_alone(tmp_path: Path) -> None:
    """It holds the key; no draft is left beside it, and an older file is replaced."""
    path = tmp_path / "state" / "server.json"
    path.parent.mkdir()
    path.write_text("{}")
    path.chmod(0o644)
    RunFile(path, OURS).write()
    assert path.stat().st_mode & 0o777 == 0o600
    assert msgspec.json.decode(path.read_bytes(), type=RunningServer) == OURS
    assert [each.name for each in path.parent.iterdir()] == ["server.json"]


def test_a_missing_folder_is_made_for_its_owner(tmp_path: Path) -> None:
    """A first run finds nothing."""
    RunFile(tmp_path / "state" / "server.json", OURS).write()
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_removing_takes_our_own_file_only(tmp_path: Path) -> None:
    """A second server's note stays, as does a file that is no note."""
    path = tmp_path / "server.json"
    other = msgspec.structs.replace(OURS, pid=4712)
    RunFile(path, other).write()
    RunFile(path, OURS).remove()
    assert path.exists()
    RunFile(path, other).remove()
    assert not path.exists()
    RunFile(path, other).remove()


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"nonsense"])
def test_a_file_that_is_no_note_is_left_alone(tmp_path: Path, content: bytes) -> None:
    """Removing never fails."""
    path = tmp_path / "server.json"
    path.write_bytes(content)
    RunFile(path, OURS).remove()
    assert path.exists()

"""The server that agents use, found: what is there and busy is waited for."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pensieve.config.settings import Folders, ServerSettings
from pensieve.errors import ServerUnreachable
from pensieve.inference.server_client import Patience, RunningServer
from pensieve.launch.server import Servers, Wanted
from pensieve.server.run_file import RunFile


def test_no_second_server_is_started_beside_one_that_is_busy(tmp_path: Path) -> None:
    """It is asked again, which is said, and then it is an error: on a machine short of memory both would be slow."""
    folders, told = Folders(tmp_path, tmp_path / "data", tmp_path / "state"), list[str]()
    patience = Patience(first_seconds=0.05, again_seconds=0.05, whole_seconds=1.0)
    servers = Servers(folders, ServerSettings(), os.environ, told.append, patience)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        RunFile(folders.run_file, RunningServer(url, "m", os.getpid())).write()
        with pytest.raises(ServerUnreachable, match="takes connections and does not answer"):
            servers.find_or_start(Wanted("no-such-model"))
    assert told[0].startswith(f"the server at {url} is busy")
    assert not servers.log_file.exists()

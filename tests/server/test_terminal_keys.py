"""Keys that one terminal holds."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from live_server import body, serving
from pensieve.config.settings import ServerSettings
from pensieve.devices.lifetimes import Lifetime, lifetime_of
from pensieve.server.guards import KeyGuard
from pensieve.server.terminal_keys import KeyNote, TerminalKeys, digest


@pytest.fixture
def here() -> Lifetime:
    """This process."""
    found = lifetime_of(os.getpid())
    assert found is not None
    return found


@pytest.fixture
def keys(tmp_path: Path) -> TerminalKeys:
    """An empty folder of them."""
    return TerminalKeys(tmp_path / "keys")


@pytest.fixture
def key(keys: TerminalKeys, here: Lifetime) -> str:
    """One that this process holds."""
    return keys.mint(here, "claude")


def test_a_minted_key_is_noted_for_its_owner_only(here: Lifetime, tmp_path: Path) -> None:
    """By its digest: who reads the folder learns no key. A state folder that was not there is closed as well."""
    keys = TerminalKeys(tmp_path / "state" / "keys")
    key = keys.mint(here, "claude")
    (note,) = (tmp_path / "state" / "keys").iterdir()
    assert [each.stat().st_mode & 0o777 for each in (note, *note.parents[:2])] == [0o600, 0o700, 0o700]
    assert key not in note.read_text() + note.name
    assert keys.held() == [KeyNote(here, "claude")]
    assert keys.admits(key.encode())


def test_a_key_ends_with_its_holder_and_its_note_is_swept(keys: TerminalKeys, tmp_path: Path) -> None:
    """Whether the terminal left in order or was killed."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        holder = lifetime_of(process.pid)
        assert holder is not None
        key = keys.mint(holder, "claude")
        assert keys.admits(key.encode())
        process.kill()
    assert not keys.admits(key.encode())
    assert (keys.held(), list((tmp_path / "keys").iterdir())) == ([], [])


def test_a_note_that_cannot_be_read_now_is_kept(keys: TerminalKeys, key: str, tmp_path: Path) -> None:
    """Somebody opened the folder to others: nobody is admitted until it is closed again, and no key is lost."""
    (tmp_path / "keys").chmod(0o755)
    assert (keys.held(), keys.admits(key.encode())) == ([], False)
    (tmp_path / "keys").chmod(0o700)
    assert keys.admits(key.encode())


def test_a_process_that_nothing_is_told_of_is_not_called_over(here: Lifetime) -> None:
    """Where no descriptor is free, a server that asked would take everybody for gone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        assert (here.goes_on, here.is_over) == (False, False)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert Lifetime(here.pid, "long ago").is_over


def test_a_key_for_good_ends_when_it_is_revoked(keys: TerminalKeys) -> None:
    """It is no terminal's: a server does not stay for it."""
    key = keys.mint(None, "setup")
    assert (keys.held(), keys.admits(key.encode())) == ([], True)
    keys.revoke(key)
    assert not keys.admits(key.encode())


def test_what_another_could_have_written_admits_nobody(keys: TerminalKeys, here: Lifetime, tmp_path: Path) -> None:
    """A note or a folder that is open to others, and a note that is none."""
    key = keys.mint(here, "claude").encode()
    (note,) = (tmp_path / "keys").iterdir()
    for path, mode, usual in ((note, 0o644, 0o600), (tmp_path / "keys", 0o777, 0o700)):
        path.chmod(mode)
        assert not keys.admits(key)
        path.chmod(usual)
    assert keys.admits(key)
    note.write_bytes(b"nonsense")
    assert not keys.admits(key)


@pytest.mark.parametrize("own", [None, "s3cret-key"])
async def test_the_server_takes_a_terminals_key_until_it_is_revoked(
    keys: TerminalKeys, key: str, own: str | None
) -> None:
    """With a key of its own and without; as either header; and a refusal says what to do and is final."""
    async with serving(keys=keys, api_key=own) as live:
        for header in ({"x-api-key": key}, {"authorization": f"Bearer {key}"}):
            assert (await live.client.post("/v1/messages", json=body(), headers=header)).status_code == 200
        await asyncio.to_thread(keys.revoke, key)
        refused = await live.client.post("/v1/messages", json=body(), headers={"x-api-key": key})
        assert (refused.status_code, refused.headers["x-should-retry"]) == (401, "false")
        assert "terminal" in refused.json()["error"]["message"]


async def test_the_request_carries_the_digest_of_the_key_that_was_accepted(keys: TerminalKeys, key: str) -> None:
    """Nothing where none was asked for, whatever a client sends."""
    assert await key_id(KeyGuard(remember, ServerSettings(), keys), b"anything") == ""
    assert await key_id(KeyGuard(remember, ServerSettings(), keys), key.encode()) == digest(key.encode())
    assert await key_id(KeyGuard(remember, ServerSettings(api_key="mine")), b"mine") == digest(b"mine")


async def key_id(guard: KeyGuard, key: bytes) -> str:
    """What the guard leaves in the scope for a request with that key."""
    scope: Scope = {"type": "http", "method": "POST", "path": "/v1/messages", "headers": [(b"x-api-key", key)]}
    await guard(scope, nothing, nothing)
    return str(scope["state"]["key_id"])


async def remember(scope: Scope, _receive: Receive, _send: Send) -> None:
    """An application that answers nothing."""
    assert "key_id" in scope["state"]


async def nothing(*_: Any) -> Any:
    """A channel nobody uses."""

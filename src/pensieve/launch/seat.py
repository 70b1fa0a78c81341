"""A terminal's seat at the server: the server, a key for as long as the terminal is there, and what the model can.

Knows no agent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from pensieve.config.settings import Folders
from pensieve.devices.lifetimes import Lifetime, lifetime_of
from pensieve.errors import UsageError
from pensieve.inference.server_client import RunningServer
from pensieve.launch.environment import Endpoint
from pensieve.launch.plan import ModelFacts
from pensieve.launch.server import Servers, Wanted
from pensieve.server.terminal_keys import TerminalKeys


class Seat(msgspec.Struct, frozen=True):
    """What an agent needs of the server."""

    server: RunningServer
    endpoint: Endpoint
    facts: ModelFacts


@contextmanager
def take_seat(
    servers: Servers, wanted: Wanted, folders: Folders, purpose: str, *, keeps_server: bool = False
) -> Iterator[Seat]:
    """A seat for this process, given up at the end; with `keeps_server` the server stays when everybody has left."""
    keys = TerminalKeys(folders.keys)
    # The key is noted before the model is loaded, so that the server does not take itself for unused meanwhile.
    key = mint_for(keys, os.getpid(), purpose)
    try:
        server = servers.find_or_start(wanted)
        if keeps_server and not _is_kept(keys, server):
            mint_for(keys, server.pid, "kept")
        yield Seat(server, Endpoint(server.url, key), servers.facts(server, wanted))
    finally:
        keys.revoke(key)


def mint_for(keys: TerminalKeys, pid: int, purpose: str) -> str:
    """A new key that ends with that process; raises `UsageError` where that process cannot be told from others."""
    holder = lifetime_of(pid)
    if holder is None:  # a key without a holder would be good for ever
        raise UsageError(f"this system tells nothing of process {pid}, so no key can end with it: is /proc there?")
    return mint(keys, holder, purpose)


def mint(keys: TerminalKeys, holder: Lifetime | None, purpose: str) -> str:
    """A new key for a process, or for good; raises `UsageError` where it cannot be noted."""
    try:
        return keys.mint(holder, purpose)
    except OSError as error:
        raise UsageError(
            f"no key can be noted in the state folder ({error.strerror}): set PENSIEVE_HOME to one you can write to"
        ) from error


def _is_kept(keys: TerminalKeys, server: RunningServer) -> bool:
    return any(note.holder is not None and note.holder.pid == server.pid for note in keys.held())

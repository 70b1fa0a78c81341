"""Where the server may listen, and the sentence when it may not."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from live_server import NO_FOLDERS
from pensieve.config.settings import ServerSettings
from pensieve.errors import AddressUnavailable
from pensieve.server.address import bind, url_of


@contextmanager
def bound(host: str, key: str | None = None) -> Iterator[socket.socket]:
    """A socket that listens on any free port of the host."""
    with bind(ServerSettings(host=host, port=0, api_key=key), NO_FOLDERS) as listener:
        yield listener


def has_ipv6() -> bool:
    """Whether this machine has a loopback address of the newer kind."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "key", "start"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:"),
        ("localhost", None, "http://127.0.0.1:"),
        ("127.9.9.9", None, "http://127.9.9.9:"),
        ("0.0.0.0", "k", "http://127.0.0.1:"),
    ],
)
def test_the_url_is_one_that_this_machine_can_open(host: str, key: str | None, start: str) -> None:
    """Also where the server listens on all addresses."""
    with bound(host, key) as listener:
        url = url_of(listener)
        assert url.startswith(start)
        socket.create_connection((url[7:].rpartition(":")[0], int(url.rpartition(":")[2]))).close()


async def test_connections_do_not_wait_for_more_to_send() -> None:
    """Nagle's algorithm would add 40 ms to every short answer."""
    delays: list[int] = []
    arrived = asyncio.Event()

    def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        delays.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()
        arrived.set()

    listener = await asyncio.to_thread(bind, ServerSettings(port=0), NO_FOLDERS)
    async with await asyncio.start_server(accept, sock=listener):
        _, writer = await asyncio.open_connection(*listener.getsockname())
        await arrived.wait()
        writer.close()
    assert delays[0] != 0


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(("host", "key"), [("::1", None), ("::", "k")])
def test_an_ipv6_url_has_brackets(host: str, key: str | None) -> None:
    """Or its port could not be told from its address."""
    with bound(host, key) as listener:
        assert url_of(listener).startswith("http://[::1]:")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
@pytest.mark.parametrize("key", [None, ""])
def test_other_machines_are_let_in_only_with_a_key(host: str, key: str | None) -> None:
    """The sentence says why, and what to do; an empty key is none."""
    with (
        pytest.raises(AddressUnavailable, match=r"other machines.*PENSIEVE_API_KEY"),
        bound(host, key),
    ):
        pass


def test_a_port_in_use_is_named_with_the_next_step() -> None:
    """As is who holds it, as far as that is known."""
    with bound("127.0.0.1") as listener:
        port = listener.getsockname()[1]
        with pytest.raises(AddressUnavailable, match=rf"port {port} is taken by another program: .*--port 0"):
            bind(ServerSettings(port=port), NO_FOLDERS)


@pytest.mark.parametrize(("host", "words"), [("192.0.2.1", "not an address of this machine"), ("no..name", "neither")])
def test_a_host_that_is_not_ours_is_refused(host: str, words: str) -> None:
    """By name and by address."""
    with pytest.raises(AddressUnavailable, match=words), bound(host, "k"):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may take any port")
def test_a_port_without_the_right_to_it_is_refused() -> None:
    """With a port that would do."""
    with pytest.raises(AddressUnavailable, match="above 1023"):
        bind(ServerSettings(port=1), NO_FOLDERS)


def test_a_restart_gets_the_same_port_at_once() -> None:
    """Connections of the last run do not hold it."""
    with bound("127.0.0.1") as listener:
        port = listener.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        listener.accept()[0].close()
    client.close()
    bind(ServerSettings(port=port), NO_FOLDERS).close()

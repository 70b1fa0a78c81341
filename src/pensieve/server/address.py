"""Where the server listens: the socket is bound here, before anything else, so that a refusal is one clear sentence."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

from pensieve.config.settings import Folders, ServerSettings
from pensieve.errors import AddressUnavailable
from pensieve.inference.server_client import find_server
from pensieve.server.guards import is_loopback

BACKLOG = 256


def bind(settings: ServerSettings, folders: Folders) -> socket.socket:
    """A listening socket; raises `AddressUnavailable`, which names the Pensieve that has the port if one does."""
    family, address = _resolve(settings)
    if not settings.api_key and not is_loopback(address[0]):
        raise AddressUnavailable(
            f"{settings.host} can be reached from other machines, and without a key anybody there could use the model:"
            " set PENSIEVE_API_KEY, or listen on 127.0.0.1"
        )
    # With the protocol named, asyncio turns Nagle's algorithm off: without, a short answer waits 40 ms for its body.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A restart must not wait for the last run's connections to time out.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise AddressUnavailable(_problem(error, settings, folders)) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """The address a program on this machine reaches the socket at."""
    host, port = listener.getsockname()[:2]
    address = ip_address(host)
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _resolve(settings: ServerSettings) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        problem = f"{settings.host} is neither a name nor an address of this machine: use 127.0.0.1"
        raise AddressUnavailable(problem) from error
    # "localhost" may be both; clients that are given an IPv4 address are the commoner ones.
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, (str(address[0]), int(address[1]))


def _holder(port: int, folders: Folders) -> str:
    server = find_server(folders)
    if server is None or urlsplit(server.url).port != port:
        return "another program"
    return f"the Pensieve server with {server.model}, process {server.pid}"


def _problem(error: OSError, settings: ServerSettings, folders: Folders) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            holder = _holder(settings.port, folders)
            return (
                f"port {settings.port} is taken by {holder}: end that, choose another with --port,"
                " or --port 0 for any free one"
            )
        case errno.EACCES:
            return f"port {settings.port} needs rights that this user lacks: choose one above 1023 with --port"
        case errno.EADDRNOTAVAIL:
            return f"{settings.host} is not an address of this machine: use 127.0.0.1"
        case _:
            return f"cannot listen on {settings.host} port {settings.port}: {error.strerror}"

"""Who may ask: checks of the Host, Origin and key headers, before a byte of the body is read.

Each guard raises an error of the tree and sends nothing itself, except for the answer to a browser's preflight.
"""

from __future__ import annotations

import asyncio
import hmac
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from pensieve.config.settings import ServerSettings
from pensieve.errors import Forbidden, Unauthorized
from pensieve.server.ledger import record_of
from pensieve.server.terminal_keys import TERMINAL_PREFIX, TerminalKeys, digest

EXPOSED_HEADERS = b"request-id, x-request-id, retry-after, x-should-retry"
PREFLIGHT_SECONDS = b"600"
OPEN_PATHS = frozenset({"/health"})
OPEN_PROBES = frozenset({"/", "/api/hello"})
"""Agents look whether anybody is there with HEAD, before they send a key."""


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, spoken to from itself."""
    address = _canonical(host)
    return address == "localhost" if isinstance(address, str) else address.is_loopback


def host_name(host_header: str) -> str | None:
    """The name or address in a Host header, without port, in lower case; None if it is none."""
    text = host_header.strip().lower()
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        is_whole = bool(bracket) and (not port or port.startswith(":"))
        port = port.removeprefix(":")
    else:
        name, _, port = text.partition(":")
        is_whole = True
    if not is_whole or not name or (port and not port.isdigit()):
        return None
    return name.removesuffix(".")


def _canonical(host: str) -> str | IPv4Address | IPv6Address:
    """An address as its value, however it is written and whichever socket it came through; a name as it is."""
    try:
        # The zone of a link-local address stands in the socket's name, and no client sends it.
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


class HostGuard:
    """Answers only to names that are ours: a web page that points its own name at this machine gets nothing."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self.app = app
        self._names = {_canonical(name.lower()) for name in (settings.host, *settings.allowed_hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and not self._is_ours(scope):
            raise Forbidden("this server does not answer to that Host header: add the name to server.allowed_hosts")
        await self.app(scope, receive, send)

    def _is_ours(self, scope: Scope) -> bool:
        given = Headers(scope=scope).getlist("host")
        name = host_name(given[0]) if len(given) == 1 else None
        if name is None:
            return False
        bound = (scope.get("server") or ("",))[0]
        address = _canonical(name)
        return is_loopback(name) or address in self._names or address == _canonical(bound)


class OriginGuard:
    """Refuses web pages of other origins, except those the user allowed, which get what CORS needs."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self.app = app
        self._allowed = {origin.lower().rstrip("/") for origin in settings.allowed_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        origin = headers.get("origin")
        if origin is None or origin.lower() == f"{scope['scheme']}://{headers.get('host', '').lower()}":
            await self.app(scope, receive, send)
            return
        if len(headers.getlist("origin")) > 1 or origin.lower() not in self._allowed:
            raise Forbidden("web pages of that origin may not call this server: add it to server.allowed_origins")
        record_of(scope).response_headers += [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", EXPOSED_HEADERS),
            (b"vary", b"origin"),
        ]
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await _answer_preflight(headers, send)
        else:
            await self.app(scope, receive, send)


async def _answer_preflight(headers: Headers, send: Send) -> None:
    allowed = [
        (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE"),
        (b"access-control-allow-headers", headers.get("access-control-request-headers", "").encode("latin-1")),
        (b"access-control-max-age", PREFLIGHT_SECONDS),
    ]
    if headers.get("access-control-request-private-network") == "true":
        allowed.append((b"access-control-allow-private-network", b"true"))
    await send({"type": "http.response.start", "status": 204, "headers": allowed})
    await send({"type": "http.response.body"})


class KeyGuard:
    """Asks for a key, if one was set, as `x-api-key` or as a Bearer token; a terminal's key is checked in any case.

    What was accepted stands in the request's state as `key_id`: the digest of the key, "" where none was asked for.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, keys: TerminalKeys | None = None) -> None:
        self.app = app
        self._key = settings.api_key.encode() if settings.api_key else None
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            is_open = _is_open(scope)
            scope.setdefault("state", {})["key_id"] = "" if is_open else await self._key_id(keys_in(scope))
        await self.app(scope, receive, send)

    async def _key_id(self, given: list[bytes]) -> str:
        """The digest of the key that opens the door; raises `Unauthorized` where none does."""
        own = [key for key in given if self._key is not None and hmac.compare_digest(key, self._key)]
        terminals = [key for key in given if key.startswith(TERMINAL_PREFIX)]
        if self._keys is not None:
            own += [key for key in terminals if await asyncio.to_thread(self._keys.admits, key)]
        if not own and (self._key is not None or terminals):
            raise Unauthorized(is_expired=bool(terminals))
        return digest(own[0]) if own else ""


def _is_open(scope: Scope) -> bool:
    return scope["path"] in OPEN_PATHS or (scope["method"] == "HEAD" and scope["path"] in OPEN_PROBES)


def keys_in(scope: Scope) -> list[bytes]:
    """Every key that the headers carry."""
    found = []
    for name, value in scope["headers"]:
        scheme, _, token = value.partition(b" ")
        if name == b"x-api-key":
            found.append(value)
        elif name == b"authorization" and scheme.lower() == b"bearer":
            found.append(token.strip())
    return found

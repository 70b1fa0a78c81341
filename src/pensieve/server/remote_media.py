"""Fetches an image or document that a request names by its address: from public addresses only, bounded in every way.

Whoever may ask this server must not be able to reach through it what only this machine can reach: names are resolved
here, every address of a name must be public, and the connection goes to the address that was checked.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx
import msgspec

from pensieve.errors import InvalidRequest

IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
DOCUMENT_TYPES = frozenset({"application/pdf", "text/plain"})
MAX_BYTES = 10 * 2**20
MAX_URL_CHARACTERS = 8_192
MAX_REDIRECTS = 3
CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 20.0
REMEMBERED_BYTES = 64 * 2**20
"""Each turn of a conversation names its images again."""

_NOBODYS = (IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"))
"""Of protocols and of relays, though some releases of Python call them global."""
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_CARRIERS = (IPv6Network("2001::/32"), IPv6Network("2002::/16"), IPv6Network("64:ff9b::/96"))
"""Addresses that carry an IPv4 address inside (Teredo, 6to4, NAT64): whereto they lead is decided elsewhere."""

Address = IPv4Address | IPv6Address


class Fetched(msgspec.Struct, frozen=True):
    """What lies at an address."""

    media_type: str
    data: bytes


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet, and to one machine of it."""
    if isinstance(address, IPv6Address) and (
        address not in _GLOBAL_UNICAST or any(address in carrier for carrier in _CARRIERS)
    ):
        return False
    if isinstance(address, IPv4Address) and any(address in network for network in _NOBODYS):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


class RemoteMedia:
    """Fetches, and remembers what it fetched within a budget."""

    def __init__(self, is_allowed: Callable[[Address], bool] = is_public) -> None:
        self._is_allowed = is_allowed
        self._remembered: OrderedDict[str, Fetched] = OrderedDict()

    async def fetch(self, url: str, media_types: frozenset[str]) -> Fetched:
        """What lies at the URL, if it is of one of these types; all that can go wrong is `InvalidRequest`."""
        known = self._remembered.get(url)
        if known is None or known.media_type not in media_types:
            known = await self._fetch(url, media_types)
            self._remember(url, known)
        self._remembered.move_to_end(url)
        return known

    async def _fetch(self, url: str, media_types: frozenset[str]) -> Fetched:
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                for _ in range(MAX_REDIRECTS + 1):
                    fetched = await self._visit(url, media_types)
                    if isinstance(fetched, Fetched):
                        return fetched
                    url = urljoin(url, fetched)
        except TimeoutError as error:
            raise InvalidRequest(f"the address did not answer within {TOTAL_SECONDS:.0f} s: send the data") from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise InvalidRequest("the address could not be fetched: send the data itself") from error
        raise InvalidRequest(f"the address leads elsewhere more than {MAX_REDIRECTS} times: send the data itself")

    async def _visit(self, url: str, media_types: frozenset[str]) -> Fetched | str:
        """What lies at the URL, or the place it points on to."""
        parts = _checked(url)
        assert parts.hostname is not None, "checked"
        host = parts.hostname
        address = await self._resolve(host, parts.port or (443 if parts.scheme == "https" else 80))
        literal = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
        port = f":{parts.port}" if parts.port else ""
        pinned = parts._replace(netloc=literal + port, fragment="").geturl()
        # Certificates are read from files.
        client = await asyncio.to_thread(
            httpx.AsyncClient, trust_env=False, timeout=httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS)
        )
        headers = {"host": f"[{host}]{port}" if ":" in host else host + port, "accept-encoding": "identity"}
        async with (
            client,
            client.stream("GET", pinned, headers=headers, extensions={"sni_hostname": host}) as response,
        ):
            if response.has_redirect_location:
                return response.headers["location"]
            return await _read(response, media_types)

    async def _resolve(self, host: str, port: int) -> Address:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise InvalidRequest("the address names no machine that can be found") from error
        addresses = [ip_address(str(each[4][0]).partition("%")[0]) for each in found]
        # One private address among public ones is how a name is turned against the machine that looks it up.
        if not addresses or not all(map(self._is_allowed, addresses)):
            raise InvalidRequest("the address is not on the public internet: send the data itself")
        return addresses[0]

    def _remember(self, url: str, fetched: Fetched) -> None:
        self._remembered[url] = fetched
        while sum(len(each.data) for each in self._remembered.values()) > REMEMBERED_BYTES:
            self._remembered.popitem(last=False)


def _checked(url: str) -> SplitResult:
    parts = urlsplit(url) if len(url) <= MAX_URL_CHARACTERS else SplitResult("", "", "", "", "")
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.port == 0:
        raise InvalidRequest("only plain http and https addresses are fetched")
    return parts


async def _read(response: httpx.Response, media_types: frozenset[str]) -> Fetched:
    if response.status_code != httpx.codes.OK:
        raise InvalidRequest(f"the address answered with status {response.status_code}")
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in media_types:
        raise InvalidRequest(f"what lies at the address is none of {', '.join(sorted(media_types))}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise InvalidRequest("what lies at the address comes compressed")
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > MAX_BYTES:
            raise InvalidRequest(f"what lies at the address is larger than {MAX_BYTES} bytes")
    if not data:
        raise InvalidRequest("there is nothing at the address")
    return Fetched(media_type, bytes(data))

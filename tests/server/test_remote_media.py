"""Addresses in requests: what is never asked, and what is fetched where that is allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest

from pensieve.errors import InvalidRequest
from pensieve.server.remote_media import IMAGE_TYPES, MAX_BYTES, Fetched, RemoteMedia, is_public

PNG = b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 3\r\n\r\npng"


class Site:
    """A site on loopback that says the same to everybody, and what it was asked."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self.heads: list[bytes] = []
        self.port = 0

    async def reply(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection; the last answer is repeated."""
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        writer.write(answer.replace(b"PORT", str(self.port).encode()))
        writer.close()


@asynccontextmanager
async def site(*answers: bytes) -> AsyncIterator[Site]:
    """A site that gives these answers."""
    started = Site(*answers)
    async with await asyncio.start_server(started.reply, "127.0.0.1", 0) as server:
        started.port = server.sockets[0].getsockname()[1]
        yield started


async def refusal(media: RemoteMedia, url: str) -> str:
    """What is said about the address."""
    with pytest.raises(InvalidRequest) as refused:
        await media.fetch(url, IMAGE_TYPES)
    return str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *(
            "100.64.0.1",
            "198.18.0.1",
            "192.0.2.1",
            "192.0.0.8",
            "192.88.99.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ),
        *("::", "::1", "fe80::1", "fc00::1", "fec0::1", "ff0e::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:1::", "::127.0.0.1"),
    ],
)
def test_what_is_not_the_public_internet_is_told(address: str) -> None:
    """However it is written, and whatever it carries inside."""
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111"])
def test_the_public_internet_is_told(address: str) -> None:
    """Both kinds of addresses."""
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "0x7f.1", "2130706433", "[::1]", "[::ffff:7f00:1]"]
)
async def test_this_machine_is_never_asked(host: str) -> None:
    """Under none of its names: the site hears nothing."""
    async with site(PNG) as asked:
        said = await refusal(RemoteMedia(), f"http://{host}:{asked.port}/x.png")
    assert "not on the public internet" in said or "names no machine" in said
    assert asked.heads == []


async def test_an_allowed_address_is_fetched_once() -> None:
    """Under its own name, and remembered: each turn of a conversation names its images again."""
    async with site(PNG) as asked:
        media, url = RemoteMedia(lambda _address: True), f"http://localhost:{asked.port}/x.png?a=1#there"
        assert (
            await media.fetch(url, IMAGE_TYPES) == await media.fetch(url, IMAGE_TYPES) == Fetched("image/png", b"png")
        )
    [head] = asked.heads
    assert head.startswith(b"GET /x.png?a=1 HTTP/1.1\r\n")
    assert f"host: localhost:{asked.port}\r\n".encode() in head.lower()


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be asked in place of the address that was checked."""
    async with site(PNG) as asked, site(PNG) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        await RemoteMedia(lambda _address: True).fetch(f"http://localhost:{asked.port}/", IMAGE_TYPES)
    assert (len(asked.heads), len(proxy.heads)) == (1, 0)


async def test_a_redirect_is_followed_and_checked_anew() -> None:
    """It may lead from an allowed address to one that is not."""
    onward = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.2:PORT/b\r\ncontent-length: 0\r\n\r\n"
    async with site(onward, PNG) as asked:
        url = f"http://127.0.0.1:{asked.port}/a"
        guarded = RemoteMedia(lambda address: str(address) == "127.0.0.1")
        assert "not on the public internet" in await refusal(guarded, url)
        assert len(asked.heads) == 1


async def test_redirects_end() -> None:
    """A few are enough for anybody."""
    async with site(b"HTTP/1.1 302 Found\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n") as asked:
        said = await refusal(RemoteMedia(lambda _address: True), f"http://127.0.0.1:{asked.port}/a")
    assert "leads elsewhere" in said
    assert [head.split()[1] for head in asked.heads] == [b"/a", b"/again", b"/again", b"/again"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", "status 404"),
        (PNG.replace(b"image/png", b"text/html"), "is none of"),
        (PNG.replace(b"content-type: image/png\r\n", b""), "is none of"),
        (PNG.replace(b"length: 3", b"length: 3\r\ncontent-encoding: gzip"), "compressed"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 0\r\n\r\n", "nothing"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\n\r\n" + b"x" * (MAX_BYTES + 1), "larger than"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 9\r\n\r\npng", "could not be fetched"),
        (b"nonsense\r\n\r\n", "could not be fetched"),
    ],
)
async def test_what_is_not_an_image_of_decent_size_is_refused(answer: bytes, words: str) -> None:
    """With the reason."""
    async with site(answer) as asked:
        assert words in await refusal(RemoteMedia(lambda _address: True), f"http://127.0.0.1:{asked.port}/")


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "file:///etc/passwd", "ftp://a/b", "http://", "http://u@a/", "http://a:0/", "http://["),
        *("http://a:x/", "http://a/" + "x" * 9000, "http://" + "a" * 300 + "/", "//a/b", "data:image/png;base64,aW1n"),
    ],
)
async def test_what_is_no_plain_web_address_is_refused(url: str) -> None:
    """Before anything is looked up."""
    assert await refusal(RemoteMedia(lambda _address: True), url)

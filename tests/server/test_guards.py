"""Who may ask: the Host, Origin and key headers."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from live_server import Live, body, serving
from pensieve.config.settings import ServerSettings
from pensieve.errors import Forbidden
from pensieve.server.guards import HostGuard, host_name, is_loopback

PAGE = "https://app.example"


async def nothing(*_: Any) -> Any:
    """A channel that the guard of Host headers has no use for."""


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:7777", "localhost"),
        ("localhost.:1", "localhost"),
        ("127.0.0.1:7777", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[::1]:7777", "::1"),
        ("", None),
        (":7777", None),
        ("[::1", None),
        ("[::1]x", None),
        ("localhost:abc", None),
        ("a:1:2", None),
        ("::1", None),
    ],
)
def test_a_host_header_is_a_name_and_maybe_a_port(header: str, name: str | None) -> None:
    """Anything else is nobody's name."""
    assert host_name(header) == name


@given(name=st.sampled_from(["localhost", "127.0.0.1", "evil.example"]), port=st.integers(0, 10**6))
def test_the_port_of_a_host_header_changes_nothing(name: str, port: int) -> None:
    """A server may be reached through another port than its own."""
    assert host_name(f"{name}:{port}") == name


@given(st.text())
def test_no_host_header_breaks_the_parser(header: str) -> None:
    """Whatever comes is a name without its port, or none."""
    name = host_name(header)
    assert name is None or (name in header.lower() and not is_loopback(f"[{name}]"))


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:1", 200),
        ("127.0.0.1:7777", 200),
        ("127.9.9.9", 200),
        ("[::1]:7777", 200),
        ("my.box:7777", 200),
        ("MY.BOX", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:7777", 403),
        ("192.168.1.9:7777", 403),
        ("", 403),
    ],
)
async def test_only_our_own_names_are_answered(host: str, status: int) -> None:
    """A page that points its own name at this machine is refused, on every route."""
    async with serving(allowed_hosts=("my.box",)) as live:
        for path in ("/v1/models", "/health"):
            response = await live.client.get(path, headers={"host": host})
            assert response.status_code == status


@pytest.mark.parametrize(
    ("bound", "host", "is_ours"),
    [
        ("::ffff:192.168.1.5", "192.168.1.5:7777", True),
        ("::ffff:192.168.1.5", "[::ffff:c0a8:105]", True),
        ("::ffff:192.168.1.5", "192.168.1.6", False),
        ("2001:db8::5", "[2001:DB8:0:0::0005]:7777", True),
        ("2001:db8::5", "[2001:db8::6]", False),
        ("fe80::5%eth0", "[fe80::5]", True),
        ("192.168.1.5", "[fd00:0::7]", True),
        ("192.168.1.5", "evil.example", False),
    ],
)
async def test_an_address_is_ours_however_it_is_written(bound: str, host: str, is_ours: bool) -> None:
    """A socket on :: names an IPv4 address in its IPv6 form, and clients write IPv6 as they like."""
    served: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        served.append(scope)

    scope = {"type": "http", "server": (bound, 7777), "headers": [(b"host", host.encode())]}
    guard = HostGuard(app, ServerSettings(host="::", allowed_hosts=("FD00::7",)))
    with nullcontext() if is_ours else pytest.raises(Forbidden):
        await guard(scope, nothing, nothing)
    assert bool(served) == is_ours


@pytest.mark.parametrize(
    ("host", "is_ours"), [("::ffff:127.0.0.1", True), ("0:0::1", True), ("::ffff:10.0.0.1", False), ("::", False)]
)
def test_loopback_is_known_in_every_spelling(host: str, is_ours: bool) -> None:
    """Also as an IPv6 socket names it."""
    assert is_loopback(host) == is_ours


async def test_no_host_or_two_hosts_are_refused(live: Live) -> None:
    """A browser always sends one."""
    none = await live.raw(b"GET /health HTTP/1.0\r\n\r\n")
    two = await live.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\nConnection: close\r\n\r\n")
    assert none.startswith(b"HTTP/1.1 403 ")
    assert two.startswith(b"HTTP/1.1 403 ")
    assert b"permission_error" in two


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1", "x"])
async def test_other_origins_are_refused(live: Live, origin: str) -> None:
    """Also pages of other servers on this machine; nothing is generated and no CORS header invites them."""
    response = await live.client.post("/v1/messages", json=body(), headers={"origin": origin})
    assert (response.status_code, response.json()["error"]["type"]) == (403, "permission_error")
    assert "access-control-allow-origin" not in response.headers
    assert live.backend.counts.accepted == 0


async def test_our_own_origin_is_no_other_origin(live: Live) -> None:
    """A page this server would serve itself."""
    assert (await live.client.get("/health", headers={"origin": live.url})).status_code == 200


async def test_an_allowed_origin_gets_what_cors_needs() -> None:
    """On answers and on errors, so that the page can read both."""
    async with serving(allowed_origins=(PAGE,)) as live:
        answer = await live.client.post("/v1/messages", json=body(), headers={"origin": PAGE})
        error = await live.client.post("/v1/messages", json={}, headers={"origin": PAGE})
    assert (answer.status_code, error.status_code) == (200, 400)
    for response in (answer, error):
        assert response.headers["access-control-allow-origin"] == PAGE
        assert response.headers["vary"] == "origin"
        assert "request-id" in response.headers["access-control-expose-headers"]


async def test_a_preflight_needs_an_allowed_origin_and_no_key() -> None:
    """A browser sends no key with its question."""
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "x-api-key, content-type"}
    async with serving(allowed_origins=(PAGE,), api_key="k") as live:
        allowed = await live.client.options("/v1/messages", headers={"origin": PAGE} | asked)
        refused = await live.client.options("/v1/messages", headers={"origin": "https://evil.example"} | asked)
    assert (allowed.status_code, refused.status_code) == (204, 403)
    assert allowed.headers["access-control-allow-headers"] == "x-api-key, content-type"
    assert "POST" in allowed.headers["access-control-allow-methods"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"x-api-key": "wrong"}, 401),
        ({"x-api-key": "s3cret-ke"}, 401),
        ({"x-api-key": ""}, 401),
        ({"x-api-key": "cl\u00e9"}, 401),
        ({"authorization": "s3cret-key"}, 401),
        ({"authorization": "Basic s3cret-key"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Bearer s3cret-key"}, 200),
        ({"authorization": "bearer s3cret-key"}, 200),
        ({"x-api-key": "s3cret-key"}, 200),
        ({"x-api-key": "dummy", "authorization": "Bearer s3cret-key"}, 200),
    ],
)
async def test_the_key_is_asked_for_where_there_is_one(headers: dict[str, str], status: int) -> None:
    """As x-api-key or Bearer; a wrong one is final, so that no client knocks again and again."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    async with serving(api_key="s3cret-key") as live:
        response = await live.client.post("/v1/messages", json=body(), headers=raw)
    assert response.status_code == status
    if status == 401:
        assert response.json()["error"]["type"] == "authentication_error"
        assert response.headers["x-should-retry"] == "false"
        assert live.backend.counts.accepted == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("HEAD", "/", 200),
        ("HEAD", "/api/hello", 200),
        ("GET", "/", 401),
        ("GET", "/v1/models", 401),
        ("HEAD", "/v1/models", 401),
        ("GET", "/nope", 401),
        ("POST", "/v1/messages/count_tokens", 401),
    ],
)
async def test_only_health_and_probes_are_open_without_the_key(method: str, path: str, status: int) -> None:
    """Everything else is closed, routes that do not exist included."""
    async with serving(api_key="s3cret-key") as live:
        assert (await live.client.request(method, path)).status_code == status


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "dummy"}, {"authorization": "Bearer dummy"}])
async def test_without_a_key_any_key_is_accepted(live: Live, headers: dict[str, str]) -> None:
    """Clients insist on sending one."""
    assert (await live.client.post("/v1/messages", json=body(), headers=headers)).status_code == 200

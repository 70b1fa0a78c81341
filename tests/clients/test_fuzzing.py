"""Bad bodies against `pensieve serve --script`: each is answered, none breaks the server, and its books add up."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import httpx
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bad_bodies import MESSAGES, bad_bodies, batch_bodies, chat_bodies, plain_bodies, responses_bodies
from pensieve.server import openapi_batches
from pensieve.server.openapi import describe
from served import serve, url_of

SCRIPT = Path(__file__).parent / "script.toml"
ROUTES = {
    "/v1/messages": MESSAGES,
    "/v1/messages?beta=true": MESSAGES,
    "/v1/messages/count_tokens": MESSAGES,
    "/v1/chat/completions": chat_bodies(),
    "/v1/responses": responses_bodies(),
    "/v1/completions": plain_bodies,
    "/v1/embeddings": plain_bodies,
}
"""Where bodies go, and what they are before they are spoilt."""
DESCRIBED_ROUTES = [path for path in ROUTES if "?" not in path]
STREAM_ENDS = (b"event: message_stop", b"event: error", b"data: [DONE]", b'data: {"error"', b"event: response.")
"""One of them is in every stream."""
STATUSES = frozenset({200, 400, 404, 413})
SPOILT_CASES, DESCRIBED_CASES, BATCH_CASES = 200, 30, 20
SPOILT_STRESS_CASES, DESCRIBED_STRESS_CASES = 9_500, 500
"""The second kind takes long to make up."""
ANSWER_SECONDS = 20.0
CALM = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.large_base_example)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A server that plays the script of the scenes, from its command."""
    with serve(tmp_path_factory.mktemp("script"), "--script", str(SCRIPT), secret="toolu_") as process:
        yield process


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    """A client that keeps its connection, so that one bad body may spoil the next answer."""
    with httpx.Client(base_url=url, trust_env=False, timeout=ANSWER_SECONDS) as client:
        yield client


def counts(http: httpx.Client) -> dict[str, int]:
    """The server's own books; the request that asks is running."""
    health = http.get("/health").json()
    assert health["status"] == "healthy"
    return cast("dict[str, int]", health["requests"])


@cache
def error_schema(name: str) -> Any:
    """What every error must look like."""
    return jsonschema.Draft202012Validator(describe("test")["components"]["schemas"][name])


def check_answer(response: httpx.Response, statuses: Collection[int] = STATUSES) -> None:
    """Well-formed, and never the server's own fault."""
    assert response.status_code in statuses, response.text
    if response.headers["content-type"].startswith("text/event-stream"):
        assert any(end in response.content for end in STREAM_ENDS)
        assert b"api_error" not in response.content
        assert b"server_error" not in response.content
        return
    if response.headers["content-type"] == openapi_batches.LINES:
        assert all(json.loads(line)["custom_id"] for line in response.content.splitlines())
        return
    body = json.loads(response.content)
    if response.status_code != 200:
        error_schema("OpenAIError" if "type" not in body else "Error").validate(body)
        assert body["error"]["message"]


def fuzz(
    num_cases: int,
    cases: st.SearchStrategy[Any],
    send: Callable[[Any], httpx.Response],
    statuses: Collection[int] = STATUSES,
) -> int:
    """Send that many cases and check each answer; how many were sent."""
    num_sent = 0

    @settings(max_examples=num_cases, deadline=None, database=None, suppress_health_check=CALM, phases=[Phase.generate])
    @given(cases)
    def each(case: Any) -> None:
        nonlocal num_sent
        num_sent += 1
        try:
            check_answer(send(case), statuses)
        except httpx.TimeoutException:
            raise AssertionError(f"no answer in {ANSWER_SECONDS:.0f} s: {str(case)[:2_000]}") from None

    each()
    return num_sent


def check_books(http: httpx.Client, before: dict[str, int], num_sent: int) -> None:
    """Every request that was sent was received, and every one ended."""
    after = counts(http)
    assert num_sent > 0
    assert after["received"] - before["received"] == num_sent + 1
    assert after["running"] == 1
    assert after["disconnected"] == before["disconnected"]


def spoilt_requests_are_answered(http: httpx.Client, num_cases: int) -> None:
    """Requests with spoilt places, cut ones, and bytes that are nothing."""
    before = counts(http)

    def send(case: tuple[str, bytes]) -> httpx.Response:
        return http.post(case[0], content=case[1], headers={"content-type": "application/json"})

    cases = st.one_of(*(st.tuples(st.just(path), bad_bodies(bodies)) for path, bodies in ROUTES.items()))
    check_books(http, before, fuzz(num_cases, cases, send))


def described_requests_are_answered(http: httpx.Client, num_cases: int) -> None:
    """What schemathesis makes of our own description: requests that fit it, and requests that miss it."""
    before = counts(http)
    schema = schemathesis.openapi.from_dict(describe("test"))
    operations = [schema[path]["POST"] for path in DESCRIBED_ROUTES]
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    cases = st.one_of(*(operation.as_strategy(generation_mode=mode) for operation in operations for mode in modes))

    def send(case: Any) -> httpx.Response:
        content = json.dumps(case.body, default=repr).encode()
        return http.post(case.formatted_path, content=content, headers={"content-type": "application/json"})

    check_books(http, before, fuzz(num_cases, cases, send))


def test_spoilt_requests_are_answered(http: httpx.Client) -> None:
    """Each with an answer or an error that says what is wrong."""
    spoilt_requests_are_answered(http, SPOILT_CASES)


def test_described_requests_are_answered(http: httpx.Client) -> None:
    """Whether they fit our description or not."""
    described_requests_are_answered(http, DESCRIBED_CASES)


def batch_requests_are_answered(home: Path, num_spoilt: int, num_described: int, *, is_creation_made_up: bool) -> None:
    """All operations, most of them on a batch that was there, on a server that works the batches off meanwhile."""
    made: list[str] = []

    def create(content: bytes) -> httpx.Response:
        response = client.post(openapi_batches.PATH, content=content)
        made.extend([response.json()["id"]] if response.is_success else [])
        return response

    def send(drawn: tuple[Any, int]) -> httpx.Response:
        case, which = drawn
        if case.method == "POST" and case.path == openapi_batches.PATH:
            return create(json.dumps(case.body, default=repr).encode())
        path = case.path.replace("{id}", made[which % len(made)]) if which else case.formatted_path
        query = {name: str(value) for name, value in (case.query or {}).items()}
        return client.request(case.method, path, params=query)

    with (
        serve(home, "--script", str(SCRIPT), secret="toolu_") as process,
        httpx.Client(base_url=url_of(process), trust_env=False, timeout=ANSWER_SECONDS) as client,
    ):
        params = {"model": "m", "max_tokens": 3, "messages": [{"role": "user", "content": "hello"}]}
        create(json.dumps({"requests": [{"custom_id": "a", "params": params}]}).encode())
        assert made
        fuzz(num_spoilt, bad_bodies(batch_bodies()), create)
        cases = st.tuples(batch_cases(is_creation_made_up=is_creation_made_up), st.integers(0, 9))
        fuzz(num_described, cases, send, STATUSES | {405})  # an id of dots leads to another route
        assert client.get("/health").json()["status"] == "healthy"


def batch_cases(*, is_creation_made_up: bool) -> st.SearchStrategy[Any]:
    """What schemathesis makes of the description; a path that misses it cannot be made, and a body takes it seconds."""
    schema = schemathesis.openapi.from_dict(describe("test"))
    modes = schemathesis.GenerationMode
    return st.one_of(
        *(
            schema[route.path][route.method.upper()].as_strategy(generation_mode=mode)
            for route in openapi_batches.ROUTES
            for mode in ((modes.POSITIVE,) if "{id}" in route.path else (modes.POSITIVE, modes.NEGATIVE))
            if is_creation_made_up or not route.body
        )
    )


def test_batch_requests_are_answered(tmp_path: Path) -> None:
    """Spoilt ones, and whatever fits or misses our description of the other operations."""
    batch_requests_are_answered(tmp_path, BATCH_CASES, BATCH_CASES, is_creation_made_up=False)


@pytest.mark.stress
@pytest.mark.timeout(1_800)
def test_thousands_of_spoilt_requests_are_answered(http: httpx.Client) -> None:
    """Most of ten thousand."""
    spoilt_requests_are_answered(http, SPOILT_STRESS_CASES)


@pytest.mark.stress
@pytest.mark.timeout(1_800)
def test_thousands_of_described_requests_are_answered(http: httpx.Client) -> None:
    """And the rest of them."""
    described_requests_are_answered(http, DESCRIBED_STRESS_CASES)


@pytest.mark.stress
@pytest.mark.timeout(1_800)
def test_thousands_of_batch_requests_are_answered(tmp_path: Path) -> None:
    """As many; here schemathesis makes up batches too."""
    batch_requests_are_answered(tmp_path, SPOILT_STRESS_CASES, DESCRIBED_STRESS_CASES, is_creation_made_up=True)

"""Bad bodies against `pensieve serve --script`: each is answered, none breaks the server, and its books add up."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import httpx
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bad_bodies import MESSAGES, bad_bodies, chat_bodies, plain_bodies, responses_bodies
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
BATCH_OPERATIONS = [(route.path, route.method) for route in openapi_batches.ROUTES]
STREAM_ENDS = (b"event: message_stop", b"event: error", b"data: [DONE]", b'data: {"error"', b"event: response.")
"""One of them is in every stream."""
SPOILT_CASES, DESCRIBED_CASES = 250, 50
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


def check_answer(response: httpx.Response) -> None:
    """Well-formed, and never the server's own fault."""
    assert response.status_code in {200, 400, 404, 405, 413}, response.text
    if response.headers["content-type"].startswith("text/event-stream"):
        assert any(end in response.content for end in STREAM_ENDS)
        assert b"api_error" not in response.content
        assert b"server_error" not in response.content
        return
    body = json.loads(response.content)
    if response.status_code != 200:
        error_schema("OpenAIError" if "type" not in body else "Error").validate(body)
        assert body["error"]["message"]


def fuzz(num_cases: int, cases: st.SearchStrategy[Any], send: Callable[[Any], httpx.Response]) -> int:
    """Send that many cases and check each answer; how many were sent."""
    num_sent = 0

    @settings(max_examples=num_cases, deadline=None, database=None, suppress_health_check=CALM, phases=[Phase.generate])
    @given(cases)
    def each(case: Any) -> None:
        nonlocal num_sent
        num_sent += 1
        try:
            check_answer(send(case))
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


def test_described_batch_requests_are_answered(tmp_path: Path) -> None:
    """By every operation, on a server of their own: the batches that are made are worked off meanwhile."""
    schema = schemathesis.openapi.from_dict(describe("test"))
    operations = [schema[path][method.upper()] for path, method in BATCH_OPERATIONS]
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    cases = st.one_of(*(operation.as_strategy(generation_mode=mode) for operation in operations for mode in modes))

    def send(case: Any) -> httpx.Response:
        content = json.dumps(case.body, default=repr).encode() if case.method == "POST" else b""
        query = {name: str(value) for name, value in (case.query or {}).items()}
        return client.request(case.method, case.formatted_path, params=query, content=content)

    with (
        serve(tmp_path, "--script", str(SCRIPT), secret="toolu_") as process,
        httpx.Client(base_url=url_of(process), trust_env=False, timeout=ANSWER_SECONDS) as client,
    ):
        assert fuzz(DESCRIBED_CASES, cases, send) > 0
        assert client.get("/health").json()["status"] == "healthy"


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

"""A `Backend` over HTTP: another Pensieve, or whatever else speaks the Anthropic Messages wire.

Foreign errors end here: what a caller sees is the error tree. Knows no run file, no process and no terminal.
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from pensieve import __version__
from pensieve.errors import (
    BackendFailure,
    ConnectionLost,
    InvalidRequest,
    Overloaded,
    PensieveError,
    ServerUnreachable,
    UsageError,
)
from pensieve.generation import Finished, GenerationEvent, GenerationRequest
from pensieve.inference.backend import Limits
from pensieve.messages import Json
from pensieve.models.spec import Capability
from pensieve.wire.anthropic.requests import encode_request
from pensieve.wire.anthropic.responses import EventDecoder, decode_error
from pensieve.wire.progress import ASKED, HEADER
from pensieve.wire.sse import SseDecoder

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 180.0
"""A stream that is silent for longer is taken for dead; a Pensieve pings at least once a minute."""
COUNT_SECONDS = 660.0
"""Counting may have to load the model first, and is answered without pings."""
MAX_BODY_BYTES = 2**20


Shape = TypeVar("Shape")


class _Support(msgspec.Struct, frozen=True):
    supported: bool = False


class _Capabilities(msgspec.Struct, frozen=True):
    thinking: _Support = _Support()
    image_input: _Support = _Support()
    structured_outputs: _Support = _Support()
    tools: _Support = _Support()


class _Model(msgspec.Struct, frozen=True):
    id: str
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    capabilities: _Capabilities | None = None


class _ModelPage(msgspec.Struct, frozen=True):
    data: list[_Model]


class _Count(msgspec.Struct, frozen=True):
    input_tokens: int


class UpstreamBackend:
    """Asks the server at `url`; `model` names the one whose limits are meant, "" the server's first."""

    def __init__(self, url: str, api_key: str | None = None, model: str = "") -> None:
        self.url = _checked(url)
        self._model = model
        self._client = httpx.AsyncClient(
            base_url=self.url,
            headers=_headers(api_key),
            trust_env=not _is_loopback(self.url),
            follow_redirects=False,
        )

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """See `Backend.generate`; closing the generator closes the connection, which cancels on the server."""
        if request.text:
            raise InvalidRequest("another server's model is only asked in messages", path="prompt")
        body = encode_request(request, is_stream=True)
        frames, events = SseDecoder(), EventDecoder()
        headers = {HEADER: ASKED} | ({"x-session-id": request.affinity_key} if request.affinity_key else {})
        async with self._response("POST", "/v1/messages", body, headers=headers) as response:
            self._expect_stream(response)
            async for chunk in response.aiter_bytes():
                for item in frames.feed_all(chunk):
                    for event in events.decode(item):
                        yield event
                        if isinstance(event, Finished):
                            return
        raise self._broken("the stream ended in the middle of the answer")

    async def count_tokens(self, request: GenerationRequest) -> int:
        """See `Backend.count_tokens`."""
        body = encode_request(request, is_stream=False)
        body.pop("stream", None)
        body.pop("max_tokens", None)
        return (await self._fetch("POST", "/v1/messages/count_tokens", _Count, body)).input_tokens

    async def limits(self) -> Limits:
        """See `Backend.limits`."""
        if self._model:
            model = await self._fetch("GET", f"/v1/models/{quote(self._model, safe='')}", _Model)
        else:
            page = await self._fetch("GET", "/v1/models", _ModelPage)
            if not page.data:
                raise BackendFailure(f"the server at {self.url} has no model: start it with `pensieve serve --model`")
            model = page.data[0]
        return _limits(model)

    async def aclose(self) -> None:
        """Close all connections; safe to call twice."""
        await self._client.aclose()

    async def _fetch(self, method: str, path: str, shape: type[Shape], body: Json = None) -> Shape:
        async with self._response(method, path, body, silence_seconds=COUNT_SECONDS) as response:
            content = await _read(response)
        try:
            return msgspec.json.decode(content, type=shape)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise self._foreign() from error

    @asynccontextmanager
    async def _response(
        self,
        method: str,
        path: str,
        body: Json = None,
        *,
        silence_seconds: float = SILENCE_SECONDS,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[httpx.Response]:
        timeout = httpx.Timeout(silence_seconds, connect=CONNECT_SECONDS)
        content = None if body is None else msgspec.json.encode(body)
        with self._converted():
            async with self._client.stream(method, path, content=content, headers=headers, timeout=timeout) as response:
                if response.status_code != httpx.codes.OK:
                    raise await self._refusal(response)
                yield response

    async def _refusal(self, response: httpx.Response) -> PensieveError:
        if response.is_redirect:
            return self._foreign()
        error = decode_error(response.status_code, await _read(response))
        if isinstance(error, Overloaded):
            error.retry_after_seconds = _seconds(response.headers, error.retry_after_seconds)
        return error

    @contextmanager
    def _converted(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ServerUnreachable(
                f"no server answers at {self.url}: start one with `pensieve serve`, or check the address"
            ) from error
        except httpx.TimeoutException as error:
            raise self._broken("the server has said nothing for too long") from error
        except httpx.HTTPError as error:
            raise self._broken("the connection broke off") from error

    def _expect_stream(self, response: httpx.Response) -> None:
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            raise self._foreign()

    def _foreign(self) -> BackendFailure:
        return BackendFailure(f"{self.url} does not answer as a Pensieve server does: check the address")

    def _broken(self, what: str) -> ConnectionLost:
        return ConnectionLost(f"{what} ({self.url}): send the request again, or look at the server's log")


def _limits(model: _Model) -> Limits:
    can = model.capabilities or _Capabilities()
    told: dict[Capability, bool] = {
        "thinking": can.thinking.supported,
        "tools": can.tools.supported,
        "images": can.image_input.supported,
        "structured_outputs": can.structured_outputs.supported,
    }
    capabilities = tuple(name for name, is_there in told.items() if is_there)
    return Limits(model.id, model.max_input_tokens or 0, model.max_tokens or 0, capabilities)


async def _read(response: httpx.Response) -> bytes:
    content = b""
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            break
    return content[:MAX_BODY_BYTES]


def _headers(api_key: str | None) -> dict[str, str]:
    # Identity: a compressed stream arrives in lumps.
    headers = {
        "anthropic-version": "2023-06-01",
        "content-type": "application/json",
        "accept-encoding": "identity",
        "user-agent": f"pensieve/{__version__}",
    }
    return headers if api_key is None else headers | {"x-api-key": api_key}


def _seconds(headers: Mapping[str, str], otherwise: float) -> float:
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return otherwise


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise UsageError(f"{url!r} is no server address: write it like http://127.0.0.1:7777")
    return url.rstrip("/")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")

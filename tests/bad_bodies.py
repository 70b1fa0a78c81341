"""Bodies that clients should not send: requests with a few places spoilt, cut, or no JSON at all. Strategies only."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

from pensieve.messages import Json
from pensieve.wire.anthropic.requests import encode_request
from pensieve.wire.openai.chat import encode_request as encode_chat_request
from pensieve.wire.openai.responses.requests import encode_request as encode_responses_request
from wire.strategies import requests

ODD_VALUES: tuple[Json, ...] = (
    *(None, True, False, 0, -1, 1.5, 10**400, -(2**63), 2**64, float("nan"), float("inf"), 1e308),
    *("", " ", "\x00", "\ud800", "\u202e", "x" * 5_000, "user", "text", "tool_use", "auto", "json_schema"),
    *([], {}, [[]], [None], {"type": "text"}, {"type": None}, {"type": "image", "source": {"type": "url"}}),
    {"type": "object", "properties": {"a": {"$ref": "#"}}},
    {"type": "tool_result", "tool_use_id": "x", "content": [{"type": "tool_reference", "tool_name": "y"}]},
)
ODD_NAMES = (
    "type",
    "role",
    "content",
    "thread",
    "schema",
    "$ref",
    "__proto__",
    "",
    "max_tokens",
    "mcp_servers",
    "\ud800",
)
ROOT_BYTES = (b"", b" ", b"null", b"[]", b'"x"', b"0", b"\xff\xfe", b"\x00", b"{", b'{"a":1}{', b"[" * 9_000)


def places(value: Json, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything inside, without the root."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, child in children:
        found += [(*path, key), *places(child, (*path, key))]
    return found


@st.composite
def messages_bodies(draw: st.DrawFn) -> dict[str, Json]:
    """Requests of the Messages API."""
    return {"max_tokens": 3} | encode_request(draw(requests()), is_stream=draw(st.booleans()))


MESSAGES = messages_bodies()


@st.composite
def chat_bodies(draw: st.DrawFn) -> dict[str, Json]:
    """Requests of Chat Completions."""
    return encode_chat_request(draw(requests()), is_stream=draw(st.booleans())) | {"n": draw(st.integers(1, 3))}


@st.composite
def responses_bodies(draw: st.DrawFn) -> dict[str, Json]:
    """Requests of the Responses API."""
    return encode_responses_request(draw(requests()), is_stream=draw(st.booleans()))


plain_bodies: st.SearchStrategy[dict[str, Json]] = st.fixed_dictionaries(
    {"model": st.just("m"), "prompt": st.text(max_size=9), "input": st.lists(st.text(max_size=9), max_size=3)},
    optional={"stream": st.booleans(), "n": st.integers(1, 3), "logprobs": st.integers(0, 5), "echo": st.booleans()},
)
"""Requests for completions and embeddings alike."""


@st.composite
def batch_bodies(draw: st.DrawFn) -> dict[str, Json]:
    """Requests for batches of a few requests of the Messages API."""
    asked = enumerate(draw(st.lists(MESSAGES, min_size=1, max_size=2)))
    return {"requests": [{"custom_id": f"r{at}", "params": params | {"stream": False}} for at, params in asked]}


@st.composite
def spoilt(draw: st.DrawFn, bodies: st.SearchStrategy[dict[str, Json]]) -> Json:
    """A request with one to three places replaced, left out, doubled or added to."""
    body = copy.deepcopy(draw(bodies))
    for _ in range(draw(st.integers(1, 3))):
        spoil(draw, body)
    return body


def spoil(draw: st.DrawFn, body: dict[str, Json]) -> None:
    """Spoil one place."""
    chosen = places(body)
    if not chosen:
        return
    *way, last = draw(st.sampled_from(chosen))
    parent: Any = body
    for key in way:
        parent = parent[key]
    match draw(st.sampled_from(("replace", "leave out", "double", "add"))):
        case "replace":
            parent[last] = odd_value(draw)
        case "leave out":
            del parent[last]
        case "double" if isinstance(parent, list):
            parent.append(copy.deepcopy(parent[last]))
        case _ if isinstance(parent, dict):
            parent[draw(st.sampled_from(ODD_NAMES))] = odd_value(draw)


def odd_value(draw: st.DrawFn) -> Json:
    """A value of its own: the next place that is spoilt may lie inside it."""
    return copy.deepcopy(draw(st.sampled_from(ODD_VALUES)))


@st.composite
def bad_bodies(draw: st.DrawFn, bodies: st.SearchStrategy[dict[str, Json]] = MESSAGES) -> bytes:
    """The bytes of a body: four in five are JSON of a spoilt request, the others cut, or nothing of the kind."""
    match draw(st.integers(0, 9)):
        case 0:
            return draw(st.sampled_from(ROOT_BYTES) | st.binary(max_size=200))
        case 1:
            whole = json.dumps(draw(spoilt(bodies))).encode()
            return whole[: draw(st.integers(0, len(whole)))]
        case _:
            return json.dumps(draw(spoilt(bodies))).encode()

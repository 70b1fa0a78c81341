"""Our description of the API is whole, valid, and says of bodies what the decoder says."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import schemathesis
from hypothesis import given
from starlette.applications import Starlette
from starlette.routing import Route

from bad_bodies import bad_bodies
from live_server import Live, body, serving
from pensieve.errors import InvalidRequest
from pensieve.generation import GenerationRequest
from pensieve.messages import Json
from pensieve.server.openapi import describe
from pensieve.wire.anthropic.requests import decode_request, encode_request
from wire.strategies import PROPERTY, requests


@cache
def validator(name: str) -> Any:
    """Checks values against the schema of that name."""
    description = describe("1.2.3")
    schema = {"$ref": f"#/components/schemas/{name}", "components": description["components"]}
    return jsonschema.Draft202012Validator(schema)


async def test_every_route_is_described(tmp_path: Path) -> None:
    """With its methods, and nothing else is; those of batches too."""
    async with serving(batches=tmp_path / "batches.db") as live:
        app = live.server.config.app
        description = (await live.client.get("/openapi.json")).json()
    assert isinstance(app, Starlette)
    served = [route for route in app.routes if isinstance(route, Route)]
    routes = {route.path.replace(":path", ""): (route.methods or set()) - {"HEAD"} for route in served}
    described = {path: {method.upper() for method in methods} for path, methods in description["paths"].items()}
    assert described == routes
    assert description["info"]["version"] == "1.2.3"


def test_the_description_is_valid() -> None:
    """By the rules of OpenAPI 3.1."""
    schemathesis.openapi.from_dict(describe("1.2.3")).validate()


@PROPERTY
@given(requests())
def test_what_we_send_fits_the_description(request: GenerationRequest) -> None:
    """Requests as our own client encodes them."""
    sent = encode_request(request, is_stream=True)
    validator("RequestBody").validate(sent)


def typed(value: Json) -> Json:
    """The same, with the type of text blocks, which the decoder does not miss where only text can stand."""
    if isinstance(value, list):
        return [typed(item) for item in value]
    if not isinstance(value, dict):
        return value
    fields = {name: typed(field) for name, field in value.items()}
    return {"type": "text"} | fields if "text" in fields else fields


@PROPERTY
@given(bad_bodies())
def test_what_the_decoder_takes_fits_the_description(sent: bytes) -> None:
    """A body that the description refuses, the decoder refuses too."""
    try:
        decode_request(sent, request_id="req_1")
    except InvalidRequest:
        return  # the decoder may be stricter: names that must be unique, what only other servers have
    validator("MessageRequest").validate(typed(json.loads(sent)))


def test_bounds_beyond_types_are_described() -> None:
    """Sampling parameters out of range, and a missing length."""
    assert validator("MessageRequest").is_valid(body(temperature=1))
    assert not validator("MessageRequest").is_valid(body(temperature=5.1))
    without = {name: value for name, value in body().items() if name != "max_tokens"}
    assert validator("RequestBody").is_valid(without)
    assert not validator("MessageRequest").is_valid(without)


async def test_answers_fit_the_description(live: Live) -> None:
    """A message, an error, the models and the health."""
    validator("Message").validate((await live.ask()).json())
    validator("Error").validate((await live.ask(temperature="hot")).json())
    validator("ModelPage").validate((await live.client.get("/v1/models", headers={"anthropic-version": "1"})).json())
    validator("Health").validate((await live.client.get("/health")).json())


async def test_what_is_told_of_batches_fits_the_description(tmp_path: Path) -> None:
    """Made, listed, asked for, cancelled, refused; and a request that the decoder takes."""
    wanted = {"requests": [{"custom_id": "a", "params": body()}]}
    validator("BatchRequest").validate(wanted)
    assert not validator("BatchRequest").is_valid({"requests": [{"custom_id": "a b", "params": body()}]})
    async with serving(batches=tmp_path / "batches.db") as live:
        made = (await live.client.post("/v1/messages/batches", json=wanted)).json()
        at = f"/v1/messages/batches/{made['id']}"
        for told in (made, (await live.client.get(at)).json(), (await live.client.post(f"{at}/cancel")).json()):
            validator("Batch").validate(told)
        validator("BatchPage").validate((await live.client.get("/v1/messages/batches")).json())
        validator("Error").validate((await live.client.get("/v1/messages/batches/none")).json())

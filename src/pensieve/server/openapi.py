"""The description of our API in OpenAPI 3.1, made from the structs that decode it. Knows no router and no request."""

from __future__ import annotations

from typing import Any

import msgspec

from pensieve.messages import Json
from pensieve.sampling.params import RANGES
from pensieve.server import openapi_batches, openapi_openai
from pensieve.wire.anthropic.answers import AnswerBody
from pensieve.wire.anthropic.foreign import FOREIGN, RESULT_CONTENT, SPOKEN, TOOL_CHANGES
from pensieve.wire.anthropic.requests import RequestBody

SCHEMAS = "#/components/schemas/"
REFUSALS = {
    400: "Something in the request is wrong; the message begins with the field's path.",
    401: "The key is missing or wrong.",
    403: "The Host or Origin header is not one of ours.",
    404: "There is no such thing.",
    413: "The body is too large.",
    500: "Our side failed.",
    503: "There is no room now: try again after `retry-after` seconds.",
}
ERROR_TYPES = (
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "overloaded_error",
    "api_error",
)


EITHER_ERROR: Json = {"anyOf": [{"$ref": f"{SCHEMAS}Error"}, {"$ref": f"{SCHEMAS}OpenAIError"}]}


def describe(version: str) -> dict[str, Json]:
    """The whole description, ready for JSON."""
    _, schemas = msgspec.json.schema_components([RequestBody, AnswerBody], ref_template=SCHEMAS + "{name}")
    return {
        "openapi": "3.1.0",
        "info": {"title": "Pensieve", "version": version, "description": "Language models on your own machine."},
        "security": [{}, {"key": []}, {"bearer": []}],
        "paths": _paths(),
        "components": {
            "schemas": _bounded(schemas) | _answers() | openapi_openai.schemas() | openapi_batches.schemas(),
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _paths() -> dict[str, Json]:
    messages = _operation("createMessage", "Answer, whole or as server-sent events", _ref("Message"), "MessageRequest")
    messages["responses"]["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    name = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    cached = _operation("cacheReport", "What the prefix cache did for the last requests", _ref("CacheReport"))
    text = {"name": "text", "in": "query", "schema": {"enum": ["0", "1"]}}
    hello = _object(name="string", version="string", api="string", health="string")
    metrics = _operation("metrics", "Figures for Prometheus", {})
    metrics["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    count = _operation("countTokens", "Count the tokens of a prompt", _object(input_tokens="integer"), "RequestBody")
    either = {"anyOf": [_ref("ModelPage"), _ref("OpenAIModels")]}
    one_of_either = {"anyOf": [_ref("Model"), _ref("OpenAIModel")]}
    one_model = _operation("retrieveModel", "The model that answers for a name", one_of_either, error=EITHER_ERROR)
    listed = _operation(
        "listModels", "All models, on one page, in the shape of the client's API", either, error=EITHER_ERROR
    )
    return {
        **{path: {"post": _openai(route)} for path, route in openapi_openai.ROUTES.items()},
        **_batches(),
        "/v1/messages": {"post": messages},
        "/v1/messages/count_tokens": {"post": count},
        "/v1/models": {"get": listed},
        "/v1/models/{id}": {"get": one_model | {"parameters": [name]}},
        "/v1/pensieve/cache": {"get": cached | {"parameters": [text]}},
        "/health": {"get": _operation("health", "How the server is", _ref("Health")) | {"security": []}},
        "/metrics": {"get": metrics},
        "/reset": {"post": _operation("reset", "Try a worker that failed again", _object(state="string"))},
        "/": {"get": _operation("hello", "That somebody is there", hello)},
        "/api/hello": {"get": _operation("helloAgain", "That somebody is there", hello)},
        "/openapi.json": {"get": _operation("describe", "This description", {"type": "object"})},
    }


def _batches() -> dict[str, Json]:
    paths: dict[str, Any] = {}
    for route in openapi_batches.ROUTES:
        operation = _operation(route.operation, route.summary, _ref(route.answer), route.body)
        if not route.answer:
            operation["responses"]["200"]["content"] = {openapi_batches.LINES: {"schema": {"type": "string"}}}
        paths.setdefault(route.path, {})[route.method] = operation | {"parameters": list(route.parameters)}
    return paths


def _openai(route: openapi_openai.Route) -> dict[str, Any]:
    operation = _operation(
        route.operation, route.summary, _ref(route.answer), route.body, error={"$ref": f"{SCHEMAS}OpenAIError"}
    )
    if route.is_streamed:
        operation["responses"]["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return operation


def _operation(name: str, summary: str, answer: Json, body: str = "", error: Json = None) -> dict[str, Any]:
    refusals = {
        str(status): {"description": text, "content": {"application/json": {"schema": error or _ref("Error")}}}
        for status, text in REFUSALS.items()
    }
    answered = {"description": "The answer.", "content": {"application/json": {"schema": answer}}}
    made: dict[str, Any] = {"operationId": name, "summary": summary, "responses": {"200": answered} | refusals}
    if body:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    return made


def _open(array: dict[str, Any], kind: Json) -> None:
    """Let the array hold blocks of further kinds, which are read as text or passed over."""
    own = [option for option in array["items"].get("anyOf", [array["items"]]) if "PassedOver" not in option["$ref"]]
    other = {"type": "object", "properties": {"type": {"type": "string"} | kind}, "required": ["type"]}
    array["items"] = {"anyOf": [*own, other]}


def _array(schemas: dict[str, Any], owner: str) -> dict[str, Any]:
    content = schemas[owner]["properties"]["content"]
    found: dict[str, Any] = next((option for option in content.get("anyOf", ()) if option["type"] == "array"), content)
    return found


def _bounded(schemas: dict[str, Any]) -> dict[str, Json]:
    """The schemas with what the structs do not say: bounds of sampling parameters, blocks that other servers make."""
    for owner in ("AssistantMessage", "AnswerBody"):
        _open(_array(schemas, owner), {"not": {"enum": sorted(SPOKEN)}})
    _open(_array(schemas, "ToolResultBlock"), {"not": {"enum": sorted(RESULT_CONTENT)}})
    _open(_array(schemas, "UserMessage"), {"enum": sorted(FOREIGN)})
    _open(_array(schemas, "SystemMessage"), {"enum": sorted(TOOL_CHANGES)})
    del schemas["PassedOverBlock"]
    fields = schemas["RequestBody"]["properties"]
    for name, (low, high) in RANGES.items():
        for option in fields[name]["anyOf"]:
            if option["type"] != "null":
                option |= {"minimum": low, "maximum": high}
    asked = {"allOf": [_ref("RequestBody"), {"type": "object", "required": ["max_tokens"]}]}
    return schemas | {"MessageRequest": asked}


def _answers() -> dict[str, Json]:
    """What is sent and never read: errors, models and health; and the answer with all it always has."""
    error = _object(message="string") | {"required": ["type", "message"]}
    error["properties"]["type"] = {"enum": list(ERROR_TYPES)}
    envelope = _object(request_id="string", error=error) | {"required": ["type", "error", "request_id"]}
    envelope["properties"]["type"] = {"const": "error"}
    model = _object(
        type="string",
        id="string",
        display_name="string",
        created_at="string",
        max_input_tokens="integer",
        max_tokens="integer",
        capabilities="object",
    )
    whole = _object(id="string", model="string")
    return {
        "Error": envelope,
        "Model": model,
        "ModelPage": _object(data={"type": "array", "items": _ref("Model")}, has_more="boolean"),
        "Health": _object(status="string", version="string", model="object", requests="object", memory="object"),
        "CacheReport": _object(requests={"type": "array", "items": {"type": "object"}}, keeps_text="boolean"),
        "Message": {"allOf": [_ref("AnswerBody"), whole]},
    }


def _object(**fields: Json) -> dict[str, Any]:
    """An object that has all of these fields; a text is the name of a plain type."""
    properties = {name: {"type": field} if isinstance(field, str) else field for name, field in fields.items()}
    return {"type": "object", "properties": properties, "required": list(fields)}


def _ref(name: str) -> dict[str, Json]:
    return {"$ref": SCHEMAS + name}

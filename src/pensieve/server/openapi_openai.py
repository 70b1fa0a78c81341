"""The part of our description that tells of OpenAI's APIs, made from the structs that decode them."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from pensieve.messages import Json
from pensieve.sampling.params import RANGES
from pensieve.wire.openai import answers, chat, completions, embeddings
from pensieve.wire.openai.responses import requests as responses

SCHEMAS = "#/components/schemas/"


class _Api(NamedTuple):
    prefix: str
    """Of its schemas' names: all APIs have a usage, a tool, an answer."""
    body: type[msgspec.Struct]
    answer: type[msgspec.Struct] | None = None


_APIS = (
    _Api("Chat", chat.ChatBody, answers.AnswerBody),
    _Api("Completions", completions.CompletionBody),
    _Api("Embeddings", embeddings.EmbeddingBody),
    _Api("Responses", responses.RequestBody),
)
_TEXT: Json = {"type": ["string", "null"]}


class Route(NamedTuple):
    """One route: how its operation is called, and the names of its schemas."""

    operation: str
    summary: str
    answer: str
    body: str
    is_streamed: bool = True


ROUTES = {
    "/v1/chat/completions": Route(
        "createChatCompletion", "Answer in OpenAI's older form", "ChatAnswerBody", "ChatChatBody"
    ),
    "/v1/completions": Route("createCompletion", "Go on from a text", "Completion", "CompletionsCompletionBody"),
    "/v1/embeddings": Route("createEmbedding", "Vectors of texts", "Embeddings", "EmbeddingsEmbeddingBody", False),
    "/v1/responses": Route("createResponse", "Answer in OpenAI's newer form", "Response", "ResponsesRequestBody"),
    "/v1/responses/input_tokens": Route(
        "countResponseTokens",
        "Count the tokens of a prompt",
        "ResponseTokens",
        "ResponsesRequestBody",
        is_streamed=False,
    ),
}


def schemas() -> dict[str, Any]:
    """Requests, answers, the error and the models."""
    made: dict[str, Any] = {}
    for api in _APIS:
        types = [kind for kind in (api.body, api.answer) if kind is not None]
        _, found = msgspec.json.schema_components(types, ref_template=f"{SCHEMAS}{api.prefix}{{name}}")
        _bound(found[api.body.__name__]["properties"])
        made |= {f"{api.prefix}{name}": schema for name, schema in found.items()}
    return made | {
        "OpenAIError": _object(
            error=_object(message={"type": "string"}, type={"type": "string"}, param=_TEXT, code=_TEXT)
        ),
        "OpenAIModel": _object(
            id={"type": "string"}, object={"const": "model"}, created={"type": "integer"}, owned_by={"type": "string"}
        ),
        "OpenAIModels": _object(
            object={"const": "list"}, data={"type": "array", "items": {"$ref": f"{SCHEMAS}OpenAIModel"}}
        ),
        "Completion": _object(id={"type": "string"}, object={"const": "text_completion"}, choices={"type": "array"}),
        "Embeddings": _object(object={"const": "list"}, data={"type": "array"}, model={"type": "string"}),
        "ResponseTokens": _object(object={"type": "string"}, input_tokens={"type": "integer"}),
        "Response": _object(id={"type": "string"}, object={"const": "response"}, output={"type": "array"}),
    }


def _object(**fields: Json) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields)}


def _bound(fields: dict[str, Any]) -> None:
    """What the structs do not say: bounds of sampling parameters; a seed may be any whole number."""
    for name, (low, high) in RANGES.items():
        if name == "seed" or name not in fields:
            continue
        for option in fields[name].get("anyOf", ()):
            if option["type"] != "null":
                option |= {"minimum": -1 if name == "top_k" else low, "maximum": high}

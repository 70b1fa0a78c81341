"""Arguments that are written without JSON's quotes: which type the tool's schema wants, and the value as JSON.

Reads schemas only as far as types go. What fits no type stays the string it was: the tool will say what it misses.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import msgspec

from pensieve.messages import Json, ToolSpec

_MOST_REFERENCES: Final = 8
_MOST_OPTIONS: Final = 256
"""A schema may offer itself, many times over."""
_PYTHON: Final = {"True": "true", "False": "false", "None": "null"}
"""Some templates write these, so models do."""

Types = frozenset[str]
"""JSON types that a schema allows; empty: any."""


def types_of(tools: Sequence[ToolSpec], name: str, key: str) -> Types:
    """What the tool's schema allows for this argument."""
    tool = next((tool for tool in tools if tool.name == name), None)
    properties = tool.parameters.get("properties") if tool is not None else None
    schema = properties.get(key) if isinstance(properties, dict) else None
    return _types(schema, tool.parameters if tool is not None else {})


def to_json(written: str, types: Types) -> str:
    """The value as JSON: what was meant by the schema, else the text itself as a string."""
    text = _PYTHON.get(written.strip(), written.strip())
    if types == {"string"}:
        return quoted(written)
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return quoted(written)
    is_wanted = not types or bool(types & _kinds(value))
    return text if is_wanted and not isinstance(value, str) else quoted(value if isinstance(value, str) else written)


def quoted(text: str) -> str:
    """The text as a JSON string."""
    return json.dumps(text, ensure_ascii=False)


def escaped(text: str) -> str:
    """The text as it stands between a JSON string's quotes; pieces add up."""
    return quoted(text)[1:-1]


def _kinds(value: Json) -> Types:
    match value:
        case None:
            return frozenset({"null"})
        case bool():
            return frozenset({"boolean"})
        case int():
            return frozenset({"integer", "number"})
        case float():
            return frozenset({"number"}) | ({"integer"} if value.is_integer() else set())
        case str():
            return frozenset({"string"})
        case list():
            return frozenset({"array"})
    return frozenset({"object"})


def _types(schema: Json, root: Json) -> Types:
    """Of all options together, if each says what it allows."""
    allowed: Types = frozenset()
    options = [schema]
    for option in options:
        resolved = _resolved(option, root)
        inner = _options(resolved)
        own = _own_types(resolved)
        if not (own or inner) or len(options) + len(inner) > _MOST_OPTIONS:
            return frozenset()
        allowed |= own
        options.extend(() if own else inner)
    return allowed


def _options(schema: Json) -> Sequence[Json]:
    found = (schema.get(word) for word in ("anyOf", "oneOf")) if isinstance(schema, dict) else ()
    return next((options for options in found if isinstance(options, list)), ())


def _own_types(schema: Json) -> Types:
    """What a schema says without its options."""
    if not isinstance(schema, dict):
        return frozenset()
    kind = schema.get("type")
    if isinstance(kind, str):
        return frozenset({kind})
    if isinstance(kind, list):
        return frozenset(name for name in kind if isinstance(name, str))
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return frozenset().union(*map(_kinds, values)) if isinstance(values, list) else frozenset()


def _resolved(schema: Json, root: Json) -> Json:
    for _ in range(_MOST_REFERENCES):
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return schema
        schema = root
        for step in reference[2:].split("/"):
            schema = schema.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(schema, dict) else None
    return None

"""The keywords of JSON schema: which are obeyed, which refused, and what two schemas for one value are together.

Plain dictionaries in and out; builds no rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from pensieve.messages import Json

Schema = Mapping[str, Json]

OBJECT: Final = (
    *("properties", "required", "additionalProperties", "propertyNames", "minProperties", "maxProperties"),
)
ARRAY: Final = ("items", "prefixItems", "additionalItems", "minItems", "maxItems")
STRING: Final = ("minLength", "maxLength", "pattern")
NUMBER: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
ANY: Final = ("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "nullable", "format")
OBEYED: Final = frozenset({*OBJECT, *ARRAY, *STRING, *NUMBER, *ANY})

REFUSED: Final = frozenset(
    {
        *("not", "if", "then", "else", "patternProperties", "dependentRequired", "dependentSchemas"),
        *("dependencies", "contains", "minContains", "maxContains", "unevaluatedItems", "unevaluatedProperties"),
        *("$dynamicRef", "$recursiveRef", "extends", "disallow"),
    }
)
"""They change what a document may be, and no grammar of bearable size says how. All others say nothing about it."""

FEWEST: Final = ("minLength", "minItems", "minProperties")
MOST: Final = ("maxLength", "maxItems", "maxProperties")
LARGEST_COUNT: Final = 10**9
"""No answer has so many characters, items or properties: an upper limit above it is none."""

TYPES: Final = ("object", "array", "string", "number", "integer", "boolean", "null")
_LARGEST: Final = frozenset({"minimum", "minLength", "minItems", "minProperties", "exclusiveMinimum"})
_SMALLEST: Final = frozenset({"maximum", "maxLength", "maxItems", "maxProperties", "exclusiveMaximum"})
_MOST_COMBINATIONS: Final = 64


class Unmergeable(Exception):
    """Two schemas for one value that cannot be made one; holds the keyword."""

    def __init__(self, keyword: str) -> None:
        super().__init__(keyword)
        self.keyword = keyword


def is_plain_number(value: Json) -> bool:
    """A number of JSON that is finite: booleans are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def types_of(schema: Schema) -> tuple[str, ...]:
    """The types that the schema speaks of: those it names, else those its keywords are about; all where it is open."""
    named = schema.get("type")
    if named is not None:
        listed = (named,) if isinstance(named, str) else tuple(named)
        return tuple(kind for kind in TYPES if kind in listed)
    groups = (("object", OBJECT), ("array", ARRAY), ("string", (*STRING, "format")), ("number", NUMBER))
    return tuple(kind for kind, keywords in groups if any(keyword in schema for keyword in keywords)) or TYPES


def type_of(value: Json) -> str:
    """The type of a value; whole floats count as integers."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def values_of(schema: Schema) -> list[Json] | None:
    """The values that `enum` and `const` leave; None: neither is there."""
    values: list[Json] | None = schema.get("enum")
    if "const" not in schema:
        return values
    const = schema["const"]
    return [const] if values is None or any(is_same(const, value) for value in values) else []


def is_same(one: Json, other: Json) -> bool:
    """Equality as JSON has it: true is not 1, at any depth."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    return bool(one == other)


def is_admitted(value: Json, schema: Schema) -> bool:
    """Whether a listed value meets the other keywords. Raises `Unmergeable` where that is too much to ask."""
    kind = type_of(value)
    if "type" in schema and not {kind, "number" if kind == "integer" else kind} & set(types_of(schema)):
        return False
    groups: dict[str, tuple[str, ...]] = {"object": OBJECT, "array": ARRAY, "string": ("pattern",)}
    for keyword in groups.get(kind, ("multipleOf",)):
        if keyword in schema:
            raise Unmergeable(keyword)
    if kind == "string":
        return int(schema.get("minLength", 0)) <= len(value) <= float(schema.get("maxLength", math.inf))
    if kind not in {"integer", "number"}:
        return True
    is_inside: bool = schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf)
    is_within: bool = schema.get("exclusiveMinimum", -math.inf) < value < schema.get("exclusiveMaximum", math.inf)
    return is_inside and is_within


def obeyed(schema: Schema) -> dict[str, Json]:
    """Without what says nothing about the document; counts are integers."""
    return {
        key: int(value) if key in FEWEST or key in MOST else value
        for key, value in schema.items()
        if (key in OBEYED or key in REFUSED or key == "uniqueItems") and not (key in MOST and value > LARGEST_COUNT)
    }


def merge(one: Schema, other: Schema) -> dict[str, Json]:
    """A schema that both of these agree with; neither has `$ref` or `allOf`. Raises `Unmergeable`."""
    together = dict(one)
    for keyword, value in other.items():
        if keyword in {"properties", "additionalProperties"}:
            continue
        together[keyword] = _both(keyword, one[keyword], value) if keyword in one else value
    if any(keyword in schema for schema in (one, other) for keyword in ("properties", "additionalProperties")):
        _merge_properties(one, other, together)
    return together


def _both(keyword: str, one: Json, other: Json) -> Json:
    if is_same(one, other):
        return one
    merger = _MERGERS.get(keyword)
    if merger is None:
        raise Unmergeable(keyword)
    return merger(one, other)


def _types(one: Json, other: Json) -> list[str]:
    mine, theirs = types_of({"type": one}), types_of({"type": other})
    both = {kind for kind in mine if kind in theirs}
    if "integer" in (*mine, *theirs) and "number" in (*mine, *theirs):
        both |= {"integer"} if {"integer", "number"} & set(mine) and {"integer", "number"} & set(theirs) else set()
    return [kind for kind in TYPES if kind in both]


def _common(one: list[Json], other: list[Json]) -> list[Json]:
    return [value for value in one if any(is_same(value, each) for each in other)]


def _united(one: list[str], other: list[str]) -> list[str]:
    return list(dict.fromkeys([*one, *other]))


def _all(one: Json, other: Json) -> Json:
    return {"allOf": [one, other]}


def _combined(one: list[Json], other: list[Json]) -> list[Json]:
    if len(one) * len(other) > _MOST_COMBINATIONS:
        raise Unmergeable("anyOf")
    return [_all(mine, theirs) for mine in one for theirs in other]


def _multiple(one: Json, other: Json) -> int:
    if not (isinstance(one, int) and isinstance(other, int)):
        raise Unmergeable("multipleOf")
    return math.lcm(one, other)


_MERGERS: Final[dict[str, Callable[[Any, Any], Json]]] = {
    **dict.fromkeys(_LARGEST, max),
    **dict.fromkeys(_SMALLEST, min),
    "type": _types,
    "enum": _common,
    "required": _united,
    "items": _all,
    "propertyNames": _all,
    "anyOf": _combined,
    "multipleOf": _multiple,
    "nullable": lambda one, other: bool(one and other),
}


def _merge_properties(one: Schema, other: Schema, together: dict[str, Json]) -> None:
    """A property that only one schema names must be what the other says of those it does not name."""
    mine, theirs = one.get("properties", {}), other.get("properties", {})
    beside_mine, beside_theirs = one.get("additionalProperties", True), other.get("additionalProperties", True)
    properties = {
        name: _all_of(mine.get(name, beside_mine), theirs.get(name, beside_theirs)) for name in {**mine, **theirs}
    }
    if properties:
        together["properties"] = properties
    if "additionalProperties" in one or "additionalProperties" in other:
        together["additionalProperties"] = _all_of(beside_mine, beside_theirs)


def _all_of(one: Json, other: Json) -> Json:
    if one is False or other is False:
        return False
    if one is True or one == {}:
        return other
    return one if other is True or other == {} else _all(one, other)

"""Whether a schema is one: its size, and that its keywords hold what they should. Follows no reference.

A hostile schema ends here: nothing behind this looks at a value that has not the form it expects.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec

from pensieve.errors import InvalidRequest
from pensieve.inference.constraints.keywords import FEWEST, LARGEST_COUNT, MOST, TYPES, is_plain_number
from pensieve.messages import Json

MAX_BYTES: Final = 256 * 2**10
MAX_SHAPE_DEPTH: Final = 64
MAX_NAME_CHARACTERS: Final = 1_000

_NUMBERS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAPS: Final = ("properties", "$defs", "definitions")


def check_shape(schema: Json, path: str) -> None:
    """Raises `InvalidRequest` with the place of what is wrong."""
    try:
        num_bytes = len(msgspec.json.encode(schema))
    except RecursionError:
        num_bytes = MAX_BYTES + 1
    if num_bytes > MAX_BYTES:
        raise InvalidRequest(f"the schema is larger than {MAX_BYTES // 1024} KiB: make it smaller", path)
    waiting = [(schema, path, 0)]
    while waiting:
        part, place, depth = waiting.pop()
        if depth > MAX_SHAPE_DEPTH:
            raise InvalidRequest(
                f"schemas stand more than {MAX_SHAPE_DEPTH} deep in each other: make it flatter", place
            )
        if isinstance(part, bool):
            continue
        if not isinstance(part, dict):
            raise InvalidRequest("a schema must be an object", place)
        for keyword, is_right, must in _FORMS:
            if keyword in part and not is_right(part[keyword]):
                raise InvalidRequest(f"`{keyword}` must be {must}", place)
        waiting += [(child, f"{place}.{step}", depth + 1) for step, child in _children(part)]


def _children(schema: dict[str, Json]) -> list[tuple[str, Json]]:
    found: list[tuple[str, Json]] = [
        (keyword, schema[keyword])
        for keyword in ("items", "additionalProperties", "propertyNames", "additionalItems")
        if keyword in schema
    ]
    if isinstance(schema.get("items"), list):
        found[0:1] = [(f"items.{index}", each) for index, each in enumerate(schema["items"])]
    for keyword in _LISTS:
        found += [(f"{keyword}.{index}", each) for index, each in enumerate(schema.get(keyword, ()))]
    for keyword in _MAPS:
        found += [(f"{keyword}.{name}", each) for name, each in schema.get(keyword, {}).items()]
    return found


def pointed_at(root: Json, pointer: str, path: str) -> Json:
    """The schema in `root` that a reference (a JSON pointer behind `#`) means. Raises `InvalidRequest`."""
    if not pointer.startswith("#"):
        raise InvalidRequest("`$ref` must begin with `#`: only the schema itself can be referred to", path)
    target = root
    for step in pointer[1:].split("/")[1:]:
        name = (
            re.sub("%([0-9A-Fa-f]{2})", lambda code: chr(int(code[1], 16)), step).replace("~1", "/").replace("~0", "~")
        )
        if isinstance(target, list) and name.isdecimal() and int(name) < len(target):
            target = target[int(name)]
        elif isinstance(target, dict) and name in target:
            target = target[name]
        else:
            raise InvalidRequest(f"`$ref` points to {pointer[:80]!r}, which is not there", path)
    if pointer[1:2] not in {"", "/"} or not isinstance(target, dict | bool):
        raise InvalidRequest(f"`$ref` points to {pointer[:80]!r}, which is no schema", path)
    check_shape(target, path)
    return target


def _is_count(value: Json) -> bool:
    return is_plain_number(value) and value == int(value) and value >= 0


def _is_type(value: Json) -> bool:
    listed = value if isinstance(value, list) else [value]
    return bool(listed) and all(isinstance(kind, str) and kind in TYPES for kind in listed)


def _is_names(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_properties(value: Json) -> bool:
    return isinstance(value, dict) and all(len(name) <= MAX_NAME_CHARACTERS for name in value)


def _is_some(value: Json) -> bool:
    return isinstance(value, list) and bool(value)


def _is_list(value: Json) -> bool:
    return isinstance(value, list)


def _is_text(value: Json) -> bool:
    return isinstance(value, str)


def _is_step(value: Json) -> bool:
    return is_plain_number(value) and value > 0


_FORMS: Final[tuple[tuple[str, Callable[[Json], bool], str], ...]] = (
    *((keyword, _is_count, "a whole number that is not negative") for keyword in (*FEWEST, *MOST)),
    *((keyword, lambda count: count <= LARGEST_COUNT, f"at most {LARGEST_COUNT:,}") for keyword in FEWEST),
    *((keyword, is_plain_number, "a number") for keyword in _NUMBERS),
    *((keyword, _is_some, "a list of schemas") for keyword in _LISTS),
    *((keyword, _is_properties, "an object with names of bearable length") for keyword in _MAPS),
    ("type", _is_type, f"one or several of {', '.join(TYPES)}"),
    ("required", _is_names, "a list of names"),
    ("enum", _is_list, "a list"),
    ("pattern", _is_text, "text"),
    ("$ref", _is_text, "text"),
    ("multipleOf", _is_step, "a number above zero"),
)

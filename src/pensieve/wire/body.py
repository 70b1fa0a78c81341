"""A JSON body on its way in: bytes, to plain JSON, to a checked struct, with the path of whatever is wrong.

Knows no field of any API: the structs say what is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from pensieve.errors import InvalidRequest
from pensieve.messages import Json

MAX_DEPTH = 128
"""Deeper nesting is refused: templates and the worker's frames walk these values recursively."""
MAX_UNKNOWN_FIELDS = 32

_T = TypeVar("_T")
_ERROR = re.compile(r"(?P<problem>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`")
_INVALID = re.compile(r"Invalid (?:enum )?value (?P<value>.*)", re.DOTALL)
_PLAIN_NAME = re.compile(r"[\w-]{1,64}", re.ASCII)
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def parse_object(body: bytes) -> dict[str, Json]:
    """The JSON object in `body`, of bounded depth and with numbers of at most 64 bits; else `InvalidRequest`."""
    try:
        value = _parse(body)
    except RecursionError as error:
        raise _too_deep() from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object")
    _check_depth(value)
    _check_integers(value)
    return value


def check(raw: Json, shape: type[_T]) -> _T:
    """`raw` as a `shape`; a field of the wrong type is `InvalidRequest` with its dotted path."""
    try:
        return msgspec.convert(raw, type=shape)
    except msgspec.ValidationError as error:
        raise _explain(str(error)) from error


def unknown_fields(raw: Json, checked: object) -> tuple[str, ...]:
    """Dotted paths, without indices, of the fields in `raw` that its struct does not have; a bounded number."""
    found: dict[str, None] = {}
    for path in _unknown(raw, checked, ""):
        found[path] = None
        if len(found) == MAX_UNKNOWN_FIELDS:
            break
    return tuple(found)


def _parse(body: bytes) -> Json:
    if not body.strip():
        raise InvalidRequest("the body is empty: send a JSON object")
    try:
        return _decode_mended(body)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8: {error.reason}") from error
    except msgspec.ValidationError as error:
        raise InvalidRequest("the body has a number that is out of range") from error
    except msgspec.DecodeError as error:
        problem = str(error).removeprefix("JSON is malformed: ")
        if "truncated" in problem:
            problem = f"it ends too early (byte {len(body)})"
        raise InvalidRequest(f"the body is not JSON: {problem}") from error


def _decode_mended(body: bytes) -> Json:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        # JavaScript clients cut strings in the middle of a surrogate pair; half a character becomes U+FFFD.
        mended = _ESCAPE.sub(lambda found: rb"\ufffd" if found["lone"] else found[0], body)
        if mended == body:
            raise
        return msgspec.json.decode(mended)


def _check_depth(value: Json) -> None:
    level: list[Json] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"the body is nested deeper than {MAX_DEPTH} levels")


def _check_integers(value: Json) -> None:
    # What MessagePack cannot carry cannot reach the worker. Trying is quicker than looking.
    try:
        msgspec.msgpack.encode(value)
    except OverflowError as error:
        raise InvalidRequest("the body has an integer that does not fit into 64 bits") from error


def _explain(message: str) -> InvalidRequest:
    found = _ERROR.fullmatch(message)
    assert found is not None, message
    path = re.sub(r"\[(\d+)\]", r".\1", found["path"] or "").replace("[...]", ".*").removeprefix(".")
    problem = found["problem"]
    if missing := _MISSING.fullmatch(problem):
        return InvalidRequest("field is missing", path=f"{path}.{missing['field']}".removeprefix("."))
    if invalid := _INVALID.fullmatch(problem):
        return InvalidRequest(f"{invalid['value'][:100]} is not supported here", path=path)
    problem = problem.replace("`", "").replace(" | null", "")
    if problem.endswith("of length >= 1"):
        return InvalidRequest("must not be empty", path=path)
    return InvalidRequest(problem[:1].lower() + problem[1:200], path=path)


def _unknown(raw: Json, checked: object, path: str) -> Iterator[str]:
    if isinstance(checked, msgspec.Struct) and isinstance(raw, dict):
        for name, value in raw.items():
            if name == checked.__struct_config__.tag_field:
                continue
            if name not in checked.__struct_fields__:
                yield f"{path}.{_printable(name)}".removeprefix(".")
            elif isinstance(value, dict | list):
                yield from _unknown(value, getattr(checked, name), f"{path}.{name}".removeprefix("."))
    elif isinstance(checked, tuple) and isinstance(raw, list):
        for item, checked_item in zip(raw, checked, strict=True):
            yield from _unknown(item, checked_item, path)


def _printable(name: str) -> str:
    return name if _PLAIN_NAME.fullmatch(name) else ascii(name[:64])

"""Whether no document that we make for one schema obeys another: what makes `oneOf` the same as `anyOf`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Final

from pensieve.inference.constraints.keywords import TYPES, is_same, type_of, types_of, values_of
from pensieve.messages import Json

Resolve = Callable[[str], Json]
"""The schema that a `$ref` means."""

_DEPTH: Final = 4


def are_disjoint(schemas: Sequence[Json], resolve: Resolve) -> bool:
    """Whether each document of one is none of any other."""
    known = [_resolved(schema, resolve) for schema in schemas]
    return all(_are_apart(one, other, resolve, _DEPTH) for one, other in combinations(known, 2))


def _resolved(schema: Json, resolve: Resolve) -> Json:
    for _ in range(_DEPTH):
        if not (isinstance(schema, dict) and "$ref" in schema):
            break
        schema = resolve(schema["$ref"])
    return schema


def _are_apart(one: Json, other: Json, resolve: Resolve, depth: int) -> bool:
    if one is False or other is False:
        return True
    if one is True or other is True or depth == 0:
        return False
    if not _kinds(one) & _kinds(other):
        return True
    mine, theirs = values_of(one), values_of(other)
    if mine is not None and theirs is not None:
        return not any(is_same(value, each) for value in mine for each in theirs)
    if _kinds(one) & _kinds(other) != {"object"}:
        return False
    if any(
        _are_apart(_resolved(value, resolve), _resolved(other["properties"][name], resolve), resolve, depth - 1)
        for name, value in one.get("properties", {}).items()
        if name in other.get("properties", {}) and name in _required(one) and name in _required(other)
    ):
        return True
    return _is_refused_by(one, other) and _is_refused_by(other, one)


def _kinds(schema: dict[str, Json]) -> set[str]:
    """Types of its documents; whole numbers count apart from others."""
    values = values_of(schema)
    if values is not None:
        kinds = {type_of(value) for value in values}
    elif any(keyword in schema for keyword in ("anyOf", "oneOf", "allOf", "$ref")) and "type" not in schema:
        kinds = set(TYPES)
    else:
        kinds = set(types_of(schema))
    if schema.get("nullable"):
        kinds.add("null")
    return kinds | {"integer"} if "number" in kinds and values is None else kinds


def _required(schema: dict[str, Json]) -> Sequence[str]:
    names: Sequence[str] = schema.get("required", ())
    return names


def _is_refused_by(one: dict[str, Json], other: dict[str, Json]) -> bool:
    """No object that we make for `one` obeys `other`: it lacks a name, or has one that `other` does not allow."""
    mine = {*one.get("properties", {}), *_required(one)}
    is_closed = bool(mine) and not one.get("additionalProperties") and "allOf" not in one
    if is_closed and any(name not in mine for name in _required(other)):
        return True
    is_strict = other.get("additionalProperties") is False
    return is_strict and any(name not in other.get("properties", {}) for name in _required(one))

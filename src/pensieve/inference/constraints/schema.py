"""JSON schemas to rules. What cannot be obeyed exactly is refused by name, with its place.

Every document of the rule obeys the schema; the reverse need not hold. Properties come in the order in which they are
declared; what a schema does not declare is left out, unless it says that more may come.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from pensieve.errors import InvalidRequest
from pensieve.inference.constraints import numbers
from pensieve.inference.constraints.constraint import NEVER, Lexeme, Literal, Reference, Rule, choice, sequence
from pensieve.inference.constraints.disjoint import are_disjoint
from pensieve.inference.constraints.documents import (
    ANY_STRING_NAME,
    BOOLEAN,
    COLON,
    NULL,
    Member,
    any_name,
    list_of,
    map_of,
    object_of,
)
from pensieve.inference.constraints.keywords import (
    REFUSED,
    Unmergeable,
    is_admitted,
    is_plain_number,
    merge,
    obeyed,
    types_of,
    values_of,
)
from pensieve.inference.constraints.pattern import Unreadable, pattern_rule
from pensieve.inference.constraints.shape import check_shape, pointed_at
from pensieve.inference.constraints.strings import FORMATS, Unmeetable, any_string, format_rule, string_of
from pensieve.inference.constraints.texts import key_other_than, one_of
from pensieve.messages import Json

MAX_DEPTH: Final = 48
MAX_NODES: Final = 10_000
MAX_VALUES: Final = 2_000
MAX_VALUE_CHARACTERS: Final = 2**16
MAX_MEMBERS: Final = 256
"""Properties of one object, or items of a list that have schemas of their own: they stand in each other."""
PAIRS_PER_PART: Final = 10
"""So many pairs of `oneOf` are compared in the time that a part of a schema takes."""


class SchemaReader:
    """Lowers one schema; `definitions` are what its rules refer to, and `prefix` begins the names of its own."""

    def __init__(self, root: Json, path: str, definitions: dict[str, Rule], prefix: str) -> None:
        self._root, self._path, self._prefix = root, path, prefix
        self._definitions = definitions
        self._depth = self._num_nodes = 0
        self._names: dict[str, str] = {}
        """References that were met -> the definitions that stand for them."""
        self._targets: dict[str, Json] = {}

    def rule(self) -> Rule:
        """The whole schema's. Raises `InvalidRequest`."""
        check_shape(self._root, self._path)
        rule = self._lower(self._root, self._path)
        if rule == NEVER:
            raise InvalidRequest("no document can obey this schema", self._path)
        return rule

    def _count(self, num_nodes: int = 1) -> None:
        self._num_nodes += num_nodes
        if self._num_nodes > MAX_NODES:
            raise InvalidRequest(f"the schema has more than {MAX_NODES:,} parts: make it smaller", self._path)

    def _lower(self, schema: Json, path: str) -> Rule:
        self._count()
        if self._depth >= MAX_DEPTH:
            raise InvalidRequest(f"schemas stand more than {MAX_DEPTH} deep in each other: make it flatter", path)
        if isinstance(schema, bool):
            return Reference(any_name()) if schema else NEVER
        self._depth += 1
        try:
            return self._of_keywords(obeyed(schema), path)
        finally:
            self._depth -= 1

    def _of_keywords(self, schema: dict[str, Json], path: str) -> Rule:
        for keyword in schema:
            if keyword in REFUSED:
                raise _refusal(keyword, path)
        if schema.keys() == {"$ref"}:
            return self._reference(schema["$ref"], path)
        schema = self._flat(schema, path)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return self._union(schema, keyword, path)
        if schema.pop("nullable", False) and "null" not in types_of(schema):
            return choice(self._of_values(schema, path), NULL)
        return self._of_values(schema, path)

    # Schemas in schemas.

    def _reference(self, pointer: str, path: str) -> Rule:
        name = self._names.get(pointer)
        if name is None:
            target = self._target(pointer, path)
            name = self._names[pointer] = f"{self._prefix}{pointer}"
            self._definitions[name] = NEVER  # until it is known: it may stand in itself
            self._definitions[name] = self._lower(
                target, f"{self._path}.{pointer.removeprefix('#/').replace('/', '.')}"
            )
            if self._definitions[name] == NEVER:
                return NEVER
        return Reference(name)

    def _target(self, pointer: str, path: str) -> Json:
        if pointer not in self._targets:
            self._targets[pointer] = pointed_at(self._root, pointer, path)
        return self._targets[pointer]

    def _flat(self, schema: dict[str, Json], path: str) -> dict[str, Json]:
        """The schema with what `$ref` and `allOf` bring."""
        for _ in range(MAX_DEPTH):
            if "$ref" not in schema and "allOf" not in schema:
                return schema
            parts: list[Json] = list(schema.pop("allOf", ()))
            if "$ref" in schema:
                parts.append(self._target(schema.pop("$ref"), path))
            for part in parts:
                schema = self._merged(schema, part, path)
        raise InvalidRequest("it refers to itself without end", path)

    def _merged(self, schema: dict[str, Json], part: Json, path: str) -> dict[str, Json]:
        self._count()
        if part is False:
            return schema | {"enum": []}
        flat = {} if part is True else self._flat(obeyed(part), path)
        try:
            return merge(schema, flat)
        except Unmergeable as error:
            raise InvalidRequest(f"`{error.keyword}` stands in two schemas for one value: write one", path) from None

    def _union(self, schema: dict[str, Json], keyword: str, path: str) -> Rule:
        options = schema.pop(keyword)
        if schema:
            options = [self._merged(schema, option, path) for option in options]
        if keyword == "oneOf" and not self._are_disjoint(options, path):
            problem = (
                "`oneOf` whose schemas may hold at the same time cannot be obeyed: use `anyOf`, or a `const` in each"
            )
            raise InvalidRequest(problem, path)
        return choice(*(self._lower(option, f"{path}.{keyword}.{index}") for index, option in enumerate(options)))

    def _are_disjoint(self, options: list[Json], path: str) -> bool:
        self._count(len(options) ** 2 // PAIRS_PER_PART)
        return are_disjoint(options, lambda pointer: self._target(pointer, path))

    # Values.

    def _of_values(self, schema: dict[str, Json], path: str) -> Rule:
        values = values_of(schema)
        if values is None:
            if not schema:
                return Reference(any_name())
            return choice(*(self._of_type(kind, schema, path) for kind in types_of(schema)))
        if len(values) > MAX_VALUES:
            raise InvalidRequest(f"`enum` has more than {MAX_VALUES:,} values", path)
        beside = {key: value for key, value in schema.items() if key not in {"enum", "const", "format"}}
        try:
            admitted = [msgspec.json.encode(value).decode() for value in values if is_admitted(value, beside)]
        except Unmergeable as error:
            raise InvalidRequest(f"`{error.keyword}` beside `enum` or `const`: leave it out", path) from None
        if sum(map(len, admitted)) > MAX_VALUE_CHARACTERS:
            raise InvalidRequest(f"`enum` or `const` has more than {MAX_VALUE_CHARACTERS:,} characters", path)
        return Lexeme(one_of(admitted)) if admitted else NEVER

    def _of_type(self, kind: str, schema: dict[str, Json], path: str) -> Rule:
        if kind == "integer" and "number" in types_of(schema):
            return NEVER  # numbers are more
        readers: Mapping[str, Callable[[dict[str, Json], str], Rule]] = {
            "object": self._object,
            "array": self._list,
            "string": _string,
            "number": _number,
            "integer": lambda schema, path: _number(schema, path, is_integer=True),
        }
        reader = readers.get(kind)
        if reader is not None:
            return reader(schema, path)
        return BOOLEAN if kind == "boolean" else NULL

    # Objects and lists.

    def _object(self, schema: dict[str, Json], path: str) -> Rule:
        properties, required = schema.get("properties", {}), schema.get("required", ())
        beside = schema.get("additionalProperties")
        is_open = beside is None and "properties" not in schema and not required
        members = []
        self._check_members(names := list(dict.fromkeys([*properties, *required])), path)
        for name in names:
            value = self._lower(properties.get(name, True if beside is None else beside), f"{path}.properties.{name}")
            if value != NEVER:
                members.append(Member(name, value, name in required))
            elif name in required:
                return NEVER
        extra = self._lower(is_open if beside is None else beside, f"{path}.additionalProperties")
        key = self._key(schema, names, path)
        if NEVER in (extra, key):
            return self._counted(schema, members, None, path)
        return self._counted(schema, members, sequence(key, COLON, extra), path)

    def _key(self, schema: dict[str, Json], names: Sequence[str], path: str) -> Rule:
        """The name of a property that the schema does not name; `NEVER`: there is none."""
        key = Reference(ANY_STRING_NAME)
        if "propertyNames" in schema:
            bound = self._merged({"type": "string"}, schema["propertyNames"], path)
            if (allowed := self._lower(bound, f"{path}.propertyNames")) != key and not names:
                return allowed
            if allowed != key and not set(names) <= set(values_of(bound) or ()):
                raise _refusal("propertyNames", path)
            if allowed != key:
                return NEVER
        return key_other_than(names)

    def _counted(self, schema: dict[str, Json], members: list[Member], entry: Rule | None, path: str) -> Rule:
        fewest, most = schema.get("minProperties", 0), schema.get("maxProperties")
        num_required = sum(member.is_required for member in members)
        if entry is not None and not members:
            if fewest > 1:  # names may come twice
                raise _refusal("minProperties", path)
            return NEVER if most is not None and most < fewest else map_of(entry, fewest, most)
        if fewest > max(1, num_required):
            raise _refusal("minProperties", path)
        if most is not None and (entry is not None or most < len(members)):
            raise _refusal("maxProperties", path)
        if fewest and not members:
            return NEVER
        return object_of(members, entry, self._define, may_be_empty=not fewest)

    def _list(self, schema: dict[str, Json], path: str) -> Rule:
        items, first = schema.get("items", True), schema.get("prefixItems", [])
        if isinstance(items, list):
            items, first = schema.get("additionalItems", True), items
        fewest, most = schema.get("minItems", 0), schema.get("maxItems")
        if schema.get("uniqueItems") and (most is None or most > 1):
            raise _refusal("uniqueItems", path)
        self._check_members(first, path)
        rules = [self._lower(item, f"{path}.prefixItems.{index}") for index, item in enumerate(first)]
        goes_on = not first or "items" in schema or fewest > len(first)
        rest = self._lower(items, f"{path}.items") if goes_on else NEVER
        if NEVER in rules:
            most = min(rules.index(NEVER), len(rules) if most is None else most)
        elif rest == NEVER:
            most = min(len(rules), len(rules) if most is None else most)
        if most is not None and most < fewest:
            return NEVER
        return list_of(rules, None if rest == NEVER else self._define(rest), fewest, most)

    @staticmethod
    def _check_members(members: Sequence[Json], path: str) -> None:
        if len(members) > MAX_MEMBERS:
            raise InvalidRequest(f"more than {MAX_MEMBERS} properties or items stand beside each other here", path)

    def _define(self, rule: Rule) -> Rule:
        if isinstance(rule, Reference | Literal):
            return rule
        name = f"{self._prefix}{len(self._definitions)}"
        self._definitions[name] = rule
        return Reference(name)


def _refusal(keyword: str, path: str) -> InvalidRequest:
    return InvalidRequest(f"the keyword `{keyword}` cannot be obeyed while an answer is made: leave it out", path)


# Scalars.


def _string(schema: dict[str, Json], path: str) -> Rule:
    lengths = schema.get("minLength", 0), schema.get("maxLength")
    if lengths[1] is not None and lengths[1] < lengths[0]:
        return NEVER
    keyword = "pattern" if "pattern" in schema else "format"
    try:
        if keyword == "pattern":
            return string_of(pattern_rule(schema["pattern"]), lengths)
        if schema.get("format") in FORMATS:
            return string_of(format_rule(schema["format"]), lengths)
    except Unreadable as error:
        raise InvalidRequest(f"`pattern` has {error}, which cannot be obeyed: write it otherwise", path) from None
    except Unmeetable as error:
        raise InvalidRequest(f"`{keyword}` with `minLength` or `maxLength`: {error}: leave one out", path) from None
    return Reference(ANY_STRING_NAME) if lengths == (0, None) else any_string(lengths)


def _number(schema: dict[str, Json], path: str, *, is_integer: bool = False) -> Rule:
    low = _bound(schema, "minimum", "exclusiveMinimum", max)
    high = _bound(schema, "maximum", "exclusiveMaximum", min)
    step = schema.get("multipleOf")
    try:
        if step is None:
            return numbers.integers(low, high) if is_integer else numbers.decimals(low, high)
        if not float(step).is_integer():
            raise InvalidRequest("`multipleOf` works with whole numbers only: leave it out", path)
        return numbers.multiples(int(step), low, high)
    except numbers.Unwritable as error:
        keyword = "minimum" if step is None else "multipleOf"
        raise InvalidRequest(f"`{keyword}` cannot be obeyed: {error}", path) from None


def _bound(
    schema: dict[str, Json], inclusive: str, exclusive: str, tighter: Callable[..., Any]
) -> numbers.Bound | None:
    """The bound that the two keywords give together; of equal ones the exclusive."""
    bounds = [
        numbers.Bound(Decimal(str(schema[keyword])), is_inclusive=keyword == inclusive)
        for keyword in (exclusive, inclusive)
        if is_plain_number(schema.get(keyword)) and not _says_nothing(schema[keyword], is_lowest=tighter is max)
    ]
    if not bounds:
        return None
    bound: numbers.Bound = tighter(bounds, key=lambda bound: bound.value)
    return bound


def _says_nothing(bound: Any, *, is_lowest: bool) -> bool:
    return bool(bound <= -numbers.FARTHEST if is_lowest else bound >= numbers.FARTHEST)

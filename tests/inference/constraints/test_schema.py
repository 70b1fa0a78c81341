"""JSON schemas as grammars: every keyword, against documents that do and do not obey."""

# ruff: noqa: E501 - a line is a case

from __future__ import annotations

import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher

from grammar_matching import MATCHERS, is_accepted
from pensieve.errors import InvalidRequest
from pensieve.inference.constraints.constraint import Constraint, JsonOf
from pensieve.inference.constraints.following import byte_matchers
from pensieve.inference.constraints.lark import to_lark
from pensieve.inference.constraints.shape import MAX_BYTES
from pensieve.messages import Json

A, B = {"const": "a"}, {"const": "b"}
TREE = {"type": "object", "properties": {"v": {"type": "integer"}, "k": {"type": "array", "items": {"$ref": "#"}}}}


def obeying(schema: Json) -> Constraint:
    """A document that obeys the schema."""
    return Constraint(JsonOf(schema, "schema"))


CASES: list[tuple[Json, list[str], list[str]]] = [
    ({"type": "boolean"}, ["true", "false"], ["null", "True", "1", '"true"', ""]),
    ({"type": "null"}, ["null"], ["0", "nul"]),
    ({"type": ["null", "boolean"]}, ["null", "true"], ["1"]),
    ({"type": "boolean", "nullable": True}, ["null", "true"], ["0"]),
    ({"enum": ["a", 'q"', 1, None, [1], {"x": True}]}, ['"a"', '"q\\""', "1", "null", "[1]", '{"x":true}'], ['"b"', "2"]),
    ({"type": "string", "enum": ["a", 1]}, ['"a"'], ["1"]),
    ({"const": "é\n"}, ['"é\\n"'], ['"é"']),
    ({"enum": [1, 5, 9], "minimum": 3}, ["5", "9"], ["1"]),
    ({"type": "integer"}, ["0", "-7", "123456"], ["01", "1.5", "-0", "1e3", "+1", '"1"']),
    ({"type": "integer", "minimum": -3, "exclusiveMaximum": 12}, ["-3", "0", "11"], ["-4", "12", "111"]),
    ({"type": "integer", "minimum": 2.5}, ["3", "1000"], ["2", "-3"]),
    ({"type": "integer", "multipleOf": 5}, ["0", "5", "-10", "1235"], ["3", "12"]),
    ({"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 30}, ["0", "7", "28"], ["35", "8"]),
    ({"type": "number"}, ["0", "-1.5", "2e10", "1.25E-3"], [".5", "1.", "--1", "1e", "NaN", "1e999"]),
    ({"type": "number", "minimum": 0.5, "maximum": 1.5}, ["0.5", "1", "1.5", "0.75", "1.50"], ["0.49", "1.51", "2", "0"]),
    ({"type": "number", "exclusiveMinimum": -1, "exclusiveMaximum": 0}, ["-0.5", "-0.001"], ["-1", "0", "-1.0", "0.1"]),
    ({"type": "string"}, ['""', '"a b"', '"\\u00e9\\n\\""', '"😀"'], ['"', '"a\n"', "a", '"\\ud800"', '"\\x"']),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', '"😀😀😀"', '"\\n\\n"'], ['"a"', '"abcd"']),
    ({"type": "string", "minLength": 30, "maxLength": 70}, [f'"{"x" * n}"' for n in (30, 31, 47, 69, 70)], [f'"{"x" * n}"' for n in (29, 71)]),
    ({"type": "string", "pattern": "^[a-z]+-\\d{2}$"}, ['"ab-12"'], ['"ab-1"', '"xab-12 "', '"-12"']),
    ({"type": "string", "pattern": "b.d"}, ['"abcd"', '"bed"'], ['"bd"', '"b\\nd"']),
    ({"type": "string", "pattern": '^["\\\\\\n]$'}, ['"\\""', '"\\\\"', '"\\n"'], ['"a"', '"""', '"\n"']),
    ({"type": "string", "pattern": "^a+$", "minLength": 2, "maxLength": 4}, ['"aa"', '"aaaa"'], ['"a"', '"aaaaa"']),
    ({"type": "string", "format": "date"}, ['"2024-02-29"', '"1999-12-31"'], ['"2023-02-29"', '"2024-13-01"', '"2024-1-1"']),
    ({"type": "string", "format": "uuid"}, ['"123e4567-e89b-12d3-a456-426614174000"'], ['"123e4567"']),
    ({"type": "string", "format": "ipv4"}, ['"127.0.0.1"'], ['"256.0.0.1"', '"1.2.3"']),
    ({"type": "string", "format": "date-time"}, ['"2024-05-06T07:08:09Z"'], ['"2024-05-06 07:08:09"', '"2024-05-06T25:08:09Z"']),
    ({"type": "string", "format": "colour"}, ['"red"'], ["1"]),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3}, ["[1]", "[1, 2,3]"], ["[]", "[1,2,3,4]", "[1,]"]),
    ({"type": "array", "items": A, "minItems": 20, "maxItems": 40}, [json.dumps(["a"] * n) for n in (20, 33, 40)], [json.dumps(["a"] * n) for n in (19, 41)]),
    ({"type": "array", "prefixItems": [A, {"type": "integer"}], "items": False}, ["[]", '["a"]', '["a",1]'], ["[1]", '["a",1,2]']),
    ({"type": "array", "prefixItems": [A], "items": B, "minItems": 2}, ['["a","b"]', '["a","b","b"]'], ['["a"]', '["b"]']),
    ({"type": "array"}, ["[]", '[1,{"a":[]}]'], ["[", "{}"]),
    ({"type": "object"}, ["{}", '{"a":1,"b":{"c":[]}}'], ["[]", "{1:2}"]),
    ({"type": "object", "properties": {}}, ["{}"], ['{"a":1}']),
    ({"properties": {"x": A, "y": B}, "required": ["y"]}, ['{"y":"b"}', '{"x": "a", "y": "b"}'], ["{}", '{"x":"a"}', '{"y":"b","x":"a"}', '{"y":"b","z":1}']),
    ({"properties": {"x": A, "y": B}}, ["{}", '{"x":"a"}', '{"y":"b"}', '{"x":"a","y":"b"}'], ['{"x":"b"}', '{,"y":"b"}']),
    ({"properties": {"x": A}, "minProperties": 1}, ['{"x":"a"}'], ["{}"]),
    ({"properties": {"x": A}, "additionalProperties": {"type": "integer"}}, ["{}", '{"x":"a","z":1}', '{"xx":1,"":2}'], ['{"x":1}', '{"z":"a"}', '{"z":1,"x":2}']),
    ({"type": "object", "additionalProperties": A, "maxProperties": 2}, ["{}", '{"p":"a","q":"a"}'], ['{"p":1}', '{"p":"a","q":"a","r":"a"}']),
    ({"type": "object", "additionalProperties": {}}, ["{}", '{"p":1,"q":[]}'], ["[]"]),
    ({"properties": {"x": A}, "additionalProperties": {}}, ['{"x":"a","z":1}', '{"z":null}'], ['{"x":1}']),
    ({"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": A}, ["{}", '{"p":"a"}'], ['{"p":1}']),
    ({"properties": {"x": A}, "propertyNames": {"type": "string"}, "additionalProperties": B}, ['{"x":"a","z":"b"}'], ['{"x":"b"}']),
    ({"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}, "additionalProperties": A}, ['{"p":"a","q":"a"}'], ['{"1":"a"}']),
    ({"properties": {"x": A}, "required": ["x"], "propertyNames": {"enum": ["x", "y"]}}, ['{"x":"a"}'], ['{"x":"a","z":1}']),
    ({"type": "string", "minLength": 1.0, "maxLength": 2**31}, ['"a"', '"abc"'], ['""']),
    ({"type": "number", "minimum": -1e308, "maximum": 1e308}, ["-1.25", "3"], ['"1"']),
    ({"type": "object", "required": ["n"], "additionalProperties": True}, ['{"n":1}', '{"n":null,"o":2}'], ["{}"]),
    ({"anyOf": [A, {"type": "integer"}]}, ['"a"', "3"], ['"b"']),
    ({"type": "object", "properties": {"x": A}, "anyOf": [{"required": ["x"]}, {"properties": {"y": B}, "required": ["y"]}]}, ['{"x":"a"}', '{"y":"b"}', '{"x":"a","y":"b"}'], ["{}"]),
    ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, ['"s"', "1"], ["true"]),
    ({"oneOf": [{"properties": {"t": A}, "required": ["t"]}, {"properties": {"t": B}, "required": ["t"]}]}, ['{"t":"a"}', '{"t":"b"}'], ["{}"]),
    ({"allOf": [{"type": "integer", "minimum": 3}, {"type": "number", "maximum": 5}]}, ["3", "5"], ["2", "6", "3.5"]),
    ({"allOf": [{"properties": {"x": A}, "required": ["x"]}, {"properties": {"y": B}}], "type": "object"}, ['{"x":"a"}', '{"x":"a","y":"b"}'], ["{}"]),
    ({"$ref": "#/$defs/p", "$defs": {"p": A}}, ['"a"'], ['"b"']),
    ({"$ref": "#/$defs/p", "maxLength": 1, "$defs": {"p": {"type": "string"}}}, ['"z"'], ['"zz"']),
    (TREE, ["{}", '{"v":1,"k":[{"v":2},{"k":[{}]}]}'], ['{"k":[1]}']),
    (True, ["1", '{"a":[null]}'], ["a"]),
    ({"title": "t", "description": "d", "default": 1, "examples": [], "$schema": "s", "x-own": 1, "type": "null"}, ["null"], ["1"]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad"), CASES, ids=[json.dumps(case[0])[:70] for case in CASES])
def test_a_keyword_is_obeyed(schema: Json, good: list[str], bad: list[str]) -> None:
    """What obeys is taken, what does not is not; and what is taken is right in the eyes of a validator."""
    constraint = obeying(schema)
    for text in good:
        assert is_accepted(constraint, text), text
        if not {"nullable", "$schema"} & set(schema if isinstance(schema, dict) else ()):
            jsonschema.validate(json.loads(text), schema)
    for text in bad:
        assert not is_accepted(constraint, text), text


REFUSED: list[tuple[Json, str]] = [
    *(({keyword: {}}, f"`{keyword}`") for keyword in ("not", "if", "patternProperties", "contains")),
    ({"properties": {"a": A}, "propertyNames": {"pattern": "^b"}}, "`propertyNames`"),
    ({"properties": {"a": A, "b": B}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, "`oneOf`"),
    ({"type": "string", "pattern": "^(((a{99}){99}){99}){99}$"}, "repetitions"),
    ({"const": "x" * 100_000}, "characters"),
    ({"type": "array", "uniqueItems": True}, "`uniqueItems`"),
    ({"type": "object", "properties": {"a": A}, "dependentRequired": {"a": ["b"]}}, "`dependentRequired`"),
    ({"type": "string", "pattern": "(?=a)"}, "look-around"),
    ({"type": "string", "pattern": "a{2,1}"}, "wrong order"),
    ({"type": "string", "pattern": "^abc$", "maxLength": 2}, "maxLength"),
    ({"type": "number", "multipleOf": 0.5}, "`multipleOf`"),
    ({"type": "integer", "multipleOf": 7}, "`multipleOf`"),
    ({"oneOf": [{"type": "string"}, {"minLength": 2, "type": "string"}]}, "`oneOf`"),
    ({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}, "`pattern`"),
    ({"$ref": "https://example.org/schema"}, "`$ref`"),
    ({"$ref": "#/$defs/none"}, "not there"),
    ({"$ref": "#"}, "way to end"),
    ({"anyOf": [{"$ref": "#"}, A]}, "by itself"),
    ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "way to end"),
    ({"type": "object", "properties": {}, "required": ["a"], "additionalProperties": False}, "no document"),
    ({"enum": []}, "no document"),
    ({"type": "integer", "minimum": 3, "maximum": 2}, "no document"),
    ({"type": "text"}, "`type`"),
    ({"properties": []}, "`properties`"),
    ({"minLength": -1}, "`minLength`"),
    ({"required": "a"}, "`required`"),
    ("schema", "an object"),
    ({"description": "x" * MAX_BYTES}, "KiB"),
    ({"enum": list(range(3000))}, "`enum`"),
]


@pytest.mark.parametrize(("schema", "named"), REFUSED, ids=[json.dumps(case[0])[:60] for case in REFUSED])
def test_what_cannot_be_obeyed_is_refused_by_name(schema: Json, named: str) -> None:
    """Nothing is weakened in silence."""
    with pytest.raises(InvalidRequest) as refused:
        to_lark(obeying(schema))
    assert named in str(refused.value)
    assert refused.value.path.startswith("schema")


def test_a_schema_in_a_thousand_schemas_is_refused() -> None:
    """However it is nested."""
    nested: Json = {"type": "null"}
    for _ in range(100):
        nested = {"type": "array", "items": nested}
    with pytest.raises(InvalidRequest, match="deep"):
        to_lark(obeying(nested))


def nested(properties: dict[str, Json], times: int) -> Json:
    """An object with these properties and one like it, so many times."""
    inner: Json = True
    for _ in range(times):
        inner = {"type": "object", "properties": {**properties, "inner": inner}}
    return inner


TWICE = {f"d{place}": {"allOf": [{"$ref": f"#/$defs/d{place + 1}"}] * 2} for place in range(40)}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/d0", "$defs": {**TWICE, "d40": {"type": "object"}}},
        {"oneOf": [{"properties": {"k": {"const": k}}, "required": ["k"]} for k in range(2000)]},
        {"properties": {f"p{place}": {"type": "string"} for place in range(3000)}},
        {"type": "object", "required": [f"p{place}" for place in range(5000)]},
        nested({f"p{place}": {"type": "string"} for place in range(50)}, 30),
        {"type": "array", "prefixItems": [{"type": "array", "prefixItems": [A] * 250}] * 250},
    ],
    ids=["references", "alternatives", "properties", "names", "levels", "items"],
)
def test_what_would_take_minutes_is_refused_in_time(schema: Json) -> None:
    """A short schema may ask for more work than anybody waits for, or for more than a stack holds."""
    with pytest.raises(InvalidRequest):
        to_lark(obeying(schema))


def test_many_optional_properties_ask_for_little_stack() -> None:
    """Engines follow definitions within definitions on threads with half a megabyte of it."""
    grammar = to_lark(obeying(nested({f"p{place}": {"type": "string"} for place in range(60)}, 6)))
    before = threading.stack_size(512 * 1024)
    try:
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(byte_matchers().matcher, grammar).result()
    finally:
        threading.stack_size(before)


FORMATS = jsonschema.FormatChecker(["date", "email", "ipv4", "uuid"])
"""Those that the validator knows without other packages, as the standard has them."""

NAMES = st.text('abcxyz_"\\ é', min_size=0, max_size=4)
SCALARS = st.one_of(
    st.builds(lambda low, size: {"type": "integer", "minimum": low, "maximum": low + size}, st.integers(-99, 99), st.integers(0, 99)),
    st.builds(lambda low, size: {"type": "number", "minimum": low / 10, "exclusiveMaximum": (low + size) / 10}, st.integers(-99, 99), st.integers(1, 99)),
    st.builds(lambda low, size: {"type": "string", "minLength": low, "maxLength": low + size}, st.integers(0, 3), st.integers(0, 20)),
    st.sampled_from(["^[a-c]{1,3}$", "x|^y", "\\d", '^["\\\\]?$', "^(ab|c)*$"]).map(lambda pattern: {"type": "string", "pattern": pattern, "maxLength": 9}),
    st.sampled_from(["date", "time", "ipv4", "uuid", "email", "hostname"]).map(lambda name: {"type": "string", "format": name}),
    st.lists(st.one_of(NAMES, st.integers(), st.booleans(), st.none()), min_size=1, max_size=4).map(lambda values: {"enum": values}),
    st.sampled_from([{"type": "boolean"}, {"type": ["null", "integer"], "maximum": 5}, {"type": "null"}]),
)  # fmt: skip


def _objects(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    def build(properties: dict[str, Json], more: Json, seed: int) -> Json:
        required = [name for name in properties if random.Random(f"{seed}{name}").random() < 0.5]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": more}

    more = st.one_of(st.just(False), inner)
    return st.builds(build, st.dictionaries(NAMES, inner, max_size=4), more, st.integers(0, 9))


def _lists(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    return st.builds(
        lambda items, low, size: {"type": "array", "items": items, "minItems": low, "maxItems": low + size},
        inner, st.integers(0, 2), st.integers(0, 3),
    )  # fmt: skip


SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(_objects(inner), _lists(inner), st.lists(inner, min_size=1, max_size=3).map(lambda each: {"anyOf": each})),
    max_leaves=6,
)  # fmt: skip


def written(matcher: LLMatcher, chance: random.Random) -> str:
    """A document drawn token by token within the grammar, any byte as likely as any other but for ends, which come."""
    said = bytearray()
    while len(said) < 3000:
        mask = matcher.compute_bitmask()
        choices = [token for token in range(257) if mask[token // 8] >> token % 8 & 1]
        ends = [token for token in choices if token == 256 or token in b'"]}']
        token = chance.choice(ends if ends and chance.random() < 0.3 else choices)
        if token == 256:
            break
        matcher.consume_token(token)
        said.append(token)
    return said.decode()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
def test_whatever_is_written_within_a_grammar_obeys_its_schema(schema: Json, seed: int) -> None:
    """Nor is it taken spoiled, where the schema does not allow that."""
    chance, constraint = random.Random(seed), obeying(schema)
    matcher = MATCHERS.matcher(to_lark(constraint))
    for _ in range(3):
        text = written(matcher.deep_copy(), chance)
        value: Any = json.loads(text)
        jsonschema.validate(value, schema, format_checker=FORMATS)
        place = chance.randrange(len(text))
        spoiled = text[:place] + chance.choice('0a"{}[],: ') + text[place + 1 :]
        if is_accepted(constraint, spoiled):
            jsonschema.validate(json.loads(spoiled), schema)

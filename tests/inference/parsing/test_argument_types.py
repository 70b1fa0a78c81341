"""What arguments without quotes mean: the tool's schema tells."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.inference.parsing.argument_types import escaped, to_json, types_of
from pensieve.messages import ToolSpec

TOOL = ToolSpec(
    "a",
    {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "choice": {"enum": ["x", "y"]},
            "maybe": {"type": ["string", "null"]},
            "either": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/list"}]},
            "number": {"$ref": "#/$defs/number"},
            "endless": {"$ref": "#/properties/endless"},
            "growing": {"anyOf": [{"$ref": "#/properties/growing"}] * 10},
            "free": {},
            "open": {"anyOf": [{"type": "string"}, {}]},
        },
        "$defs": {"list": {"type": "array"}, "number": {"const": 3}},
    },
)

TYPES = {
    "text": {"string"},
    "choice": {"string"},
    "maybe": {"string", "null"},
    "either": {"string", "array"},
    "number": {"integer", "number"},
    "endless": set(),
    "growing": set(),
    "free": set(),
    "open": set(),
    "unknown": set(),
}


@pytest.mark.parametrize(("key", "types"), TYPES.items(), ids=TYPES)
def test_the_schema_tells_the_types(key: str, types: set[str]) -> None:
    """Through references and alternatives; an empty set is any type."""
    assert types_of((TOOL,), "a", key) == types
    assert types_of((), "a", key) == frozenset()


MEANT = [
    ("5", {"string"}, "5"),
    ("5", {"integer"}, 5),
    ("5.0", {"integer"}, 5.0),
    (" true ", {"boolean"}, True),
    ("True", {"boolean"}, True),
    ("None", {"string", "null"}, None),
    ("Nobody", {"string", "null"}, "Nobody"),
    ("5", {"string", "null"}, "5"),
    ('["a"]', {"array"}, ["a"]),
    ('["a"]', set(), ["a"]),
    ("a\n", set(), "a\n"),
    ("many", {"integer"}, "many"),
    ('"quoted"', set(), "quoted"),
    ('"quoted"', {"string"}, '"quoted"'),
    ("", {"integer"}, ""),
]


@pytest.mark.parametrize(("written", "types", "meant"), MEANT)
def test_a_value_becomes_what_the_schema_wants(written: str, types: set[str], meant: object) -> None:
    """What fits no type stays a string: nothing that was written is lost."""
    assert json.loads(to_json(written, frozenset(types))) == meant


@given(st.lists(st.text()))
def test_pieces_of_a_string_add_up(pieces: list[str]) -> None:
    """However it is cut."""
    assert json.loads(f'"{"".join(map(escaped, pieces))}"') == "".join(pieces)

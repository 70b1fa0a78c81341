"""What the engine needs of a model folder's JSON files: the config with its tagged floats, and what ends an answer.

Plain Python; knows no arrays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from pensieve.errors import LoadFailed
from pensieve.messages import Json
from pensieve.models.folders import CONFIG_NAME, read_json
from pensieve.models.layers import MAX_LAYERS

MAX_EOS: Final = 64
MAX_DEPTH: Final = 32
_FLOATS: Final = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}
_COUNTS: Final = re.compile(r"(.*_)?(layers?|blocks?|experts)", re.ASCII)
_NAMES_LAYERS: Final = re.compile(r"(.*_)?(types?|pattern)", re.ASCII)
"""Keys of lists, or texts of one letter a layer, from which some families take the number of layers."""


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json, `{"__float__": "Infinity"}` and its like decoded; raises `LoadFailed`."""
    document = read_json(folder / CONFIG_NAME)
    problem = _problem(document)
    if problem:
        raise LoadFailed(f"{CONFIG_NAME} {problem}: this is no model", model=folder.name)
    decoded: dict[str, Any] = _decoded(document)
    return decoded


def eos_ids(folder: Path, config: dict[str, Any], tokenizer_eos: int | None) -> frozenset[int]:
    """Every token that ends an answer: what config.json, generation_config.json and the tokenizer name, together."""
    found: list[Json] = [tokenizer_eos]
    sources = [config, config.get("text_config")]
    if (folder / "generation_config.json").is_file():
        sources.append(read_json(folder / "generation_config.json"))
    for source in sources:
        named = source.get("eos_token_id") if isinstance(source, dict) else None
        found += named[:MAX_EOS] if isinstance(named, list) else [named]
    return frozenset(_ids(found))


def vocabulary_size(config: dict[str, Any]) -> int | None:
    """Rows of the model's embedding as its config says; None if it does not."""
    inner = config.get("text_config")
    sizes = [source.get("vocab_size") for source in (inner, config) if isinstance(source, dict)]
    return next((size for size in sizes if isinstance(size, int) and size > 0), None)


def _ids(values: Iterable[Json]) -> Iterable[int]:
    return (value for value in values if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31)


def _problem(value: Json, depth: int = 0) -> str:
    """What makes the config absurd, "" if nothing does: building a model from it must stay bounded."""
    if depth > MAX_DEPTH:
        return "is nested too deeply"
    if isinstance(value, dict):
        if any(_count(key, each) > MAX_LAYERS for key, each in value.items()):
            return f"asks for more than {MAX_LAYERS:,} layers or experts"
        value = list(value.values())
    if isinstance(value, list):
        return next(filter(None, (_problem(each, depth + 1) for each in value)), "")
    return ""


def _count(key: str, value: Json) -> int:
    """How many layers or experts this entry asks for; 0 if it is about something else."""
    if isinstance(value, int) and _COUNTS.fullmatch(key):
        return value
    return len(value) if isinstance(value, list | str) and _NAMES_LAYERS.fullmatch(key) else 0


def _decoded(value: Json) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"__float__"} and value["__float__"] in ("Infinity", "-Infinity", "NaN"):
            return _FLOATS[value["__float__"]]
        return {key: _decoded(each) for key, each in value.items()}
    return [_decoded(each) for each in value] if isinstance(value, list) else value

"""Arrays as bytes and back: what crosses from the engine thread to a file, and from a file to the engine thread.

Knows nothing of files, prompts or caches.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import msgspec
import numpy as np

from pensieve.inference.mlx.disk_format import BrokenFile, Tensor

NAMES = {
    mx.bool_: "BOOL",
    mx.uint8: "U8",
    mx.int8: "I8",
    mx.uint16: "U16",
    mx.int16: "I16",
    mx.uint32: "U32",
    mx.int32: "I32",
    mx.uint64: "U64",
    mx.int64: "I64",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.float32: "F32",
}
DTYPES = {name: dtype for dtype, name in NAMES.items()}
CARRIERS: dict[int, tuple[Any, Any]] = {
    1: (mx.uint8, np.uint8),
    2: (mx.uint16, np.uint16),
    4: (mx.uint32, np.uint32),
    8: (mx.uint64, np.uint64),
}
"""Bits travel as unsigned integers of their size: numpy has no bfloat16."""

ARRAY_KEY, TUPLE_KEY = "array", "tuple"
MAX_DEPTH = 16


def to_tensor(held: mx.array) -> Tensor:
    """A copy of the array's bytes."""
    carrier, _ = CARRIERS[held.dtype.size]
    data = np.array(mx.contiguous(held).view(carrier)).tobytes() if held.size else b""
    return Tensor(NAMES[held.dtype], tuple(held.shape), data)


def to_array(tensor: Tensor) -> mx.array:
    """An array of its own with these bytes."""
    dtype = DTYPES[tensor.dtype]
    if not len(tensor.data):
        return mx.zeros(tensor.shape, dtype)
    _, carrier = CARRIERS[dtype.size]
    return mx.array(np.frombuffer(tensor.data, carrier).reshape(tensor.shape)).view(dtype)


def flatten(tree: Any) -> tuple[str, list[mx.array]]:
    """The nesting of a tree of tuples, lists, numbers and arrays as JSON, and its arrays in order."""
    found: list[mx.array] = []
    return msgspec.json.encode(_described(tree, found)).decode(), found


def unflatten(description: str, arrays: list[mx.array]) -> Any:
    """The tree again; a description that does not fit the arrays raises BrokenFile."""
    try:
        return _rebuilt(msgspec.json.decode(description), arrays, MAX_DEPTH)
    except (msgspec.MsgspecError, RecursionError, IndexError, TypeError) as problem:
        raise BrokenFile("its arrays are nested in no known way") from problem


def _described(tree: Any, found: list[mx.array]) -> Any:
    if isinstance(tree, mx.array):
        found.append(tree)
        return {ARRAY_KEY: len(found) - 1}
    if isinstance(tree, tuple):
        return {TUPLE_KEY: [_described(branch, found) for branch in tree]}
    if isinstance(tree, list):
        return [_described(branch, found) for branch in tree]
    assert tree is None or isinstance(tree, bool | int | float | str), f"a cache's state holds a {type(tree).__name__}"
    return tree


def _rebuilt(described: Any, arrays: list[mx.array], depth: int) -> Any:
    if depth < 0:
        raise BrokenFile("its arrays are nested too deep")
    if isinstance(described, dict) and ARRAY_KEY in described:
        return arrays[described[ARRAY_KEY]]
    if isinstance(described, dict):
        return tuple(_rebuilt(branch, arrays, depth - 1) for branch in described.get(TUPLE_KEY, ()))
    if isinstance(described, list):
        return [_rebuilt(branch, arrays, depth - 1) for branch in described]
    return described

"""Writing weights as safetensors, one array at a time: headers first, from the plan, so that nothing is held back.

Knows no model. What the disk says comes out as `OSError`, unlike from MLX's own writer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
import msgspec
import numpy as np

from pensieve.inference.mlx.weight_form import Slot
from pensieve.models.folders import INDEX_NAME, WHOLE_NAME
from pensieve.models.progress import Progress

SHARD_BYTES: Final = 4 * 2**30
HEADER_ALIGNMENT: Final = 8
CLEAR_BYTES: Final = 2**28
"""MLX keeps freed buffers for itself; after so many bytes they are given back."""

_TYPES: Final = {
    mx.bool_: "BOOL",
    mx.uint8: "U8",
    mx.uint16: "U16",
    mx.uint32: "U32",
    mx.int8: "I8",
    mx.int32: "I32",
    mx.int64: "I64",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.float32: "F32",
}


def write_shards(
    folder: Path,
    slots: Sequence[Slot],
    arrays: Iterable[mx.array],
    progress: Progress,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the arrays, which come in the order of their slots, into files of about `shard_bytes` in `folder`."""
    shards = list(split(slots, shard_bytes))
    names = shard_names(len(shards))
    total_bytes, done_bytes, waiting = sum(slot.num_bytes for slot in slots), 0, iter(arrays)
    uncleared_bytes = 0
    for name, shard in zip(names, shards, strict=True):
        with (folder / name).open("wb") as file:
            file.write(_header(shard))
            for slot in shard:
                file.write(_data(next(waiting), slot))
                done_bytes += slot.num_bytes
                uncleared_bytes += slot.num_bytes
                progress("converting", done_bytes, total_bytes)
                if uncleared_bytes > CLEAR_BYTES:
                    mx.clear_cache()
                    uncleared_bytes = 0
    if len(shards) > 1:
        _write_index(folder, names, shards, total_bytes)


def split(slots: Sequence[Slot], shard_bytes: int) -> Iterator[list[Slot]]:
    """The slots in files: a new one begins where the next array would make the last too large."""
    shard: list[Slot] = []
    for slot in slots:
        if shard and sum(each.num_bytes for each in shard) + slot.num_bytes > shard_bytes:
            yield shard
            shard = []
        shard.append(slot)
    yield shard


def shard_names(count: int) -> list[str]:
    """The names of `count` files of weights."""
    if count == 1:
        return [WHOLE_NAME]
    return [f"model-{part:05}-of-{count:05}.safetensors" for part in range(1, count + 1)]


def _header(shard: Sequence[Slot]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    start = 0
    for slot in shard:
        end = start + slot.num_bytes
        entries[slot.name] = {"dtype": _TYPES[slot.dtype], "shape": slot.shape, "data_offsets": (start, end)}
        start = end
    text = msgspec.json.encode(entries)
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _data(array: mx.array, slot: Slot) -> memoryview:
    assert (array.shape, array.dtype) == (slot.shape, slot.dtype), f"{slot} is filled with {array.shape} {array.dtype}"
    plain = array.view(mx.uint16) if array.dtype == mx.bfloat16 else array  # numpy has no such floats
    return np.ascontiguousarray(np.array(plain, copy=False)).reshape(-1).view(np.uint8).data


def _write_index(folder: Path, names: Sequence[str], shards: Sequence[Sequence[Slot]], total_bytes: int) -> None:
    places = {slot.name: name for name, shard in zip(names, shards, strict=True) for slot in shard}
    index = {"metadata": {"total_size": total_bytes}, "weight_map": places}
    (folder / INDEX_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(index), indent=2))

"""One file of the prefix cache's disk tier: safetensors, what it holds in its metadata, a checksum over all of it.

Only bytes here: no arrays, no folders, no policy. Whatever is wrong with a file is one error, `BrokenFile`.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

FORMAT_VERSION = 1

MAX_HEADER_BYTES = 2**20
MAX_TENSORS = 8192
MAX_DIMENSIONS = 8

DTYPE_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
}

LENGTH = struct.Struct("<Q")
NO_CHECKSUM = b'"checksum":"00000000"'
CHECKSUM_START, CHECKSUM_END = b'"checksum":"', b'"'


class BrokenFile(ValueError):
    """A file that is torn, of another version or model, or never was one of ours."""


class Tensor(NamedTuple):
    """An array as bytes, row by row; `dtype` as safetensors spells it."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


class Label(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file holds: a run of blocks, or what cannot be cut as it was after the block `parent`."""

    version: int
    fingerprint: str
    parent: str
    """Digest of the block before the first one, in hex."""
    digests: tuple[str, ...]
    """Digests of the blocks; none: a boundary."""
    tree: str = ""
    """How a boundary's arrays are nested, as JSON."""
    prefill_tokens_per_second: float = 0.0
    """The machine's speed when the file was written; 0: unknown."""


class _Place(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class Header(NamedTuple):
    """A file's label and where its tensors lie after the header."""

    label: Label
    places: dict[str, _Place]
    num_bytes: int
    """The header's own, with the length before it."""

    @property
    def file_bytes(self) -> int:
        """What the whole file must measure."""
        return self.num_bytes + max((place.data_offsets[1] for place in self.places.values()), default=0)


def encode(label: Label, tensors: Sequence[tuple[str, Tensor]]) -> list[bytes | memoryview]:
    """The file's bytes, in pieces to be written one after the other."""
    header: dict[str, Any] = {"__metadata__": {"label": msgspec.json.encode(label).decode(), "checksum": "00000000"}}
    offset = 0
    for name, tensor in tensors:
        end = offset + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (offset, end)}
        offset = end
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % 8)
    data = [tensor.data for _, tensor in tensors]
    checksum = _checksum([text, *data])
    text = text.replace(NO_CHECKSUM, CHECKSUM_START + f"{checksum:08x}".encode() + CHECKSUM_END, 1)
    return [LENGTH.pack(len(text)), text, *data]


def header_length(start: bytes | memoryview) -> int:
    """Bytes of a file up to the end of its header, from its first eight."""
    if len(start) < LENGTH.size:
        raise BrokenFile("shorter than a header")
    (length,) = LENGTH.unpack_from(start)
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise BrokenFile("no header of ours")
    return LENGTH.size + int(length)


def decode_header(start: bytes | memoryview, *, fingerprint: str) -> Header:
    """The header in a file's first bytes; one of another version or model counts as broken."""
    length = header_length(start)
    try:
        header = msgspec.json.decode(bytes(start[LENGTH.size : length]), type=dict[str, msgspec.Raw])
        label = _label(header.pop("__metadata__"))
        places = {name: msgspec.json.decode(raw, type=_Place) for name, raw in header.items()}
    except (msgspec.MsgspecError, KeyError, RecursionError, UnicodeDecodeError) as problem:
        raise BrokenFile("its header cannot be read") from problem
    if label.version != FORMAT_VERSION or label.fingerprint != fingerprint:
        raise BrokenFile("it is of another version or model")
    _check_places(places)
    return Header(label, places, length)


def decode(whole: memoryview, *, fingerprint: str) -> tuple[Label, dict[str, Tensor]]:
    """The label and the tensors of a whole file, as views of its bytes; checks every byte."""
    header = decode_header(whole, fingerprint=fingerprint)
    if len(whole) != header.file_bytes:
        raise BrokenFile("it has another length than it says")
    text = bytes(whole[LENGTH.size : header.num_bytes])
    before, _, after = text.partition(CHECKSUM_START)
    said, blank = after[:8], before + NO_CHECKSUM + after[9:]
    if said != f"{_checksum([blank, whole[header.num_bytes :]]):08x}".encode():
        raise BrokenFile("its checksum is wrong")
    data = whole[header.num_bytes :]
    return header.label, {
        name: Tensor(place.dtype, place.shape, data[slice(*place.data_offsets)])
        for name, place in header.places.items()
    }


def _label(raw: msgspec.Raw) -> Label:
    metadata = msgspec.json.decode(raw, type=dict[str, str])
    return msgspec.json.decode(metadata["label"], type=Label)


def _checksum(pieces: Iterable[bytes | memoryview]) -> int:
    checksum = 0
    for piece in pieces:
        checksum = zlib.crc32(piece, checksum)
    return checksum


def _check_places(places: dict[str, _Place]) -> None:
    if len(places) > MAX_TENSORS:
        raise BrokenFile("it holds too many arrays")
    expected = 0
    for place in places.values():
        start, end = place.data_offsets
        item_bytes = DTYPE_BYTES.get(place.dtype, 0)
        has_sane_shape = len(place.shape) <= MAX_DIMENSIONS and all(0 <= length < 2**31 for length in place.shape)
        if not item_bytes or not has_sane_shape:
            raise BrokenFile("it holds an array of no known kind")
        if start != expected or end - start != item_bytes * math.prod(place.shape):
            raise BrokenFile("its arrays do not lie one after the other")
        expected = end

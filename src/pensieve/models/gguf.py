"""The GGUF container (versions 2 and 3): an index of its metadata and the sum of its tensors.

The file is hostile: every count, length and offset is bounded by the file, and loops by fixed limits. Knows the
container only, not what the keys mean; imports no engine. Layout: magic, version, two counts, key-value pairs,
tensor descriptions, padding, tensor data.
"""

from __future__ import annotations

import math
import mmap
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from pensieve.errors import LoadFailed

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)

MAX_PAIRS: Final = 65_536
MAX_TENSORS: Final = 200_000
MAX_NAME_BYTES: Final = 1_024
MAX_TEXT_BYTES: Final = 2**20
MAX_ARRAY_TEXTS: Final = 8_000_000
"""Texts in all arrays of a file together; the largest vocabularies with their merges stay under a million."""
MAX_NUMBERS: Final = 4_096
"""Longest numeric array that is read; longer ones are skipped."""
MAX_DIMENSIONS: Final = 4
MAX_ELEMENTS: Final = 2**48

TEXT: Final = 8
ARRAY: Final = 9
SCALARS: Final = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_U32: Final = SCALARS[4]
_U64: Final = SCALARS[10]


class TensorType(msgspec.Struct, frozen=True):
    """How a tensor's elements are stored: `block_bytes` for each `block_elements` of them."""

    name: str
    block_elements: int
    block_bytes: int


TENSOR_TYPES: Final = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    15: TensorType("Q8_K", 256, 292),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    24: TensorType("I8", 1, 1),
    25: TensorType("I16", 1, 2),
    26: TensorType("I32", 1, 4),
    27: TensorType("I64", 1, 8),
    28: TensorType("F64", 1, 8),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
    34: TensorType("TQ1_0", 256, 54),
    35: TensorType("TQ2_0", 256, 66),
    39: TensorType("MXFP4", 32, 17),
}
"""Types of ggml by number. A type that is newer than this table counts with zero bytes: the engine judges it."""


class Place(msgspec.Struct, frozen=True):
    """Where a value lies; `count` elements of `kind` from `offset` on for an array, else one."""

    kind: int
    offset: int
    count: int = 1
    is_array: bool = False


class StoredTensor(msgspec.Struct, frozen=True):
    """One tensor of a file: `dimensions` as the file has them, the length of a row first; `offset` from its start."""

    name: str
    dimensions: tuple[int, ...]
    kind: int
    """A key of `TENSOR_TYPES`, or a number that is newer."""
    offset: int

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return math.prod(self.dimensions)


class Tensors(msgspec.Struct, frozen=True):
    """What all tensor descriptions of a file say together; `largest_type` holds the most bytes."""

    parameters: int
    data_bytes: int
    largest_type: str


class Container:
    """An open GGUF file, indexed: values are decoded on demand, arrays are not read before they are asked for."""

    def __init__(self, data: mmap.mmap, model: str) -> None:
        self._data = data
        self._model = model
        self._offset = len(MAGIC)
        self._array_texts = 0
        self._stored: list[StoredTensor] = []
        self.size_bytes = len(data)
        self.version = self._check_version()
        num_tensors, num_pairs = self._integer(_U64), self._integer(_U64)
        self._bound("tensors", num_tensors, MAX_TENSORS)
        self._bound("metadata entries", num_pairs, MAX_PAIRS)
        self._places = self._index(num_pairs)
        self.tensors = self._sum_tensors(num_tensors)
        self.data_offset = self._data_offset()
        self._check_whole()

    @property
    def stored_tensors(self) -> tuple[StoredTensor, ...]:
        """Every tensor, in the order of the file."""
        moved = msgspec.structs.replace
        return tuple(moved(tensor, offset=tensor.offset + self.data_offset) for tensor in self._stored)

    def text(self, key: str) -> str:
        """The text under `key`; empty if there is none, it is not a text, or it is over `MAX_TEXT_BYTES`."""
        place = self._places.get(key)
        if place is None or place.is_array or place.kind != TEXT:
            return ""
        return self._decoded_text(place.offset)

    def number(self, key: str) -> int | None:
        """The integer under `key`, if there is one."""
        numbers = self.numbers(key)
        return numbers[0] if len(numbers) == 1 else None

    def numbers(self, key: str) -> tuple[int, ...]:
        """The integers under `key`: one for a scalar, all of an array up to `MAX_NUMBERS`; else empty."""
        place = self._places.get(key)
        if place is None or place.kind not in SCALARS or place.count > MAX_NUMBERS:
            return ()
        form = SCALARS[place.kind]
        values = form.iter_unpack(self._data[place.offset : place.offset + form.size * place.count])
        return tuple(value for (value,) in values if isinstance(value, int))

    def decimal(self, key: str) -> float | None:
        """The number under `key` with its fraction, if there is one and it is finite."""
        values = self._values(key)
        return float(values[0]) if len(values) == 1 and math.isfinite(values[0]) else None

    def decimals(self, key: str) -> tuple[float, ...]:
        """The numbers of the array under `key`, of any length; empty if there is none."""
        return self._values(key)

    def texts(self, key: str) -> tuple[str, ...]:
        """The array of texts under `key`; empty if there is none."""
        place = self._places.get(key)
        if place is None or not place.is_array or place.kind != TEXT:
            return ()
        found, offset = [], place.offset
        for _ in range(place.count):
            found.append(self._decoded_text(offset))
            offset = self._after_texts(offset, 1)
        return tuple(found)

    def flag(self, key: str) -> bool | None:
        """The boolean under `key`, if there is one."""
        number = self.number(key)
        return None if number is None else bool(number)

    def text_at(self, key: str, index: int) -> str:
        """Element `index` of the array of texts under `key`; empty if there is none."""
        place = self._places.get(key)
        if place is None or not place.is_array or place.kind != TEXT or not 0 <= index < place.count:
            return ""
        return self._decoded_text(self._after_texts(place.offset, index))

    def _values(self, key: str) -> tuple[float, ...]:
        place = self._places.get(key)
        if place is None or place.kind not in SCALARS or place.count > MAX_ARRAY_TEXTS:
            return ()
        form = SCALARS[place.kind]
        data = self._data[place.offset : place.offset + form.size * place.count]
        return tuple(value for (value,) in form.iter_unpack(data))

    def _check_version(self) -> int:
        if self._data[: len(MAGIC)] != MAGIC:
            raise self._broken("this is not a GGUF file")
        version = self._integer(_U32)
        if version not in VERSIONS:
            problem = "big-endian GGUF" if version & 0xFFFF == 0 else f"GGUF version {version}"
            raise self._broken(f"{problem} is not supported: convert the model again with a current tool")
        return version

    def _index(self, num_pairs: int) -> dict[str, Place]:
        places: dict[str, Place] = {}
        for _ in range(num_pairs):
            key = self._name()
            if key in places:
                raise self._broken(f"its metadata names {key!r} twice")
            places[key] = self._skip_value(self._integer(_U32))
        return places

    def _skip_value(self, kind: int) -> Place:
        if kind != ARRAY:
            place = Place(kind, self._offset)
            self._skip_elements(place)
            return place
        element_kind, count = self._integer(_U32), self._integer(_U64)
        place = Place(element_kind, self._offset, count, is_array=True)
        self._skip_elements(place)
        return place

    def _skip_elements(self, place: Place) -> None:
        if form := SCALARS.get(place.kind):
            self._advance(form.size * place.count)
        elif place.kind == TEXT:
            self._array_texts += place.count
            self._bound("texts in arrays", self._array_texts, MAX_ARRAY_TEXTS)
            self._offset = self._after_texts(place.offset, place.count)
        else:
            raise self._broken(f"its metadata holds a value of unknown type {place.kind}")

    def _after_texts(self, offset: int, count: int) -> int:
        unpack, size = _U64.unpack_from, _U64.size  # names bound once: this loop runs for every token of the model
        data, limit = self._data, self.size_bytes
        for _ in range(count):
            if offset + size > limit:
                break
            offset += size + unpack(data, offset)[0]
        else:
            if offset <= limit:
                return offset
        raise self._truncated()

    def _sum_tensors(self, num_tensors: int) -> Tensors:
        parameters, data_bytes = 0, 0
        bytes_of_types: dict[str, int] = {}
        for _ in range(num_tensors):
            tensor = StoredTensor(self._name(), self._dimensions(), self._integer(_U32), self._integer(_U64))
            self._stored.append(tensor)
            form = TENSOR_TYPES.get(tensor.kind, TensorType("", 1, 0))
            tensor_bytes = -(-tensor.elements // form.block_elements) * form.block_bytes
            parameters += tensor.elements
            data_bytes = max(data_bytes, tensor.offset + tensor_bytes)
            bytes_of_types[form.name] = bytes_of_types.get(form.name, 0) + tensor_bytes
        largest_type = max(bytes_of_types, key=bytes_of_types.__getitem__, default="")
        return Tensors(parameters, data_bytes, largest_type)

    def _dimensions(self) -> tuple[int, ...]:
        num_dimensions = self._integer(_U32)
        self._bound("dimensions of a tensor", num_dimensions, MAX_DIMENSIONS)
        dimensions = tuple(self._integer(_U64) for _ in range(num_dimensions))
        self._bound("elements of a tensor", math.prod(dimensions), MAX_ELEMENTS)
        return dimensions

    def _data_offset(self) -> int:
        alignment = self.number("general.alignment") or 32
        if not (0 < alignment <= 2**20 and alignment & (alignment - 1) == 0):
            raise self._broken(f"its alignment is {alignment}, which is no power of two up to 2^20")
        return -(-self._offset // alignment) * alignment

    def _check_whole(self) -> None:
        if not self.tensors.data_bytes:
            return
        promised_bytes = self.data_offset + self.tensors.data_bytes
        if promised_bytes > self.size_bytes:
            raise self._broken(
                f"the file ends at {self.size_bytes:,} bytes, its header promises {promised_bytes:,}: download it again"
            )

    def _name(self) -> str:
        length = self._integer(_U64)
        self._bound("bytes of a name", length, MAX_NAME_BYTES)
        start = self._offset
        self._advance(length)
        return self._data[start : self._offset].decode("utf-8", "replace")

    def _decoded_text(self, offset: int) -> str:
        (length,) = _U64.unpack_from(self._data, offset)
        if length > MAX_TEXT_BYTES:
            return ""
        start = offset + _U64.size
        return self._data[start : start + length].decode("utf-8", "replace")

    def _integer(self, form: struct.Struct) -> int:
        start = self._offset
        self._advance(form.size)
        value: int = form.unpack_from(self._data, start)[0]
        return value

    def _advance(self, num_bytes: int) -> None:
        if num_bytes > self.size_bytes - self._offset:
            raise self._truncated()
        self._offset += num_bytes

    def _bound(self, what: str, value: int, limit: int) -> None:
        if value > limit:
            raise self._broken(f"its header is damaged: {value:,} {what}, {limit:,} is the limit; download it again")

    def _truncated(self) -> LoadFailed:
        return self._broken(f"the file ends at {self.size_bytes:,} bytes, inside its header: download it again")

    def _broken(self, problem: str) -> LoadFailed:
        return LoadFailed(problem, model=self._model)


@contextmanager
def open_container(path: Path) -> Iterator[Container]:
    """The file, mapped and indexed; raises `LoadFailed` if it cannot be read or is not whole."""
    try:
        with _open_regular(path) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes < len(MAGIC):
                raise LoadFailed(f"this is not a GGUF file: it has {size_bytes} bytes", model=path.name)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield Container(data, path.name)
    except OSError as error:
        raise LoadFailed(f"the file cannot be read: {error.strerror or error}", model=path.name) from error


@contextmanager
def _open_regular(path: Path) -> Iterator[BinaryIO]:
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
        raise LoadFailed("this is not a file", model=path.name)
    with path.open("rb") as file:
        yield file

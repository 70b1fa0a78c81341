"""A GGUF file as an MLX model: its weights one by one, quantized blocks kept to the bit where MLX can hold them.

Reads the tensors itself, a few rows at a time, so that a file of any size needs the memory of one tensor, and a
damaged one cannot bring the process down. Knows no tokenizer and writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import mlx.core as mx
import msgspec
import numpy as np
import numpy.typing as npt

from pensieve.errors import LoadFailed
from pensieve.inference.mlx import gguf_blocks as blocks
from pensieve.inference.mlx.gguf_families import CURVES, Target, config_of, family_of, refusal, shape_of, targets
from pensieve.inference.mlx.gguf_tokenizer import tokenizer_of
from pensieve.inference.mlx.weight_form import Converted, Form, Wanted, quantization_config, slots_of
from pensieve.models.gguf import TENSOR_TYPES, StoredTensor, open_container
from pensieve.models.metadata import read_gguf, split_parts

CHUNK_ELEMENTS: Final = 2**22
"""Elements that are unpacked at once."""
MAX_CURVE: Final = 2**16
REPACKED_BITS: Final = 8
"""For types that MLX cannot hold, where the source is to be kept as it is."""


Arrays = tuple[mx.array, ...]
"""A weight, with its scales and biases if it is quantized."""


class _Stored(msgspec.Struct, frozen=True):
    """A tensor and the file of the model that holds it."""

    tensor: StoredTensor
    path: Path


class GgufModel:
    """An open GGUF model, a `Source`. Raises `LoadFailed` for one that cannot be a model of MLX."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._model = path.name
        self._stored = _stored_tensors(path)
        tensors = {name: stored.tensor for name, stored in self._stored.items()}
        with open_container(path) as container:
            family = family_of(container, self._model)
            _check_types(tensors, self._model)
            shape = shape_of(container, tensors, self._model)
            self.targets = targets(family, shape, tensors, self._model)
            curves = {name: self._curve(name) for name in CURVES & tensors.keys()}
            is_tied = "output.weight" not in tensors
            self.config = config_of(container, family, shape, curves, self._model, is_tied=is_tied)
        self.num_bytes = sum(_stored_bytes(tensor) for tensor in tensors.values())
        self.parameters = sum(tensor.elements for tensor in tensors.values())

    @property
    def types(self) -> tuple[str, ...]:
        """The names of the types of its matrices, the one with the most bytes first."""
        counted: Counter[str] = Counter()
        for target in self.targets:
            if len(target.shape) > 1:
                counted[blocks.name_of(target.tensor.kind)] += _stored_bytes(target.tensor)
        return tuple(name for name, _ in counted.most_common())

    @property
    def quantization(self) -> str:
        """See `Source`: ggml's names, joined."""
        return "" if blocks.FLOATS.issuperset(self.types) else "+".join(self.types)

    @property
    def is_kept_whole(self) -> bool:
        """Whether MLX can hold every block as it is, so that nothing is lost."""
        return set(self.types) <= blocks.KEPT.keys() | blocks.FLOATS

    def converted(self, wanted: Wanted) -> Converted:
        """See `Source`."""
        header = read_gguf(self._path)
        with open_container(self._path) as container:
            tokenizer = tokenizer_of(container, header, self.config["vocab_size"])
        dtype = wanted.dtype or self._usual_dtype
        forms = {target.name: _form(target, wanted) for target in self.targets}
        modules = {name.removesuffix(".weight"): form for name, form in forms.items()}
        slots = [slots_of(target.name, target.shape, forms[target.name], dtype) for target in self.targets]
        return Converted(
            config=self.config | tokenizer.ids | quantization_config(modules),
            files={name: msgspec.json.encode(content) for name, content in tokenizer.files.items()},
            slots=tuple(slot for group in slots for slot in group),
            arrays=(array for target in self.targets for array in self._read(target, forms[target.name], dtype)),
        )

    @property
    def _usual_dtype(self) -> mx.Dtype:
        """The floats that lose nothing of the file's own."""
        if set(self.types) <= {"F32"}:
            return mx.float32
        return mx.bfloat16 if self.types[0] == "BF16" else mx.float16

    def _read(self, target: Target, form: Form, dtype: mx.Dtype) -> Arrays:
        parts: list[Arrays] = []
        if _is_kept(target, form):
            name, columns = blocks.name_of(target.tensor.kind), target.shape[-1]
            parts = [_kept(chunk, name, columns, dtype) for chunk in self._chunks(target)]
        else:
            parts = [_stored_as(form, chunk, dtype) for chunk in self._floats(target)]
        arrays = tuple(mx.concatenate(list(column)) for column in zip(*parts, strict=True))
        if target.paired_heads:
            order = mx.array(_unpaired(target.num_rows, target.paired_heads))
            arrays = tuple(array[order] for array in arrays)
        mx.eval(arrays)
        return arrays

    def _floats(self, target: Target) -> Iterator[npt.NDArray[np.float32]]:
        name, columns = blocks.name_of(target.tensor.kind), target.shape[1:]
        for chunk in self._chunks(target):
            yield blocks.floats_of(name, chunk).reshape(-1, *columns)

    def _chunks(self, target: Target) -> Iterator[npt.NDArray[np.uint8]]:
        """The target's rows as stored, a few at a time."""
        tensor = target.tensor
        row_bytes = _stored_bytes(tensor) // tensor.dimensions[-1]
        step = max(1, CHUNK_ELEMENTS * tensor.dimensions[-1] // tensor.elements)
        end = target.first_row + target.num_rows
        with self._stored[tensor.name].path.open("rb") as file:
            for row in range(target.first_row, end, step):
                file.seek(tensor.offset + row * row_bytes)
                yield self._exactly(file.read(row_bytes * min(step, end - row)), row_bytes * min(step, end - row))

    def _curve(self, name: str) -> list[float]:
        tensor = self._stored[name].tensor
        if tensor.elements > MAX_CURVE:
            raise LoadFailed(f"its tensor {name} has {tensor.elements:,} factors: download it again", self._model)
        whole = Target(name, tensor, 0, tensor.dimensions[-1])
        return [float(value) for chunk in self._floats(whole) for value in chunk.reshape(-1)]

    def _exactly(self, data: bytes, num_bytes: int) -> npt.NDArray[np.uint8]:
        if len(data) != num_bytes:
            raise LoadFailed("the file became shorter while it was read: try again", self._model)
        return np.frombuffer(data, dtype=np.uint8)


def _stored_tensors(path: Path) -> dict[str, _Stored]:
    found: dict[str, _Stored] = {}
    for part in split_parts(path):
        with open_container(part) as container:
            for tensor in container.stored_tensors:
                if tensor.name in found:
                    raise LoadFailed(f"it names its tensor {tensor.name} twice: download it again", path.name)
                found[tensor.name] = _Stored(tensor, part)
    return found


def _check_types(tensors: dict[str, StoredTensor], model: str) -> None:
    for tensor in tensors.values():
        name = blocks.name_of(tensor.kind)
        if not blocks.is_readable(tensor.kind):
            known = ", ".join([*blocks.KEPT, *blocks.UNPACKED])
            raise refusal(f"its tensor {tensor.name} is {name}, which cannot be imported; {known} can", model)
        form, columns = TENSOR_TYPES[tensor.kind], tensor.dimensions[0] if tensor.elements and tensor.dimensions else 0
        is_broken = not columns or columns % form.block_elements or len(tensor.dimensions) == 1 < form.block_elements
        if is_broken:
            raise LoadFailed(f"its tensor {tensor.name} has rows that are no whole blocks: download it again", model)


def _stored_bytes(tensor: StoredTensor) -> int:
    form = TENSOR_TYPES[tensor.kind]
    return tensor.elements // form.block_elements * form.block_bytes


def _form(target: Target, wanted: Wanted) -> Form:
    name = blocks.name_of(target.tensor.kind)
    if wanted.bits is not None or len(target.shape) < 2:
        return wanted.form(target.shape)
    if name in blocks.FLOATS:
        return Form()
    return Form(blocks.KEPT[name][0] if name in blocks.KEPT else REPACKED_BITS, blocks.GROUP)


def _is_kept(target: Target, form: Form) -> bool:
    name = blocks.name_of(target.tensor.kind)
    return name in blocks.KEPT and form == Form(blocks.KEPT[name][0], blocks.GROUP)


def _kept(chunk: npt.NDArray[np.uint8], name: str, columns: int, dtype: mx.Dtype) -> Arrays:
    found = blocks.codes_of(name, chunk)
    weight = blocks.packed(found.codes.reshape(-1, columns), blocks.KEPT[name][0])
    groups = (-1, columns // blocks.GROUP)
    scales, biases = mx.array(found.scales.reshape(groups)), mx.array(found.biases.reshape(groups))
    return _evaluated(mx.array(weight), scales.astype(dtype), biases.astype(dtype))


def _stored_as(form: Form, chunk: npt.NDArray[np.float32], dtype: mx.Dtype) -> Arrays:
    if form.bits == 0:
        return _evaluated(mx.array(chunk).astype(dtype))
    weight, scales, biases = mx.quantize(mx.array(chunk), form.group_size, form.bits)
    return _evaluated(weight, scales.astype(dtype), biases.astype(dtype))


def _evaluated(*arrays: mx.array) -> Arrays:
    """The arrays, computed now, so that what they were made from is let go."""
    mx.eval(arrays)
    return arrays


def _unpaired(rows: int, heads: int) -> npt.NDArray[np.int64]:
    """Where each row lies in the file: it keeps the two rows of a rotary pair together, MLX half a head apart."""
    return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)

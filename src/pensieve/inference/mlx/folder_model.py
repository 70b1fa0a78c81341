"""A folder of safetensors as a source of conversions: read lazily, so that a model of any size takes little memory.

Runs no code of the folder. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
from mlx.nn.layers.quantized import quantize
from mlx.utils import tree_flatten
from mlx_lm.utils import dequantize_model

from pensieve.errors import LoadFailed
from pensieve.inference.mlx import architectures
from pensieve.inference.mlx.configuration import read_config
from pensieve.inference.mlx.weight_form import Converted, Form, Slot, Wanted, quantization_config
from pensieve.models.folders import CONFIG_NAME, read_folder, read_json, weight_files

MAX_FILE_BYTES: Final = 256 * 2**20
COPIED: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
)
"""Files that go along as they are, where there are such."""


class FolderModel:
    """An open folder, a `Source`. Raises `LoadFailed` for one that mlx-lm cannot build."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._header = read_folder(self._folder)
        self._model: Any = architectures.load_weights(
            self._folder, read_config(self._folder), weight_files(self._folder)
        )
        self.num_bytes = self._header.weight_bytes
        self.parameters = self._header.parameters

    @property
    def quantization(self) -> str:
        """See `Source`."""
        return self._header.quantization if architectures.is_quantized(self._model) else ""

    def converted(self, wanted: Wanted) -> Converted:
        """See `Source`."""
        config = read_json(self._folder / CONFIG_NAME)
        if wanted.bits is not None:
            config = {key: value for key, value in config.items() if not key.startswith("quantization")}
            if self.quantization:
                self._model = dequantize_model(self._model)
        if wanted.dtype is not None:
            architectures.cast(self._model, wanted.dtype)
            config["torch_dtype"] = str(wanted.dtype).removeprefix("mlx.core.")
        if wanted.bits:
            config |= quantization_config(_quantize(self._model, wanted, wanted.bits))
        arrays: dict[str, mx.array] = dict(tree_flatten(self._model.parameters()))
        self._model = None
        slots = tuple(Slot(name, array.shape, array.dtype) for name, array in arrays.items())
        return Converted(config, self._files(), slots, self._taken(arrays))

    def _files(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for path in (self._folder / name for name in COPIED):
            if path.is_fifo():  # opening it would wait for its writer
                raise LoadFailed(f"{path.name} is no file: fetch it again", model=self._folder.name)
            try:
                with path.open("rb") as file:
                    found[path.name] = file.read(MAX_FILE_BYTES)
            except FileNotFoundError:
                continue
            except OSError as error:
                problem = f"{path.name} cannot be read: {error.strerror or error}"
                raise LoadFailed(problem, model=self._folder.name) from error
        return found

    def _taken(self, arrays: dict[str, mx.array]) -> Iterator[mx.array]:
        for name in list(arrays):
            array = arrays.pop(name)
            try:
                mx.eval(array)
            except (RuntimeError, ValueError, MemoryError) as error:
                line = " ".join(str(error).split())[:300]
                raise LoadFailed(f"its {name} cannot be read: {line}", model=self._folder.name) from error
            yield array


def _quantize(model: Any, wanted: Wanted, bits: int) -> dict[str, Form]:
    """Quantize in place, lazily, where the model's own rule lets it; the form of each module that was."""
    own_rule = getattr(model, "quant_predicate", None)
    forms: dict[str, Form] = {}

    def choose(path: str, module: Any) -> bool | dict[str, int]:
        if not hasattr(module, "to_quantized"):
            return False
        form = wanted.form(module.weight.shape)
        rule = own_rule(path, module) if own_rule is not None else True
        if isinstance(rule, dict):
            form = Form(rule.get("bits", form.bits), rule.get("group_size", form.group_size))
        if not rule or not form.bits or module.weight.shape[-1] % form.group_size:
            return False
        forms[path] = form
        return {"group_size": form.group_size, "bits": form.bits}

    quantize(model, group_size=wanted.group_size, bits=bits, class_predicate=choose)
    return forms

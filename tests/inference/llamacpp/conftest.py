"""A tiny model with random weights in llama.cpp, so small that an answer takes milliseconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from gguf_models import write_gguf_model
from pensieve.config.settings import GenerationSettings, LlamaCppSettings, ModelSettings, Settings
from tiny_models import make_tiny_model
from tiny_vision import write_tiny_projector

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = TEMPLATE.replace("assistant\n{% endif", "assistant\n<think>\n{% endif") + "{# </think> #}"

SETTINGS = Settings(
    model=ModelSettings(context_tokens=1024),
    generation=GenerationSettings(temperature=0.0, repetition_guard="off"),
    llamacpp=LlamaCppSettings(parallel=4, pool_tokens=4096, batch_tokens=64, threads=1),
)


def write_model(folder: Path, template: str, *, sees: bool = False, marks: Mapping[str, int] | None = None) -> Path:
    """A model of its own folder, with a projector beside it if it `sees`."""
    source = make_tiny_model(folder / "source", "smollm", chat_template=template)
    path = write_gguf_model(folder / "tiny.gguf", source, marks=marks)
    if sees:
        width = json.loads((source / "config.json").read_text())["hidden_size"]
        write_tiny_projector(folder / "mmproj-tiny.gguf", text_width=width)
    return path


@pytest.fixture(scope="module")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It answers at once."""
    return write_model(tmp_path_factory.mktemp("plain"), TEMPLATE)


@pytest.fixture(scope="module")
def marked_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It has a token of each kind for the marks of calls."""
    return write_model(tmp_path_factory.mktemp("marked"), TEMPLATE, marks={"<tool_call>": 4, "</tool_call>": 3})


@pytest.fixture(scope="module")
def thinking_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its template opens the thinking."""
    return write_model(tmp_path_factory.mktemp("thinking"), THINKING)


@pytest.fixture(scope="module")
def seeing_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It sees."""
    return write_model(tmp_path_factory.mktemp("seeing"), TEMPLATE, sees=True)

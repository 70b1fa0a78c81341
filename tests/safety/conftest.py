"""Servers in cages, of both engines, and many clients of them."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from cage import Cage, caged
from gguf_models import write_gguf_model
from served import command, url_of, variables
from tiny_models import make_tiny_model

QUICK = {"PENSIEVE_MEMORY_INTERVAL_SECONDS": "0.05", "PENSIEVE_LLAMACPP_THREADS": "1"}
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

SMALL_CACHES = {
    "PENSIEVE_CONTEXT_TOKENS": "1024",
    "PENSIEVE_LLAMACPP_POOL_TOKENS": "2048",
    "PENSIEVE_MLX_PREFIX_CACHE_MIB": "1",
    "PENSIEVE_MLX_DISK_CACHE_MIB": "1",
}
"""Budgets that fifty requests fill."""

Serve = Callable[..., tuple[Cage, str]]


class Kept(NamedTuple):
    """A model, and where a server of it writes."""

    engine: str
    model: Path
    home: Path
    temporary: Path


@pytest.fixture(params=["llama.cpp", "mlx"])
def kept(request: pytest.FixtureRequest, starter_model: Path, pensieve_home: Path, tmp_path: Path) -> Iterator[Kept]:
    """Tiny models of random weights; in the long runs, under llama.cpp, the starter model."""
    model = starter_model
    if request.param == "mlx":
        model = make_tiny_model(tmp_path / "tiny", "qwen2", chat_template=TEMPLATE, max_position_embeddings=4096)
    elif request.node.get_closest_marker("stress") is None:
        source = make_tiny_model(tmp_path / "tiny", "smollm", chat_template=TEMPLATE)
        model = write_gguf_model(tmp_path / "tiny.gguf", source)
    # Not below `tmp_path`: sockets have names of a hundred letters at most.
    with tempfile.TemporaryDirectory(prefix="kept-") as temporary:
        yield Kept(request.param, model, pensieve_home, Path(temporary))


@pytest.fixture
def serve_in_cage(pensieve_home: Path) -> Iterator[Serve]:
    """Starts servers in cages of their own; gives cage and address. All of it is gone after the test."""
    with ExitStack() as stack:

        def start(limit_bytes: int, *words: str, **settings: str) -> tuple[Cage, str]:
            cage = stack.enter_context(caged(limit_bytes))
            log = stack.enter_context((pensieve_home / "server.log").open("a"))
            process = subprocess.Popen(
                cage.command(command("serve", "--port", "0", *words)),
                env=variables(pensieve_home) | QUICK | cage.settings | settings,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            stack.callback(process.communicate)
            stack.callback(process.terminate)
            return cage, url_of(process)

        yield start

"""Servers in cages, and many clients of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cage import Cage, caged
from served import command, url_of, variables

QUICK = {"PENSIEVE_MEMORY_INTERVAL_SECONDS": "0.05", "PENSIEVE_LLAMACPP_THREADS": "1"}

Serve = Callable[..., tuple[Cage, str]]


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

"""What the benchmarks share: a real server of its own in a child process, a lean client, and the bare engine."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HOME = Path(__file__).parent.parent / ".cache" / "pensieve"


def model_file() -> Path:
    """The starter model's weights, as `make bench` fetched them."""
    return next(HOME.rglob("*.gguf"))


@contextlib.contextmanager
def running_server(**environment: str) -> Iterator[str]:
    """A server on a free port, from its own command; gives its URL."""
    command = [sys.executable, "-m", "pensieve", "serve", "--port", "0"]
    variables = os.environ | {"PENSIEVE_HOME": str(HOME)} | environment
    with subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            yield next(word for word in line.split() if word.startswith("http"))
        finally:
            server.terminate()


def body(text: str, max_tokens: int, **fields: object) -> dict[str, Any]:
    """A streaming request, greedy."""
    talk = [{"role": "user", "content": text}]
    return {"model": "m", "max_tokens": max_tokens, "messages": talk, "stream": True, "temperature": 0} | fields


class Stream:
    """One streaming request on a connection of its own; lines are read as they come."""

    def __init__(self, url: str, request: dict[str, Any]) -> None:
        """Send the request."""
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at = time.perf_counter()
        self._connection.request("POST", "/v1/messages", json.dumps(request), {"Content-Type": "application/json"})
        self._response = self._connection.getresponse()

    def arrivals(self, event: bytes) -> Iterator[float]:
        """When each event of that name arrived."""
        wanted = b"event: " + event
        while line := self._response.readline():
            if line.startswith(wanted):
                yield time.perf_counter()

    def wait_for(self, event: bytes) -> float:
        """When the next event of that name arrived."""
        return next(self.arrivals(event))

    def close(self) -> None:
        """Hang up."""
        self._response.close()
        self._connection.close()


def median_ms(seconds: list[float]) -> float:
    """The median, in milliseconds."""
    return statistics.median(seconds) * 1e3

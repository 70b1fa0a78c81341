"""What the benchmarks share: a real server of its own in a child process, a lean client, and the bare engine."""

from __future__ import annotations

import contextlib
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
    """One streaming request on a socket of its own, read as lean as can be: on two cores a client's work counts too."""

    def __init__(self, url: str, request: dict[str, Any]) -> None:
        """Send the request."""
        address = urlsplit(url)
        content = json.dumps(request).encode()
        head = f"POST /v1/messages HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(content)}\r\n\r\n"
        self._socket = socket.create_connection((address.hostname, address.port))
        self.sent_at = time.perf_counter()
        self._socket.sendall(head.encode() + content)

    def arrivals(self, event: bytes) -> Iterator[float]:
        """When each event of that name arrived; ends with the answer."""
        name = b"event: " + event
        while data := self._socket.recv(65_536):
            now = time.perf_counter()
            for _ in range(data.count(name)):
                yield now
            if b"event: message_stop" in data:
                return

    def wait_for(self, event: bytes) -> float:
        """When the next event of that name arrived."""
        return next(self.arrivals(event))

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def median_ms(seconds: list[float]) -> float:
    """The median, in milliseconds."""
    return statistics.median(seconds) * 1e3

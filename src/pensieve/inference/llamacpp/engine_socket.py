"""HTTP with the embedded server over its Unix socket: questions with one answer, and completions as they come."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec

from pensieve.errors import BackendFailure

_DATA: Final = b"data: "


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


class EngineSocket:
    """Blocks. Any thread may ask: questions wait for each other, streams have connections of their own."""

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._lock = threading.Lock()
        self._connection = _UnixConnection(path)

    def ask(self, route: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What the server answers; without a body the question is a GET. Raises `BackendFailure`."""
        content = None if body is None else msgspec.json.encode(body)
        with self._lock:
            try:
                status, answer = self._ask_twice(route, content)
            except (http.client.HTTPException, OSError) as error:
                raise BackendFailure(f"llama.cpp did not answer on {route.partition('?')[0]}") from error
        if status != http.client.OK:
            raise BackendFailure(f"llama.cpp answered {status} on {route.partition('?')[0]}")
        return msgspec.json.decode(answer, type=dict[str, Any])

    def stream(self, route: str, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """The events of an answer. Closing the iterator closes the connection, which cancels the work."""
        with closing(_UnixConnection(self._path)) as connection:
            connection.request("POST", route, msgspec.json.encode(body), self._headers)
            response = connection.getresponse()
            if response.status != http.client.OK:
                yield msgspec.json.decode(response.read(), type=dict[str, Any])
                return
            for line in response:
                if line.startswith(_DATA) and not line.startswith(b"data: [DONE]"):
                    yield msgspec.json.decode(line[len(_DATA) :], type=dict[str, Any])

    def close(self) -> None:
        """Close the connection for questions."""
        self._connection.close()

    def _ask_twice(self, route: str, content: bytes | None) -> tuple[int, bytes]:
        try:
            return self._ask_once(route, content)
        except (http.client.RemoteDisconnected, ConnectionError):
            # The server closes a connection that was idle for a while; a new one is opened by itself.
            return self._ask_once(route, content)

    def _ask_once(self, route: str, content: bytes | None) -> tuple[int, bytes]:
        try:
            self._connection.request("GET" if content is None else "POST", route, content, self._headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except (http.client.HTTPException, OSError):
            self._connection.close()
            raise

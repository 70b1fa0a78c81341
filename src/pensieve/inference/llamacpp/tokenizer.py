"""The model's own tokenizer, asked over the engine's Unix socket: exact for every GGUF family, and no copy to keep."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from pensieve.errors import BackendFailure


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


class EngineTokenizer:
    """A `Tokenizer`. Blocks for about a millisecond per 10,000 characters; use it from one thread."""

    def __init__(self, socket_path: Path, key: str, markers: Mapping[str, bool] | None = None) -> None:
        """`markers`: as `KnowsMarkers.markers` gives them."""
        self._markers = markers or {}
        self._connection = _UnixConnection(socket_path)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def encode(self, text: str, *, adds_special: bool = True) -> list[int]:
        """See `Tokenizer.encode`. Raises `BackendFailure`."""
        body = {"content": text, "add_special": adds_special, "parse_special": True}
        answer = self._post("/tokenize", msgspec.json.encode(body))
        tokens: list[int] = answer["tokens"]
        return tokens

    def markers(self) -> Mapping[str, bool]:
        """See `KnowsMarkers.markers`."""
        return self._markers

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _post(self, route: str, body: bytes) -> dict[str, Any]:
        try:
            return self._post_once(route, body)
        except (http.client.RemoteDisconnected, ConnectionError):
            # The server closes a connection that was idle for a while; a new one is opened by itself.
            self._connection.close()
            return self._post_once(route, body)

    def _post_once(self, route: str, body: bytes) -> dict[str, Any]:
        try:
            self._connection.request("POST", route, body, self._headers)
            response = self._connection.getresponse()
            answer = response.read()
        except (http.client.HTTPException, OSError):
            self._connection.close()
            raise
        if response.status != http.client.OK:
            raise BackendFailure(f"the tokenizer answered {response.status}")
        return msgspec.json.decode(answer, type=dict[str, Any])

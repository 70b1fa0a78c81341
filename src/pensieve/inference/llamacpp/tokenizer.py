"""The model's own tokenizer, asked over the engine's Unix socket: exact for every GGUF family, and no copy to keep."""

from __future__ import annotations

from collections.abc import Mapping

from pensieve.inference.llamacpp.engine_socket import EngineSocket


class EngineTokenizer:
    """A `Tokenizer`. Blocks for about a millisecond per 10,000 characters."""

    def __init__(self, socket: EngineSocket, markers: Mapping[str, bool] | None = None) -> None:
        """`markers`: as `KnowsMarkers.markers` gives them."""
        self._markers = markers or {}
        self._socket = socket

    def encode(self, text: str, *, adds_special: bool = True) -> list[int]:
        """See `Tokenizer.encode`. Raises `BackendFailure`."""
        body = {"content": text, "add_special": adds_special, "parse_special": True}
        tokens: list[int] = self._socket.ask("/tokenize", body)["tokens"]
        return tokens

    def markers(self) -> Mapping[str, bool]:
        """See `KnowsMarkers.markers`."""
        return self._markers

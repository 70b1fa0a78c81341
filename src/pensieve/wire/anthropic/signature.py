"""The signature of a thinking block: a mark of ours, or, for thinking that was not to be shown, the thinking itself.

Clients echo signatures as they came. What they carry comes back into the prompt, so that the model goes on from what
it really thought, and the prompt from what was computed. It proves nothing: a client may say anything anyway.
"""

from __future__ import annotations

import base64
import binascii
import zlib

from pensieve.messages import ThinkingPart

MARK = "pensieve"
"""Stands where a signature must: clients want it not empty."""
_SEALED = f"{MARK}:"
MAX_THINKING_BYTES = 4 * 2**20
"""Signatures come from outside: those of one request may unfold to this much, more than a context holds."""


def sealed(thinking: str) -> str:
    """A signature that carries the thinking."""
    packed = zlib.compress(thinking.encode("utf-8", "replace"))
    return _SEALED + base64.b64encode(packed).decode() if thinking else MARK


class Unsealer:
    """Reads the thinking blocks of one request, in their order."""

    def __init__(self) -> None:
        self._left_bytes = MAX_THINKING_BYTES

    def read(self, thinking: str, signature: str) -> ThinkingPart:
        """The thinking of an echoed block: its text, or what its signature carries; a signature of ours is none."""
        if signature == MARK:
            return ThinkingPart(thinking)
        if thinking or not signature.startswith(_SEALED):
            return ThinkingPart(thinking, signature)
        return ThinkingPart(self._unpacked(signature.removeprefix(_SEALED)))

    def _unpacked(self, packed: str) -> str:
        if self._left_bytes == 0:  # which zlib would take for no bound at all
            return ""
        try:
            unpacker = zlib.decompressobj()
            content = unpacker.decompress(base64.b64decode(packed, validate=True), self._left_bytes)
            self._left_bytes -= len(content)
            return content.decode() if unpacker.eof else ""
        except (binascii.Error, ValueError, zlib.error):
            return ""

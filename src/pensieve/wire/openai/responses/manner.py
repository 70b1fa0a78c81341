"""How a client wants its answer told, beside what the model says: its own words echoed, thinking told or sealed."""

from __future__ import annotations

import msgspec

from pensieve.messages import Json
from pensieve.wire.openai.responses.names import Names


class Manner(msgspec.Struct, frozen=True):
    """Read from the request; every answer to it is written in this manner."""

    echoed: dict[str, Json] = {}
    """Fields of the response that repeat the request's."""
    names: Names = Names()
    is_summary_wanted: bool = False
    """Thinking is told in the place of its summary; else as it is."""
    is_thinking_sealed: bool = False
    """Thinking is told once more in a form that clients echo unread."""
    has_logprobs: bool = False


PLAIN = Manner()
"""Of a client that asks for nothing in particular."""

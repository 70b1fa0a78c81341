"""How a client wants its answer told, beside what the model says: what is hidden, and what is told in addition."""

from __future__ import annotations

import msgspec


class Manner(msgspec.Struct, frozen=True):
    """Read from the request; every answer to it is written in this manner."""

    is_thinking_shown: bool = True
    """Hidden thinking still has its block, whose signature carries it."""
    is_context_managed: bool = False
    """The client asked that its history be edited; it is told that nothing was."""
    is_diagnosed: bool = False
    """The client asks why the prefix cache missed."""
    previous_message_id: str = ""
    """The answer whose request it is compared with."""


PLAIN = Manner()
"""Of a client that asks for nothing in particular."""

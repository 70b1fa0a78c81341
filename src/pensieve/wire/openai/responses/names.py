"""Under which names tools are offered: a tool in a namespace gets a name of its own, a tool that takes text an object.

What the model calls is told to the client in the client's words again. Knows no item and no request.
"""

from __future__ import annotations

import msgspec

from pensieve.errors import InvalidRequest
from pensieve.messages import Json
from pensieve.wire.body import parse_object

INPUT = "input"
"""The one argument of a tool that takes text."""
UNREADABLE = "unreadable_arguments"
"""Under this name stand arguments that are no JSON object: a model wrote them once, and its client echoes them."""


class Names(msgspec.Struct, frozen=True):
    """The tools of one request that have other names, or another form, on the wire."""

    spaces: dict[str, tuple[str, str]] = {}
    """The name that the model knows -> namespace and name."""
    customs: frozenset[str] = frozenset()
    """Names, as the model knows them, of the tools that take text."""

    def on_wire(self, name: str) -> dict[str, Json]:
        """The fields that name a tool to the client."""
        if name not in self.spaces:
            return {"name": name}
        namespace, own = self.spaces[name]
        return {"name": own, "namespace": namespace}


def qualified(namespace: str | None, name: str) -> str:
    """The name that a model knows a tool by."""
    return f"{namespace}__{name}" if namespace else name


def read_arguments(text: str) -> dict[str, Json]:
    """The arguments of an echoed call; a refusal would stay in the conversation and end it."""
    try:
        return parse_object(text.encode("utf-8", "replace") or b"{}")
    except InvalidRequest:
        return {UNREADABLE: text}


def text_input(arguments: str) -> str:
    """What a tool that takes text is given: the one argument, or what the model wrote instead of it."""
    given = read_arguments(arguments).get(INPUT)
    return given if isinstance(given, str) else arguments

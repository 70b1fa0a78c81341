"""What a request's prompt is made of, as digests in the order of the prompt: enough to say where two prompts part.

Holds no words unless it is asked to keep them.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Literal

import msgspec

from pensieve.generation import GenerationRequest
from pensieve.messages import DocumentPart, ImagePart, Part, TextPart, ThinkingPart, ToolResultPart

MAX_MARKS = 4_000
"""What a longer conversation has beyond them counts as one."""
MAX_BLOB_BYTES = 4_096
"""An image is worth about this many bytes of text."""

Kind = Literal["tools", "system", "messages"]


class Mark(msgspec.Struct, frozen=True, gc=False):
    """One part of a prompt."""

    kind: Kind
    path: str
    """Where it stands in the request."""
    digest: bytes
    size_bytes: int


class PromptMarks(msgspec.Struct, frozen=True):
    """All parts of a prompt, in order; texts, one for each, only where they are kept."""

    model: str
    marks: tuple[Mark, ...]
    texts: tuple[str, ...] = ()

    def num_shared(self, other: PromptMarks) -> int:
        """How many parts both have in common from the start."""
        pairs = zip(self.marks, other.marks, strict=False)
        differing = (at for at, (ours, theirs) in enumerate(pairs) if ours.digest != theirs.digest)
        return next(differing, min(len(self.marks), len(other.marks)))


def mark_prompt(
    request: GenerationRequest, positions: tuple[int, ...], *, model: str, keeps_text: bool = False
) -> PromptMarks:
    """The parts of the request; `positions` say where each message stood among those sent, -1: the top-level text."""
    found = list(_parts(request, positions))
    marks = [_mark(kind, path, value) for kind, path, value in found[:MAX_MARKS]]
    if rest := found[MAX_MARKS:]:
        kind, path, _ = rest[0]
        marks.append(_mark(kind, path, [value for _, _, value in rest]))
    texts = tuple(_text(value) for _, _, value in found[:MAX_MARKS]) if keeps_text else ()
    return PromptMarks(model, tuple(marks), texts)


def _parts(request: GenerationRequest, positions: tuple[int, ...]) -> Iterator[tuple[Kind, str, object]]:
    for at, tool in enumerate(request.tools):
        yield "tools", f"tools.{at}", tool
    thinking = request.thinking
    yield "system", "thinking", None if thinking is None else thinking.mode
    if request.text:
        yield "messages", "prompt", TextPart(request.text)
    for message, position in zip(request.messages, positions, strict=True):
        for at, part in enumerate(message.parts):
            if position < 0:
                yield "system", f"system.{at}", part
            else:
                yield "messages", f"messages.{position}.content.{at}", (message.role, part)


def _mark(kind: Kind, path: str, value: object) -> Mark:
    encoded = msgspec.msgpack.encode(value)
    part = value[1] if isinstance(value, tuple) else value
    is_blob = isinstance(part, ImagePart | DocumentPart)
    size_bytes = min(len(encoded), MAX_BLOB_BYTES) if is_blob else len(encoded)
    return Mark(kind, path, blake2b(encoded, digest_size=8).digest(), size_bytes)


def _text(value: object) -> str:
    part: Part | object = value[1] if isinstance(value, tuple) else value
    match part:
        case TextPart(text) | ThinkingPart(text):
            return text
        case ImagePart() | DocumentPart():
            return f"[{type(part).__name__.removesuffix('Part').lower()}]"
        case ToolResultPart(parts=parts):
            return "\n".join(map(_text, parts))
        case _:
            return msgspec.json.encode(part).decode()

"""Shape a conversation for a template: roles it knows, in an order it accepts. Text only for now.

What a template can express is found by rendering small probes once, not by a list of model names.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pensieve.errors import BackendFailure, InvalidRequest
from pensieve.messages import Message, RedactedThinkingPart, Role, TextPart, ThinkingPart
from pensieve.prompts.template import ChatTemplate, TemplateRefusal

JOINT = "\n\n"

_THINKING_FIELDS = ("reasoning_content", "message.thinking")
"""How templates mention it."""


class TemplateTraits(msgspec.Struct, frozen=True):
    """What a template can express."""

    has_system: bool
    """A system message before the first user message is rendered."""
    has_late_system: bool
    """A system message between later ones is rendered in its place."""
    thinking_field: str = ""
    """The field in which the template takes an assistant's earlier thinking; empty: it takes none."""


def probe(template: ChatTemplate) -> TemplateTraits:
    """Find out what `template` can express, by rendering marked messages and looking for the marks in order."""
    return TemplateTraits(
        has_system=_keeps_order(template, ("system", "user")),
        has_late_system=_keeps_order(template, ("user", "system", "user"))
        and _keeps_order(template, ("user", "assistant", "system", "user")),
        thinking_field=next((field for field in _THINKING_FIELDS if field in template.source), "").rpartition(".")[2],
    )


def _keeps_order(template: ChatTemplate, roles: Sequence[Role]) -> bool:
    marks = [f"mark{index}mark" for index in range(len(roles))]
    messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
    try:
        text = template.try_render(messages)
    except (TemplateRefusal, BackendFailure):
        return False
    places = [text.find(mark) for mark in marks]
    return -1 not in places and places == sorted(places)


def to_chat(messages: Sequence[Message], traits: TemplateTraits) -> list[dict[str, str]]:
    """The template's messages: `{"role", "content"}` each, same roles in a row merged.

    System text that the template cannot express in its place is put into the user turn there, marked as what it is.
    Earlier thinking goes along where the template has a field for it; whether it is rendered is the template's to say.
    Raises `InvalidRequest` for parts that are not text.
    """
    shaped: list[tuple[Role, list[str], list[str]]] = []
    for index, message in enumerate(messages):
        role, text = message.role, _text_of(message, index)
        is_leading = len(shaped) == 0 or (len(shaped) == 1 and shaped[0][0] == "system")
        if role == "system" and not (traits.has_system if is_leading else traits.has_late_system):
            role, text = "user", f"<system>\n{text}\n</system>"
        if not shaped or shaped[-1][0] != role:
            shaped.append((role, [], []))
        shaped[-1][1].append(text)
        shaped[-1][2].extend(part.text for part in message.parts if isinstance(part, ThinkingPart))
    chat = [{"role": role, "content": JOINT.join(texts)} for role, texts, _ in shaped]
    for entry, (role, _, thoughts) in zip(chat, shaped, strict=True):
        if traits.thinking_field and thoughts and role == "assistant":
            entry[traits.thinking_field] = JOINT.join(thoughts)
    return chat


def _text_of(message: Message, index: int) -> str:
    texts: list[str] = []
    for place, part in enumerate(message.parts):
        match part:
            case TextPart(text):
                texts.append(text)
            case ThinkingPart() | RedactedThinkingPart():
                pass  # not part of what was said
            case _:
                kind = type(part).__name__.removesuffix("Part")
                path = f"messages.{index}.content.{place}"
                raise InvalidRequest(f"{kind} blocks cannot be given to this model yet", path)
    return "".join(texts)
